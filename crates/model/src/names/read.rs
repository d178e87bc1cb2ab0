//! From a file's tensors to ounce's: which tensor holds it, and how to take it out.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ounce_kernels::{DType, quant};

use super::{Key, Layout, Names, Rule, heads_of, stack_len};
use crate::spec::Spec;
use crate::spec_tensors::TensorSpec;
use crate::storage::Bytes;
use crate::weights::{Place, Tensor, TensorSource, Weights, values_of};
use crate::{Error, Result};

/// How one of ounce's tensors is taken out of a stored one. Counts are of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// Consecutive values.
    Range {
        /// The first.
        start: usize,
    },
    /// Columns of the stored matrix become rows.
    Columns {
        /// The first column.
        start: usize,
    },
    /// Every `stride` values, `chunk` of them, from `start`.
    Chunks {
        /// Values taken at a time.
        chunk: usize,
        /// Values from one chunk's start to the next.
        stride: usize,
        /// Values before the first chunk.
        start: usize,
    },
    /// Rows of each head brought from interleaved to half-split order.
    HalfSplit {
        /// Heads there are.
        heads: usize,
    },
    /// One is subtracted.
    MinusOne,
}

impl Take {
    /// Takes a tensor of `shape` out of `stored`; an error says what does not fit.
    pub(crate) fn apply(&self, stored: Tensor, shape: &[usize]) -> Result<Tensor, String> {
        let values = values_of(shape).ok_or("its shape overflows")?;
        let dtype = stored.dtype;
        let bytes = |count: usize| {
            dtype.bytes_for(count).ok_or_else(|| {
                format!(
                    "{dtype} blocks do not end where a part of {count} values does; convert the model anew"
                )
            })
        };
        match *self {
            Take::Range { start: 0 } if stored.values() == values => Ok(stored.reshaped(shape)),
            Take::Range { start } => {
                let from = bytes(start)?;
                let data = stored.data.slice(from..from + bytes(values)?);
                Ok(Tensor { dtype, shape: shape.to_vec(), data })
            }
            Take::Chunks { chunk, stride, start } => {
                let (chunk, stride, start) = (bytes(chunk)?, bytes(stride)?, bytes(start)?);
                let mut data = Vec::with_capacity(bytes(values)?);
                for from in (start..stored.data.len()).step_by(stride) {
                    data.extend_from_slice(&stored.data[from..from + chunk]);
                }
                Ok(Tensor { dtype, shape: shape.to_vec(), data: Bytes::from(data) })
            }
            Take::Columns { start } => {
                let size = bytes(1)?;
                let stored_columns = stored.row_len();
                let (rows, columns) = (shape[0], shape[1]);
                let mut data = Vec::with_capacity(bytes(values)?);
                for row in 0..rows {
                    for column in 0..columns {
                        let at = (column * stored_columns + start + row) * size;
                        data.extend_from_slice(&stored.data[at..at + size]);
                    }
                }
                Ok(Tensor { dtype, shape: shape.to_vec(), data: Bytes::from(data) })
            }
            Take::HalfSplit { heads } => {
                let order = |row: usize, half: usize| 2 * (row % half) + row / half;
                permute_heads(&stored, shape, heads, order)
            }
            Take::MinusOne => {
                let mut numbers = vec![0.0; values];
                quant::decode(dtype, &stored.data, &mut numbers).map_err(|error| error.to_string())?;
                numbers.iter_mut().for_each(|number| *number -= 1.0);
                Ok(Tensor::from_f32(shape, &numbers))
            }
        }
    }
}

/// Reorders the rows of each head: row `r` of the result is row `order(r, head_dim / 2)` of the head.
pub(super) fn permute_heads(
    stored: &Tensor,
    shape: &[usize],
    heads: usize,
    order: impl Fn(usize, usize) -> usize,
) -> Result<Tensor, String> {
    let rows = shape[0];
    let head_dim = rows / heads;
    let row_bytes = stored.data.len() / rows;
    let mut data = Vec::with_capacity(stored.data.len());
    for row in 0..rows {
        let (head, within) = (row / head_dim, row % head_dim);
        let from = (head * head_dim + order(within, head_dim / 2)) * row_bytes;
        data.extend_from_slice(&stored.data[from..from + row_bytes]);
    }
    Ok(Tensor { dtype: stored.dtype, shape: shape.to_vec(), data: Bytes::from(data) })
}

/// Finds every tensor of `spec` in `source` and checks shapes and formats; reads no tensor.
///
/// # Errors
/// If a tensor is missing, has another shape or is no weight, or if the layer stack holds a tensor that
/// the table does not know (computing without it would be silently wrong).
pub fn resolve(spec: &Spec, names: &Names, source: Arc<dyn TensorSource>) -> Result<Weights> {
    let mut by_template: HashMap<&str, Vec<&Rule>> = HashMap::new();
    for rule in names.rules.iter().copied().flatten() {
        for ours in rule.ours {
            by_template.entry(ours).or_default().push(rule);
        }
    }
    let tensors = spec.tensors();
    let shapes: HashMap<&str, &[usize]> =
        tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.shape.as_slice())).collect();
    let mut places = Vec::with_capacity(tensors.len());
    let mut used = HashSet::new();
    for tensor in &tensors {
        let key = Key::of(&tensor.name);
        let rules = by_template.get(key.template.as_str()).map_or(&[][..], Vec::as_slice);
        let candidates = rules.iter().flat_map(|rule| {
            names.prefixes.iter().filter_map(|prefix| Some((*rule, rule.file_name(prefix, &key)?)))
        });
        let candidates: Vec<(&Rule, String)> = candidates.collect();
        let found = candidates.iter().find(|(_, name)| source.info(name).is_some());
        let Some((rule, file_name)) = found else {
            let name = candidates.first().map_or(tensor.name.clone(), |(_, name)| name.clone());
            return Err(Error::tensor(
                source.path(),
                name,
                format!(
                    "is missing ({} {:?} is built from it); the download is incomplete or the \
                     configuration does not belong to these weights",
                    tensor.name, tensor.shape
                ),
            ));
        };
        let take = locate(spec, rule, &key, &shapes, source.as_ref(), file_name, tensor)
            .map_err(|what| Error::tensor(source.path(), file_name.as_str(), what))?;
        used.insert(file_name.clone());
        let place = Place { file_name: file_name.clone(), take, shape: tensor.shape.clone() };
        places.push((tensor.name.clone(), place));
    }
    let unused = unused(names, source.as_ref(), &used, spec.layers.len())?;
    Ok(Weights::new(source, places, unused))
}

/// Checks the stored tensor's shape and says how to take `tensor` out of it.
fn locate(
    spec: &Spec,
    rule: &Rule,
    key: &Key<'_>,
    shapes: &HashMap<&str, &[usize]>,
    source: &dyn TensorSource,
    file_name: &str,
    tensor: &TensorSpec,
) -> Result<Take, String> {
    let (dtype, found) = source.info(file_name).ok_or("is missing")?;
    if !dtype.is_weight() {
        return Err(format!("holds {dtype} values, which are no weights; is the model quantized elsewhere?"));
    }
    let part_shapes: Vec<&[usize]> = rule
        .ours
        .iter()
        .map(|ours| shapes.get(key.sibling(ours, key.expert).as_str()).copied())
        .collect::<Option<_>>()
        .ok_or("holds a part that the configuration does not have")?;
    let stack = if rule.stacked() {
        Some(stack_len(spec, key.layer, &key.template).ok_or("is stacked, but the layer has no experts")?)
    } else {
        None
    };
    let expected = file_shape(rule.layout, &part_shapes, stack);
    let squeeze = |shape: &[usize]| shape.iter().copied().filter(|&n| n != 1).collect::<Vec<_>>();
    if squeeze(&expected) != squeeze(found) {
        return Err(format!("has shape {found:?}, but the configuration asks for {expected:?}"));
    }
    let part = rule.ours.iter().position(|ours| *ours == key.template).ok_or("is no part of its rule")?;
    let sizes: Vec<usize> = part_shapes.iter().map(|shape| shape.iter().product()).collect();
    let before: usize = sizes[..part].iter().sum();
    Ok(match rule.layout {
        Layout::Rows => {
            let experts_before = if rule.stacked() { key.expert.unwrap_or(0) } else { 0 };
            Take::Range { start: experts_before * sizes.iter().sum::<usize>() + before }
        }
        // A bias has no second dimension to be transposed with.
        Layout::Columns if tensor.shape.len() == 1 => Take::Range { start: before },
        Layout::Columns => Take::Columns { start: part_shapes[..part].iter().map(|shape| shape[0]).sum() },
        Layout::HeadThirds => {
            let heads = heads_of(spec, key.layer, "query").ok_or("belongs to a layer without attention")?;
            let chunk = sizes[part] / heads;
            Take::Chunks { chunk, stride: chunk * rule.ours.len(), start: chunk * part }
        }
        Layout::Interleaved => {
            let heads = heads_of(spec, key.layer, &key.template);
            Take::HalfSplit { heads: heads.ok_or("belongs to a layer without attention")? }
        }
        Layout::PlusOne => Take::MinusOne,
    })
}

/// The shape of the file's tensor that holds parts of these shapes.
pub(super) fn file_shape(layout: Layout, parts: &[&[usize]], stack: Option<usize>) -> Vec<usize> {
    let rows: usize = parts.iter().map(|shape| shape[0]).sum();
    let mut shape = vec![rows];
    shape.extend_from_slice(&parts[0][1..]);
    if layout == Layout::Columns {
        shape.reverse();
    }
    if let Some(count) = stack {
        shape.insert(0, count);
    }
    shape
}

/// Names that nothing used, less those known to be needless.
fn unused(
    names: &Names,
    source: &dyn TensorSource,
    used: &HashSet<String>,
    layers: usize,
) -> Result<Vec<String>> {
    let mut unused = Vec::new();
    for name in source.names() {
        if used.contains(name) || names.ignore.iter().any(|end| name.ends_with(end)) {
            continue;
        }
        let layer = Key::of(name).layer;
        if layer.is_some_and(|layer| layer < layers)
            && source.info(name).is_some_and(|(dtype, _)| is_part(dtype))
        {
            return Err(Error::tensor(
                source.path(),
                name,
                "is a weight of a layer that this family does not have; the result would be wrong without it, \
                 so the model is refused",
            ));
        }
        unused.push(name.to_string());
    }
    Ok(unused)
}

fn is_part(dtype: DType) -> bool {
    dtype.is_weight() || matches!(dtype, DType::I32 | DType::U8 | DType::I8)
}
