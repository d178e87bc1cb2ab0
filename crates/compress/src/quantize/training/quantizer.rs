//! The quantizer that training looks through: real-valued weights, scales and minimums, and what they round to.
//!
//! In every block format a value is `step · level + offset` (see [`ounce_kernels::quant::grid`]). With `L` the format's levels,
//! a weight `W` becomes
//!
//! `l = nearest(L, (W − offset) / step)`, `Ŵ = step · l + offset`.
//!
//! In groups with a zero point, `step = d` and `offset = −d z`: the `Ŵ = d (clamp(round(W / d) + z) − z)` of the paper. In ggml's
//! super-blocks `step = d · s`, `offset = −d' · m`, with whole numbers `s` and `m` for parts of 16 or 32 values and F16
//! factors `d`, `d'` for all 256. Factors are real numbers rounded to F16 as the format stores them; so are `z`, `s` and `m`, rounded
//! to whole numbers. [`Quantized::pack`] writes what [`Quantized::values`] gives. Rounding has no slope; the
//! straight-through estimator takes it for the identity:
//!
//! | | ∂Ŵ/∂W | ∂Ŵ/∂step | ∂Ŵ/∂offset |
//! |---|---|---|---|
//! | in range | 1 | `l − (W − offset) / step` | 0 |
//! | clipped | 0 | `l` | 1 |
//!
//! and from there by the chain rule to `d`, `d'`, `s`, `m` and `z`.

use half::f16;
use ounce_kernels::DType;
use ounce_kernels::quant::grid::{Grid, LARGEST_BLOCK, PARTS, Scales};
use rayon::prelude::*;
use serde::Serialize;

use super::adam::Adam;
use super::mean;
pub use super::numbers::Numbers;

/// How far from its edge a weight stands that was moved into the cell of a code, in levels.
const INSIDE: f32 = 0.02;

/// The smallest factor of groups: below F16's normal numbers its rounding would be coarse.
pub(crate) const LEAST_STEP: f32 = 6.2e-5;

/// The same elsewhere: in super-blocks factors are smaller by the largest `s`.
const LEAST_FACTOR: f32 = 1e-6;

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
    grid: &'static Grid,
    /// Values of a row.
    columns: usize,
    /// W, `[rows, columns]`.
    pub weights: Vec<f32>,
    /// What says where levels are.
    pub scales: Numbers,
}

/// How fast each kind of number moves.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    /// Of weights, as a share of the mean step.
    pub weights: f64,
    /// Of factors and of s and m, as a share of each kind's mean size.
    pub scales: f64,
    /// Of zero points, in levels.
    pub zeros: f64,
}

impl Quantized {
    /// Rows of `columns` weights with their step sizes and zero points, one each a group. None for formats without groups.
    ///
    /// # Panics
    /// If there are not as many step sizes and zero points as groups.
    pub fn of_groups(
        dtype: DType,
        columns: usize,
        weights: Vec<f32>,
        steps: Vec<f32>,
        zeros: Vec<f32>,
    ) -> Option<Quantized> {
        let grid = Grid::of(dtype).filter(|grid| grid.has_zero_points())?;
        let groups = weights.len() / grid.block_len();
        assert!(
            steps.len() == groups && zeros.len() == groups,
            "a step size and a zero point for each group"
        );
        let scales = Numbers { factors: steps, seconds: Vec::new(), parts: Vec::new(), minimums: zeros };
        Some(Quantized { grid, columns, weights, scales })
    }

    /// Begins where `packed`, rows of `columns` values, ends; `original` are the weights that were packed. None for formats
    /// without blocks, and those whose steps are powers of two.
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
        let grid = Grid::free(dtype).filter(|grid| !grid.is_codebook())?;
        let (len, part) = (grid.block_len(), grid.part());
        let blocks = packed.chunks_exact(dtype.block_bytes());
        assert_eq!(blocks.len() * len, original.len(), "as many values as were packed");
        let empty = || Vec::with_capacity(blocks.len());
        let numbers =
            Numbers { factors: empty(), seconds: Vec::new(), parts: Vec::new(), minimums: Vec::new() };
        let mut begun = Quantized { grid, columns, weights: original.to_vec(), scales: numbers };
        let mut levels = [0.0; LARGEST_BLOCK];
        let levels = &mut levels[..len];
        for (block, weights) in blocks.zip(begun.weights.chunks_exact_mut(len)) {
            grid.block_levels(block, levels);
            let stored = upright(grid, grid.scales(block), levels);
            begun.scales.push(grid, &stored);
            if start == Start::Weights {
                continue;
            }
            for (index, (weight, &level)) in weights.iter_mut().zip(&*levels).enumerate() {
                let (step, offset) = (stored.step(index / part), stored.offset(index / part));
                match start {
                    Start::Codes if step != 0.0 => {
                        let (below, above) = grid.levels().cell(level);
                        let (below, above) = (below + INSIDE, above - INSIDE);
                        *weight = ((*weight - offset) / step).clamp(below, above) * step + offset;
                    }
                    _ => *weight = step * level + offset,
                }
            }
        }
        Some(begun)
    }

    fn parts(&self) -> usize {
        self.grid.block_len() / self.grid.part()
    }

    /// The scales of block `index` as they are stored.
    fn stored(&self, index: usize) -> Scales {
        let round = |x: f32| f16::from_f32(x).to_f32();
        let parts = self.parts();
        let factor = round(self.scales.factors[index]);
        let mut stored = Scales { factor, second: 0.0, scales: [1; PARTS], minimums: [0; PARTS] };
        for part in 0..parts {
            let at = index * parts + part;
            if let Some(scale) = self.scales.parts.get(at) {
                stored.scales[part] = scale.round_ties_even() as i8;
            }
            if let Some(minimum) = self.scales.minimums.get(at) {
                stored.minimums[part] = minimum.round_ties_even() as u8;
            }
        }
        if self.grid.has_zero_points() {
            stored.second = factor;
        } else if let Some(second) = self.scales.seconds.get(index) {
            stored.second = round(*second);
            if self.scales.minimums.is_empty() {
                stored.minimums = [1; PARTS];
            }
        }
        stored
    }

    /// Mean size of a step: what learning rates of weights are measured in.
    pub fn mean_step(&self) -> f64 {
        let blocks = self.scales.factors.len();
        let (parts, mut sum) = (self.parts(), 0.0);
        for index in 0..blocks {
            let stored = self.stored(index);
            sum += (0..parts).map(|part| f64::from(stored.step(part).abs())).sum::<f64>();
        }
        sum / (blocks * parts).max(1) as f64
    }

    /// Step size and zero point of a group as they are stored.
    pub fn group(&self, index: usize) -> (f32, f32) {
        let stored = self.stored(index);
        (stored.factor, f32::from(stored.minimums[0]))
    }

    /// Blocks in a piece of work for one thread.
    fn piece(&self) -> usize {
        (self.columns / self.grid.block_len()).max(1) * 8
    }

    /// Ŵ, `[rows, columns]`.
    pub fn values(&self, out: &mut [f32]) {
        let (len, part) = (self.grid.block_len(), self.grid.part());
        let blocks = out.par_chunks_exact_mut(len).zip(self.weights.par_chunks_exact(len));
        blocks.enumerate().with_min_len(self.piece()).for_each(|(index, (out, weights))| {
            let stored = self.stored(index);
            let parts = out.chunks_exact_mut(part).zip(weights.chunks_exact(part));
            for (at, (out, weights)) in parts.enumerate() {
                let place = Place::of(self.grid, &stored, at);
                for (out, &weight) in out.iter_mut().zip(weights) {
                    *out = place.step * place.level(weight) + place.offset;
                }
            }
        });
    }

    /// From dL/dŴ in `gradient` to dL/dW in its place; adds to the gradients of scales.
    pub fn backward(&self, gradient: &mut [f32], of: &mut Numbers) {
        let (len, part, parts) = (self.grid.block_len(), self.grid.part(), self.parts());
        let of_blocks = of.blocks(parts);
        let blocks =
            gradient.par_chunks_exact_mut(len).zip(self.weights.par_chunks_exact(len)).zip(of_blocks);
        blocks.enumerate().with_min_len(self.piece()).for_each(|(index, ((gradient, weights), of))| {
            let stored = self.stored(index);
            let zero_points = self.grid.has_zero_points();
            let mut of_second = 0.0;
            let each = gradient.chunks_exact_mut(part).zip(weights.chunks_exact(part));
            for (at, (gradient, weights)) in each.enumerate() {
                let place = Place::of(self.grid, &stored, at);
                let (mut of_step, mut of_offset) = (0.0f32, 0.0f32);
                for (gradient, &weight) in gradient.iter_mut().zip(weights) {
                    let at = (weight - place.offset) * place.inverse;
                    let level = place.nearest(at);
                    let rounded = at.round_ties_even();
                    let inside = if rounded >= place.low && rounded <= place.high { 1.0 } else { 0.0 };
                    of_step += *gradient * (level - inside * at);
                    of_offset += *gradient * (1.0 - inside);
                    *gradient *= inside;
                }
                *of.factor += f32::from(stored.scales[at]) * of_step;
                if let Some(of_part) = of.parts.get_mut(at) {
                    *of_part += stored.factor * of_step;
                }
                let minimum = f32::from(stored.minimums[at]);
                if let Some(of_minimum) = of.minimums.get_mut(at) {
                    *of_minimum -= stored.second * of_offset;
                }
                if zero_points {
                    *of.factor -= minimum * of_offset;
                } else {
                    of_second -= minimum * of_offset;
                }
            }
            if let Some(second) = of.second {
                *second += of_second;
            }
        });
    }

    /// Brings scales back to where they can be stored; to be called when they were moved.
    pub fn confine(&mut self) {
        // A block of zeros keeps its factor of zero.
        let factors = self.scales.factors.iter_mut().filter(|it| **it != 0.0);
        if self.grid.has_zero_points() {
            factors.for_each(|factor| *factor = factor.max(LEAST_STEP));
        } else {
            factors.for_each(|factor| *factor = factor.signum() * factor.abs().max(LEAST_FACTOR));
        }
        if let Some((low, high)) = self.grid.scale_range() {
            self.scales.parts.iter_mut().for_each(|scale| *scale = scale.clamp(low, high));
        }
        if let Some(top) = self.grid.minimum_top() {
            self.scales.minimums.iter_mut().for_each(|minimum| *minimum = minimum.clamp(0.0, top));
        }
    }

    /// The blocks of the format, row after row.
    pub fn pack(&self) -> Vec<u8> {
        let (len, part) = (self.grid.block_len(), self.grid.part());
        let size = self.grid.dtype().block_bytes();
        let mut bytes = vec![0; self.scales.factors.len() * size];
        let blocks = bytes.par_chunks_exact_mut(size).zip(self.weights.par_chunks_exact(len));
        blocks.enumerate().for_each(|(index, (block, weights))| {
            let stored = self.stored(index);
            let mut codes = [0; LARGEST_BLOCK];
            for (at, weights) in weights.chunks_exact(part).enumerate() {
                let place = Place::of(self.grid, &stored, at);
                for (code, &weight) in codes[at * part..].iter_mut().zip(weights) {
                    *code = self.grid.levels().nearest((weight - place.offset) * place.inverse).0;
                }
            }
            self.grid.put(&stored, &codes[..len], block);
        });
        bytes
    }

    /// Moves all numbers against their gradients.
    pub(crate) fn step(
        &mut self,
        gradient: &[f32],
        of: &Numbers,
        memory: &mut Memory,
        rates: Rates,
        step: u64,
    ) {
        let unit = self.mean_step();
        memory.weights.step(&mut self.weights, gradient, rates.weights * unit, step);
        let zero_points = self.grid.has_zero_points();
        let kinds = self.scales.kinds_mut().into_iter().zip(of.kinds()).zip(&mut memory.scales);
        for (kind, ((values, gradient), memory)) in kinds.enumerate() {
            let rate = if kind == 3 && zero_points { rates.zeros } else { rates.scales * mean(values) };
            memory.step(values, gradient, rate, step);
        }
        self.confine();
    }

    /// Bytes of weights and scales.
    pub fn bytes(&self) -> usize {
        4 * (self.weights.len() + self.scales.count())
    }
}

/// Groups with a negative step become those with the same values and the codes mirrored: steps stay above zero from there
/// on.
fn upright(grid: &Grid, stored: Scales, levels: &mut [f32]) -> Scales {
    if !grid.has_zero_points() || !(stored.factor < 0.0) {
        return stored;
    }
    let top = grid.levels().ends().1;
    levels.iter_mut().for_each(|level| *level = top - *level);
    let factor = -stored.factor;
    Scales { factor, second: factor, minimums: stored.minimums.map(|zero| top as u8 - zero), ..stored }
}

/// Where the levels of a part are.
struct Place {
    step: f32,
    offset: f32,
    inverse: f32,
    low: f32,
    high: f32,
    levels: ounce_kernels::quant::grid::Levels,
}

impl Place {
    fn of(grid: &Grid, stored: &Scales, part: usize) -> Place {
        let (step, offset) = (stored.step(part), stored.offset(part));
        let inverse = if step == 0.0 { 0.0 } else { 1.0 / step };
        let levels = grid.levels();
        let (low, high) = levels.ends();
        Place { step, offset, inverse, low, high, levels }
    }

    #[inline]
    fn nearest(&self, at: f32) -> f32 {
        self.levels.nearest(at).1
    }

    #[inline]
    fn level(&self, weight: f32) -> f32 {
        self.nearest((weight - self.offset) * self.inverse)
    }
}

/// What AdamW keeps of a matrix.
#[derive(Debug)]
pub(crate) struct Memory {
    pub weights: Adam,
    /// Of each kind of [`Numbers`].
    pub scales: [Adam; 4],
}

impl Memory {
    pub fn of(matrix: &Quantized) -> Memory {
        let scales = matrix.scales.kinds().map(|kind| Adam::new(kind.len()));
        Memory { weights: Adam::new(matrix.weights.len()), scales }
    }

    pub fn bytes(&self) -> usize {
        self.weights.bytes() + self.scales.iter().map(Adam::bytes).sum::<usize>()
    }
}

#[cfg(test)]
#[path = "quantizer_tests.rs"]
mod tests;
