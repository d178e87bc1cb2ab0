//! Power laws by least squares of the logarithms.

use super::least_squares;
use crate::{Error, Result};

/// `y = scale · Π x_i^{exponents_i}`.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct PowerLaw {
    /// The factor.
    pub scale: f64,
    /// One exponent for each variable.
    pub exponents: Vec<f64>,
    /// Standard errors: of `ln scale`, then of each exponent.
    pub standard_errors: Vec<f64>,
    /// Share of the variance of `ln y` that is explained.
    pub r_squared: f64,
}

impl PowerLaw {
    /// Fits points `(variables, y)`.
    ///
    /// # Errors
    /// If a value is not above 0, or the points do not determine the law.
    pub fn fit(points: &[(Vec<f64>, f64)]) -> Result<PowerLaw> {
        if points.iter().any(|(xs, y)| xs.iter().chain([y]).any(|&value| !(value > 0.0))) {
            return Err(Error::Fit("a power law holds for values above 0 only".to_string()));
        }
        let row = |xs: &[f64]| [1.0].into_iter().chain(xs.iter().map(|x| x.ln())).collect::<Vec<f64>>();
        let rows: Vec<Vec<f64>> = points.iter().map(|(xs, _)| row(xs)).collect();
        let values: Vec<f64> = points.iter().map(|(_, y)| y.ln()).collect();
        let fit = least_squares::fit(&rows, &values)?;
        Ok(PowerLaw {
            scale: fit.coefficients[0].exp(),
            exponents: fit.coefficients[1..].to_vec(),
            standard_errors: fit.standard_errors,
            r_squared: fit.r_squared,
        })
    }

    /// The law's value.
    pub fn at(&self, variables: &[f64]) -> f64 {
        self.exponents.iter().zip(variables).map(|(exponent, x)| x.powf(*exponent)).product::<f64>()
            * self.scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_law_that_made_the_points_is_found() {
        let law = |n: f64, d: f64| 1.79 * n.powf(-0.713) * d.powf(0.307);
        let mut points = Vec::new();
        for n in [3e4, 1e5, 3e5] {
            for d in [3e5, 1e6, 3e6] {
                points.push((vec![n, d], law(n, d)));
            }
        }
        let found = PowerLaw::fit(&points).expect("a fit");
        assert!((found.scale - 1.79).abs() < 1e-9, "{found:?}");
        assert!((found.exponents[0] + 0.713).abs() < 1e-12 && (found.exponents[1] - 0.307).abs() < 1e-12);
        assert!((found.at(&[1e6, 1e7]) / law(1e6, 1e7) - 1.0).abs() < 1e-9);
        assert!(PowerLaw::fit(&[(vec![0.0], 1.0), (vec![1.0], 1.0)]).is_err());
    }
}
