//! What an adapter learned, as part of its base: `W + ΔW` in the format in which the base stores `W`.

use ounce_kernels::{DType, quant};
use ounce_model::storage::Bytes;
use ounce_model::{Model, Tensor};
use ounce_train::net::Options;
use serde::Serialize;

use crate::folder::Folder;
use crate::net::Adapted;
use crate::{Error, Result};

/// What merging came to.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Merged {
    /// Weights that became others.
    pub matrices: usize,
    /// How far they moved: `‖ΔW‖ / ‖W‖` over all of them.
    pub moved: f64,
    /// The part of what was learned that the base's formats can't hold: `‖stored − (W + ΔW)‖² / ‖ΔW‖²`.
    pub lost: f64,
}

/// Merges the adapter of a folder into a model. Matrices keep the format in which the base has them, or become `format`.
///
/// # Errors
/// If the adapter is of another model, can't be merged, or a format can't be written.
pub fn merge(
    model: &Model,
    folder: &Folder,
    format: Option<DType>,
    any_base: bool,
) -> Result<(Model, Merged)> {
    merge_adapted(&Adapted::open(model, folder, Options::default(), &[], any_base)?, format)
}

/// [`merge`] of an adapted model.
///
/// # Errors
/// As there.
pub fn merge_adapted(adapted: &Adapted, format: Option<DType>) -> Result<(Model, Merged)> {
    let whole = adapted.merged()?;
    let base = adapted.skeleton();
    let mut tensors = Vec::new();
    let (mut merged, mut was, mut moved, mut lost) = (Merged::default(), 0.0, 0.0, 0.0);
    for info in base.spec.tensors() {
        let old = base.weights.get(&info.name)?;
        if !adapted.changes(&info.name) {
            tensors.push((info.name, old));
            continue;
        }
        let unreadable = |error: quant::QuantError| Error::Option(format!("{}: {error}", info.name));
        let before = old.to_f32().map_err(unreadable)?;
        let learned = whole.weights.f32(&info.name)?;
        let matrix = info.shape.len() > 1;
        // Vectors are small, and need no rounding.
        let dtype = if matrix { format.unwrap_or(old.dtype) } else { DType::F32 };
        let new = encoded(&info.name, dtype, &info.shape, &learned)?;
        let stored = new.to_f32().map_err(unreadable)?;
        for ((before, learned), stored) in before.iter().zip(&learned).zip(&stored) {
            was += f64::from(*before).powi(2);
            moved += f64::from(learned - before).powi(2);
            lost += f64::from(stored - learned).powi(2);
        }
        merged.matrices += usize::from(before != learned);
        tensors.push((info.name, new));
    }
    merged.moved = (moved / f64::max(was, f64::MIN_POSITIVE)).sqrt();
    merged.lost = if moved > 0.0 { lost / moved } else { 0.0 };
    let mut source = ounce_model::weights::MemorySource::new(base.weights.path());
    tensors.into_iter().for_each(|(name, tensor)| source.insert(name, tensor));
    Ok((Model { weights: ounce_model::Weights::in_memory(source), ..whole }, merged))
}

pub(crate) fn encoded(name: &str, dtype: DType, shape: &[usize], values: &[f32]) -> Result<Tensor> {
    if dtype == DType::F32 {
        return Ok(Tensor::from_f32(shape, values));
    }
    let mut data = Vec::new();
    let row = shape.last().copied().unwrap_or(1);
    quant::encode_rows(dtype, values, row, &mut data).map_err(|error| {
        Error::Option(format!(
            "{name} can't be stored as {dtype} ({error}); give --dtype a format that can be written"
        ))
    })?;
    Ok(Tensor { dtype, shape: shape.to_vec(), data: Bytes::from(data) })
}
