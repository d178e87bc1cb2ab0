//! The quantizer that training looks through: real-valued weights, step sizes and zero points, and what they round to.
//!
//! A group of weights `W` with the step size `d` and the zero point `z` becomes, with `t = 2^N − 1`,
//!
//! `c = clamp(round(W / d) + z, 0, t)`, `Ŵ = d (c − z)`,
//!
//! which is what ounce's group formats store: [`Quantized::pack`] writes exactly the values that [`Quantized::values`]
//! gives, as `d` is rounded to f16 and `z` to a whole number in both. Rounding has no slope; the straight-through
//! estimator takes it for the identity:
//!
//! | | ∂Ŵ/∂W | ∂Ŵ/∂d | ∂Ŵ/∂z |
//! |---|---|---|---|
//! | in range | 1 | `(c − z) − W / d` | 0 |
//! | clipped below | 0 | `−z` | `−d` |
//! | clipped above | 0 | `t − z` | `−d` |

use half::f16;
use ounce_kernels::DType;
use ounce_kernels::quant::groups::{read_block, write_block};
use rayon::prelude::*;
use serde::Serialize;

use super::adam::Adam;

/// The most values of a group.
const LARGEST_GROUP: usize = 256;

/// How far from its edge a weight stands that was moved into the cell of a code, in steps.
const INSIDE: f32 = 0.02;

/// The smallest step size: below f16's normal numbers its rounding would be coarse.
pub(crate) const LEAST_STEP: f32 = 6.2e-5;

/// Where a weight begins, between the original and what it was quantized to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// At the original: only step sizes and zero points are taken over, codes are those nearest to it.
    Weights,
    /// At the stored value.
    Values,
    /// At the original, moved as little as needed to round to the stored code.
    #[default]
    Codes,
}

/// A matrix on its way through rounding.
#[derive(Debug)]
pub struct Quantized {
    dtype: DType,
    bits: usize,
    group: usize,
    /// Values of a row.
    columns: usize,
    /// W, `[rows, columns]`.
    pub weights: Vec<f32>,
    /// d, `[rows, columns / group]`.
    pub steps: Vec<f32>,
    /// z, `[rows, columns / group]`.
    pub zeros: Vec<f32>,
}

/// Gradients of step sizes and zero points, shaped as these.
#[derive(Debug)]
pub struct ScaleGradients {
    /// dL/dd.
    pub steps: Vec<f32>,
    /// dL/dz.
    pub zeros: Vec<f32>,
}

/// Step size, its inverse, and zero point as they are stored.
#[derive(Clone, Copy)]
struct Grid {
    step: f32,
    inverse: f32,
    zero: f32,
    top: f32,
}

impl Grid {
    fn new(step: f32, zero: f32, top: f32) -> Grid {
        let step = f16::from_f32(step).to_f32();
        let inverse = if step == 0.0 { 0.0 } else { 1.0 / step };
        Grid { step, inverse, zero: zero.round_ties_even().clamp(0.0, top), top }
    }

    /// The level before it is clipped.
    #[inline]
    fn level(&self, weight: f32) -> f32 {
        (weight * self.inverse).round_ties_even() + self.zero
    }

    #[inline]
    fn code(&self, weight: f32) -> f32 {
        self.level(weight).clamp(0.0, self.top)
    }
}

impl Quantized {
    /// Rows of `columns` weights with their step sizes and zero points, one each a group. None for formats without groups.
    ///
    /// # Panics
    /// If there are not as many step sizes and zero points as groups.
    pub fn new(
        dtype: DType,
        columns: usize,
        weights: Vec<f32>,
        steps: Vec<f32>,
        zeros: Vec<f32>,
    ) -> Option<Quantized> {
        let (bits, group) = dtype.group_shape()?;
        let groups = weights.len() / group;
        assert!(
            steps.len() == groups && zeros.len() == groups,
            "a step size and a zero point for each group"
        );
        Some(Quantized { dtype, bits, group, columns, weights, steps, zeros })
    }

    /// Begins where `packed`, rows of `columns` values in a format of groups, ends; `original` are the weights that were
    /// packed. None for other formats.
    ///
    /// # Panics
    /// If `packed` and `original` are not of one size.
    pub fn begin(
        dtype: DType,
        packed: &[u8],
        original: &[f32],
        columns: usize,
        start: Start,
    ) -> Option<Quantized> {
        let (bits, group) = dtype.group_shape()?;
        let blocks = packed.chunks_exact(dtype.block_bytes());
        assert_eq!(blocks.len() * group, original.len(), "as many values as were packed");
        let top = ((1 << bits) - 1) as f32;
        let mut begun = Quantized {
            dtype,
            bits,
            group,
            columns,
            weights: original.to_vec(),
            steps: Vec::with_capacity(blocks.len()),
            zeros: Vec::with_capacity(blocks.len()),
        };
        let mut codes = [0; LARGEST_GROUP];
        let codes = &mut codes[..group];
        for (block, weights) in blocks.zip(begun.weights.chunks_exact_mut(group)) {
            let (step, zero) = read_block(bits, block, codes);
            let (mut step, mut zero) = (step.to_f32(), f32::from(zero));
            if step < 0.0 {
                // The same values with the codes mirrored: steps stay above zero from here on.
                (step, zero) = (-step, top - zero);
                codes.iter_mut().for_each(|code| *code = top as u8 - *code);
            }
            begun.steps.push(step);
            begun.zeros.push(zero);
            for (weight, &code) in weights.iter_mut().zip(&*codes) {
                let level = f32::from(code) - zero;
                match start {
                    Start::Weights => {}
                    Start::Values => *weight = step * level,
                    Start::Codes => {
                        let reach = 0.5 - INSIDE;
                        let below = if code == 0 { f32::INFINITY } else { reach };
                        let above = if f32::from(code) == top { f32::INFINITY } else { reach };
                        *weight = weight.clamp(step * level - step * below, step * level + step * above);
                    }
                }
            }
        }
        Some(begun)
    }

    fn top(&self) -> f32 {
        ((1 << self.bits) - 1) as f32
    }

    fn grid(&self, index: usize) -> Grid {
        Grid::new(self.steps[index], self.zeros[index], self.top())
    }

    /// Mean step size: what learning rates are measured in.
    pub fn mean_step(&self) -> f64 {
        self.steps.iter().map(|&step| f64::from(step)).sum::<f64>() / self.steps.len().max(1) as f64
    }

    /// Step size and zero point of a group as they are stored.
    pub fn stored(&self, group: usize) -> (f32, f32) {
        let grid = self.grid(group);
        (grid.step, grid.zero)
    }

    /// Gradients of zero.
    pub fn gradients(&self) -> ScaleGradients {
        let zeros = vec![0.0; self.steps.len()];
        ScaleGradients { steps: zeros.clone(), zeros }
    }

    /// Ŵ, `[rows, columns]`.
    pub fn values(&self, out: &mut [f32]) {
        let groups = out.par_chunks_exact_mut(self.group).zip(self.weights.par_chunks_exact(self.group));
        groups.enumerate().with_min_len(self.columns / self.group * 8).for_each(|(index, (out, weights))| {
            let grid = self.grid(index);
            for (out, &weight) in out.iter_mut().zip(weights) {
                *out = grid.step * (grid.code(weight) - grid.zero);
            }
        });
    }

    /// From dL/dŴ in `gradient` to dL/dW in its place; adds to the gradients of step sizes and zero points.
    pub fn backward(&self, gradient: &mut [f32], scales: &mut ScaleGradients) {
        let groups = gradient
            .par_chunks_exact_mut(self.group)
            .zip(self.weights.par_chunks_exact(self.group))
            .zip(scales.steps.par_iter_mut().zip(&mut scales.zeros));
        groups.enumerate().with_min_len(self.columns / self.group * 8).for_each(
            |(index, ((gradient, weights), (dstep, dzero)))| {
                let grid = self.grid(index);
                let (mut of_step, mut of_zero) = (0.0f32, 0.0f32);
                for (gradient, &weight) in gradient.iter_mut().zip(weights) {
                    let level = grid.level(weight);
                    let code = level.clamp(0.0, grid.top);
                    let inside = if level == code { 1.0 } else { 0.0 };
                    of_step += *gradient * (code - grid.zero - inside * weight * grid.inverse);
                    of_zero += *gradient * (inside - 1.0) * grid.step;
                    *gradient *= inside;
                }
                *dstep += of_step;
                *dzero += of_zero;
            },
        );
    }

    /// Brings step sizes and zero points back to where they can be stored; to be called when they were moved.
    pub fn confine(&mut self) {
        let top = self.top();
        // A group of zeros keeps its step of zero.
        self.steps.iter_mut().filter(|step| **step != 0.0).for_each(|step| *step = step.max(LEAST_STEP));
        self.zeros.iter_mut().for_each(|zero| *zero = zero.clamp(0.0, top));
    }

    /// The blocks of the format, row after row.
    pub fn pack(&self) -> Vec<u8> {
        let size = self.dtype.block_bytes();
        let mut bytes = vec![0; self.steps.len() * size];
        let blocks = bytes.par_chunks_exact_mut(size).zip(self.weights.par_chunks_exact(self.group));
        blocks.enumerate().for_each(|(index, (block, weights))| {
            let grid = self.grid(index);
            let mut codes = [0; LARGEST_GROUP];
            for (code, &weight) in codes.iter_mut().zip(weights) {
                *code = grid.code(weight) as u8;
            }
            write_block(self.bits, f16::from_f32(grid.step), grid.zero as u8, &codes[..self.group], block);
        });
        bytes
    }

    /// Bytes of weights, step sizes and zero points.
    pub fn bytes(&self) -> usize {
        4 * (self.weights.len() + self.steps.len() + self.zeros.len())
    }
}

/// What AdamW keeps of a matrix's three kinds of numbers.
#[derive(Debug)]
pub(crate) struct Memory {
    pub weights: Adam,
    pub steps: Adam,
    pub zeros: Adam,
}

impl Memory {
    pub fn of(matrix: &Quantized) -> Memory {
        Memory {
            weights: Adam::new(matrix.weights.len()),
            steps: Adam::new(matrix.steps.len()),
            zeros: Adam::new(matrix.zeros.len()),
        }
    }

    pub fn bytes(&self) -> usize {
        self.weights.bytes() + self.steps.bytes() + self.zeros.bytes()
    }
}

#[cfg(test)]
#[path = "quantizer_tests.rs"]
mod tests;
