//! Semi-nonnegative matrix factorisation: `W ≈ B A` with `A` without negative entries and `B` free.
//!
//! Ding, Li and Jordan, "Convex and Semi-Nonnegative Matrix Factorizations", 2010, section 3.1: `B = W Aᵀ (A Aᵀ)⁻¹` is the best for
//! an `A`; then each entry of `A` is multiplied by `√((P⁺ + Q⁻ A) / (P⁻ + Q⁺ A))` with `P = Bᵀ W` and `Q = Bᵀ B`, their positive and
//! negative parts apart. Neither step makes `‖W − B A‖` greater.

use super::svd::{
    self, Factors, balance, cholesky, product, product_transposed, share, solve_transposed, transposed, wide,
};

/// Rounds of both steps.
pub(super) const ROUNDS: usize = 60;

/// Added to the diagonal of `A Aᵀ`, as a part of its mean.
const RIDGE: f64 = 1e-6;

/// Factorises `w`, `[rows, columns]`. `lost` is the part of the weights' square.
///
/// # Errors
/// In one sentence, if a value is no number.
pub(super) fn factors(
    w: &[f32],
    rows: usize,
    columns: usize,
    rank: usize,
    rounds: usize,
) -> Result<Factors, String> {
    let bad = || "holds values that semi-NMF can't factorise; repair the weights first".to_string();
    // The magnitudes of the best pair, a little lifted: an entry that is zero would stay zero for ever.
    let best = svd::factors(w, rows, columns, rank, None)?;
    let mean = best.reduce.iter().map(|x| x.abs()).sum::<f32>() / best.reduce.len().max(1) as f32;
    let mut reduce: Vec<f32> = best.reduce.iter().map(|x| x.abs() + 0.2 * mean).collect();
    let mut expand = free(w, &reduce, rows, columns, rank).ok_or_else(bad)?;
    for _ in 0..rounds {
        improve(w, &expand, &mut reduce, rows, columns, rank);
        expand = free(w, &reduce, rows, columns, rank).ok_or_else(bad)?;
    }
    balance(&mut reduce, &mut expand, rank, rows, columns);
    let error = product(&expand, &reduce, rows, rank, columns);
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>();
    let far = square(&mut w.iter().zip(&error).map(|(w, x)| f64::from(w - x)));
    let lost = share(far, square(&mut w.iter().map(|w| f64::from(*w))));
    match reduce.iter().chain(&expand).all(|x| x.is_finite()) {
        true => Ok(Factors { rank, reduce, expand, lost }),
        false => Err(bad()),
    }
}

/// The best `B` for an `A`; none if a value is no number.
fn free(w: &[f32], reduce: &[f32], rows: usize, columns: usize, rank: usize) -> Option<Vec<f32>> {
    let mut gram = wide(&product_transposed(reduce, reduce, rank, columns, rank));
    let mean = (0..rank).map(|i| gram[i * rank + i]).sum::<f64>() / rank as f64;
    (0..rank).for_each(|i| gram[i * rank + i] += RIDGE * mean + f64::MIN_POSITIVE);
    let l = cholesky(gram, rank)?;
    let right = product_transposed(w, reduce, rows, columns, rank);
    let solved = right.chunks_exact(rank).flat_map(|row| {
        let mut x = wide(row);
        for i in 0..rank {
            let before: f64 = l[i * rank..i * rank + i].iter().zip(&x).map(|(l, x)| l * x).sum();
            x[i] = (x[i] - before) / l[i * rank + i];
        }
        solve_transposed(&l, &x, rank)
    });
    Some(solved.map(|x| x as f32).collect())
}

/// One step of `A`.
fn improve(w: &[f32], expand: &[f32], reduce: &mut [f32], rows: usize, columns: usize, rank: usize) {
    let turned = transposed(expand, rows, rank);
    let p = product(&turned, w, rank, rows, columns);
    let q = product_transposed(&turned, &turned, rank, rows, rank);
    let parts: [Vec<f32>; 2] = [1.0f32, -1.0].map(|sign| q.iter().map(|x| (sign * x).max(0.0)).collect());
    let [above, below] = parts.map(|part| product(&part, reduce, rank, rank, columns));
    for (at, x) in reduce.iter_mut().enumerate() {
        let up = p[at].max(0.0) + below[at];
        let down = (-p[at]).max(0.0) + above[at];
        *x *= (up / down.max(f32::MIN_POSITIVE)).sqrt().min(1e3);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::numbers;
    use super::*;

    #[test]
    fn one_factor_has_no_negative_entries_and_the_error_falls_toward_the_best() {
        for (rows, columns) in [(12, 20), (20, 12)] {
            let w = numbers(rows * columns, 5);
            let best = svd::factors(&w, rows, columns, 4, None).expect("numbers").lost;
            let lost = [0, 1, 5, 20, 60].map(|rounds| {
                let found = factors(&w, rows, columns, 4, rounds).expect("numbers");
                assert!(found.reduce.iter().all(|x| *x >= 0.0));
                // By hand, entry by entry.
                let far: f64 = (0..rows * columns)
                    .map(|at| {
                        let (row, column) = (at / columns, at % columns);
                        let sum: f32 = (0..4)
                            .map(|k| found.expand[row * 4 + k] * found.reduce[k * columns + column])
                            .sum();
                        f64::from(w[at] - sum).powi(2)
                    })
                    .sum();
                let all: f64 = w.iter().map(|w| f64::from(*w).powi(2)).sum();
                assert!((far / all - found.lost).abs() < 1e-5, "{far} {all} {}", found.lost);
                found.lost
            });
            assert!(lost.windows(2).all(|pair| pair[1] < pair[0] + 1e-6), "{lost:?}");
            assert!(lost[4] < 0.8 * lost[0] && lost[4] >= best - 1e-6, "{lost:?} {best}");
        }
    }

    #[test]
    fn a_matrix_that_has_such_factors_is_found() {
        let (rows, columns) = (30, 24);
        let b = numbers(rows * 3, 1);
        let a: Vec<f32> = numbers(3 * columns, 2).iter().map(|x| x.abs()).collect();
        let w = product(&b, &a, rows, 3, columns);
        let found = factors(&w, rows, columns, 3, 400).expect("numbers");
        assert!(found.lost < 5e-3, "{}", found.lost);
        assert!(factors(&[f32::NAN; 4], 2, 2, 1, 3).is_err());
    }
}
