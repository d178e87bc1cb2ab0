//! Pairs to be trained from nothing: factors by design.
//!
//! An entry of `B A` is a sum of `r` products, so its deviation is `√r σ_A σ_B`. Both factors are drawn with `σ = √(σ_W / √r)`, which makes
//! that the deviation `σ_W` of the matrix that they stand for: what flows through a layer begins as large as it would have been.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::svd::{Factors, product, share};

/// The deviation of both factors of rank `rank` whose product is to have deviation `of_product`.
pub(super) fn deviation(of_product: f64, rank: usize) -> f64 {
    (of_product / (rank as f64).sqrt()).sqrt()
}

/// Normally distributed values (Box–Muller).
pub(super) fn normal(random: &mut ChaCha8Rng, deviation: f64, count: usize) -> Vec<f32> {
    let mut one = || {
        let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
        radius * (std::f64::consts::TAU * random.random::<f64>()).cos()
    };
    (0..count).map(|_| (deviation * one()) as f32).collect()
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
    // FNV-1a; only has to differ from name to name.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mut random = ChaCha8Rng::seed_from_u64(seed ^ hash);
    let each = deviation((square / w.len().max(1) as f64).sqrt(), rank);
    let reduce = normal(&mut random, each, rank * columns);
    let expand = normal(&mut random, each, rows * rank);
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
