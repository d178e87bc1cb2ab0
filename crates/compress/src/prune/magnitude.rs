//! Magnitude pruning (Han et al., 2015, "Learning both Weights and Connections for Efficient Neural Networks"): the score of a
//! weight is `|w|`. Without groups the whole matrix, `[rows, row]`, has one threshold.

use super::{Sparsity, remove_lowest};

/// Sets the smallest weights of a matrix to zero.
///
/// # Panics
/// If rows are no whole groups.
pub fn prune(weights: &mut [f32], row: usize, sparsity: Sparsity) {
    assert!(weights.len().is_multiple_of(row), "whole rows");
    let scores: Vec<f32> = weights.iter().map(|w| w.abs()).collect();
    let all = weights.len();
    remove_lowest(weights, &scores, all, sparsity);
}
