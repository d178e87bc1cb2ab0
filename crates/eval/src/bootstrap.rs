//! Intervals of values by drawing what was measured again, with replacement (Efron's bootstrap, percentile intervals).

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

/// Samples of a bootstrap.
pub const SAMPLES: usize = 1000;

/// A value with the range that holds 95 % of its bootstrap samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// The value.
    pub value: f64,
    /// The range's lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// A value with its samples' 2.5 and 97.5 percentiles.
pub fn interval(value: f64, samples: &[f64]) -> Interval {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = (share * sorted.len().saturating_sub(1) as f64).round() as usize;
        sorted.get(place).copied().unwrap_or(value)
    };
    Interval { value, low: at(0.025), high: at(0.975) }
}

/// Something of each bootstrap sample of `count` things, given by their places. The same seed draws the same samples, so
/// that two models can be compared thing by thing.
pub fn resampled<T>(count: usize, seed: u64, mut of: impl FnMut(&[usize]) -> T) -> Vec<T> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut drawn = vec![0; count];
    (0..if count == 0 { 0 } else { SAMPLES })
        .map(|_| {
            drawn.iter_mut().for_each(|place| *place = random.random_range(0..count));
            of(&drawn)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_a_mean_is_as_wide_as_its_error() {
        let values: Vec<f64> = (0..400).map(|at| f64::from(u8::from(at % 4 == 0))).collect();
        let mean = |drawn: &[usize]| drawn.iter().map(|&at| values[at]).sum::<f64>() / drawn.len() as f64;
        let found = interval(0.25, &resampled(values.len(), 7, mean));
        // 1.96 standard errors of 0.0217 to each side.
        assert!((found.low - 0.2075).abs() < 0.01 && (found.high - 0.2925).abs() < 0.01, "{found:?}");
        assert_eq!(resampled(9, 3, <[usize]>::to_vec), resampled(9, 3, <[usize]>::to_vec));
        assert!(resampled(0, 3, |_| 1).is_empty());
    }
}
