//! How far a fit depends on which runs it saw: the fit of many samples drawn with replacement.

use ounce_eval::stats::quantile_of_sorted;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Where a fitted number lies in most samples.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// Half of the samples are below.
    pub median: f64,
    /// The upper end.
    pub high: f64,
}

/// Fits `samples` resamples of `points` and gives, for each fitted number, the interval that holds `confidence` of
/// them. Samples that can't be fitted are left out; none is given if these are more than half.
pub fn intervals<P: Clone>(
    points: &[P],
    samples: usize,
    confidence: f64,
    seed: u64,
    fit: impl Fn(&[P]) -> Option<Vec<f64>>,
) -> Option<Vec<Interval>> {
    if points.is_empty() {
        return None;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut fits: Vec<Vec<f64>> = Vec::with_capacity(samples);
    for _ in 0..samples {
        let sample: Vec<P> =
            (0..points.len()).map(|_| points[rng.random_range(0..points.len())].clone()).collect();
        fits.extend(fit(&sample).filter(|numbers| numbers.iter().all(|it| it.is_finite())));
    }
    if fits.is_empty() || fits.len() * 2 < samples {
        return None;
    }
    let tail = (1.0 - confidence) / 2.0;
    let interval = |number: usize| {
        let mut values: Vec<f64> = fits.iter().map(|fit| fit[number]).collect();
        values.sort_by(f64::total_cmp);
        Interval {
            low: quantile_of_sorted(&values, tail),
            median: quantile_of_sorted(&values, 0.5),
            high: quantile_of_sorted(&values, 1.0 - tail),
        }
    };
    Some((0..fits[0].len()).map(interval).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_a_mean_is_about_its_standard_error() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let points: Vec<f64> = (0..400).map(|_| rng.random_range(-1.0..1.0)).collect();
        let mean = |sample: &[f64]| Some(vec![sample.iter().sum::<f64>() / sample.len() as f64]);
        let found = intervals(&points, 1000, 0.95, 7, mean).expect("intervals")[0];
        let expected = 2.0 * 1.96 * (1.0f64 / 3.0 / 400.0).sqrt();
        assert!(((found.high - found.low) / expected - 1.0).abs() < 0.1, "{found:?}");
        assert!(found.low < found.median && found.median < found.high);
        assert_eq!(intervals(&points, 1000, 0.95, 7, mean).expect("again")[0], found);
    }

    #[test]
    fn samples_without_a_fit_are_counted() {
        assert!(intervals(&[1.0], 10, 0.9, 0, |_| None).is_none());
        assert!(intervals::<f64>(&[], 10, 0.9, 0, |_| Some(vec![1.0])).is_none());
    }
}
