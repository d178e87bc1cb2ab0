//! The Hadamard transform of a head's dims, which spreads single large dims evenly over all of them.
//!
//! It is orthogonal, so that turned queries and turned keys have the inner products of plain ones, and its own
//! inverse, so that sums of turned values turn back. A row whose largest dim is no longer far from the others loses
//! less when one int8 scale has to cover them all.

use crate::vector::{LANES, dispatch};

/// Transforms each row of `dim` in place, in blocks of the greatest power of two that divides `dim`.
pub(super) fn transform(rows: &mut [f32], dim: usize) {
    #[inline(always)]
    fn run<const FUSED: bool>(rows: &mut [f32], block: usize) {
        let factor = 1.0 / (block as f32).sqrt();
        for row in rows.chunks_exact_mut(block) {
            if block < LANES {
                short(row, factor);
                continue;
            }
            let chunks = row.as_chunks_mut::<LANES>().0;
            for chunk in &mut *chunks {
                *chunk = chunk.map(|x| x * factor);
                within::<1>(chunk);
                within::<2>(chunk);
                within::<4>(chunk);
                within::<8>(chunk);
            }
            let mut half = 1;
            while half < chunks.len() {
                for first in (0..chunks.len()).step_by(2 * half) {
                    for at in first..first + half {
                        let (low, high) = (chunks[at], chunks[at + half]);
                        chunks[at] = std::array::from_fn(|lane| low[lane] + high[lane]);
                        chunks[at + half] = std::array::from_fn(|lane| low[lane] - high[lane]);
                    }
                }
                half *= 2;
            }
        }
    }
    fn dispatched(rows: &mut [f32], block: usize) {
        dispatch!(run(rows: &mut [f32], block: usize))
    }
    if dim > 0 {
        dispatched(rows, 1 << dim.trailing_zeros());
    }
}

/// A row of less than sixteen.
fn short(row: &mut [f32], factor: f32) {
    row.iter_mut().for_each(|x| *x *= factor);
    let mut half = 1;
    while half < row.len() {
        for pair in row.chunks_exact_mut(2 * half) {
            let (low, high) = pair.split_at_mut(half);
            for (low, high) in low.iter_mut().zip(high) {
                (*low, *high) = (*low + *high, *low - *high);
            }
        }
        half *= 2;
    }
}

/// One step inside sixteen lanes: sums and differences of lanes `HALF` apart.
#[inline(always)]
fn within<const HALF: usize>(x: &mut [f32; LANES]) {
    let other: [f32; LANES] = std::array::from_fn(|lane| x[lane ^ HALF]);
    *x = std::array::from_fn(|lane| other[lane] + if lane & HALF == 0 { x[lane] } else { -x[lane] });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_products_with_the_matrix_of_signs() {
        for dim in [1usize, 2, 4, 8, 16, 20, 24, 64, 80, 128] {
            let block = 1usize << dim.trailing_zeros();
            let row: Vec<f32> = (0..dim).map(|i| (i as f32 * 1.3).sin()).collect();
            let mut found = row.clone();
            transform(&mut found, dim);
            for (index, found) in found.iter().enumerate() {
                let (first, row_bits) = (index / block * block, index % block);
                let exact: f64 = (0..block)
                    .map(|column| {
                        let sign = if (row_bits & column).count_ones() % 2 == 0 { 1.0 } else { -1.0 };
                        sign * f64::from(row[first + column]) / (block as f64).sqrt()
                    })
                    .sum();
                assert!((f64::from(*found) - exact).abs() < 1e-6, "{dim} {index}: {found} {exact}");
            }
        }
    }

    #[test]
    fn twice_is_nothing() {
        let rows: Vec<f32> = (0..3 * 48).map(|i| (i as f32 * 0.7).cos() * 3.0).collect();
        let mut turned = rows.clone();
        transform(&mut turned, 48);
        transform(&mut turned, 48);
        assert!(turned.iter().zip(&rows).all(|(a, b)| (a - b).abs() < 2e-6));
    }
}
