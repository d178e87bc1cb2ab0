//! Heads and channels by how much they fluctuate (FLAP, arXiv 2312.11983, equations 4 to 6), and the means that answer for them.
//!
//! A column `c` of an output or down matrix `W` is worth `Var[x_c] ‖W[:, c]‖²`, the variance of its input over calibration tokens times the
//! square of its weights; a unit is worth the sum of its columns. An input that is always the same is worth nothing, however
//! large: its part of the result is a constant, `W[:, c] E[x_c]`, which a bias can hold.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ounce_engine::{Tap, Walk};
use ounce_model::Model;

use crate::prune::structured::Scores;
use crate::prune::structured::saliency::add;
use crate::stages::{mode, not_empty};
use crate::{Error, Result};

/// What calibration shows of the inputs of output and down matrices.
#[derive(Debug, Clone, Default)]
pub struct Fluctuation {
    /// The worth of each unit; layers, heads and channels are not in one measure.
    pub scores: Scores,
    /// Mean inputs, by the matrix's name.
    pub means: HashMap<String, Vec<f64>>,
}

/// Sums over the inputs of linear layers by name.
#[derive(Debug, Default)]
struct Sums {
    seen: HashMap<String, (usize, Vec<f64>, Vec<f64>)>,
}

impl Tap for Sums {
    fn observe(&mut self, linears: &[&str], x: &[f32], width: usize) -> bool {
        let entrance =
            |name: &&&str| name.ends_with("attention.output") || name.ends_with("feed_forward.down");
        let Some(name) = linears.iter().find(entrance) else { return false };
        let (tokens, sums, squares) =
            self.seen.entry((*name).to_owned()).or_insert_with(|| (0, vec![0.0; width], vec![0.0; width]));
        *tokens += x.len() / width.max(1);
        for x in x.chunks_exact(width) {
            for ((sum, square), x) in sums.iter_mut().zip(&mut *squares).zip(x) {
                *sum += f64::from(*x);
                *square += f64::from(*x) * f64::from(*x);
            }
        }
        false
    }
}

/// Looks at a model's inputs on sequences of token ids. `progress` is told the layers done and in all.
///
/// # Errors
/// If there is no text, a weight can't be read, or `progress` stops the work.
pub fn fluctuation(
    model: &Model,
    sequences: Vec<Vec<u32>>,
    progress: &mut dyn FnMut(usize, usize) -> Result<()>,
) -> Result<Fluctuation> {
    not_empty(&sequences)?;
    let (spec, weights) = (&model.spec, &model.weights);
    let layers = spec.layers.len();
    let mut walk = Walk::begin(model, sequences, mode())?;
    let sums = Arc::new(Mutex::new(Sums::default()));
    for layer in 0..layers {
        walk.watch(weights, sums.clone(), |_| progress(layer, layers).map_err(Error::into_engine))?;
    }
    let sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
    let mut found = Fluctuation { scores: Scores::zeros(spec, false), means: HashMap::new() };
    for (linear, (tokens, sums, squares)) in &sums.seen {
        let name = format!("{linear}.weight");
        let tokens = (*tokens).max(1) as f64;
        let means: Vec<f64> = sums.iter().map(|sum| sum / tokens).collect();
        let variances: Vec<f64> = squares
            .iter()
            .zip(&means)
            .map(|(square, mean)| (square / tokens - mean * mean).max(0.0))
            .collect();
        let width = means.len();
        let values = weights.f32(&name)?;
        let worth = values.iter().enumerate().map(|(at, w)| f64::from(*w).powi(2) * variances[at % width]);
        add(&mut found.scores, spec, &name, width, worth);
        found.means.insert(name, means);
    }
    progress(layers, layers)?;
    Ok(found)
}

/// The part of a result that columns which leave had on average, `Σ_c W[:, c] E[x_c]`; `kept` columns stay.
pub fn lost_mean(values: &[f32], means: &[f64], kept: &[usize]) -> Vec<f32> {
    let mut gone = means.to_vec();
    kept.iter().for_each(|&column| gone[column] = 0.0);
    let rows = values.chunks_exact(means.len().max(1));
    rows.map(|row| row.iter().zip(&gone).map(|(w, mean)| f64::from(*w) * mean).sum::<f64>() as f32).collect()
}
