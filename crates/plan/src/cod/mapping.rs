//! From the score on the part that can be forecast to the score on everything.
//!
//! A polynomial of degree 8 that never falls, goes through what guessing scores at one end and through 1 at the other: in
//! Bernstein's form with coefficients that only grow. The rises are shares of 1, so both anchors hold by construction, and
//! equal rises are the straight line, to which the fit is drawn where no model is near. (Lower degrees can't follow a score that stays low for long and then rises.)

use ounce_train::laws::minimise::bfgs;
use serde::Serialize;

/// Degree of the polynomial.
const DEGREE: usize = 8;
/// How much a deviation from equal rises costs, against one point's squared error.
const TO_LINE: f64 = 3e-6;
/// The binomial coefficients of the degree.
const BINOMIAL: [f64; DEGREE + 1] = [1.0, 8.0, 28.0, 56.0, 70.0, 56.0, 28.0, 8.0, 1.0];

/// A mapping.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Mapping {
    /// Subset score and full score of guessing.
    pub origin: (f64, f64),
    /// Logarithms of the rises, up to a constant.
    logits: [f64; DEGREE],
    /// Root mean square of the residuals.
    pub residual: f64,
    /// The highest subset score it was fitted to.
    pub highest: f64,
}

impl Mapping {
    /// Fits pairs of subset score and full score; `origin` is what guessing scores on both.
    pub fn fit(pairs: &[(f64, f64)], origin: (f64, f64)) -> Mapping {
        let line = Mapping { origin, logits: [0.0; DEGREE], residual: 0.0, highest: origin.0 };
        line.refit(pairs)
    }

    /// Fits from this mapping on.
    pub fn refit(&self, pairs: &[(f64, f64)]) -> Mapping {
        let squares = |at: &[f64], gradient: &mut [f64]| {
            gradient.fill(0.0);
            let logits: [f64; DEGREE] = std::array::from_fn(|rise| at[rise]);
            let rises = rises(&logits);
            let mut sum = 0.0;
            for &(subset, full) in pairs {
                let tails = tails(self.place(subset));
                let value: f64 = rises.iter().zip(tails).map(|(rise, tail)| rise * tail).sum();
                let scale = 1.0 - self.origin.1;
                let error = self.origin.1 + scale * value - full;
                sum += error * error;
                for ((slope, rise), tail) in gradient.iter_mut().zip(rises).zip(tails) {
                    *slope += 2.0 * error * scale * rise * (tail - value);
                }
            }
            for (slope, logit) in gradient.iter_mut().zip(logits) {
                sum += TO_LINE * logit * logit;
                *slope += 2.0 * TO_LINE * logit;
            }
            sum
        };
        let found = bfgs(&squares, &self.logits, 300);
        let logits = std::array::from_fn(|rise| found.at[rise]);
        let highest = pairs.iter().map(|pair| pair.0).fold(self.origin.0, f64::max);
        let mapping = Mapping { logits, residual: 0.0, highest, ..*self };
        let errors: f64 = pairs.iter().map(|&(subset, full)| (mapping.at(subset) - full).powi(2)).sum();
        Mapping { residual: (errors / pairs.len().max(1) as f64).sqrt(), ..mapping }
    }

    /// The full score that goes with a subset score.
    pub fn at(&self, subset: f64) -> f64 {
        let value: f64 =
            rises(&self.logits).iter().zip(tails(self.place(subset))).map(|(rise, tail)| rise * tail).sum();
        self.origin.1 + (1.0 - self.origin.1) * value
    }

    /// From 0 for guessing to 1.
    fn place(&self, subset: f64) -> f64 {
        ((subset - self.origin.0) / (1.0 - self.origin.0)).clamp(0.0, 1.0)
    }
}

/// Shares of 1.
fn rises(logits: &[f64; DEGREE]) -> [f64; DEGREE] {
    let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let parts = logits.map(|it| (it - most).exp());
    let sum: f64 = parts.iter().sum();
    parts.map(|it| it / sum)
}

/// What each rise adds at a place: the sum of Bernstein's polynomials behind it.
fn tails(place: f64) -> [f64; DEGREE] {
    let term = |k: usize| BINOMIAL[k] * place.powi(k as i32) * (1.0 - place).powi((DEGREE - k) as i32);
    std::array::from_fn(|rise| (rise + 1..=DEGREE).map(term).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_hold_and_it_never_falls() {
        let pairs = [(0.4, 0.30), (0.5, 0.33), (0.6, 0.4), (0.7, 0.5), (0.8, 0.61)];
        let mapping = Mapping::fit(&pairs, (0.25, 0.2));
        assert!((mapping.at(0.25) - 0.2).abs() < 1e-12 && (mapping.at(1.0) - 1.0).abs() < 1e-12);
        let values: Vec<f64> = (0..=100).map(|step| mapping.at(f64::from(step) / 100.0)).collect();
        assert!(values.windows(2).all(|pair| pair[0] <= pair[1] + 1e-12), "{values:?}");
        assert!(mapping.residual < 0.012, "{mapping:?}");
        assert_eq!(mapping.highest, 0.8);
    }

    #[test]
    fn without_models_it_is_the_line() {
        let mapping = Mapping::fit(&[], (0.0, 0.0));
        for place in [0.1, 0.5, 0.9] {
            assert!((mapping.at(place) - place).abs() < 1e-9, "{mapping:?}");
        }
    }
}
