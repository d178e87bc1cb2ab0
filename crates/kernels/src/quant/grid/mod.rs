//! Scales and codes chosen apart: what quantizers need that do more than round.
//!
//! In every block format a value is `step · level + offset`: the code names a level (a whole number of a range, or an
//! entry of a table), step and offset belong to a part of the block (16, 32 or more values) and are stored coarsely. A
//! [`Grid`] chooses scales for values with weights ([`Grid::fit`]), says what the codes then stand for ([`Scales`]),
//! and writes scales and codes into a block ([`Grid::put`]). GPTQ's error feedback, coordinate descent and training
//! all stand on it, for ggml's formats as for ounce's own groups. [`encode_weighted`] rounds to the nearest level.

mod levels;
mod search;
mod table;

use rayon::prelude::*;

use super::lattice::{self, Lattice};
use super::{QuantError, TASK_VALUES, first_lost, row_bytes};
use crate::DType;

/// The largest number of parts in a block.
pub const PARTS: usize = 16;

/// No block has more values, or more bytes.
pub const LARGEST_BLOCK: usize = 320;

/// What the codes of a format stand for, before step and offset.
#[derive(Debug, Clone, Copy)]
pub enum Levels {
    /// The whole numbers from `low` to `high`; code 0 is `low`.
    Range {
        /// The lowest level.
        low: i16,
        /// The highest level.
        high: i16,
    },
    /// A table, rising.
    Table {
        /// The levels in rising order.
        levels: &'static [i8; 16],
        /// The code of each.
        codes: &'static [u8; 16],
    },
}

impl Levels {
    /// The code whose level is nearest to `x`, and that level.
    #[inline]
    pub fn nearest(&self, x: f32) -> (u8, f32) {
        match *self {
            Levels::Range { low, high } => {
                let level = levels::nearest_whole(x, f32::from(low), f32::from(high));
                // A NaN becomes the lowest code; encoders look for NaN themselves.
                ((level - f32::from(low)) as u8, level)
            }
            Levels::Table { levels, codes } => {
                let index = usize::from(super::fit::nearest_in(levels, x));
                (codes[index], f32::from(levels[index]))
            }
        }
    }

    /// The level of a code.
    #[inline]
    pub fn of(&self, code: u8) -> f32 {
        match *self {
            Levels::Range { low, .. } => f32::from(low) + f32::from(code),
            Levels::Table { levels, codes } => {
                let index = codes.iter().position(|it| *it == code).unwrap_or(0);
                f32::from(levels[index])
            }
        }
    }

    /// Between which places a level is the nearest one; the ends reach to infinity.
    pub fn cell(&self, level: f32) -> (f32, f32) {
        let (low, high) = self.ends();
        let (below, above) = match *self {
            Levels::Range { .. } => (level - 0.5, level + 0.5),
            Levels::Table { levels, .. } => {
                let next = |above: bool| {
                    let beyond = levels
                        .iter()
                        .map(|&it| f32::from(it))
                        .filter(|it| (*it > level) == above && *it != level);
                    let nearest = beyond.min_by(|a, b| (a - level).abs().total_cmp(&(b - level).abs()));
                    nearest.map_or(level, |it| (it + level) * 0.5)
                };
                (next(false), next(true))
            }
        };
        (
            if level <= low { f32::NEG_INFINITY } else { below },
            if level >= high { f32::INFINITY } else { above },
        )
    }

    /// The lowest and the highest level.
    pub fn ends(&self) -> (f32, f32) {
        match *self {
            Levels::Range { low, high } => (f32::from(low), f32::from(high)),
            Levels::Table { levels, .. } => (f32::from(levels[0]), f32::from(levels[15])),
        }
    }
}

/// The scales of one block, as they are stored: part `p` has the step `factor · scales[p]` and the offset
/// `−second · minimums[p]`. Formats without parts have a single one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scales {
    /// The factor of all scales.
    pub factor: f32,
    /// The factor of all minimums.
    pub second: f32,
    /// A whole number for each part.
    pub scales: [i8; PARTS],
    /// A whole number for each part.
    pub minimums: [u8; PARTS],
}

impl Scales {
    /// A block of zeros.
    pub const ZERO: Scales = Scales { factor: 0.0, second: 0.0, scales: [0; PARTS], minimums: [0; PARTS] };

    /// Step of a part.
    #[inline]
    pub fn step(&self, part: usize) -> f32 {
        self.factor * f32::from(self.scales[part])
    }

    /// Offset of a part.
    #[inline]
    pub fn offset(&self, part: usize) -> f32 {
        -(self.second * f32::from(self.minimums[part]))
    }
}

/// How a format stores scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// An F16 for the block.
    One,
    /// A power of two for the block.
    PowerOfTwo,
    /// An F16 scale and an F16 offset of any sign for the block.
    Offset,
    /// An F16 scale and a zero point among the codes for the block.
    Zero,
    /// An F16, times a whole number from `low` to `high` for each part.
    Super { low: i8, high: i8 },
    /// The same, and codes of several values stand for points of a list together: nothing here chooses them.
    Codebook { high: i8 },
    /// An F16, times a number up to `top` for each part; and the same once more for minimums.
    SuperMinimum { top: u8 },
}

/// A block format taken apart.
#[derive(Debug)]
pub struct Grid {
    dtype: DType,
    part: usize,
    levels: Levels,
    kind: Kind,
    /// Where scales lie in a block; codes are all else.
    head: &'static [(usize, usize)],
    /// Writes scales where zeros are.
    put_scales: fn(&Scales, &mut [u8]),
    scales: fn(&[u8]) -> Scales,
    /// Writes codes where zeros are.
    put_codes: fn(&[u8], &mut [u8]),
}

impl Grid {
    /// The grid of a block format; none for plain types.
    pub fn of(dtype: DType) -> Option<&'static Grid> {
        table::GRIDS.iter().find(|grid| grid.dtype == dtype)
    }

    /// The grid of a block format whose factors are free numbers, so that they can be trained; none for plain types, and
    /// where steps are powers of two.
    pub fn free(dtype: DType) -> Option<&'static Grid> {
        let codebook = || table::CODEBOOKS.iter().find(|grid| grid.dtype == dtype);
        Grid::of(dtype).filter(|grid| !grid.steps_are_powers()).or_else(codebook)
    }

    /// Whether codes stand for points of a list, so that factors can be trained, but single values not rounded.
    pub fn is_codebook(&self) -> bool {
        matches!(self.kind, Kind::Codebook { .. })
    }

    /// The format.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Values in a block.
    pub fn block_len(&self) -> usize {
        self.dtype.block_len()
    }

    /// Values that share a step.
    pub fn part(&self) -> usize {
        self.part
    }

    /// What codes stand for.
    pub fn levels(&self) -> Levels {
        self.levels
    }

    /// The scales that bring the sum of `weights · (value − stored)²` near its least, for a block of values.
    ///
    /// # Panics
    /// If there are not as many values and weights as a block has.
    pub fn fit(&self, values: &[f32], weights: &[f32]) -> Scales {
        assert!(values.len() == self.block_len() && weights.len() == self.block_len(), "one block");
        search::fit(self, values, weights)
    }

    /// Whether steps are powers of two, so that no factor can be fitted freely.
    pub fn steps_are_powers(&self) -> bool {
        self.kind == Kind::PowerOfTwo
    }

    /// Whether offsets are whole numbers of steps: scale and minimum have one factor.
    pub fn has_zero_points(&self) -> bool {
        self.kind == Kind::Zero
    }

    /// What a code stands for in part `part`.
    #[inline]
    pub fn value(&self, scales: &Scales, part: usize, code: u8) -> f32 {
        scales.step(part) * self.levels.of(code) + scales.offset(part)
    }

    /// Code and stored value nearest to `x` for a value of part `part`.
    #[inline]
    pub fn nearest(&self, scales: &Scales, part: usize, x: f32) -> (u8, f32) {
        let (step, offset) = (scales.step(part), scales.offset(part));
        // Any level will do where the step is zero; the division would give NaN.
        let place = if step == 0.0 { 0.0 } else { (x - offset) / step };
        let (code, level) = self.levels.nearest(place);
        (code, step * level + offset)
    }

    /// Writes a block.
    ///
    /// # Panics
    /// If `codes` or `block` has not a block's length.
    pub fn put(&self, scales: &Scales, codes: &[u8], block: &mut [u8]) {
        assert!(codes.len() == self.block_len() && block.len() == self.dtype.block_bytes(), "one block");
        block.fill(0);
        (self.put_scales)(scales, block);
        (self.put_codes)(codes, block);
    }

    /// Writes scales into a block whose codes stay.
    ///
    /// # Panics
    /// If `block` has not a block's length.
    pub fn put_scales(&self, scales: &Scales, block: &mut [u8]) {
        assert_eq!(block.len(), self.dtype.block_bytes(), "one block");
        self.head.iter().for_each(|&(from, to)| block[from..to].fill(0));
        (self.put_scales)(scales, block);
    }

    /// The scales of a block.
    ///
    /// # Panics
    /// If `block` has not a block's length.
    pub fn scales(&self, block: &[u8]) -> Scales {
        assert_eq!(block.len(), self.dtype.block_bytes(), "one block");
        (self.scales)(block)
    }

    /// The levels of a block's values, before step and offset.
    ///
    /// # Panics
    /// If `block` or `levels` has not a block's length.
    pub fn block_levels(&self, block: &[u8], levels: &mut [f32]) {
        assert_eq!(levels.len(), self.block_len(), "one block");
        let mut plain = [0; LARGEST_BLOCK];
        let plain = &mut plain[..block.len()];
        plain.copy_from_slice(block);
        // With steps of one and no offset, levels are what the block holds.
        let ones = Scales { factor: 1.0, second: 0.0, scales: [1; PARTS], minimums: [0; PARTS] };
        self.put_scales(&ones, plain);
        super::decode(self.dtype, plain, levels).expect("one whole block");
    }

    /// Whole numbers that scales of parts may be, where parts have their own.
    pub fn scale_range(&self) -> Option<(f32, f32)> {
        match self.kind {
            Kind::Super { low, high } => Some((f32::from(low), f32::from(high))),
            Kind::Codebook { high } => Some((1.0, f32::from(high))),
            Kind::SuperMinimum { top } => Some((0.0, f32::from(top))),
            _ => None,
        }
    }

    /// The largest whole number that minimums of parts may be (a zero point where there are such), where parts have their own.
    pub fn minimum_top(&self) -> Option<f32> {
        match self.kind {
            Kind::SuperMinimum { top } => Some(f32::from(top)),
            Kind::Zero => Some(self.levels.ends().1),
            _ => None,
        }
    }

    /// Whether the factor of minimums is a number of its own.
    pub fn has_second_factor(&self) -> bool {
        matches!(self.kind, Kind::SuperMinimum { .. } | Kind::Offset)
    }
}

/// Encodes a matrix with rows of `row_len` values, rows in parallel, so that the sum of
/// `importance[column] · (value − stored)²` is near its least in every block. `importance` is the mean square of what each
/// column is multiplied with; empty for all alike. Plain types are rounded.
///
/// # Errors
/// As [`encode_rows`](super::encode_rows).
///
/// # Panics
/// If `importance` is neither empty nor as long as a row.
pub fn encode_weighted(
    dtype: DType,
    values: &[f32],
    row_len: usize,
    importance: &[f32],
    out: &mut Vec<u8>,
) -> Result<(), QuantError> {
    if Lattice::of(dtype).is_some() {
        assert!(importance.is_empty() || importance.len() == row_len, "a weight for each column");
        let row_bytes = row_bytes(dtype, row_len)?;
        let start = out.len();
        out.resize(start + values.len() / row_len.max(1) * row_bytes, 0);
        encode_lattice(dtype, values, row_len, importance, &mut out[start..]);
        return check(dtype, values, out, start);
    }
    let Some(grid) = Grid::of(dtype) else {
        return super::encode_rows(dtype, values, row_len, out);
    };
    assert!(importance.is_empty() || importance.len() == row_len, "a weight for each column");
    let row_bytes = row_bytes(dtype, row_len)?;
    let weights: Vec<f32> = match importance {
        [] => vec![1.0; row_len],
        given => floored(given),
    };
    let start = out.len();
    out.resize(start + values.len() / row_len.max(1) * row_bytes, 0);
    let rows = TASK_VALUES.div_ceil(row_len.max(1));
    out[start..]
        .par_chunks_mut((rows * row_bytes).max(1))
        .zip(values.par_chunks((rows * row_len).max(1)))
        .for_each(|(out, values)| {
            let rows = values.chunks_exact(row_len).flat_map(|row| row.chunks_exact(grid.block_len()));
            let weights = weights.chunks_exact(grid.block_len()).cycle();
            let mut codes = vec![0; grid.block_len()];
            for ((values, weights), block) in rows.zip(weights).zip(out.chunks_exact_mut(dtype.block_bytes()))
            {
                let scales = grid.fit(values, weights);
                for (index, (code, &x)) in codes.iter_mut().zip(values).enumerate() {
                    *code = grid.nearest(&scales, index / grid.part, x).0;
                }
                grid.put(&scales, &codes, block);
            }
        });
    check(dtype, values, out, start)
}

/// Rounds rows to the points of a codebook format, weighted by columns, into bytes of the right length.
pub(super) fn encode_lattice(
    dtype: DType,
    values: &[f32],
    row_len: usize,
    importance: &[f32],
    out: &mut [u8],
) {
    let Some(lattice) = Lattice::of(dtype) else { return };
    let weights = match importance {
        [] => vec![1.0; row_len],
        given => floored(given),
    };
    let blocks = weights.len() / lattice::BLOCK;
    let all = out.par_chunks_exact_mut(dtype.block_bytes()).zip(values.par_chunks_exact(lattice::BLOCK));
    all.enumerate().for_each(|(index, (block, values))| {
        lattice.encode(values, &weights[index % blocks * lattice::BLOCK..][..lattice::BLOCK], block);
    });
}

/// Refuses what did not survive, and takes it off again.
fn check(dtype: DType, values: &[f32], out: &mut Vec<u8>, start: usize) -> Result<(), QuantError> {
    match first_lost(dtype, values, &out[start..]) {
        Some(block) => {
            out.truncate(start);
            let first = block * dtype.block_len();
            Err(QuantError::Range { dtype, first, end: first + dtype.block_len() })
        }
        None => Ok(()),
    }
}

/// Weights in which no column counts for nothing: one that calibration never saw must still be stored.
fn floored(importance: &[f32]) -> Vec<f32> {
    let mean = importance.iter().map(|&x| f64::from(x)).sum::<f64>() / importance.len().max(1) as f64;
    let least = if mean > 0.0 { (mean * 1e-4) as f32 } else { 1.0 };
    importance.iter().map(|x| x.max(least)).collect()
}

#[cfg(test)]
mod tests;
