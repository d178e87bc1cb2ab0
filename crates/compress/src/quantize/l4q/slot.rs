//! A linear layer with a merged matrix, as a slot of the general network.

use std::sync::Arc;

use candle_core::Tensor;
use ounce_kernels::grad::bias::add_bias;
use ounce_train::graph::ops::{node, read, tensor};
use ounce_train::graph::{Linear, Slot, Weight};
use ounce_train::{ParamKind, Result};
use rand_chacha::ChaCha8Rng;

use super::adapter::Adapter;
use super::merged::{Merged, Numbers, Start};
use super::train::Options;

/// `y = x Ŵᵀ`; only the adapter, steps and offsets are trained.
pub struct MergedSlot {
    linear: Linear,
    merged: Arc<Merged>,
    numbers: Numbers<Weight>,
}

impl MergedSlot {
    /// Takes the place of a layer, which it freezes.
    ///
    /// # Errors
    /// If the base can't be decoded, or the format does not fit it.
    pub fn new(
        name: &str,
        linear: Linear,
        base: ounce_model::Tensor,
        (dtype, start): (ounce_kernels::DType, Start<'_>),
        options: &Options,
        random: &mut ChaCha8Rng,
    ) -> crate::Result<MergedSlot> {
        linear.freeze();
        let adapter = Adapter::new(name, &linear, (options.rank, options.scale), random)?;
        let merged = Merged::new(name, base, dtype, options.rank, adapter.scale)?;
        let (steps, offsets) = merged.begin(name, start)?;
        let shape = [linear.output, merged.groups()];
        let numbers = Numbers {
            a: adapter.a,
            b: adapter.b,
            steps: Weight::new(&format!("{name}.steps"), &shape, ParamKind::Steps, steps)?,
            offsets: Weight::new(&format!("{name}.offsets"), &shape, ParamKind::Steps, offsets)?,
        };
        Ok(MergedSlot { linear, merged: Arc::new(merged), numbers })
    }

    /// What the matrix is made of.
    pub fn matrix(&self) -> Arc<Merged> {
        self.merged.clone()
    }
}

/// The parts of a vector in which all kinds of numbers lie one behind the other.
fn split<'n>(counts: &Numbers<usize>, joined: &'n [f32]) -> Numbers<&'n [f32]> {
    let (a, rest) = joined.split_at(counts.a);
    let (b, rest) = rest.split_at(counts.b);
    let (steps, offsets) = rest.split_at(counts.steps);
    Numbers { a, b, steps, offsets }
}

/// A failure in a way that candle can hand on.
fn failure(error: crate::Error) -> candle_core::Error {
    candle_core::Error::Msg(error.to_string())
}

impl Slot for MergedSlot {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let Numbers { a, b, steps, offsets } = &self.numbers;
        // Operations have three inputs at most.
        let flat = |weight: &Weight| Ok::<_, ounce_train::Error>(weight.tensor()?.flatten_all()?);
        let joined = Tensor::cat(&[flat(a)?, flat(b)?, flat(steps)?, flat(offsets)?], 0)?;
        let x = x.contiguous()?;
        let (on, counts) = (self.linear.on, self.merged.counts());
        let (output, input) = self.merged.size();
        let mut out = vec![0.0; x.elem_count() / input * output];
        read([&x, &joined], |[x, joined]| self.merged.forward(on, &split(&counts, joined), x, &mut out))?
            .map_err(failure)?;
        if let Some(bias) = self.linear.bias()? {
            read([&bias.contiguous()?], |[bias]| add_bias(on.pool, &mut out, bias))?;
        }
        let mut shape = x.dims().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = output;
        }
        let (merged, own, numbers) = (self.merged.clone(), x.clone(), joined.clone());
        Ok(node("merged", &[&x, &joined], out, shape, move |behind| {
            let mut dx = if behind.wanted[0] { vec![0.0; own.elem_count()] } else { Vec::new() };
            let mut gradients = Numbers {
                a: vec![0.0; counts.a],
                b: vec![0.0; counts.b],
                steps: vec![0.0; counts.steps],
                offsets: vec![0.0; counts.offsets],
            };
            read([&own, &numbers, &behind.gradient], |[x, joined, dy]| {
                let dx = behind.wanted[0].then_some(&mut dx[..]);
                merged.backward(on, &split(&counts, joined), (x, dy), dx, &mut gradients)
            })?
            .map_err(failure)?;
            let dx = behind.wanted[0].then(|| tensor(dx, own.shape())).transpose()?;
            let joined = [gradients.a, gradients.b, gradients.steps, gradients.offsets].concat();
            let count = joined.len();
            Ok(vec![dx, Some(tensor(joined, count)?)])
        })?)
    }

    fn vars(&self) -> Vec<Weight> {
        let mut weights = self.linear.vars();
        let Numbers { a, b, steps, offsets } = &self.numbers;
        weights.extend([a, b, steps, offsets].map(Weight::clone));
        weights
    }
}
