//! GPTQ (Frantar et al., 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers") on any
//! block format, followed by coordinate descent.
//!
//! A linear layer's weight `W [rows, n]` is replaced by `Ŵ` from a format's grid so that its outputs on the calibration
//! set change little: the loss is `tr((W − Ŵ) H (W − Ŵ)ᵀ)`, with `H [n, n]` the mean of `x xᵀ` over the inputs. Columns are
//! rounded one after another, and each column's error is answered by those that are still to come. With
//! `H = (U + I) D (U + I)ᵀ` that is `ŵ_k = round(w_k + Σ_{j<k} (w_j − ŵ_j) U_jk)`, the same numbers as the paper's
//! (the form is that of LDLQ: Chee et al., 2023, "QuIP", theorem 1) without an inverse.
//!
//! Scales of a block are fitted when its first column is due, to the values as they then are, weighted by D: what an error
//! in a column costs once the later ones have answered. With [`Order::Activity`] columns come by falling `H_kk`, and all
//! scales are fitted beforehand, so that blocks stay contiguous in the file.
//!
//! What greedy rounding left is mended by coordinate descent: again and again each code moves to where the loss, given all
//! other codes, is least; the factors of the blocks are fitted again in between. Every such step lowers the loss.

use std::ops::Range;

use ounce_kernels::gemm::{Compute, Operand, Workspace, gemm};
use ounce_kernels::pool::Pool;
use ounce_kernels::quant::grid::{Grid, Scales};
use rayon::prelude::*;

use super::descent;
use super::factor::{Factors, factorise};
use super::moments::{Moments, trace};

/// Columns whose errors are fed forward together.
pub(crate) const BLOCK: usize = 64;

/// In which order columns are rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// As they are stored.
    #[default]
    Stored,
    /// Those with the largest inputs first.
    Activity,
}

/// Options of [`quantize`].
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Share of the mean of H's diagonal that is added to the diagonal. The papers' 0.01.
    pub damping: f32,
    /// Order of the columns.
    pub order: Order,
    /// Rounds of coordinate descent; 0 is GPTQ alone.
    pub descent: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { damping: 0.01, order: Order::Stored, descent: 4 }
    }
}

/// A weight's Hessian, ready for any number of formats.
#[derive(Debug)]
pub struct Hessian {
    /// `[n, n]`, damped.
    pub(super) full: Vec<f32>,
    /// Columns in the order in which they are rounded.
    order: Vec<usize>,
    /// Of the columns in that order.
    factors: Factors,
    n: usize,
}

/// A quantized matrix.
#[derive(Debug)]
pub struct Quantized {
    /// In the format asked for, row after row.
    pub bytes: Vec<u8>,
    /// The loss as a share of `tr(W H Wᵀ)`, H damped.
    pub error: f64,
    /// The same after GPTQ alone.
    pub error_before_descent: f64,
}

impl Hessian {
    /// Damps and factorises the mean of `x xᵀ`.
    ///
    /// # Errors
    /// In one sentence, if nothing was observed or the numbers are not finite.
    pub fn new(moments: &Moments, options: &Options) -> Result<Hessian, String> {
        let n = moments.width;
        if moments.tokens == 0 {
            return Err("calibration never reached this layer; give a longer calibration text".into());
        }
        let scale = 1.0 / moments.tokens as f32;
        let mean: f64 = moments.squares.iter().sum::<f64>() / (n * moments.tokens) as f64;
        if !mean.is_finite() {
            return Err(
                "calibration gave this layer inputs that are not finite; the weights before it are damaged"
                    .into(),
            );
        }
        // A layer that only ever saw zeros has no preference.
        let mean = if mean > 0.0 { mean as f32 } else { 1.0 };
        let mut order: Vec<usize> = (0..n).collect();
        if options.order == Order::Activity {
            order.sort_by(|&a, &b| moments.squares[b].total_cmp(&moments.squares[a]));
        }
        let mut damping = options.damping * mean;
        // Rounding in f32 can ask for a little more.
        for _ in 0..6 {
            let mut full: Vec<f32> = moments.products.par_iter().map(|x| x * scale).collect();
            (0..n).for_each(|i| full[i * n + i] += damping);
            let permuted: Vec<f32> = match options.order {
                Order::Stored => Vec::new(),
                Order::Activity => order
                    .iter()
                    .flat_map(|&i| order.iter().map(move |&j| (i, j)))
                    .map(|(i, j)| full[i * n + j])
                    .collect(),
            };
            let source = if permuted.is_empty() { &full } else { &permuted };
            if let Some(factors) = factorise(source, n) {
                return Ok(Hessian { full, order, factors, n });
            }
            damping = (damping * 4.0).max(1e-6 * mean);
        }
        Err("the inputs' second moments are not positive definite; raise --damping".into())
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.n
    }

    /// Whether [`sweep`] goes through the columns as they are stored.
    pub(crate) fn is_in_order(&self) -> bool {
        self.order.is_sorted()
    }

    /// What an error of one in each column costs once all behind it have answered, `[n]` in the order of [`sweep`].
    pub(crate) fn costs(&self) -> &[f32] {
        &self.factors.diagonal
    }

    /// Lets columns that follow the one in place `k` answer its error: `wanted` begins with the next.
    pub(crate) fn answer(&self, k: usize, error: f32, wanted: &mut [f32]) {
        let feed = &self.factors.upper[k * self.n..][k + 1..];
        wanted.iter_mut().zip(feed).for_each(|(wanted, feed)| *wanted += error * feed);
    }

    /// `tr(A H Aᵀ)` for the rows of `a`, by the factors as `Σ_k D_k (A (U + I))²_k`: U is a triangle, so that takes half the products.
    pub fn loss(&self, a: &[f32]) -> f64 {
        const WIDE: usize = 512;
        let n = self.n;
        if !self.is_in_order() {
            return trace(a, &self.full, n);
        }
        let rows = a.len() / n;
        let (mut fed, mut workspace) = (vec![0.0; rows * WIDE.min(n)], Workspace::default());
        let mut sum = 0.0;
        for first in (0..n).step_by(WIDE) {
            let width = WIDE.min(n - first);
            let fed = &mut fed[..rows * width];
            fed.par_chunks_exact_mut(width).zip(a.par_chunks_exact(n)).for_each(|(fed, a)| {
                fed.copy_from_slice(&a[first..first + width]);
            });
            let (left, right) = (Operand::rows(a, n), Operand::rows(&self.factors.upper[first..], n));
            let size = (rows, width, first + width);
            gemm(Pool::global(), Compute::F32, size, left, right, true, fed, width, &mut workspace);
            let costs = &self.factors.diagonal[first..first + width];
            let of_row = |row: &[f32]| row.iter().zip(costs).map(|(x, d)| f64::from(x * x * d)).sum::<f64>();
            sum += fed.par_chunks_exact(width).map(of_row).sum::<f64>();
        }
        sum
    }
}

/// A matrix while its codes are chosen.
pub(super) struct Codes {
    /// `[rows, n]`, in the order of the columns.
    pub codes: Vec<u8>,
    /// What they stand for.
    pub values: Vec<f32>,
    /// `[rows, n / block]`.
    pub scales: Vec<Scales>,
}

/// Quantizes `weights`, `[rows, n]`.
///
/// # Panics
/// If rows are no whole number of the grid's blocks, or of another width than the Hessian.
pub fn quantize(weights: &[f32], grid: &Grid, hessian: &Hessian, options: &Options) -> Quantized {
    let n = hessian.n;
    assert!(n.is_multiple_of(grid.block_len()) && weights.len().is_multiple_of(n), "whole blocks");
    let (mut coded, before) = feed_back(weights, grid, hessian);
    let whole = hessian.loss(weights).max(f64::MIN_POSITIVE);
    let before = before / whole;
    let mut after = before;
    if options.descent > 0 {
        descent::descend(weights, grid, hessian, &mut coded, options.descent);
        let difference: Vec<f32> = weights.iter().zip(&coded.values).map(|(w, v)| w - v).collect();
        after = hessian.loss(&difference) / whole;
    }
    let dtype = grid.dtype();
    let mut bytes = vec![0; weights.len() / grid.block_len() * dtype.block_bytes()];
    bytes
        .par_chunks_exact_mut(dtype.block_bytes())
        .zip(coded.codes.par_chunks_exact(grid.block_len()))
        .zip(&coded.scales)
        .for_each(|((block, codes), scales)| grid.put(scales, codes, block));
    Quantized { bytes, error: after, error_before_descent: before }
}

/// Goes through the columns of `weights`, `[rows, n]`, in the Hessian's order, some at a time, and lets later columns answer
/// the errors of earlier ones. `block` is given places in that order, what each column is to become, `[rows, n]` in that
/// order (its weight and what earlier errors ask of it), and room for the errors of its columns, `[rows, BLOCK]`: the
/// weight less what took its place. Within its own columns it answers them itself, by [`Hessian::answer`].
pub(crate) fn sweep(
    weights: &[f32],
    hessian: &Hessian,
    mut block: impl FnMut(Range<usize>, &mut [f32], &mut [f32]),
) {
    let Hessian { order, factors, n, .. } = hessian;
    let n = *n;
    let rows = weights.len() / n;
    let mut wanted: Vec<f32> = if hessian.is_in_order() {
        weights.to_vec()
    } else {
        weights.chunks_exact(n).flat_map(|row| order.iter().map(|&column| row[column])).collect()
    };
    let mut errors = vec![0.0f32; rows * BLOCK];
    let mut workspace = Workspace::default();
    for first in (0..n).step_by(BLOCK) {
        let last = n.min(first + BLOCK);
        block(first..last, &mut wanted, &mut errors);
        if last < n {
            let left = Operand::rows(&errors, BLOCK);
            let right = Operand::rows(&factors.upper[first * n + last..], n);
            let size = (rows, n - last, last - first);
            let out = &mut wanted[last..];
            gemm(Pool::global(), Compute::F32, size, left, right, true, out, n, &mut workspace);
        }
    }
}

/// Rounds column by column; codes, and the loss of what they stand for.
fn feed_back(weights: &[f32], grid: &Grid, hessian: &Hessian) -> (Codes, f64) {
    round_columns(weights, grid, hessian, |values, costs| grid.fit(values, costs))
}

/// [`feed_back`] with any choice of a block's scales, given its values and what errors in them cost.
fn round_columns(
    weights: &[f32],
    grid: &Grid,
    hessian: &Hessian,
    fit: impl Fn(&[f32], &[f32]) -> Scales + Sync,
) -> (Codes, f64) {
    let Hessian { order, factors, n, .. } = hessian;
    let (n, len) = (*n, grid.block_len());
    let rows = weights.len() / n;
    let in_order = hessian.is_in_order();
    let mut scales = vec![Scales::ZERO; rows * (n / len)];
    if !in_order {
        let mut costs = vec![0.0; n];
        order.iter().zip(&factors.diagonal).for_each(|(&column, &cost)| costs[column] = cost);
        scales.par_chunks_exact_mut(n / len).zip(weights.par_chunks_exact(n)).for_each(|(scales, row)| {
            for ((scales, row), costs) in
                scales.iter_mut().zip(row.chunks_exact(len)).zip(costs.chunks_exact(len))
            {
                *scales = fit(row, costs);
            }
        });
    }
    let mut codes = vec![0u8; rows * n];
    let mut values = vec![0.0f32; rows * n];
    // What a column is to become less what it becomes is `(E (U + I))_k`, E the weights less their values: so the squares,
    // weighed by D, are the loss `tr(E H Eᵀ)`.
    let mut losses = vec![0.0f64; rows];
    sweep(weights, hessian, |columns, wanted, errors| {
        let last = columns.end;
        let per_row = wanted
            .par_chunks_exact_mut(n)
            .zip(weights.par_chunks_exact(n))
            .zip(codes.par_chunks_exact_mut(n))
            .zip(values.par_chunks_exact_mut(n))
            .zip(scales.par_chunks_exact_mut(n / len))
            .zip(errors.par_chunks_exact_mut(BLOCK))
            .zip(&mut losses);
        per_row.with_min_len(8).for_each(
            |((((((wanted, weights), codes), values), scales), errors), loss)| {
                for k in columns.clone() {
                    let column = order[k];
                    let block = column / len;
                    if in_order && k % len == 0 {
                        scales[block] = fit(&wanted[k..k + len], &factors.diagonal[k..k + len]);
                    }
                    let (code, value) = grid.nearest(&scales[block], column % len / grid.part(), wanted[k]);
                    (codes[column], values[column]) = (code, value);
                    *loss += f64::from(factors.diagonal[k]) * f64::from(wanted[k] - value).powi(2);
                    let error = weights[column] - value;
                    errors[k - columns.start] = error;
                    hessian.answer(k, error, &mut wanted[k + 1..last]);
                }
            },
        );
    });
    (Codes { codes, values, scales }, losses.iter().sum())
}

#[cfg(test)]
#[path = "gptq_tests.rs"]
mod tests;
