//! From loss to score: `S = c / (1 + exp(−γ (L − l))) + d` with `γ < 0`, and back. (arXiv 2412.04315, equation 4.)

use ounce_train::laws::minimise::bfgs;
use ounce_train::{Error, Result};
use serde::Serialize;

/// Pairs from which on the height is fitted; of fewer the curve ends at 1.
const FOR_HEIGHT: usize = 8;

/// The curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Sigmoid {
    /// `γ`, below 0.
    pub slope: f64,
    /// `l`: the loss in its middle.
    pub middle: f64,
    /// `c`.
    pub height: f64,
    /// `d`: what guessing scores.
    pub floor: f64,
    /// Root mean square of the residuals.
    pub residual: f64,
}

impl Sigmoid {
    /// Fits pairs of loss and score; guessing scores `floor`.
    ///
    /// # Errors
    /// If there are fewer than three pairs, a number is none, or the floor is not from 0 to below 1.
    pub fn fit(pairs: &[(f64, f64)], floor: f64) -> Result<Sigmoid> {
        if pairs.len() < 3 || pairs.iter().any(|(loss, score)| !(loss.is_finite() && score.is_finite())) {
            let found = pairs.len();
            return Err(Error::Fit(format!(
                "from loss to score it takes three models at least whose both are known, found {found}"
            )));
        }
        if !(0.0..1.0).contains(&floor) {
            return Err(Error::Fit(format!(
                "what guessing scores should be from 0 to below 1, found {floor}"
            )));
        }
        let count = pairs.len() as f64;
        let mean = pairs.iter().map(|pair| pair.0).sum::<f64>() / count;
        let spread = (pairs.iter().map(|pair| (pair.0 - mean).powi(2)).sum::<f64>() / count).sqrt().max(1e-6);
        let mut best: Option<Sigmoid> = None;
        for slope in [0.3, 1.0, 3.0] {
            for middle in [-1.0, 0.0, 1.0] {
                let start = [f64::ln(slope / spread), mean + middle * spread, 4.0];
                let found = search(pairs, floor, start);
                if found.residual.is_finite() && best.is_none_or(|it| found.residual < it.residual) {
                    best = Some(found);
                }
            }
        }
        best.ok_or_else(|| Error::Fit("no curve leads from these losses to these scores".to_string()))
    }

    /// The score at a loss.
    pub fn at(&self, loss: f64) -> f64 {
        self.height / (1.0 + (-self.slope * (loss - self.middle)).exp()) + self.floor
    }

    /// The loss at a score; none at or below guessing, and at or above what the curve can reach.
    pub fn loss(&self, score: f64) -> Option<f64> {
        let own = score - self.floor;
        (own > 0.0 && own < self.height).then(|| self.middle - (self.height / own - 1.0).ln() / self.slope)
    }
}

fn search(pairs: &[(f64, f64)], floor: f64, start: [f64; 3]) -> Sigmoid {
    let free = pairs.len() >= FOR_HEIGHT;
    // The height is a share of what is above the floor.
    let height = |at: f64| (1.0 - floor) * if free { 1.0 / (1.0 + (-at).exp()) } else { 1.0 };
    let squares = |at: &[f64], gradient: &mut [f64]| {
        gradient.fill(0.0);
        let (steep, c) = (at[0].exp(), height(at[2]));
        let mut sum = 0.0;
        for &(loss, score) in pairs {
            let share = 1.0 / (1.0 + (steep * (loss - at[1])).exp());
            let error = c * share + floor - score;
            sum += error * error;
            let down = 2.0 * error * c * share * (1.0 - share);
            gradient[0] -= down * (loss - at[1]) * steep;
            gradient[1] += down * steep;
            if free {
                gradient[2] += 2.0 * error * share * c * (1.0 - c / (1.0 - floor));
            }
        }
        sum
    };
    let found = bfgs(&squares, &start, 500);
    Sigmoid {
        slope: -found.at[0].exp(),
        middle: found.at[1],
        height: height(found.at[2]),
        floor,
        residual: (found.value / pairs.len() as f64).sqrt(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_that_made_the_scores_is_found_and_inverted() {
        let truth = Sigmoid { slope: -6.0, middle: 0.8, height: 0.7, floor: 0.25, residual: 0.0 };
        let pairs: Vec<(f64, f64)> =
            (0..10).map(|at| 0.4 + 0.1 * f64::from(at)).map(|loss| (loss, truth.at(loss))).collect();
        let found = Sigmoid::fit(&pairs, 0.25).expect("a fit");
        assert!((found.slope + 6.0).abs() < 1e-3 && (found.middle - 0.8).abs() < 1e-4, "{found:?}");
        assert!((found.height - 0.7).abs() < 1e-3, "{found:?}");
        let back = found.loss(found.at(0.9)).expect("within");
        assert!((back - 0.9).abs() < 1e-9);
        assert_eq!((found.loss(0.25), found.loss(0.96)), (None, None));
        // Of few pairs the height is taken as known.
        assert_eq!(Sigmoid::fit(&pairs[..5], 0.25).expect("a fit").height, 0.75);
        assert!(Sigmoid::fit(&pairs[..2], 0.25).is_err());
    }
}
