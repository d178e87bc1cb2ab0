//! What each unit's rounding costs the whole model: the table by which bits are given out.
//!
//! As MixDQ measures sensitivity, one unit is quantized at a time and the model's output is looked at, not the layer's: the
//! KL divergence of its predictions from the original's. One coarse format a unit is measured so; near the original KL grows
//! with the square of the change, so that the other formats' costs follow from their errors, weighted by the squares of the
//! unit's inputs: `KL(t) = KL(probe) · error(t) / error(probe)`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ounce_engine::{Engine, Mode, Walk};
use ounce_eval::divergence::Reference;
use ounce_kernels::quant::grid;
use ounce_kernels::{DType, quant};
use ounce_model::{Model, Tensor};
use serde::Serialize;

use super::moments::{Collector, Moments};
use super::plan::Unit;
use crate::{Error, Result};

/// A unit's row of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Sensitivity {
    /// Its name in a GGUF file.
    pub unit: String,
    /// The format that was measured.
    #[serde(skip)]
    pub probe: DType,
    /// Mean KL to the original in nats a token with only this unit in that format.
    pub kl: f64,
    /// Of every candidate the expected KL.
    #[serde(skip)]
    pub costs: Vec<(DType, f64)>,
}

/// Mean squares of the inputs of all linear layers, by matrix name: one run of the model on calibration text.
///
/// # Errors
/// If the model can't be run on it, or `progress` stops the work; it is told layers done and in all.
pub fn importance(
    model: &Model,
    calibration: Vec<Vec<u32>>,
    progress: impl FnMut(usize, usize) -> Result<()>,
) -> Result<HashMap<String, Vec<f32>>> {
    Ok(observed(model, calibration, progress)?.into_iter().map(|(name, (means, _))| (name, means)).collect())
}

/// As [`importance()`], with the number of tokens that each matrix saw: an expert sees those that are sent to it.
///
/// # Errors
/// As [`importance()`].
pub fn observed(
    model: &Model,
    calibration: Vec<Vec<u32>>,
    mut progress: impl FnMut(usize, usize) -> Result<()>,
) -> Result<HashMap<String, (Vec<f32>, usize)>> {
    let collector = Arc::new(Mutex::new(Collector::new(false)));
    let mut walk = Walk::begin(model, calibration, Mode::fast())?;
    let layers = model.spec.layers.len();
    for layer in 0..layers {
        progress(layer, layers)?;
        walk.watch(&model.weights, collector.clone(), |_| Ok(()))?;
    }
    if model.spec.head.is_some() {
        walk.look_at_head(collector.clone())?;
    }
    let collector = collector.lock().unwrap_or_else(PoisonError::into_inner);
    let both = |moments: &Moments| (moments.importance(), moments.tokens);
    Ok(collector.all().map(|(name, moments)| (format!("{name}.weight"), both(moments))).collect())
}

/// Measures the units. `candidates` gives each unit's formats, the coarsest first; `importance` is of [`importance()`].
///
/// # Errors
/// If a weight can't be read or the model can't be run, or `progress` stops the work; it is told units done and in all.
pub fn measure(
    model: &Model,
    units: &[(Unit, Vec<DType>)],
    importance: &HashMap<String, Vec<f32>>,
    reference: &Reference,
    mut progress: impl FnMut(usize, usize) -> Result<()>,
) -> Result<Vec<Sensitivity>> {
    let mut table = Vec::new();
    for (index, (unit, candidates)) in units.iter().enumerate() {
        progress(index, units.len())?;
        let Some(&probe) = candidates.first() else { continue };
        let mut errors = vec![0.0; candidates.len()];
        let mut replaced = Vec::new();
        for matrix in &unit.matrices {
            let tensor = model.weights.get(matrix)?;
            let values = tensor.to_f32().map_err(|error| Error::matrix(matrix, error))?;
            let weights = importance.get(matrix).map_or(&[][..], Vec::as_slice);
            for (candidate, error) in candidates.iter().zip(&mut errors) {
                let stored = rounded(&values, *candidate, tensor.row_len(), weights)
                    .map_err(|error| Error::matrix(matrix, error))?;
                *error += weighted_error(&values, &stored, weights);
                if *candidate == probe {
                    replaced.push((matrix.clone(), Tensor::from_f32(&tensor.shape, &stored)));
                }
            }
        }
        let changed = Model { weights: model.weights.replaced(replaced)?, ..model.clone() };
        let engine = Engine::load(&changed, Mode::fast())?;
        let kl = reference.compare(&engine, |_, _| Ok(()))?.mean_kl.value.max(f64::MIN_POSITIVE);
        let costs = candidates.iter().zip(&errors).map(|(&candidate, error)| {
            (candidate, if errors[0] > 0.0 { kl * error / errors[0] } else { 0.0 })
        });
        table.push(Sensitivity { unit: unit.name.clone(), probe, kl, costs: costs.collect() });
    }
    Ok(table)
}

/// The values as a format stores them.
fn rounded(
    values: &[f32],
    dtype: DType,
    row: usize,
    importance: &[f32],
) -> Result<Vec<f32>, quant::QuantError> {
    let mut bytes = Vec::new();
    grid::encode_weighted(dtype, values, row, importance, &mut bytes)?;
    let mut stored = vec![0.0; values.len()];
    quant::decode_rows(dtype, &bytes, row, &mut stored)?;
    Ok(stored)
}

fn weighted_error(values: &[f32], stored: &[f32], importance: &[f32]) -> f64 {
    let squares = values.iter().zip(stored).map(|(x, y)| f64::from(x - y).powi(2));
    match importance {
        [] => squares.sum(),
        importance => squares.zip(importance.iter().cycle()).map(|(square, w)| square * f64::from(*w)).sum(),
    }
}
