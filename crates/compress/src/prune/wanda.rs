//! Wanda (Sun et al., 2023, "A Simple and Effective Pruning Approach for Large Language Models", arXiv 2306.11695): the score of
//! a weight is `|w_ij| · ‖x_j‖₂` (equation 1), the norm over all calibration tokens. Scores are compared within a row, that is
//! among the weights of one output; nothing else changes.

use super::{Sparsity, remove_lowest};

/// Sets the weights of the lowest scores to zero. `squares` are mean squares of the inputs, one a column: the number of tokens
/// scales all scores alike.
///
/// # Panics
/// If there is not one square a column, or rows are no whole groups.
pub fn prune(weights: &mut [f32], row: usize, squares: &[f32], sparsity: Sparsity) {
    assert!(weights.len().is_multiple_of(row) && squares.len() == row, "whole rows, one square a column");
    let scores: Vec<f32> =
        weights.iter().zip(squares.iter().cycle()).map(|(w, square)| w.abs() * square.sqrt()).collect();
    remove_lowest(weights, &scores, row, sparsity);
}
