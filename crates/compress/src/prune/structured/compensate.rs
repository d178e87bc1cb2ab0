//! What stays answers for what left: the output and down matrices of a cut model, fitted to the whole one's outputs.
//!
//! A matrix `W` whose inputs `P` are cut computes `W_K x_K` in the place of `W x`. The columns that stay become
//! `W_K + W_P H_PK (H_KK + λI)⁻¹` with `H = E[x xᵀ]` on calibration text: the least squares, and what optimal brain
//! surgery gives when several inputs leave at once. Layers are done one behind the other, each on the inputs that the cut ones
//! before it give.

use std::sync::PoisonError;

use ounce_engine::Walk;
use ounce_kernels::quant;
use ounce_model::storage::Bytes;
use ounce_model::{Model, Tensor, Weights};
use rayon::prelude::*;

use super::cut::Cut;
use crate::quantize::factor::factorise;
use crate::quantize::moments::Moments;
use crate::stages::{look, mode, not_empty};
use crate::{Error, Result};

/// What is added to the diagonal of `H`, as a share of its mean.
pub const DAMPING: f32 = 0.01;

/// The whole model's weights with the output and down matrices that the cut model needs; what the cut takes out of them is zero.
/// `progress` is told the layers done and in all.
///
/// # Errors
/// If the cut leaves out channels of the stream, there is no text, a matrix is stored in blocks or can't be read, or `progress` stops the work.
pub fn compensate(
    model: &Model,
    cut: &Cut,
    sequences: Vec<Vec<u32>>,
    progress: &mut dyn FnMut(usize, usize) -> Result<()>,
) -> Result<Weights> {
    not_empty(&sequences)?;
    if cut.stream.is_some() {
        return Err(Error::Option(
            "channels of the stream that leave can't be answered for; leave out the correction".into(),
        ));
    }
    let layers = model.spec.layers.len();
    let mut weights = model.weights.clone();
    // Layers that leave are silent.
    let gone = Cut {
        layers: cut.layers.iter().map(|it| it.as_ref().map(|_| Default::default())).collect(),
        stream: None,
    };
    if gone.layers.iter().any(Option::is_none) {
        weights = gone.masked(model)?;
    }
    let mut walk = Walk::begin(model, sequences, mode())?;
    for layer in 0..layers {
        let mut check = || progress(layer, layers).map_err(Error::into_engine);
        for name in ["attention.output", "feed_forward.down"].map(|it| format!("layers.{layer}.{it}.weight"))
        {
            let kept = cut.keep(&model.spec, &name).and_then(|keep| keep.columns);
            let Some(kept) = kept.filter(|_| weights.contains(&name)) else { continue };
            let seen = look(&mut walk, &weights, std::slice::from_ref(&name), true, &mut check)?;
            let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(moments) = seen.moments(name.trim_end_matches(".weight")) else { continue };
            let stored = weights.get(&name)?;
            if stored.dtype.block_len() > 1 {
                let what = format!("is stored in {}; prune the model before it is quantized", stored.dtype);
                return Err(Error::matrix(name, what));
            }
            let values = stored.to_f32().map_err(|error| Error::matrix(&name, error))?;
            let new = fit(&values, moments, &kept).map_err(|what| Error::matrix(&name, what))?;
            let mut bytes = Vec::new();
            quant::encode_rows(stored.dtype, &new, stored.row_len(), &mut bytes)
                .map_err(|error| Error::matrix(&name, error))?;
            weights.replace(name, Tensor { data: Bytes::from(bytes), ..stored })?;
        }
        walk.advance(&weights, |_| check())?;
    }
    progress(layers, layers)?;
    Ok(weights)
}

/// A matrix `[rows, width]` with zeros in the columns that leave, and in the others what comes nearest to the whole one.
fn fit(values: &[f32], moments: &Moments, kept: &[usize]) -> Result<Vec<f32>, String> {
    let (width, left) = (moments.width, kept.len());
    let h = |row: usize, column: usize| moments.products[row * width + column];
    let mean = kept.iter().map(|&it| f64::from(h(it, it))).sum::<f64>() / left.max(1) as f64;
    if mean <= 0.0 {
        // Nothing that stays was ever used: there is nothing to answer with.
        let mut new = values.to_vec();
        new.chunks_exact_mut(width).for_each(|row| clear(row, kept));
        return Ok(new);
    }
    let damping = DAMPING * mean as f32;
    let mut square = vec![0.0; left * left];
    square.par_chunks_exact_mut(left).zip(kept).enumerate().for_each(|(i, (row, &from))| {
        row.iter_mut().zip(kept).for_each(|(value, &to)| *value = h(from, to));
        row[i] += damping;
    });
    let factors = factorise(&square, left)
        .ok_or("its inputs depend on each other too much; give more calibration text")?;
    let gone: Vec<usize> = {
        let mut stays = vec![false; width];
        kept.iter().for_each(|&it| stays[it] = true);
        (0..width).filter(|&it| !stays[it]).collect()
    };
    let mut new = values.to_vec();
    new.par_chunks_exact_mut(width).for_each(|row| {
        let mut y: Vec<f64> = (kept.iter())
            .map(|&to| gone.iter().map(|&from| f64::from(row[from]) * f64::from(h(from, to))).sum())
            .collect();
        solve(&factors.upper, &factors.diagonal, &mut y);
        kept.iter().zip(&y).for_each(|(&to, y)| row[to] += *y as f32);
        clear(row, kept);
    });
    Ok(new)
}

/// Sets all but these places to zero.
fn clear(row: &mut [f32], kept: &[usize]) {
    let values: Vec<f32> = kept.iter().map(|&it| row[it]).collect();
    row.fill(0.0);
    kept.iter().zip(values).for_each(|(&it, value)| row[it] = value);
}

/// Leaves `H⁻¹ y` in the place of `y`, for `H = (U + I) D (U + I)ᵀ` with a strictly upper `U`, `[n, n]`.
fn solve(upper: &[f32], diagonal: &[f32], y: &mut [f64]) {
    let n = y.len();
    for i in (0..n).rev() {
        let behind: f64 = (i + 1..n).map(|j| f64::from(upper[i * n + j]) * y[j]).sum();
        y[i] -= behind;
    }
    y.iter_mut().zip(diagonal).for_each(|(y, d)| *y /= f64::from(*d));
    for i in 0..n {
        let value = y[i];
        for j in i + 1..n {
            y[j] -= f64::from(upper[i * n + j]) * value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_change_of_the_columns_that_stay_comes_nearer_to_the_whole_output() {
        let (rows, width, tokens) = (3, 6, 40);
        let number = |i: usize| ((i * 2_654_435_761) % 1000) as f32 / 500.0 - 1.0;
        let values: Vec<f32> = (0..rows * width).map(number).collect();
        // Inputs that depend on each other in part.
        let x: Vec<f32> =
            (0..tokens * width).map(|i| number(i + 77) + 0.8 * number(i / width * 3 + 1000)).collect();
        let mut moments = Moments::new(width, true);
        moments.tokens = tokens;
        for x in x.chunks_exact(width) {
            for (i, a) in x.iter().enumerate() {
                for (j, b) in x.iter().enumerate() {
                    moments.products[i * width + j] += a * b;
                }
            }
        }
        let kept = [0, 2, 3];
        let new = fit(&values, &moments, &kept).expect("fitted");
        assert!((0..rows).all(|row| [1, 4, 5].iter().all(|at| new[row * width + at] == 0.0)));
        let trace = (0..3).map(|i| f64::from(moments.products[kept[i] * width + kept[i]])).sum::<f64>() / 3.0;
        // The damped squares that are to be least, row by row.
        let error = |w: &[f32]| -> f64 {
            let outputs = x.chunks_exact(width).map(|x| {
                (0..rows)
                    .map(|row| {
                        let sum: f64 = (0..width)
                            .map(|c| {
                                f64::from(w[row * width + c] - values[row * width + c]) * f64::from(x[c])
                            })
                            .sum();
                        sum * sum
                    })
                    .sum::<f64>()
            });
            let moved = (0..rows).flat_map(|row| kept.iter().map(move |c| row * width + c));
            let damped: f64 = moved.map(|at| f64::from(w[at] - values[at]).powi(2)).sum();
            outputs.sum::<f64>() + f64::from(DAMPING) * trace * damped
        };
        let least = error(&new);
        let mut plain = values.clone();
        plain.chunks_exact_mut(width).for_each(|row| clear(row, &kept));
        assert!(least < 0.9 * error(&plain), "{least} {}", error(&plain));
        for row in 0..rows {
            for c in kept {
                for step in [-1e-2f32, 1e-2] {
                    let mut moved = new.clone();
                    moved[row * width + c] += step;
                    assert!(error(&moved) > least, "{row} {c}");
                }
            }
        }
    }
}
