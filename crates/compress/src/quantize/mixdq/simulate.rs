//! A denoiser with some layers quantized, in simulation: rounded values, computed with in f32.
//!
//! Weights: a symmetric grid for each output channel, from its largest value, round to nearest. Activations: one asymmetric
//! grid for what a layer reads, from the least to the largest value that calibration saw. The first token of a prompt is far
//! longer than the others and the same for all prompts: by [`First::Full`] (section 3.1) the keys and values of cross-attention
//! are computed for it once, in full, and the other tokens have a range of their own.

use half::f16;
use ounce_train::diffusion::{Denoiser, Layer, Pass, Plain, Products, Request, TOKENS, Tensor};
use ounce_train::graph::ops::{read, tensor};

use super::plan::{FULL, Plan};
use crate::quantize::axes::{Grid, Symmetry};

/// What becomes of the first token in front of cross-attention's keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum First {
    /// Computed in full, apart from the others.
    #[default]
    Full,
    /// Quantized with the others, on a grid that reaches as far as it does.
    Quantized,
}

/// The least and the largest value; around zero, which is always a value of a grid.
#[derive(Debug, Clone, Copy, Default)]
struct Range {
    low: f32,
    high: f32,
}

impl Range {
    fn see(&mut self, value: f32) {
        self.low = self.low.min(value);
        self.high = self.high.max(value);
    }
}

/// What layers read while calibration drawings were made.
#[derive(Debug, Clone)]
pub struct Ranges {
    all: Vec<Range>,
    /// Without the first tokens; of layers that see words.
    others: Vec<Range>,
}

impl Ranges {
    /// Of everything that comes up in drawing what a request asks for.
    ///
    /// # Errors
    /// If the network can't be run.
    pub fn of(pass: &Pass<'_>, request: &Request) -> ounce_train::Result<Ranges> {
        let layers = pass.net().layers().len();
        let mut watch =
            Watch(Ranges { all: vec![Range::default(); layers], others: vec![Range::default(); layers] });
        request.draw(pass, &mut watch)?;
        Ok(watch.0)
    }

    /// The grid for what a layer reads.
    fn grid(&self, layer: usize, own: &Layer, first: First, bits: u32) -> Grid {
        let apart = own.sees_words && first == First::Full;
        let Range { low, high } = if apart { self.others[layer] } else { self.all[layer] };
        Grid::new(low, high, bits, Symmetry::Asymmetric)
    }
}

/// Sees what layers read.
struct Watch(Ranges);

impl Products for Watch {
    fn product(&mut self, pass: &Pass<'_>, layer: usize, x: &Tensor) -> ounce_train::Result<Tensor> {
        let own = &pass.net().layers()[layer];
        let (all, others) = (&mut self.0.all[layer], &mut self.0.others[layer]);
        let x = x.contiguous()?;
        read([&x], |[x]| {
            x.iter().for_each(|&value| all.see(value));
            if own.sees_words {
                let rows = x.chunks(own.inputs).enumerate();
                let rest = rows.filter(|(row, _)| row % TOKENS != 0).flat_map(|(_, values)| values);
                rest.for_each(|&value| others.see(value));
            }
        })?;
        Plain.product(pass, layer, &x)
    }
}

/// The grids of a matrix's rows, with scales that 16 bits hold.
pub fn row_grids(weights: &[f32], columns: usize, bits: u32) -> Vec<Grid> {
    let grid = |row: &[f32]| {
        let grid = Grid::of(row, bits, Symmetry::Full);
        let scale = f16::from_f32(grid.scale).to_f32();
        if scale > 0.0 && scale.is_finite() { Grid { scale, ..grid } } else { grid }
    };
    weights.chunks(columns).map(grid).collect()
}

/// A matrix on its rows' grids.
pub fn rounded(weights: &[f32], columns: usize, bits: u32) -> Vec<f32> {
    let mut rounded = weights.to_vec();
    for (row, grid) in rounded.chunks_mut(columns).zip(row_grids(weights, columns, bits)) {
        grid.simulate(row);
    }
    rounded
}

/// A network as a plan has it.
#[derive(Debug)]
pub struct Quantized {
    /// In place of the network's own.
    weights: Vec<Option<Tensor>>,
    grids: Vec<Option<Grid>>,
    first: First,
}

impl Quantized {
    /// Of a network whose inputs were seen.
    ///
    /// # Errors
    /// If memory does not suffice.
    pub fn new(net: &Denoiser, ranges: &Ranges, plan: &Plan, first: First) -> ounce_train::Result<Quantized> {
        let (mut weights, mut grids) = (Vec::new(), Vec::new());
        for (number, layer) in net.layers().iter().enumerate() {
            let (bits, reads) = (plan.weights[number], plan.activations[number]);
            weights.push(match bits {
                FULL => None,
                bits => {
                    let values = rounded(net.weight(number), layer.inputs, bits);
                    Some(tensor(values, (layer.outputs, layer.inputs))?)
                }
            });
            grids.push((reads != FULL).then(|| ranges.grid(number, layer, first, reads)));
        }
        Ok(Quantized { weights, grids, first })
    }
}

impl Products for Quantized {
    fn product(&mut self, pass: &Pass<'_>, layer: usize, x: &Tensor) -> ounce_train::Result<Tensor> {
        let own = &pass.net().layers()[layer];
        let weight = self.weights[layer].as_ref().unwrap_or(pass.weight(layer));
        let seen = match self.grids[layer] {
            None => x.clone(),
            Some(grid) => {
                let x = x.contiguous()?;
                let mut values = read([&x], |[x]| x.to_vec())?;
                grid.simulate(&mut values);
                tensor(values, x.shape())?
            }
        };
        let y = pass.apply(layer, &seen, weight)?;
        if !own.sees_words || self.first == First::Quantized {
            return Ok(y);
        }
        // The first token of every prompt is the same: its row is computed once.
        let first = pass.apply(layer, &x.narrow(0, 0, 1)?, pass.weight(layer))?;
        let images = x.dim(0)? / TOKENS;
        let first = first.reshape((1, 1, own.outputs))?.broadcast_as((images, 1, own.outputs))?;
        let others = y.reshape((images, TOKENS, own.outputs))?.narrow(1, 1, TOKENS - 1)?;
        Ok(Tensor::cat(&[first.contiguous()?, others], 1)?.reshape((images * TOKENS, own.outputs))?)
    }
}
