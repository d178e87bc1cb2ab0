//! The weights of a cut model, taken out of the whole model's when they are read.

use std::collections::HashMap;
use std::path::Path;

use ounce_kernels::DType;
use ounce_model::spec::{Layer, Norm, Spec};
use ounce_model::storage::Bytes;
use ounce_model::weights::TensorSource;
use ounce_model::{Tensor, Weights};

use super::cut::{Keep, Moved};
use crate::{Error, Result};

/// What stays of a model's weights.
#[derive(Debug)]
pub(super) struct CutSource {
    whole: Weights,
    order: Vec<String>,
    pieces: HashMap<String, Piece>,
}

/// A tensor of the cut model.
#[derive(Debug)]
struct Piece {
    from: String,
    keep: Keep,
    dtype: DType,
    shape: Vec<usize>,
    /// Of a norm over a narrower stream: what its weight is multiplied with, and what is added to the stored weight first.
    scale: Option<(f32, f32)>,
}

impl CutSource {
    pub fn new(whole: &Weights, spec: &Spec, moved: Vec<Moved>) -> Result<CutSource> {
        let mut pieces = HashMap::new();
        let mut order = Vec::new();
        for Moved { name, from, keep } in moved {
            let Some((dtype, shape)) = whole.info(&from) else {
                return Err(Error::matrix(from, "is missing from the model"));
            };
            if let Some(columns) = &keep.columns
                && blocks(columns, dtype.block_len()).is_none()
            {
                let name = whole.file_name(&from).unwrap_or(&from);
                let what = format!(
                    "is stored in {dtype}, whose blocks the cut would break; prune the model before it is quantized"
                );
                return Err(Error::matrix(name, what));
            }
            let scale = match (&keep.rows, stream_norm(spec, &from)) {
                (Some(kept), Some(norm)) if from.ends_with(".weight") => {
                    let ratio = (spec.hidden_size as f32 / kept.len() as f32).sqrt();
                    Some((ratio, if norm.plus_one { 1.0 } else { 0.0 }))
                }
                _ => None,
            };
            let shape = keep.shape(shape);
            let dtype = if scale.is_some() { DType::F32 } else { dtype };
            order.push(name.clone());
            pieces.insert(name, Piece { from, keep, dtype, shape, scale });
        }
        Ok(CutSource { whole: whole.clone(), order, pieces })
    }
}

/// The norm over the stream that has this weight.
fn stream_norm(spec: &Spec, name: &str) -> Option<Norm> {
    let norm = name.trim_end_matches(".weight");
    match norm {
        "final_norm" => return spec.final_norm,
        "embed.norm" => return spec.embedding.norm,
        _ => {}
    }
    let (layer, part) = norm.strip_prefix("layers.")?.split_once('.')?;
    let layer: &Layer = spec.layers.get(layer.parse::<usize>().ok()?)?;
    let (half, norm) = part.split_once('.')?;
    let norms = match half {
        "attention" => layer.attention.as_ref()?.norms,
        _ => layer.feed_forward.as_ref()?.norms,
    };
    match norm {
        "before_norm" => norms.before,
        "after_norm" => norms.after,
        "residual_norm" => norms.residual,
        _ => None,
    }
}

/// Whole blocks of which these columns are made, if they are.
fn blocks(columns: &[usize], length: usize) -> Option<Vec<usize>> {
    columns
        .chunks(length)
        .map(|block| {
            let first = *block.first()?;
            let whole = block.len() == length && first.is_multiple_of(length);
            let together = block.iter().enumerate().all(|(place, &column)| column == first + place);
            (whole && together).then_some(first / length)
        })
        .collect()
}

impl Piece {
    fn cut(&self, whole: &Tensor) -> Result<Tensor, String> {
        if let Some((ratio, plus)) = self.scale {
            let values = whole.to_f32().map_err(|error| error.to_string())?;
            let values: Vec<f32> = self.keep.take(&values, &whole.shape);
            let values: Vec<f32> = values.into_iter().map(|w| (w + plus) * ratio - plus).collect();
            return Ok(Tensor::from_f32(&self.shape, &values));
        }
        if self.keep == Keep::default() {
            return Ok(whole.clone());
        }
        let mut bytes = Vec::new();
        let (length, size) = (whole.dtype.block_len(), whole.dtype.block_bytes());
        if let [_] = whole.shape[..] {
            // A vector is stored as one row.
            for &place in self.keep.rows.iter().flatten() {
                bytes.extend_from_slice(&whole.data[place * size..(place + 1) * size]);
            }
        } else {
            let places = match &self.keep.columns {
                Some(columns) => Some(blocks(columns, length).ok_or("has blocks that the cut breaks")?),
                None => None,
            };
            let mut take = |row: usize| {
                let row = whole.row(row);
                match &places {
                    None => bytes.extend_from_slice(row),
                    Some(places) => {
                        places
                            .iter()
                            .for_each(|&at| bytes.extend_from_slice(&row[at * size..(at + 1) * size]));
                    }
                }
            };
            match &self.keep.rows {
                None => (0..whole.rows()).for_each(&mut take),
                Some(kept) => kept.iter().copied().for_each(&mut take),
            }
        }
        Ok(Tensor { dtype: whole.dtype, shape: self.shape.clone(), data: Bytes::from(bytes) })
    }
}

impl TensorSource for CutSource {
    fn path(&self) -> &Path {
        self.whole.path()
    }

    fn names(&self) -> Vec<&str> {
        self.order.iter().map(String::as_str).collect()
    }

    fn info(&self, name: &str) -> Option<(DType, &[usize])> {
        self.pieces.get(name).map(|piece| (piece.dtype, piece.shape.as_slice()))
    }

    fn tensor(&self, name: &str) -> ounce_model::Result<Tensor> {
        let wrong = |what: String| ounce_model::Error::Tensor {
            path: self.whole.path().to_path_buf(),
            tensor: name.to_owned(),
            what,
        };
        let piece = self.pieces.get(name).ok_or_else(|| wrong("is missing".to_owned()))?;
        piece.cut(&self.whole.get(&piece.from)?).map_err(wrong)
    }
}
