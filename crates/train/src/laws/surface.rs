//! The best learning rate and batch size of a sweep (step 3 of Step Law, arXiv 2503.04715).
//!
//! The loss is taken as `L* + a (x − x0)² + b (y − y0)² + c (x − x0)(y − y0)` with `x = ln η`, `y = ln B`.

use super::least_squares;
use crate::{Error, Result};

/// One run of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Trial {
    /// Learning rate.
    pub rate: f64,
    /// Tokens in a batch.
    pub batch: f64,
    /// Final loss.
    pub loss: f64,
}

/// The fitted quadratic.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Surface {
    /// The best learning rate; meaningless unless [`Surface::convex`].
    pub rate: f64,
    /// The best batch, tokens.
    pub batch: f64,
    /// The loss there.
    pub loss: f64,
    /// `a`, `b` and `c` of the module's formula.
    pub curvature: [f64; 3],
    /// Whether the quadratic has a minimum.
    pub convex: bool,
    /// Whether the minimum lies outside of the sweep, which should then be extended.
    pub outside: bool,
}

impl Surface {
    /// Fits the trials whose loss is at most `within` above the best; all of them if those are fewer than seven.
    ///
    /// # Errors
    /// If there are fewer than six trials, or they do not vary both settings in at least three values.
    pub fn fit(trials: &[Trial], within: f64) -> Result<Surface> {
        if trials.iter().any(|it| !(it.rate > 0.0 && it.batch > 0.0)) {
            return Err(Error::Fit("learning rates and batches of a sweep should be above 0".to_string()));
        }
        let best = trials.iter().map(|it| it.loss).fold(f64::INFINITY, f64::min);
        let near: Vec<Trial> = trials.iter().copied().filter(|it| it.loss <= best + within).collect();
        let used = if near.len() >= 7 { &near[..] } else { trials };
        let (x_mean, x_scale) = spread(used.iter().map(|it| it.rate.ln()));
        let (y_mean, y_scale) = spread(used.iter().map(|it| it.batch.ln()));
        let row = |trial: &Trial| {
            let (x, y) = ((trial.rate.ln() - x_mean) / x_scale, (trial.batch.ln() - y_mean) / y_scale);
            vec![1.0, x, y, x * x, y * y, x * y]
        };
        let rows: Vec<Vec<f64>> = used.iter().map(row).collect();
        let values: Vec<f64> = used.iter().map(|it| it.loss).collect();
        let [base, gx, gy, a, b, c] = least_squares::fit(&rows, &values)?.coefficients[..] else {
            return Err(Error::Fit("a quadratic has six numbers".to_string()));
        };
        let determinant = 4.0 * a * b - c * c;
        let (x, y) = ((c * gy - 2.0 * b * gx) / determinant, (c * gx - 2.0 * a * gy) / determinant);
        let (rate, batch) = ((x * x_scale + x_mean).exp(), (y * y_scale + y_mean).exp());
        let beyond = |value: f64, all: &dyn Fn(&Trial) -> f64| {
            let (low, high) = range(trials.iter().map(all));
            !(low..=high).contains(&value)
        };
        Ok(Surface {
            rate,
            batch,
            loss: base + 0.5 * (gx * x + gy * y),
            curvature: [a / x_scale.powi(2), b / y_scale.powi(2), c / (x_scale * y_scale)],
            convex: a > 0.0 && determinant > 0.0,
            outside: beyond(rate, &|it| it.rate) || beyond(batch, &|it| it.batch),
        })
    }

    /// The fitted loss.
    pub fn at(&self, rate: f64, batch: f64) -> f64 {
        let [a, b, c] = self.curvature;
        let (x, y) = ((rate / self.rate).ln(), (batch / self.batch).ln());
        self.loss + a * x * x + b * y * y + c * x * y
    }

    /// Learning rates and batches between which a loss of at most `(1 + tolerance) L*` can be had, each with the
    /// other setting chosen well.
    pub fn plateau(&self, tolerance: f64) -> [(f64, f64); 2] {
        let [a, b, c] = self.curvature;
        let room = tolerance * self.loss / (a * b - c * c / 4.0);
        let around = |centre: f64, width: f64| (centre * (-width).exp(), centre * width.exp());
        [around(self.rate, (room * b).sqrt()), around(self.batch, (room * a).sqrt())]
    }
}

/// Mean and standard deviation, the latter 1 where nothing varies.
fn spread(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let values: Vec<f64> = values.collect();
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    let variance = values.iter().map(|it| (it - mean).powi(2)).sum::<f64>() / values.len().max(1) as f64;
    (mean, if variance > 0.0 { variance.sqrt() } else { 1.0 })
}

fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), it| (low.min(it), high.max(it)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweep(loss: impl Fn(f64, f64) -> f64) -> Vec<Trial> {
        let grid = (0..5).flat_map(|i| (0..5).map(move |j| (i, j)));
        grid.map(|(i, j)| {
            let (rate, batch) = (2f64.powf(-10.0 + 0.5 * f64::from(i)), 2f64.powf(11.0 + 0.5 * f64::from(j)));
            Trial { rate, batch, loss: loss(rate.ln(), batch.ln()) }
        })
        .collect()
    }

    #[test]
    fn the_minimum_that_made_the_sweep_is_found() {
        let (x0, y0) = (2f64.powf(-8.8).ln(), 2f64.powf(12.3).ln());
        let bowl = |x: f64, y: f64| {
            3.0 + 0.2 * (x - x0).powi(2) + 0.1 * (y - y0).powi(2) + 0.05 * (x - x0) * (y - y0)
        };
        let found = Surface::fit(&sweep(bowl), f64::INFINITY).expect("a fit");
        assert!((found.rate.ln() - x0).abs() < 1e-9 && (found.batch.ln() - y0).abs() < 1e-9, "{found:?}");
        assert!((found.loss - 3.0).abs() < 1e-12 && found.convex && !found.outside, "{found:?}");
        for (value, expected) in found.curvature.iter().zip([0.2, 0.1, 0.05]) {
            assert!((value - expected).abs() < 1e-9, "{found:?}");
        }
        assert!((found.at(0.01, 3000.0) - bowl(0.01f64.ln(), 3000f64.ln())).abs() < 1e-9);
        // On the plateau's rim the best batch for the extreme rate has just the loss allowed.
        let [(_, rate), _] = found.plateau(0.01);
        let x = (rate / found.rate).ln();
        let batch = found.batch * (-0.05 * x / 0.2).exp();
        assert!((found.at(rate, batch) - 3.03).abs() < 1e-9);
    }

    #[test]
    fn saddles_and_minima_beyond_the_sweep_are_told() {
        let saddle = Surface::fit(&sweep(|x, y| x * x - y * y), f64::INFINITY).expect("a fit");
        assert!(!saddle.convex);
        let away = Surface::fit(&sweep(|x, y| x * x + (y - 20.0).powi(2)), f64::INFINITY).expect("a fit");
        assert!(away.convex && away.outside);
        assert!(Surface::fit(&sweep(|x, _| x)[..5], f64::INFINITY).is_err());
    }
}
