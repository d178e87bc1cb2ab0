//! How the pass rate of a group of equally hard items grows with compute.
//!
//! `y(C) = g + (1 − g) · exp(−a C^−b − c)`: an answer's loss falls as `a C^−b + c`, its probability is the exponential of minus
//! that, and guessing adds `g`. (COD, arXiv 2502.17262, equation 5.)

use ounce_train::laws::minimise::bfgs;
use ounce_train::{Error, Result};
use serde::Serialize;

/// The steepest exponent that is tried; steeper ones are steps, and say nothing about what comes behind them.
const STEEPEST: f64 = 3.0;

/// A fitted curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Curve {
    /// What guessing scores.
    pub chance: f64,
    /// `ln a` with compute counted in units of [`Curve::log_unit`].
    pub log_a: f64,
    /// `b`, above 0.
    pub b: f64,
    /// `c`, 0 or more: what no compute removes.
    pub c: f64,
    /// The compute at which `C` is 1, as a logarithm: the middle of the points.
    pub log_unit: f64,
    /// Root mean square of the residuals.
    pub residual: f64,
}

impl Curve {
    /// Fits points of compute and pass rate by least squares, from many starts.
    ///
    /// # Errors
    /// If there are fewer than three points, or a compute is not above 0.
    pub fn fit(points: &[(f64, f64)], chance: f64) -> Result<Curve> {
        let problem = Problem::new(points, chance)?;
        let mut best: Option<Curve> = None;
        for log_a in [-3.0, -1.0, 0.0, 1.0, 2.0] {
            for b in [0.1, 0.4, 1.2] {
                for root_c in [0.1, 0.6] {
                    let found = problem.search([log_a, logit(b / STEEPEST), root_c]);
                    if best.is_none_or(|it| found.residual < it.residual) && found.residual.is_finite() {
                        best = Some(found);
                    }
                }
            }
        }
        best.ok_or_else(|| Error::Fit("no curve fits these pass rates".to_string()))
    }

    /// Fits from this curve on; for resampled points, where one start is enough.
    ///
    /// # Errors
    /// As [`Curve::fit`].
    pub fn refit(&self, points: &[(f64, f64)]) -> Result<Curve> {
        let problem = Problem::new(points, self.chance)?;
        // Counted from another middle, the same curve has another factor.
        let log_a = self.log_a - self.b * (problem.log_unit - self.log_unit);
        let b = (self.b / STEEPEST).clamp(1e-6, 1.0 - 1e-6);
        Ok(problem.search([log_a, logit(b), self.c.sqrt().max(1e-3)]))
    }

    /// The pass rate at a compute.
    pub fn at(&self, compute: f64) -> f64 {
        let x = compute.ln() - self.log_unit;
        self.chance + (1.0 - self.chance) * (-(self.log_a - self.b * x).exp() - self.c).exp()
    }
}

struct Problem<'p> {
    points: &'p [(f64, f64)],
    chance: f64,
    log_unit: f64,
}

impl<'p> Problem<'p> {
    fn new(points: &'p [(f64, f64)], chance: f64) -> Result<Problem<'p>> {
        if points.len() < 3 {
            let found = points.len();
            return Err(Error::Fit(format!(
                "a curve of three numbers needs three models at least, found {found}"
            )));
        }
        if points.iter().any(|(compute, rate)| !(*compute > 0.0 && compute.is_finite() && rate.is_finite())) {
            return Err(Error::Fit("compute should be above 0, and pass rates numbers".to_string()));
        }
        let log_unit = points.iter().map(|(compute, _)| compute.ln()).sum::<f64>() / points.len() as f64;
        Ok(Problem { points, chance, log_unit })
    }

    /// Down from `[ln a, logit(b / steepest), √c]`.
    fn search(&self, start: [f64; 3]) -> Curve {
        let found = bfgs(&|at, gradient| self.squares(at, gradient), &start, 300);
        Curve {
            chance: self.chance,
            log_a: found.at[0],
            b: STEEPEST * sigmoid(found.at[1]),
            c: found.at[2].powi(2),
            log_unit: self.log_unit,
            residual: (found.value / self.points.len() as f64).sqrt(),
        }
    }

    /// The sum of squares and its gradient.
    fn squares(&self, at: &[f64], gradient: &mut [f64]) -> f64 {
        gradient.fill(0.0);
        let share = sigmoid(at[1]);
        let (b, slope) = (STEEPEST * share, STEEPEST * share * (1.0 - share));
        let mut sum = 0.0;
        for &(compute, rate) in self.points {
            let x = compute.ln() - self.log_unit;
            let term = (at[0] - b * x).min(50.0).exp();
            let part = (1.0 - self.chance) * (-term - at[2] * at[2]).exp();
            let error = self.chance + part - rate;
            sum += error * error;
            let down = -2.0 * error * part;
            gradient[0] += down * term;
            gradient[1] -= down * term * x * slope;
            gradient[2] += down * 2.0 * at[2];
        }
        sum
    }
}

pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn logit(p: f64) -> f64 {
    (p / (1.0 - p)).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_that_made_the_points_is_found() {
        let truth = Curve { chance: 0.25, log_a: 0.3, b: 0.45, c: 0.1, log_unit: 20.0, residual: 0.0 };
        let points: Vec<(f64, f64)> = (0..8)
            .map(|step| f64::exp(17.0 + f64::from(step)))
            .map(|compute| (compute, truth.at(compute)))
            .collect();
        let found = Curve::fit(&points, 0.25).expect("a fit");
        for ahead in [27.0f64, 30.0] {
            let (a, b) = (found.at(ahead.exp()), truth.at(ahead.exp()));
            assert!((a - b).abs() < 2e-3, "{a} against {b}: {found:?}");
        }
        assert!((found.b - 0.45).abs() < 0.02 && (found.c - 0.1).abs() < 0.02, "{found:?}");
        let again = found.refit(&points[1..]).expect("a fit");
        assert!((again.at(1e13) - truth.at(1e13)).abs() < 2e-3, "{again:?}");
    }

    #[test]
    fn the_gradient_is_that_of_the_sum_of_squares() {
        let points = [(10.0, 0.2), (30.0, 0.3), (100.0, 0.7)];
        let problem = Problem::new(&points, 0.1).expect("fits");
        let (at, mut gradient) = ([0.4, -0.7, 0.5], [0.0; 3]);
        problem.squares(&at, &mut gradient);
        for place in 0..3 {
            let mut moved = at;
            let mut ignored = [0.0; 3];
            moved[place] += 1e-6;
            let above = problem.squares(&moved, &mut ignored);
            moved[place] -= 2e-6;
            let below = problem.squares(&moved, &mut ignored);
            let slope = (above - below) / 2e-6;
            assert!((slope - gradient[place]).abs() < 1e-6, "{place}: {slope} against {}", gradient[place]);
        }
    }

    #[test]
    fn too_few_points_are_refused() {
        assert!(Curve::fit(&[(1.0, 0.5), (2.0, 0.6)], 0.0).is_err());
        assert!(Curve::fit(&[(0.0, 0.5), (2.0, 0.6), (3.0, 0.7)], 0.0).is_err());
    }
}
