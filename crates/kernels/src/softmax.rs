//! Softmax and its logarithm, stable for any finite input.

/// Turns scores into probabilities, in place. A score of −∞ becomes 0; if all are −∞, all become 0.
pub fn softmax(scores: &mut [f32]) {
    let greatest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if greatest == f32::NEG_INFINITY {
        scores.fill(0.0);
        return;
    }
    let mut sum = 0.0f64;
    for score in scores.iter_mut() {
        *score = (*score - greatest).exp();
        sum += f64::from(*score);
    }
    let scale = (1.0 / sum) as f32;
    scores.iter_mut().for_each(|score| *score *= scale);
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
    fn log_sum_exp_is_the_logarithm_of_the_sum() {
        let exact = (1f64.exp() + 2f64.exp() + (-3f64).exp()).ln();
        assert!((log_sum_exp(&[1.0, 2.0, -3.0]) - exact).abs() < 1e-7);
    }
}
