//! A linear layer on a weight in its stored format: `y = W x + b` for several vectors at once.
//!
//! Rows of `W` are decoded to f32 one at a time, into a buffer each task keeps, and used for all vectors.
//! Tasks split the rows, so results do not depend on the number of threads.

use ounce_model::{Tensor, Weights};
use rayon::prelude::*;

use crate::arithmetic::Product;
use crate::error::Result;

/// Rows of the weight that one task handles; small enough to share a small layer between threads.
const ROWS_PER_TASK: usize = 16;

/// A weight `[out, in]` with an optional bias `[out]`.
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Tensor,
    bias: Option<Vec<f32>>,
}

impl Linear {
    /// Takes `{name}.weight` and, if the model has it, `{name}.bias`.
    pub(crate) fn load(weights: &Weights, name: &str) -> Result<Linear> {
        let weight = weights.get(&format!("{name}.weight"))?;
        let bias = format!("{name}.bias");
        let bias = if weights.contains(&bias) { Some(weights.f32(&bias)?) } else { None };
        Ok(Linear { weight, bias })
    }

    /// Wraps a weight that is already at hand.
    pub(crate) fn from_tensor(weight: Tensor, bias: Option<Vec<f32>>) -> Linear {
        Linear { weight, bias }
    }

    /// Width of the output.
    pub(crate) fn out_width(&self) -> usize {
        self.weight.rows()
    }

    /// Multiplies `count` vectors, `x` is `[count, in]`; gives `[count, out]`.
    pub(crate) fn forward(&self, x: &[f32], product: Product) -> Vec<f32> {
        let width = self.weight.row_len();
        let rows = self.out_width();
        let count = x.len() / width;
        // Tasks write whole rows of the transposed result, so that no two share memory.
        let mut transposed = vec![0.0f32; rows * count];
        let plain = self.weight.as_f32();
        transposed.par_chunks_mut((ROWS_PER_TASK * count).max(1)).enumerate().for_each_init(
            || vec![0.0f32; if plain.is_some() { 0 } else { width }],
            |buffer, (task, out)| {
                for (index, out) in out.chunks_mut(count.max(1)).enumerate() {
                    let row = task * ROWS_PER_TASK + index;
                    let weights: &[f32] = match plain {
                        Some(plain) => &plain[row * width..(row + 1) * width],
                        None => {
                            self.weight
                                .decode_row(row, buffer)
                                .expect("formats and sizes are checked at load");
                            buffer
                        }
                    };
                    for (x, out) in x.chunks_exact(width).zip(out) {
                        *out = product.dot(weights, x);
                    }
                }
            },
        );
        let mut y = if count == 1 { transposed } else { transpose(&transposed, rows, count) };
        if let Some(bias) = &self.bias {
            for y in y.chunks_exact_mut(rows) {
                y.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias);
            }
        }
        y
    }

    /// Copies row `index`, decoded, into `out`.
    pub(crate) fn row(&self, index: usize, out: &mut [f32]) {
        self.weight.decode_row(index, out).expect("formats and sizes are checked at load");
    }
}

/// `[rows, columns]` to `[columns, rows]`.
fn transpose(x: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    for (column, out) in out.chunks_exact_mut(rows).enumerate() {
        for (row, out) in out.iter_mut().enumerate() {
            *out = x[row * columns + column];
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_vectors_give_what_each_gives_alone() {
        let values: Vec<f32> = (0..40 * 24).map(|i| (i as f32 * 0.11).sin()).collect();
        let linear = Linear::from_tensor(
            Tensor::from_f32(&[40, 24], &values),
            Some((0..40).map(|i| i as f32).collect()),
        );
        let x: Vec<f32> = (0..3 * 24).map(|i| (i as f32 * 0.3).cos()).collect();
        let together = linear.forward(&x, Product::Exact);
        for (index, x) in x.chunks_exact(24).enumerate() {
            let alone = linear.forward(x, Product::Exact);
            assert_eq!(alone, together[index * 40..(index + 1) * 40]);
            let row5: f64 = (0..24).map(|i| f64::from(values[5 * 24 + i]) * f64::from(x[i])).sum();
            assert!((f64::from(alone[5]) - row5 - 5.0).abs() < 1e-5);
        }
    }

    #[test]
    fn one_thread_gives_what_many_give() {
        let values: Vec<f32> = (0..200 * 64).map(|i| (i as f32 * 0.7).sin()).collect();
        let linear = Linear::from_tensor(Tensor::from_f32(&[200, 64], &values), None);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| linear.forward(&values[..5 * 64], Product::Exact))
        };
        assert_eq!(run(1), run(3));
    }
}
