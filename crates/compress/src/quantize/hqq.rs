//! HQQ (Badri and Shaji, 2023, "Half-Quadratic Quantization of Large Machine Learning Models"): zero points of groups
//! that answer outliers, without data.
//!
//! A group `w [group]` is stored as `ŵ = s (c − z)` with `c = clamp(round(w / s + z), 0, t)`, `t` the largest code. The
//! scale is that of the group's extremes, `s = (max w − min w) / t`; the zero point makes `φ(w − ŵ) = Σ |w − ŵ|^p`
//! small, with p below one, so that few large errors weigh less than many small ones. With an auxiliary `e` in the
//! place of the error, half-quadratic splitting takes turns, β growing by κ after each (equations 3 to 5 there):
//!
//! - `e ← shrink(w − ŵ)` with `shrink(x) = sign(x) · max(|x| − |x|^(p−1) / β, 0)`,
//! - `z ← mean(c − (w − e) / s)` over the group,
//!
//! until the mean absolute error of the whole matrix no longer falls.
//!
//! What differs from HQQ as published: there zero points are any numbers, in ounce's groups (`G2_32` … `G8_256`) they
//! are whole ones from 0 to t, and scales are F16. Of the whole numbers next to the free zero point and next to that of
//! the extremes, a group takes the one with the least `Σ |w − ŵ|^p`, ŵ as it will be stored. Groups on one side of zero
//! may also take the scale of their extremes with zero among them, as their own zero point can lie beyond the codes; so
//! do groups without extent, for which HQQ takes the scale 1.
//!
//! A whole zero point leaves little of what a free one gains: levels can't move by parts of a step. So the scale follows
//! here, which HQQ leaves alone, by the same splitting: `s ← Σ (w − e)(c − z) / Σ (c − z)²`; the best one met is kept.
//! [`Options::scales`] turns that off.

use half::f16;
use ounce_kernels::DType;
use ounce_kernels::quant::grid::{Grid, PARTS, Scales};
use rayon::prelude::*;

/// Options of [`quantize`]; the defaults are HQQ's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// The norm's exponent p, above 0 and at most 1.
    pub exponent: f32,
    /// β of the first turn.
    pub beta: f32,
    /// What β grows by in every turn. The paper's 1.01; its released code (0.2.8) has 1, whatever is asked for.
    pub kappa: f32,
    /// Turns at most.
    pub iterations: usize,
    /// Whether scales follow too, once zero points are whole; HQQ leaves them as they are.
    pub scales: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { exponent: 0.7, beta: 10.0, kappa: 1.01, iterations: 20, scales: true }
    }
}

/// Scales and free zero points, one each a group.
#[derive(Debug, Clone, PartialEq)]
pub struct Solved {
    /// Steps between levels.
    pub scales: Vec<f32>,
    /// Zero points before they are whole, in codes.
    pub zeros: Vec<f32>,
}

/// Whether a format has what HQQ chooses: a scale and a zero point for each group.
pub fn suits(dtype: DType) -> bool {
    dtype.group_shape().is_some()
}

/// Extent below which a group counts as one value, and the largest inverse of a scale; HQQ's.
const LEAST_EXTENT: f32 = 1e-4;
const LARGEST_INVERSE: f32 = 2e4;

/// HQQ's own solution for the groups of a matrix, one behind the other, with codes up to `top`.
pub fn solve(weights: &[f32], group: usize, top: f32, options: &Options) -> Solved {
    let extremes = |group: &[f32]| {
        group.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &x| (low.min(x), high.max(x)))
    };
    // As HQQ, with inverses of scales: `ŵ = (c − z) / inverse`.
    let (inverses, mut zeros): (Vec<f32>, Vec<f32>) = weights
        .par_chunks_exact(group)
        .map(|group| {
            let (low, high) = extremes(group);
            let extent = high - low;
            let inverse = if extent <= LEAST_EXTENT { 1.0 } else { (top / extent).min(LARGEST_INVERSE) };
            (inverse, -low * inverse)
        })
        .unzip();
    let mut beta = options.beta;
    let mut best = f64::INFINITY;
    for _ in 0..options.iterations {
        let error: f64 = weights
            .par_chunks_exact(group)
            .zip(&inverses)
            .zip(&mut zeros)
            .map(|((group, &inverse), zero)| turn(group, inverse, zero, top, beta, options.exponent))
            .sum();
        beta *= options.kappa;
        if !(error < best) {
            break;
        }
        best = error;
    }
    Solved { scales: inverses.iter().map(|inverse| 1.0 / inverse).collect(), zeros }
}

/// One turn for a group; gives the sum of its absolute errors before.
fn turn(group: &[f32], inverse: f32, zero: &mut f32, top: f32, beta: f32, exponent: f32) -> f64 {
    let (mut sum, mut errors) = (0.0f32, 0.0f64);
    for &w in group {
        let code = (w * inverse + *zero).round_ties_even().clamp(0.0, top);
        let error = w - (code - *zero) / inverse;
        errors += f64::from(error.abs());
        sum += code - (w - shrunk(error, beta, exponent)) * inverse;
    }
    *zero = sum / group.len() as f32;
    errors
}

/// `sign(x) · max(|x| − |x|^(p−1) / β, 0)`.
fn shrunk(error: f32, beta: f32, exponent: f32) -> f32 {
    let size = error.abs();
    // Zero to a negative power is infinite: nothing is left of it.
    if size == 0.0 { 0.0 } else { (size - size.powf(exponent - 1.0) / beta).max(0.0).copysign(error) }
}

/// Quantizes `weights`, whole groups one behind the other, and gives them in the grid's format.
///
/// # Panics
/// If the format has no groups with zero points ([`suits`]), or the weights are no whole groups.
pub fn quantize(weights: &[f32], grid: &Grid, options: &Options) -> Vec<u8> {
    let (dtype, group) = (grid.dtype(), grid.block_len());
    assert!(suits(dtype) && weights.len().is_multiple_of(group), "whole groups with zero points");
    let top = grid.levels().ends().1;
    let solved = solve(weights, group, top, options);
    let mut bytes = vec![0; weights.len() / group * dtype.block_bytes()];
    bytes
        .par_chunks_exact_mut(dtype.block_bytes())
        .zip(weights.par_chunks_exact(group))
        .zip(solved.scales.par_iter().zip(&solved.zeros))
        .for_each(|((block, values), (&scale, &zero))| {
            let scales = whole(grid, values, scale, zero, options);
            let codes: Vec<u8> = values.iter().map(|&x| grid.nearest(&scales, 0, x).0).collect();
            grid.put(&scales, &codes, block);
        });
    bytes
}

/// Scale and zero point of a group as they are stored.
fn whole(grid: &Grid, values: &[f32], scale: f32, zero: f32, options: &Options) -> Scales {
    let top = grid.levels().ends().1;
    let least = values.iter().copied().fold(f32::INFINITY, f32::min);
    let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut candidates = Vec::with_capacity(4);
    let stored = f16::from_f32(scale).to_f32();
    if most - least > LEAST_EXTENT && stored > 0.0 {
        let plain = (-least / stored).round();
        candidates.extend([plain, zero.floor(), zero.ceil()].map(|zero| (stored, zero)));
    }
    if candidates.is_empty() || least > 0.0 || most < 0.0 {
        // The range with zero in it, for which a zero point within the codes always exists.
        let scale = f16::from_f32((most.max(0.0) - least.min(0.0)) / top).to_f32();
        candidates.push((scale, if scale == 0.0 { 0.0 } else { (-least.min(0.0) / scale).round() }));
    }
    let (mut best, mut least) = (Scales::ZERO, f32::INFINITY);
    for (scale, zero) in candidates {
        let mut scales = with_zero(scale, zero.clamp(0.0, top));
        let mut beta = options.beta;
        // The first is the scale as it is.
        for _ in 0..=if options.scales { options.iterations } else { 0 } {
            let distance = distance(grid, values, &scales, options.exponent);
            if distance < least {
                (best, least) = (scales, distance);
            }
            let next = follow(grid, values, &scales, beta, options.exponent);
            if !(next > 0.0) || next == scales.factor {
                break;
            }
            (scales.factor, scales.second) = (next, next);
            beta *= options.kappa;
        }
    }
    best
}

/// The scale that fits codes and shrunk errors best: `s = Σ (w − e)(c − z) / Σ (c − z)²`, as it is stored.
fn follow(grid: &Grid, values: &[f32], scales: &Scales, beta: f32, exponent: f32) -> f32 {
    let (mut along, mut square) = (0.0f32, 0.0f32);
    for &w in values {
        let value = grid.nearest(scales, 0, w).1;
        let level = value / scales.factor;
        along += (w - shrunk(w - value, beta, exponent)) * level;
        square += level * level;
    }
    f16::from_f32(along / square).to_f32()
}

fn with_zero(scale: f32, zero: f32) -> Scales {
    let mut scales = Scales { factor: scale, second: scale, ..Scales::ZERO };
    scales.scales = [1; PARTS];
    scales.minimums = [zero as u8; PARTS];
    scales
}

/// `Σ |w − ŵ|^p` of a group.
fn distance(grid: &Grid, values: &[f32], scales: &Scales, exponent: f32) -> f32 {
    values.iter().map(|&x| (x - grid.nearest(scales, 0, x).1).abs().powf(exponent)).sum()
}

#[cfg(test)]
mod tests {
    use ounce_kernels::quant;

    use super::*;

    /// Weights with few outliers, as those of language models.
    fn weights(count: usize) -> Vec<f32> {
        let mut state = 7u64;
        let mut uniform = move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        (0..count)
            .map(|i| {
                let bell = (0..6).map(|_| uniform()).sum::<f32>() * 0.05;
                if i % 61 == 7 { bell * 4.0 } else { bell }
            })
            .collect()
    }

    fn lp(weights: &[f32], dtype: DType, bytes: &[u8]) -> f64 {
        let mut decoded = vec![0.0; weights.len()];
        quant::decode(dtype, bytes, &mut decoded).unwrap();
        weights.iter().zip(&decoded).map(|(a, b)| f64::from((a - b).abs()).powf(0.7)).sum()
    }

    #[test]
    fn the_norm_falls_below_that_of_rounding_between_extremes() {
        let weights = weights(64 * 256);
        for dtype in [DType::G2x64, DType::G3x128, DType::G4x64, DType::G4x32, DType::G8x64] {
            let bytes = quantize(&weights, Grid::of(dtype).unwrap(), &Options::default());
            let mut plain = Vec::new();
            quant::encode(dtype, &weights, &mut plain).unwrap();
            let (found, before) = (lp(&weights, dtype, &bytes), lp(&weights, dtype, &plain));
            println!("{dtype}: {:.4} of rounding's sum of |error|^0.7", found / before);
            assert!(found < before, "{dtype}: {found} {before}");
            let published = Options { scales: false, ..Options::default() };
            let fixed = lp(&weights, dtype, &quantize(&weights, Grid::of(dtype).unwrap(), &published));
            println!("{dtype}: {:.4} with the extremes' scale", fixed / before);
            assert!(found <= fixed * 1.000_001 && fixed <= before * 1.000_001, "{dtype}: {fixed} {before}");
        }
    }

    #[test]
    fn groups_far_from_zero_and_without_extent_keep_their_values() {
        let grid = Grid::of(DType::G4x32).unwrap();
        let mut weights = vec![0.5; 32];
        weights.extend([-0.25; 32]);
        weights.extend([0.0; 32]);
        weights.extend((0..32).map(|i| 1.0 + i as f32 * 0.001));
        let bytes = quantize(&weights, grid, &Options::default());
        let mut decoded = vec![0.0; weights.len()];
        quant::decode(DType::G4x32, &bytes, &mut decoded).unwrap();
        for (a, b) in weights[..96].iter().zip(&decoded) {
            assert!((a - b).abs() <= 1e-3 * a.abs(), "{a} {b}");
        }
        // A byte from 0 to 15 can't be a zero point so far away: the error is bounded by what the range allows.
        for (a, b) in weights[96..].iter().zip(&decoded[96..]) {
            assert!((a - b).abs() <= 0.04, "{a} {b}");
        }
    }

    #[test]
    fn only_groups_suit() {
        assert!(suits(DType::G3x64) && !suits(DType::Q4K) && !suits(DType::BF16));
    }
}
