//! Pairs to be trained from nothing: factors by design.
//!
//! An entry of `B A` is a sum of `r` products, so its deviation is `√r σ_A σ_B`. Both factors are drawn with `σ = √(σ_W / √r)`, which makes
//! that the deviation `σ_W` of the matrix that they stand for: what flows through a layer begins as large as it would have been.

use ounce_train::net::normal;

use super::svd::{Factors, product, share};

/// The deviation of both factors of rank `rank` whose product is to have deviation `of_product`.
pub(super) fn deviation(of_product: f64, rank: usize) -> f64 {
    (of_product / (rank as f64).sqrt()).sqrt()
}

/// A random pair for `w`, `[rows, columns]`, from a stream that hangs on the seed and the name. `lost` is the part of the weights'
/// square, about 2: nothing of them is kept.
///
/// # Errors
/// In one sentence, if a value is no number.
pub(super) fn factors(
    w: &[f32],
    rows: usize,
    columns: usize,
    rank: usize,
    seed: u64,
    name: &str,
) -> Result<Factors, String> {
    let square: f64 = w.iter().map(|x| f64::from(*x).powi(2)).sum();
    if !square.is_finite() {
        return Err("holds values that are no numbers; repair the weights first".to_string());
    }
    let each = deviation((square / w.len().max(1) as f64).sqrt(), rank) as f32;
    let reduce = normal(each, rank * columns, seed, &format!("{name}.reduce"));
    let expand = normal(each, rows * rank, seed, &format!("{name}.expand"));
    let found = product(&expand, &reduce, rows, rank, columns);
    let far = w.iter().zip(&found).map(|(w, x)| f64::from(w - x).powi(2)).sum();
    Ok(Factors { rank, reduce, expand, lost: share(far, square) })
}

#[cfg(test)]
mod tests {
    use super::super::tests::numbers;
    use super::*;

    #[test]
    fn the_product_varies_as_the_matrix_does() {
        for (rows, columns, rank) in [(120, 80, 4), (60, 200, 30)] {
            let w = numbers(rows * columns, 3);
            let found = factors(&w, rows, columns, rank, 7, "a").expect("numbers");
            let spread =
                |x: &[f32]| (x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / x.len() as f64).sqrt();
            let ratio = spread(&product(&found.expand, &found.reduce, rows, rank, columns)) / spread(&w);
            assert!((ratio - 1.0).abs() < 0.15, "{ratio}");
            assert!((found.lost - 2.0).abs() < 0.3, "{}", found.lost);
            assert_eq!(found, factors(&w, rows, columns, rank, 7, "a").expect("numbers"));
            assert_ne!(found, factors(&w, rows, columns, rank, 8, "a").expect("numbers"));
            assert_ne!(found, factors(&w, rows, columns, rank, 7, "b").expect("numbers"));
        }
        assert!(factors(&[f32::NAN; 4], 2, 2, 1, 0, "a").is_err());
    }
}
