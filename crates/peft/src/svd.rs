//! Singular values and vectors of a matrix, by the eigenvectors of the smaller of `W Wᵀ` and `Wᵀ W`, in f64.

use ounce_kernels::eigen::{dot, symmetric};

use crate::{Error, Result};

/// `W = Σ sᵢ uᵢ vᵢᵀ`, from the largest value to the least.
#[derive(Debug, Clone)]
pub(crate) struct Svd {
    /// `[k]`, `k` the smaller side.
    pub values: Vec<f64>,
    /// Rows `uᵢ`, `[k, rows]`.
    pub left: Vec<f64>,
    /// Rows `vᵢ`, `[k, columns]`.
    pub right: Vec<f64>,
}

/// Decomposes `w`, `[rows, columns]`. The sign of each pair is fixed: the greatest entry of `uᵢ` is positive.
pub(crate) fn svd(name: &str, w: &[f32], rows: usize, columns: usize) -> Result<Svd> {
    let bad = || Error::Option(format!("{name} holds values that are no numbers; repair the weights first"));
    let wide: Vec<f64> = w.iter().map(|&x| f64::from(x)).collect();
    let tall = rows > columns;
    // Rows of the matrix whose Gram matrix is the smaller one.
    let (own, k, n) =
        if tall { (transposed(&wide, rows, columns), columns, rows) } else { (wide, rows, columns) };
    let mut gram = vec![0.0; k * k];
    for i in 0..k {
        for j in 0..=i {
            let value = dot(&own[i * n..(i + 1) * n], &own[j * n..(j + 1) * n]);
            (gram[i * k + j], gram[j * k + i]) = (value, value);
        }
    }
    let (_, mut short) = symmetric(gram, k).ok_or_else(bad)?;
    let mut values = vec![0.0; k];
    let mut long = vec![0.0; k * n];
    for i in 0..k {
        let (vector, out) = (&mut short[i * k..(i + 1) * k], &mut long[i * n..(i + 1) * n]);
        for (factor, row) in vector.iter().zip(own.chunks_exact(n)) {
            out.iter_mut().zip(row).for_each(|(sum, x)| *sum += factor * x);
        }
        values[i] = dot(out, out).sqrt();
        if values[i] > 0.0 {
            out.iter_mut().for_each(|x| *x /= values[i]);
        }
        let left: &[f64] = if tall { out } else { vector };
        let greatest = left.iter().fold(0.0f64, |best, &x| if x.abs() > best.abs() { x } else { best });
        if greatest < 0.0 {
            vector.iter_mut().chain(out.iter_mut()).for_each(|x| *x = -*x);
        }
    }
    let (left, right) = if tall { (long, short) } else { (short, long) };
    Ok(Svd { values, left, right })
}

fn transposed(w: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    (0..columns).flat_map(|column| (0..rows).map(move |row| w[row * columns + column])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_make_the_matrix_and_vectors_are_orthonormal() {
        for (rows, columns) in [(5, 9), (9, 5), (6, 6)] {
            let w = ounce_train::net::normal(1.0, rows * columns, 3, "w");
            let k = rows.min(columns);
            let Svd { values, left, right } = svd("w", &w, rows, columns).expect("numbers");
            assert!(values.is_sorted_by(|a, b| a >= b));
            for row in 0..rows {
                for column in 0..columns {
                    let sum: f64 =
                        (0..k).map(|i| values[i] * left[i * rows + row] * right[i * columns + column]).sum();
                    assert!((sum - f64::from(w[row * columns + column])).abs() < 1e-9);
                }
            }
            for (side, n) in [(&left, rows), (&right, columns)] {
                for i in 0..k {
                    for j in 0..k {
                        let found = dot(&side[i * n..(i + 1) * n], &side[j * n..(j + 1) * n]);
                        assert!((found - f64::from(u8::from(i == j))).abs() < 1e-9);
                    }
                }
            }
        }
        // Of rank one, and nothing.
        let w: Vec<f32> =
            (0..48 * 64).map(|at| ((at / 64) as f32).sin() * ((at % 64) as f32).cos()).collect();
        let Svd { values, .. } = svd("w", &w, 48, 64).expect("numbers");
        assert!(values[0] > 1.0 && values[1] < 1e-5 * values[0], "{values:?}");
        assert!(svd("w", &[0.0; 12], 3, 4).expect("numbers").values.iter().all(|value| *value == 0.0));
        assert!(svd("w", &[f32::NAN; 4], 2, 2).is_err());
    }
}
