//! What L4Q is compared with, as slots: an adapter beside a frozen matrix, and training of all weights through rounding.

use candle_core::Tensor;
use ounce_kernels::DType;
use ounce_train::graph::ops::{node, read, tensor};
use ounce_train::graph::{Linear, Matrix, Slot, Weight};
use ounce_train::{Error, ParamKind, Result};

use super::super::adapter::Adapter;
use super::super::lsq::Codes;
use super::super::merged::{Merged, Start};
use crate::quantize::training::quantizer::Quantized;

/// `y = x W₀ᵀ + α/r · (x Aᵀ) Bᵀ`, W₀ frozen, packed or not (LoRA; QLoRA where it is packed).
pub struct Lora {
    pub base: Linear,
    pub adapter: Adapter,
}

impl Slot for Lora {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let Adapter { a, b, scale, .. } = &self.adapter;
        let added = x.matmul(&a.tensor()?.t()?)?.matmul(&b.tensor()?.t()?)?;
        Ok((self.base.forward(x)? + (added * f64::from(*scale))?)?)
    }

    fn vars(&self) -> Vec<Weight> {
        let mut weights = self.base.vars();
        weights.extend([self.adapter.a.clone(), self.adapter.b.clone()]);
        weights
    }

    fn merged(&self) -> Result<Option<Tensor>> {
        Ok(Some((self.base.dense()? + self.adapter.product()?)?))
    }
}

/// `y = x Ŵᵀ` with W, steps and offsets trained: LSQ with an offset, all of it in memory.
pub struct Whole {
    linear: Linear,
    weight: Weight,
    steps: Weight,
    offsets: Weight,
    dtype: DType,
    codes: Codes,
}

impl Whole {
    /// Takes the place of a layer whose matrix is a parameter; steps and offsets begin as L4Q's do.
    pub fn new(name: &str, linear: Linear, dtype: DType, start: Start<'_>) -> crate::Result<Whole> {
        let Matrix::Weight(weight) = linear.matrix.clone() else {
            return Err(crate::Error::matrix(name, "is frozen"));
        };
        let base = ounce_model::Tensor::from_f32(
            &[linear.output, linear.input],
            &weight.tensor()?.flatten_all().and_then(|it| it.to_vec1::<f32>()).map_err(Error::from)?,
        );
        let merged = Merged::new(name, base, dtype, 1, 1.0)?;
        let (steps, offsets) = merged.begin(name, start)?;
        let shape = [linear.output, merged.groups()];
        Ok(Whole {
            steps: Weight::new(&format!("{name}.steps"), &shape, ParamKind::Steps, steps)?,
            offsets: Weight::new(&format!("{name}.offsets"), &shape, ParamKind::Steps, offsets)?,
            linear,
            weight,
            dtype,
            codes: merged.codes(),
        })
    }

    /// Ŵ with its way back to W, s and b.
    fn rounded(&self) -> Result<Tensor> {
        let (weight, steps, offsets) = (self.weight.tensor()?, self.steps.tensor()?, self.offsets.tensor()?);
        let (dtype, input) = (self.dtype, self.linear.input);
        let codes = self.codes;
        let quantized = read([&weight, &steps, &offsets], |[weight, steps, offsets]| {
            let zeros = codes.zeros(steps, offsets);
            Quantized::of_groups(dtype, input, weight.to_vec(), steps.to_vec(), zeros)
        })?;
        let quantized = quantized.ok_or_else(|| Error::Unsupported(format!("{dtype} has no groups")))?;
        let mut values = vec![0.0; weight.elem_count()];
        quantized.values(&mut values);
        let shape = steps.shape().clone();
        Ok(node("rounded", &[&weight, &steps, &offsets], values, weight.shape(), move |behind| {
            let mut gradient = read([&behind.gradient], |[gradient]| gradient.to_vec())?;
            let mut scales = quantized.scales.zeros();
            quantized.backward(&mut gradient, &mut scales);
            let (of_steps, of_offsets): (Vec<f32>, Vec<f32>) = codes.gradients(&quantized, &scales).unzip();
            Ok(vec![
                Some(tensor(gradient, behind.result.shape())?),
                Some(tensor(of_steps, &shape)?),
                Some(tensor(of_offsets, &shape)?),
            ])
        })?)
    }
}

impl Slot for Whole {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.linear.with_matrix(x, self.rounded()?)
    }

    fn vars(&self) -> Vec<Weight> {
        let mut weights = self.linear.vars();
        weights.extend([self.steps.clone(), self.offsets.clone()]);
        weights
    }

    fn merged(&self) -> Result<Option<Tensor>> {
        Ok(Some(self.rounded()?))
    }
}
