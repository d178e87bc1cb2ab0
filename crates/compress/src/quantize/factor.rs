//! The factorisation that error feedback needs, `H = (U + I) D (U + I)ᵀ` with U strictly upper triangular.
//!
//! It is an ordinary Cholesky factorisation of H read backwards, so that column k's feedback comes from the columns
//! before it: blocked, the trailing updates as matrix products in f32, the blocks on the diagonal in f64.

use ounce_kernels::gemm::{Compute, Operand, Workspace, gemm};
use ounce_kernels::pool::Pool;
use rayon::prelude::*;

/// Columns that are eliminated together.
const BLOCK: usize = 96;

/// `H = (U + I) D (U + I)ᵀ`.
#[derive(Debug)]
pub(crate) struct Factors {
    /// `[n, n]`: row k' holds what column k' feeds to the columns behind it; zero on and below the diagonal.
    pub upper: Vec<f32>,
    /// `[n]`: what an error of one in column k costs when all behind it may still answer.
    pub diagonal: Vec<f32>,
}

/// Factorises the symmetric positive definite `h`, `[n, n]`; none if it is not positive definite in f32.
pub(crate) fn factorise(h: &[f32], n: usize) -> Option<Factors> {
    assert_eq!(h.len(), n * n, "a square matrix");
    let mut a = vec![0.0f32; n * n];
    a.par_chunks_exact_mut(n).enumerate().for_each(|(i, row)| {
        for (j, value) in row[..=i].iter_mut().enumerate() {
            *value = h[(n - 1 - i) * n + (n - 1 - j)];
        }
    });
    cholesky(&mut a, n)?;
    // C = L √D, read backwards: U[k', k] = L[n-1-k'][n-1-k].
    let diagonal: Vec<f32> = (0..n).map(|k| a[(n - 1 - k) * n + (n - 1 - k)].powi(2)).collect();
    let mut upper = vec![0.0f32; n * n];
    upper.par_chunks_exact_mut(n).enumerate().for_each(|(from, row)| {
        let source = &a[(n - 1 - from) * n..][..n];
        for (to, value) in row.iter_mut().enumerate().skip(from + 1) {
            let at = n - 1 - to;
            *value = source[at] / a[at * n + at];
        }
    });
    Some(Factors { upper, diagonal })
}

/// Cholesky factorisation in place, of and into the lower triangle.
fn cholesky(a: &mut [f32], n: usize) -> Option<()> {
    let mut workspace = Workspace::default();
    let mut panel = Vec::new();
    let mut first = 0;
    while first < n {
        let last = n.min(first + BLOCK);
        let width = last - first;
        let block = diagonal_block(a, n, first, last)?;
        if last == n {
            break;
        }
        let (_, below) = a.split_at_mut(last * n);
        below.par_chunks_exact_mut(n).for_each(|row| {
            let row = &mut row[first..last];
            for j in 0..width {
                let mut sum = f64::from(row[j]);
                for k in 0..j {
                    sum -= f64::from(row[k]) * block[j * width + k];
                }
                row[j] = (sum / block[j * width + j]) as f32;
            }
        });
        // The rows below less the products of the panel with itself, a strip of columns at a time.
        let rows = n - last;
        panel.clear();
        below.chunks_exact(n).for_each(|row| panel.extend(row[first..last].iter().map(|x| -x)));
        for strip in (0..rows).step_by(4 * BLOCK) {
            let columns = (rows - strip).min(4 * BLOCK);
            let negative = Operand::rows(&panel[strip * width..], width);
            // The panel again, transposed, with its sign undone by a second negation of the result: A −= P Pᵀ.
            let transposed: Vec<f32> = panel[strip * width..][..columns * width].iter().map(|x| -x).collect();
            let transposed = Operand::columns(&transposed, width);
            let out = &mut below[strip * n + last + strip..];
            let size = (rows - strip, columns, width);
            gemm(Pool::global(), Compute::F32, size, negative, transposed, true, out, n, &mut workspace);
        }
        first = last;
    }
    Some(())
}

/// Factorises a block on the diagonal in f64, stores it rounded and gives it.
fn diagonal_block(a: &mut [f32], n: usize, first: usize, last: usize) -> Option<Vec<f64>> {
    let width = last - first;
    let mut block = vec![0.0f64; width * width];
    for i in 0..width {
        for j in 0..=i {
            let mut sum = f64::from(a[(first + i) * n + first + j]);
            for k in 0..j {
                sum -= block[i * width + k] * block[j * width + k];
            }
            block[i * width + j] = if i == j {
                if !(sum > 0.0) || !sum.is_finite() {
                    return None;
                }
                sum.sqrt()
            } else {
                sum / block[j * width + j]
            };
            a[(first + i) * n + first + j] = block[i * width + j] as f32;
        }
    }
    Some(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_multiply_back() {
        for n in [1, 7, 96, 97, 500] {
            let samples = 2 * n + 3;
            let x: Vec<f32> = (0..samples * n).map(|i| ((i * i + 3 * i) as f32 * 0.137).sin()).collect();
            let mut h = vec![0.0f32; n * n];
            for row in x.chunks_exact(n) {
                for i in 0..n {
                    for j in 0..n {
                        h[i * n + j] += row[i] * row[j] / samples as f32;
                    }
                }
            }
            (0..n).for_each(|i| h[i * n + i] += 0.05);
            let Factors { upper, diagonal } = factorise(&h, n).expect("positive definite");
            let u = |i: usize, j: usize| if i == j { 1.0 } else { f64::from(upper[i * n + j]) };
            for i in 0..n {
                for j in (0..n).step_by(1 + n / 40) {
                    let sum: f64 = (i.max(j)..n).map(|k| u(i, k) * f64::from(diagonal[k]) * u(j, k)).sum();
                    assert!((sum - f64::from(h[i * n + j])).abs() < 1e-4, "{n}: {i} {j}: {sum}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_positive_definite_is_refused() {
        assert!(factorise(&[1.0, 2.0, 2.0, 1.0], 2).is_none());
        assert!(factorise(&[f32::NAN], 1).is_none());
    }
}
