//! Softmax and its logarithm, stable for any finite input.

use crate::vector::{dispatch, exp};

/// Turns scores into probabilities, in place. A score of −∞ becomes 0; if all are −∞, all become 0.
pub fn softmax(scores: &mut [f32]) {
    #[inline(always)]
    fn run<const FUSED: bool>(scores: &mut [f32]) {
        let greatest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if greatest == f32::NEG_INFINITY {
            scores.fill(0.0);
            return;
        }
        for score in scores.iter_mut() {
            *score = exp::<FUSED>(*score - greatest);
        }
        // Sixteen sums of f32 lose nothing that matters over the lengths of a context; the last ones are f64.
        let (chunks, rest) = scores.as_chunks::<16>();
        let mut sums = [0.0f32; 16];
        for chunk in chunks {
            for lane in 0..16 {
                sums[lane] += chunk[lane];
            }
        }
        let sum: f64 = sums.iter().chain(rest).map(|&score| f64::from(score)).sum();
        let scale = (1.0 / sum) as f32;
        scores.iter_mut().for_each(|score| *score *= scale);
    }
    dispatch!(run(scores: &mut [f32]))
}

/// `ln Σ exp(scores)`, natural logarithm, summed in f64.
pub fn log_sum_exp(scores: &[f32]) -> f64 {
    let greatest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if greatest == f32::NEG_INFINITY {
        return f64::NEG_INFINITY;
    }
    let sum: f64 = scores.iter().map(|&score| f64::from(score - greatest).exp()).sum();
    f64::from(greatest) + sum.ln()
}

/// `cap · tanh(score / cap)`, in place.
pub fn softcap(scores: &mut [f32], cap: f32) {
    scores.iter_mut().for_each(|score| *score = cap * (*score / cap).tanh());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one_even_for_huge_scores() {
        let mut scores = [1e30f32, 1e30, f32::NEG_INFINITY, -1e30];
        softmax(&mut scores);
        assert_eq!(scores, [0.5, 0.5, 0.0, 0.0]);
        let mut masked = [f32::NEG_INFINITY; 3];
        softmax(&mut masked);
        assert_eq!(masked, [0.0; 3]);
    }

    #[test]
    fn probabilities_equal_those_in_f64_at_every_length() {
        for length in [1, 2, 15, 16, 17, 100, 1000] {
            let mut scores: Vec<f32> = (0..length).map(|i| (i as f32 * 1.7).sin() * 8.0).collect();
            let sum: f64 = scores.iter().map(|&score| f64::from(score).exp()).sum();
            let exact: Vec<f64> = scores.iter().map(|&score| f64::from(score).exp() / sum).collect();
            softmax(&mut scores);
            for (found, exact) in scores.iter().zip(exact) {
                assert!(
                    (f64::from(*found) - exact).abs() <= 1e-6 * exact + 1e-12,
                    "{length}: {found} for {exact}"
                );
            }
        }
    }

    #[test]
    fn log_sum_exp_is_the_logarithm_of_the_sum() {
        let exact = (1f64.exp() + 2f64.exp() + (-3f64).exp()).ln();
        assert!((log_sum_exp(&[1.0, 2.0, -3.0]) - exact).abs() < 1e-7);
    }
}
