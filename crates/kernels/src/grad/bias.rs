//! Biases of rows.

use super::rows::{add_rows, count, split, sum_blocks, values};
use crate::pool::{Pool, SharedOut};
use crate::vector::add;

/// `x += bias` for each row of `x` (`[rows, width]`), as wide as the bias.
///
/// # Panics
/// If `x` is not whole rows.
pub fn add_bias(pool: &Pool, x: &mut [f32], bias: &[f32]) {
    let width = bias.len();
    let rows = count(x.len(), width);
    let x = SharedOut::new(x);
    split(pool, rows, width, |rows| {
        // SAFETY: threads have disjoint rows.
        let x = unsafe { x.part(values(&rows, width)) };
        x.chunks_exact_mut(width).for_each(|row| add(row, bias));
    });
}

/// Gradient of [`add_bias`]: `dbias += Σ dy` over the rows of `dy` (`[rows, width]`).
///
/// # Panics
/// If `dy` is not whole rows or `dbias` not as wide.
pub fn bias_backward(pool: &Pool, dy: &[f32], width: usize, dbias: &mut [f32]) {
    let rows = count(dy.len(), width);
    sum_blocks(pool, rows, width, [Some(dbias)], |rows, sums| add_rows(&dy[values(&rows, width)], sums));
}
