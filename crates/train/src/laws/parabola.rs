//! The best value of one setting that was swept alone: `L = L* + a (x − x0)²` with `x` its logarithm.

use super::least_squares;
use crate::{Error, Result};

/// The fitted parabola.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parabola {
    /// The best value; meaningless unless [`Parabola::convex`].
    pub best: f64,
    /// The loss there.
    pub loss: f64,
    /// `a`.
    pub curvature: f64,
    /// Whether it has a minimum.
    pub convex: bool,
    /// Whether the minimum lies outside of the sweep, which should then be extended.
    pub outside: bool,
}

impl Parabola {
    /// Fits points `(value, loss)`, those whose loss is at most `within` above the least if these are four or more.
    ///
    /// # Errors
    /// If a value is not above 0, or fewer than three differ.
    pub fn fit(points: &[(f64, f64)], within: f64) -> Result<Parabola> {
        if points.iter().any(|&(value, _)| !(value > 0.0)) {
            return Err(Error::Fit("values of a sweep should be above 0".to_string()));
        }
        let least = points.iter().map(|point| point.1).fold(f64::INFINITY, f64::min);
        let near: Vec<(f64, f64)> =
            points.iter().copied().filter(|point| point.1 <= least + within).collect();
        let used = if near.len() >= 4 { &near[..] } else { points };
        let middle = used.iter().map(|point| point.0.ln()).sum::<f64>() / used.len().max(1) as f64;
        let row = |point: &(f64, f64)| {
            let x = point.0.ln() - middle;
            vec![1.0, x, x * x]
        };
        let rows: Vec<Vec<f64>> = used.iter().map(row).collect();
        let losses: Vec<f64> = used.iter().map(|point| point.1).collect();
        let [base, slope, a] = least_squares::fit(&rows, &losses)?.coefficients[..] else {
            return Err(Error::Fit("a parabola has three numbers".to_string()));
        };
        let x = -slope / (2.0 * a);
        let best = (x + middle).exp();
        let inside = points.iter().any(|point| point.0 <= best) && points.iter().any(|point| point.0 >= best);
        Ok(Parabola { best, loss: base + 0.5 * slope * x, curvature: a, convex: a > 0.0, outside: !inside })
    }

    /// Between which values a loss of at most `(1 + tolerance) L*` is to be had.
    pub fn plateau(&self, tolerance: f64) -> (f64, f64) {
        let width = (tolerance * self.loss / self.curvature).sqrt();
        (self.best * (-width).exp(), self.best * width.exp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minimum_that_made_the_points_is_found() {
        let x0 = 0.003f64.ln();
        let points: Vec<(f64, f64)> = (0..5)
            .map(|i| 1e-3 * 2f64.powi(i))
            .map(|value| (value, 2.0 + 0.1 * (value.ln() - x0).powi(2)))
            .collect();
        let found = Parabola::fit(&points, f64::INFINITY).expect("a fit");
        assert!((found.best - 0.003).abs() < 1e-12 && (found.loss - 2.0).abs() < 1e-12, "{found:?}");
        assert!((found.curvature - 0.1).abs() < 1e-12 && found.convex && !found.outside);
        let (low, high) = found.plateau(0.01);
        assert!((0.1 * (high.ln() - x0).powi(2) - 0.02).abs() < 1e-12 && low < 0.003);
    }

    #[test]
    fn hills_and_minima_beyond_the_points_are_told() {
        let points = |loss: fn(f64) -> f64| [1.0, 2.0, 4.0].map(|value: f64| (value, loss(value.ln())));
        assert!(!Parabola::fit(&points(|x| -x * x), 9.0).expect("a fit").convex);
        let away = Parabola::fit(&points(|x| (x - 3.0).powi(2)), 9.0).expect("a fit");
        assert!(away.convex && away.outside);
        assert!(Parabola::fit(&points(|x| x)[..2], 9.0).is_err());
        assert!(Parabola::fit(&[(0.0, 1.0)], 9.0).is_err());
    }
}
