//! Linear least squares by Householder reflections.

use crate::{Error, Result};

/// A fitted linear model.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearFit {
    /// One factor for each column.
    pub coefficients: Vec<f64>,
    /// The factors' standard errors; infinite where there are no more rows than columns.
    pub standard_errors: Vec<f64>,
    /// Sum of squared residuals.
    pub residual: f64,
    /// Share of the variance that is explained; 1 where there is none.
    pub r_squared: f64,
}

/// Finds the `coefficients` that make `rows · coefficients` closest to `values`.
///
/// # Errors
/// If rows differ in length, are fewer than columns, hold no numbers, or columns depend on each other.
pub fn fit(rows: &[Vec<f64>], values: &[f64]) -> Result<LinearFit> {
    let columns = rows.first().map_or(0, Vec::len);
    if columns == 0 || rows.len() != values.len() || rows.iter().any(|row| row.len() != columns) {
        return Err(Error::Fit("a fit needs as many values as rows, and rows of one length".to_string()));
    }
    if rows.len() < columns {
        let what = format!("{} points can't determine {columns} numbers; add points", rows.len());
        return Err(Error::Fit(what));
    }
    if rows.iter().flatten().chain(values).any(|value| !value.is_finite()) {
        return Err(Error::Fit("a point to fit is no finite number".to_string()));
    }
    let mut matrix: Vec<Vec<f64>> = rows.to_vec();
    let mut right = values.to_vec();
    for column in 0..columns {
        reflect(&mut matrix, &mut right, column)?;
    }
    let coefficients = solve_upper(&matrix, &right[..columns]);
    let residual: f64 = right[columns..].iter().map(|value| value * value).sum();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let spread: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let variance = residual / (rows.len() - columns) as f64;
    // Variances are the diagonal of σ² (RᵀR)⁻¹: the squared rows of R⁻¹.
    let mut squares = vec![0.0; columns];
    for unit in 0..columns {
        let mut direction = vec![0.0; columns];
        direction[unit] = 1.0;
        for (sum, value) in squares.iter_mut().zip(solve_upper(&matrix, &direction)) {
            *sum += value * value;
        }
    }
    let exact = rows.len() == columns;
    let error = |square: f64| if exact { f64::INFINITY } else { (variance * square).sqrt() };
    Ok(LinearFit {
        coefficients,
        standard_errors: squares.into_iter().map(error).collect(),
        residual,
        r_squared: if spread > 0.0 { 1.0 - residual / spread } else { 1.0 },
    })
}

/// Zeroes what is below the diagonal in one column.
fn reflect(matrix: &mut [Vec<f64>], right: &mut [f64], column: usize) -> Result<()> {
    let norm = matrix[column..].iter().map(|row| row[column] * row[column]).sum::<f64>().sqrt();
    let size = matrix.iter().map(|row| row[column] * row[column]).sum::<f64>().sqrt();
    if !(norm > 1e-11 * size.max(f64::MIN_POSITIVE)) {
        let what = "the points do not tell the numbers apart; vary sizes and settings independently";
        return Err(Error::Fit(what.to_string()));
    }
    let alpha = -norm.copysign(matrix[column][column]);
    let mut direction: Vec<f64> = matrix[column..].iter().map(|row| row[column]).collect();
    direction[0] -= alpha;
    let length: f64 = direction.iter().map(|value| value * value).sum();
    for other in column..matrix[0].len() {
        let dot: f64 = direction.iter().zip(&matrix[column..]).map(|(v, row)| v * row[other]).sum();
        for (v, row) in direction.iter().zip(&mut matrix[column..]) {
            row[other] -= 2.0 * dot / length * v;
        }
    }
    let dot: f64 = direction.iter().zip(&right[column..]).map(|(v, value)| v * value).sum();
    for (v, value) in direction.iter().zip(&mut right[column..]) {
        *value -= 2.0 * dot / length * v;
    }
    Ok(())
}

/// Solves with the upper triangle of `matrix`.
fn solve_upper(matrix: &[Vec<f64>], right: &[f64]) -> Vec<f64> {
    let mut solution = right.to_vec();
    for row in (0..right.len()).rev() {
        let known: f64 = (row + 1..right.len()).map(|column| matrix[row][column] * solution[column]).sum();
        solution[row] = (solution[row] - known) / matrix[row][row];
    }
    solution
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_with_its_errors() {
        // numpy.polyfit and statsmodels' OLS on the same four points.
        let rows: Vec<Vec<f64>> = [1.0, 2.0, 3.0, 4.0].iter().map(|&x| vec![1.0, x]).collect();
        let line = fit(&rows, &[6.0, 5.0, 7.0, 10.0]).expect("a fit");
        for (found, expected) in line.coefficients.iter().zip([3.5, 1.4]) {
            assert!((found - expected).abs() < 1e-12, "{line:?}");
        }
        assert!((line.residual - 4.2).abs() < 1e-12 && (line.r_squared - 0.7).abs() < 1e-12, "{line:?}");
        for (found, expected) in line.standard_errors.iter().zip([3.15f64.sqrt(), 0.42f64.sqrt()]) {
            assert!((found - expected).abs() < 1e-12, "{line:?}");
        }
    }

    #[test]
    fn what_can_not_be_fitted_is_refused() {
        let same = vec![vec![1.0, 2.0], vec![1.0, 2.0], vec![1.0, 2.0]];
        assert!(fit(&same, &[1.0, 2.0, 3.0]).expect_err("dependent").to_string().contains("vary"));
        assert!(fit(&[vec![1.0, 2.0]], &[1.0]).expect_err("few").to_string().contains("add points"));
        assert!(fit(&[vec![f64::NAN]], &[1.0]).is_err());
        assert!(fit(&[], &[]).is_err());
    }
}
