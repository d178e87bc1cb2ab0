//! SparseGPT (Frantar and Alistarh, 2023, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot", arXiv
//! 2301.00774): columns are gone through as GPTQ does, and what a removed weight did is taken over by the columns to its right.
//!
//! A weight's score is what its removal costs once the later columns have answered, `w² / [H⁻¹]_jj` with the inverse over the
//! columns from j on (equation 5), H the damped mean of `x xᵀ`. With `H = (U + I) D (U + I)ᵀ` that is `w² D_j`, and the answer is
//! the one that rounding gets in [`gptq`](crate::quantize::gptq). Which weights go is decided as late as may be: for groups when
//! their first column is due, else for [`Options::block`] columns at once, over all rows.

use rayon::prelude::*;

use super::{Sparsity, lowest};
use crate::quantize::gptq::{BLOCK, Hessian, sweep};

/// Options of [`prune`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Share of the mean of H's diagonal that is added to the diagonal.
    pub damping: f32,
    /// Columns among which weights are chosen where there are no groups; a multiple of 64.
    pub block: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { damping: 0.01, block: 128 }
    }
}

/// Sets weights, `[rows, n]`, to zero and lets the others answer.
///
/// # Panics
/// If rows are of another width than the Hessian or no whole groups, or the Hessian's columns are not in stored order.
pub fn prune(weights: &mut [f32], hessian: &Hessian, sparsity: Sparsity, options: &Options) {
    let n = hessian.width();
    assert!(
        weights.len().is_multiple_of(n) && hessian.is_in_order(),
        "whole rows, columns as they are stored"
    );
    let step = options.block.next_multiple_of(BLOCK).max(BLOCK);
    let costs = hessian.costs();
    let original = weights.to_vec();
    let mut gone = vec![false; weights.len()];
    sweep(&original, hessian, |columns, wanted, errors| {
        if let (Sparsity::Share(share), true) = (sparsity, columns.start.is_multiple_of(step)) {
            choose(share, columns.start..n.min(columns.start + step), wanted, costs, &mut gone);
        }
        let last = columns.end;
        let per_row = (wanted.par_chunks_exact_mut(n))
            .zip(original.par_chunks_exact(n))
            .zip(gone.par_chunks_exact_mut(n))
            .zip(weights.par_chunks_exact_mut(n))
            .zip(errors.par_chunks_exact_mut(BLOCK));
        per_row.with_min_len(8).for_each(|((((wanted, original), gone), weights), errors)| {
            for k in columns.clone() {
                match sparsity {
                    Sparsity::Groups { keep, of } if k % of == 0 => {
                        let score = |at: usize| wanted[at] * wanted[at] * costs[at];
                        let scores: Vec<f32> = (k..k + of).map(score).collect();
                        lowest(&scores, of - keep).into_iter().for_each(|at| gone[k + at] = true);
                    }
                    _ => {}
                }
                weights[k] = if gone[k] { 0.0 } else { wanted[k] };
                let error = original[k] - weights[k];
                errors[k - columns.start] = error;
                hessian.answer(k, error, &mut wanted[k + 1..last]);
            }
        });
    });
}

/// Marks the weights of the lowest scores among these columns of all rows.
fn choose(share: f64, columns: std::ops::Range<usize>, wanted: &[f32], costs: &[f32], gone: &mut [bool]) {
    let (n, width) = (costs.len(), columns.len());
    let score =
        |row: &[f32]| -> Vec<f32> { columns.clone().map(|at| row[at] * row[at] * costs[at]).collect() };
    let scores: Vec<f32> = wanted.chunks_exact(n).flat_map(score).collect();
    let count = (share * scores.len() as f64) as usize;
    for at in lowest(&scores, count) {
        gone[at / width * n + columns.start + at % width] = true;
    }
}
