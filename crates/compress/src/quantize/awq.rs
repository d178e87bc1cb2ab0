//! AWQ (Lin et al., 2023, "AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration"): channels
//! with large inputs are made larger before they are rounded.
//!
//! A column of W that is multiplied by `s_j` before rounding and whose input is divided by it keeps its meaning, and its
//! rounding error shrinks by `s_j` as long as the step of its group does not grow. The scales are
//! `s_j = mean|x_j|^α` (equation 5), at least 1e-4, divided by the square root of the product of the largest and the
//! smallest; α is the one of 0, 1/20, …, 19/20 for which the linears that share the input give outputs closest to the
//! original's (equation 4): `Σ tr(Δ H Δᵀ)`, `Δ = Q(W · diag(s)) · diag(s)⁻¹ − W`, H `[n, n]` the mean of `x xᵀ`. α = 0
//! is no scale at all, so nothing gets worse. Scales are folded into what stands before ([`super::fold`]): inference
//! costs what it did, and whatever rounds the weights afterwards knows nothing of it.
//!
//! Q rounds to the plan's format as [`Method::Round`](super::Method::Round) does. Where the paper's code compares the
//! outputs of a whole attention or feed-forward half, this compares those of the linears themselves, with all tokens.
//!
//! With [`Options::clip`] extremes of blocks are cut off afterwards where that lowers the error ([`clip`]). For what
//! moves errors between columns (GPTQ) or fits scales itself it is better left out.

use ounce_kernels::{DType, quant};
use rayon::prelude::*;

use super::moments::Moments;

/// Options of [`search`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// How many values of α are tried, 0 first.
    pub grid: usize,
    /// Whether extremes are cut off.
    pub clip: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { grid: 20, clip: false }
    }
}

/// A matrix that shares an input with others, `[rows, n]`, and the format it will have.
pub type Matrix<'w> = (&'w [f32], DType);

/// What [`search`] found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The exponent.
    pub alpha: f32,
    /// The scale of each channel.
    pub scales: Vec<f32>,
    /// Mean square of the error of all outputs, summed.
    pub error: f64,
    /// The same without scales.
    pub plain_error: f64,
}

/// The scales for an exponent, and the bounds that the paper's code gives them.
pub fn scales(magnitudes: &[f32], alpha: f32) -> Vec<f32> {
    let mut scales: Vec<f32> = magnitudes.iter().map(|x| x.powf(alpha).max(1e-4)).collect();
    let least = scales.iter().copied().fold(f32::INFINITY, f32::min);
    let most = scales.iter().copied().fold(0.0, f32::max);
    let middle = (least * most).sqrt();
    scales.iter_mut().for_each(|scale| *scale /= middle);
    scales
}

/// The exponent with the least error, for an input and the quantized matrices that read it.
///
/// # Errors
/// In one sentence, if a matrix can't be rounded to its format.
///
/// # Panics
/// If the moments lack the products of pairs, or rows have another width.
pub fn search(moments: &Moments, matrices: &[Matrix<'_>], options: &Options) -> Result<Found, String> {
    let magnitudes = moments.mean_magnitudes();
    let mut best: Option<Found> = None;
    let mut plain_error = 0.0;
    for step in 0..options.grid.max(1) {
        let alpha = step as f32 / options.grid.max(1) as f32;
        let scales = scales(&magnitudes, alpha);
        let mut error = 0.0;
        for (weights, dtype) in matrices {
            error += moments.loss(&difference(weights, *dtype, &scales)?);
        }
        if step == 0 {
            plain_error = error;
        }
        if best.as_ref().is_none_or(|best| error < best.error) {
            best = Some(Found { alpha, scales, error, plain_error });
        }
    }
    best.ok_or_else(|| "no exponent was tried".to_owned())
}

/// `Q(W · diag(s)) · diag(s)⁻¹ − W`.
fn difference(weights: &[f32], dtype: DType, scales: &[f32]) -> Result<Vec<f32>, String> {
    let n = scales.len();
    let mut scaled = weights.to_vec();
    scaled.par_chunks_exact_mut(n).for_each(|row| row.iter_mut().zip(scales).for_each(|(x, s)| *x *= s));
    let mut rounded = rounded(&scaled, dtype, n)?;
    rounded.par_chunks_exact_mut(n).zip(weights.par_chunks_exact(n)).for_each(|(row, weights)| {
        row.iter_mut().zip(scales).zip(weights).for_each(|((x, s), w)| *x = *x / s - w);
    });
    Ok(rounded)
}

fn rounded(weights: &[f32], dtype: DType, row: usize) -> Result<Vec<f32>, String> {
    let text = |error: quant::QuantError| error.to_string();
    let (mut bytes, mut values) = (Vec::new(), vec![0.0; weights.len()]);
    quant::encode_rows(dtype, weights, row, &mut bytes).map_err(text)?;
    quant::decode(dtype, &bytes, &mut values).map_err(text)?;
    Ok(values)
}

/// Shares of a block's largest absolute value at which its values are cut off: 1, 0.95, …, 0.55.
const CUTS: usize = 10;

/// Cuts off the extremes of each block at the share of its largest absolute value for which rounding to `dtype` leaves
/// the least error of the block's part of the output, `δ H_bb δᵀ`: the paper's code, with H instead of samples. `weights`
/// are `[rows, n]`, already scaled; `scales` are what they were multiplied with, one a column, or empty. Queries and keys
/// are better left alone, as the paper's code leaves them: their products multiply errors.
///
/// # Errors
/// As [`search`].
///
/// # Panics
/// As [`search`].
pub fn clip(moments: &Moments, weights: &mut [f32], dtype: DType, scales: &[f32]) -> Result<(), String> {
    let (n, len) = (moments.width, dtype.block_len());
    if len == 1 {
        return Ok(());
    }
    let inverse = |column: usize| scales.get(column).map_or(1.0, |scale| 1.0 / scale);
    let (mut best, mut least) = (weights.to_vec(), vec![f64::INFINITY; weights.len() / len]);
    for cut in 0..CUTS {
        let share = 1.0 - cut as f32 / (2 * CUTS) as f32;
        let mut candidate = weights.to_vec();
        candidate.par_chunks_exact_mut(len).for_each(|block| {
            let bound = block.iter().fold(0.0f32, |peak, x| peak.max(x.abs())) * share;
            block.iter_mut().for_each(|x| *x = x.clamp(-bound, bound));
        });
        let stored = rounded(&candidate, dtype, n)?;
        let blocks = best.par_chunks_exact_mut(len).zip(&mut least).enumerate();
        blocks.for_each(|(index, (best, least))| {
            let at = index * len;
            let first = at % n;
            let delta: Vec<f32> =
                (0..len).map(|i| (stored[at + i] - weights[at + i]) * inverse(first + i)).collect();
            let error: f64 = (0..len)
                .map(|i| {
                    let row = &moments.products[(first + i) * n + first..][..len];
                    f64::from(delta[i]) * f64::from(row.iter().zip(&delta).map(|(h, d)| h * d).sum::<f32>())
                })
                .sum();
            if error < *least {
                *least = error;
                best.copy_from_slice(&candidate[at..at + len]);
            }
        });
    }
    weights.copy_from_slice(&best);
    Ok(())
}

#[cfg(test)]
mod tests {
    use ounce_engine::Tap;

    use super::*;
    use crate::quantize::moments::Collector;

    /// Numbers between -½ and ½.
    fn uniform(seed: u64) -> impl FnMut() -> f32 {
        let mut state = seed;
        move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        }
    }

    /// Inputs that share factors, with some columns far larger than the rest, `[tokens, n]`.
    fn inputs(tokens: usize, n: usize) -> Vec<f32> {
        let mut uniform = uniform(3);
        let mixing: Vec<f32> = (0..8 * n).map(|_| uniform()).collect();
        let mut x = Vec::new();
        for _ in 0..tokens {
            let hidden: Vec<f32> = (0..8).map(|_| uniform()).collect();
            for column in 0..n {
                let common: f32 = (0..8).map(|f| hidden[f] * mixing[f * n + column]).sum();
                x.push((common + 0.3 * uniform()) * if column % 23 == 5 { 20.0 } else { 1.0 });
            }
        }
        x
    }

    fn moments(n: usize) -> Moments {
        let mut collector = Collector::new(true);
        collector.observe(&["a"], &inputs(600, n), n);
        collector.moments("a").unwrap().clone()
    }

    fn weights(rows: usize, n: usize) -> Vec<f32> {
        let mut uniform = uniform(9);
        (0..rows * n).map(|_| uniform() + uniform() + uniform()).collect()
    }

    #[test]
    fn outlier_channels_are_rounded_better() {
        let n = 256;
        let (moments, w) = (moments(n), weights(48, n));
        for dtype in [DType::G4x64, DType::G3x32, DType::Q4_0, DType::Q4K, DType::Q2K] {
            let matrices: [Matrix<'_>; 2] = [(&w[..16 * n], dtype), (&w[16 * n..], dtype)];
            let found = search(&moments, &matrices, &Options::default()).unwrap();
            let plain = moments.loss(&difference(&w, dtype, &vec![1.0; n]).unwrap());
            let stored = moments.loss(&difference(&w, dtype, &found.scales).unwrap());
            println!("{dtype}: α {:.2}, {:.3} of rounding's error", found.alpha, stored / plain);
            assert!(
                (found.plain_error / plain - 1.0).abs() < 1e-4 && (found.error / stored - 1.0).abs() < 1e-4
            );
            assert!(found.alpha > 0.0 && stored < 0.7 * plain, "{dtype}");
        }
    }

    #[test]
    fn clipping_lowers_the_error_of_blocks_further() {
        let n = 256;
        let (moments, w) = (moments(n), weights(16, n));
        let dtype = DType::G3x64;
        let found = search(&moments, &[(&w, dtype)], &Options::default()).unwrap();
        let mut clipped: Vec<f32> =
            w.chunks_exact(n).flat_map(|row| row.iter().zip(&found.scales).map(|(x, s)| x * s)).collect();
        clip(&moments, &mut clipped, dtype, &found.scales).unwrap();
        let stored = rounded(&clipped, dtype, n).unwrap();
        let delta: Vec<f32> =
            stored.iter().zip(found.scales.iter().cycle()).zip(&w).map(|((x, s), w)| x / s - w).collect();
        let error = moments.loss(&delta);
        println!("clipped: {:.3} of the error without", error / found.error);
        assert!(error < found.error, "{error} {}", found.error);
    }

    #[test]
    fn scales_meet_in_the_middle() {
        let found = scales(&[1.0, 16.0, 0.0, 4.0], 0.5);
        // Roots 1, 4, 1e-4 and 2, divided by the root of 4e-4.
        for (a, b) in found.iter().zip([50.0, 200.0, 0.005, 100.0]) {
            assert!((a / b - 1.0).abs() < 1e-5, "{a} {b}");
        }
    }
}
