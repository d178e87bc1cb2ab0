//! From a file's tensors to ounce's: which tensor holds it, and how to take it out.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ounce_kernels::DType;

use super::{Key, Layout, Names, Rule, heads_of, stack_len};
use crate::spec::Spec;
use crate::spec_tensors::{TensorSpec, is_factor};
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
        /// Columns of the stored matrix.
        of: usize,
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
        if !stored.is_whole() {
            return Err(format!("has {} bytes, which its shape does not have", stored.data.len()));
        }
        let dtype = stored.dtype;
        let values = values_of(shape).ok_or("its shape overflows")?;
        let bytes = |count: usize| {
            dtype.bytes_for(count).ok_or_else(|| {
                format!(
                    "{dtype} blocks do not end where a part of {count} values does; convert the model anew"
                )
            })
        };
        let short = || format!("ends before a part of shape {shape:?} does");
        let data = match *self {
            Take::Range { start } => {
                let from = bytes(start)?;
                let to = from.checked_add(bytes(values)?).ok_or_else(short)?;
                stored.data.try_slice(from..to).ok_or_else(short)?
            }
            Take::Chunks { chunk, stride, start } => {
                let (chunk, stride, start) = (bytes(chunk)?, bytes(stride)?, bytes(start)?);
                let mut data = Vec::with_capacity(bytes(values)?.min(stored.data.len()));
                for from in stored.data.get(start..).unwrap_or_default().chunks(stride.max(1)) {
                    data.extend_from_slice(from.get(..chunk).ok_or_else(short)?);
                }
                Bytes::from(data)
            }
            Take::Columns { start, of } => {
                let size = bytes(1)?;
                let &[rows, columns] = shape else { return Err("is no matrix".to_string()) };
                let mut data = Vec::with_capacity(bytes(values)?.min(stored.data.len()));
                for row in 0..rows {
                    for column in 0..columns {
                        let at = (column * of + start + row) * size;
                        data.extend_from_slice(stored.data.get(at..at + size).ok_or_else(short)?);
                    }
                }
                Bytes::from(data)
            }
            Take::HalfSplit { heads } => {
                let order = |row: usize, half: usize| 2 * (row % half) + row / half;
                permute_heads(&stored, shape, heads, order)?
            }
            Take::MinusOne => {
                let mut numbers = stored.to_f32().map_err(|error| error.to_string())?;
                numbers.iter_mut().for_each(|number| *number -= 1.0);
                let stored = Tensor::from_f32(&stored.shape, &numbers);
                return Take::Range { start: 0 }.apply(stored, shape);
            }
        };
        let taken = Tensor { dtype, shape: shape.to_vec(), data };
        if taken.is_whole() {
            Ok(taken)
        } else {
            Err(format!("{dtype} blocks do not end with rows of {shape:?}"))
        }
    }
}

/// Reorders the rows of each head: row `r` of the result is row `order(r, head_dim / 2)` of the head.
pub(super) fn permute_heads(
    stored: &Tensor,
    shape: &[usize],
    heads: usize,
    order: impl Fn(usize, usize) -> usize,
) -> Result<Bytes, String> {
    let rows = shape.first().copied().unwrap_or(0);
    if heads == 0 || rows == 0 || !rows.is_multiple_of(2 * heads) {
        return Err(format!("has {rows} rows, which {heads} heads of paired dimensions can't share evenly"));
    }
    let head_dim = rows / heads;
    let row_bytes = stored.data.len() / rows;
    let mut data = Vec::with_capacity(stored.data.len());
    for row in 0..rows {
        let (head, within) = (row / head_dim, row % head_dim);
        let from = (head * head_dim + order(within, head_dim / 2)) * row_bytes;
        data.extend_from_slice(&stored.data[from..from + row_bytes]);
    }
    Ok(Bytes::from(data))
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
        // Factors are no part of other tools' formats: they have ounce's own names in every file.
        if is_factor(&tensor.name) {
            places.push((tensor.name.clone(), factor(source.as_ref(), tensor)?));
            used.insert(tensor.name.clone());
            continue;
        }
        let key = Key::within(spec, names, &tensor.name);
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
    let unused = unused(names, source.as_ref(), &used, spec)?;
    Ok(Weights::new(source, places, unused))
}

/// Where one of the two matrices of a factorised linear layer is.
fn factor(source: &dyn TensorSource, tensor: &TensorSpec) -> Result<Place> {
    let TensorSpec { name, shape } = tensor;
    let bad = |what: String| Error::tensor(source.path(), name.as_str(), what);
    let (dtype, found) = source
        .info(name)
        .ok_or_else(|| bad("is missing, though ounce_ranks says that the layer is factorised".into()))?;
    if found != shape.as_slice() || !dtype.is_weight() {
        return Err(bad(format!(
            "is {dtype} of shape {found:?}, but ounce_ranks asks for weights of {shape:?}"
        )));
    }
    Ok(Place { file_name: name.clone(), take: Take::Range { start: 0 }, shape: shape.clone() })
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
        return Err(format!(
            "holds {dtype} values, which are no weights; config.json does not say in quantization_config how they are \
             packed, take the original or a GGUF"
        ));
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
        let from = match key.template.as_str() {
            "embed.tokens" | "head" => " (vocab_size and hidden_size)",
            "embed.positions" => " (the number of positions and hidden_size)",
            _ => "",
        };
        return Err(format!(
            "has shape {found:?}, but the configuration{from} asks for {expected:?}; take configuration and weights \
             from the same model"
        ));
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
        Layout::Columns => {
            let columns = |parts: &[&[usize]]| parts.iter().map(|shape| shape[0]).sum();
            Take::Columns { start: columns(&part_shapes[..part]), of: columns(&part_shapes) }
        }
        Layout::HeadThirds => {
            if sizes.iter().any(|size| *size != sizes[0]) {
                return Err(UNEVEN_THIRDS.to_string());
            }
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

/// Why rows that alternate by head can't hold grouped heads.
pub(super) const UNEVEN_THIRDS: &str = "holds query, key and value head by head, which needs as many key/value heads as query heads; \
     correct the configuration";

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
    spec: &Spec,
) -> Result<Vec<String>> {
    let stems = names.layer_stems();
    let mut unused = Vec::new();
    for name in source.names() {
        if used.contains(name) || names.ignore.iter().any(|end| name.ends_with(end)) {
            continue;
        }
        let layer =
            layer_of(name, &stems).filter(|_| source.info(name).is_some_and(|(dtype, _)| is_part(dtype)));
        if let Some(layer) = layer {
            let what = if layer < spec.layers.len() {
                "is a weight of a layer that this family does not have; the result would be wrong without it, so \
                 the model is refused"
                    .to_string()
            } else {
                format!(
                    "belongs to layer {layer}, but the configuration has only {} layers (counted from 0); take \
                     configuration and weights from the same model",
                    spec.layers.len()
                )
            };
            return Err(Error::tensor(source.path(), name, what));
        }
        unused.push(name.to_string());
    }
    Ok(unused)
}

/// The layer that a file's tensor belongs to by its name: the number after one of the table's stems.
fn layer_of(name: &str, stems: &HashSet<String>) -> Option<usize> {
    let rest = stems.iter().find_map(|stem| name.strip_prefix(stem.as_str()))?;
    rest.split('.').next()?.parse().ok()
}

fn is_part(dtype: DType) -> bool {
    dtype.is_weight() || matches!(dtype, DType::I32 | DType::U8 | DType::I8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values 0, 1, 2 ...
    fn counted(shape: &[usize]) -> Tensor {
        let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| i as f32).collect();
        Tensor::from_f32(shape, &values)
    }

    fn taken(take: Take, stored: Tensor, shape: &[usize]) -> Result<Vec<f32>, String> {
        take.apply(stored, shape).map(|tensor| tensor.to_f32().unwrap())
    }

    #[test]
    fn each_layout_gives_its_part() {
        let part = |take, shape: &[usize]| taken(take, counted(&[4, 3]), shape).unwrap();
        assert_eq!(part(Take::Range { start: 6 }, &[1, 3]), [6.0, 7.0, 8.0]);
        assert_eq!(
            part(Take::Columns { start: 1, of: 3 }, &[2, 4]),
            [1.0, 4.0, 7.0, 10.0, 2.0, 5.0, 8.0, 11.0]
        );
        assert_eq!(
            part(Take::Chunks { chunk: 3, stride: 6, start: 3 }, &[2, 3]),
            [3.0, 4.0, 5.0, 9.0, 10.0, 11.0]
        );
        let rows: Vec<f32> =
            part(Take::HalfSplit { heads: 1 }, &[4, 3]).chunks(3).map(|row| row[0]).collect();
        assert_eq!(rows, [0.0, 6.0, 3.0, 9.0]);
        assert_eq!(part(Take::MinusOne, &[12])[..3], [-1.0, 0.0, 1.0]);
    }

    #[test]
    fn parts_beyond_the_tensor_are_errors() {
        for (take, shape) in [
            (Take::Range { start: 12 }, &[1, 3][..]),
            (Take::Range { start: usize::MAX }, &[1]),
            (Take::Range { start: 0 }, &[1 << 40, 1 << 40]),
            (Take::Columns { start: 3, of: 3 }, &[1, 4]),
            (Take::Columns { start: 0, of: 3 }, &[12]),
            (Take::Chunks { chunk: 9, stride: 8, start: 0 }, &[2, 9]),
            (Take::Chunks { chunk: 0, stride: 0, start: 0 }, &[1]),
            (Take::Chunks { chunk: 1, stride: 1, start: 99 }, &[1]),
            (Take::HalfSplit { heads: 0 }, &[4, 3]),
            (Take::HalfSplit { heads: 3 }, &[4, 3]),
            (Take::HalfSplit { heads: 4 }, &[4, 3]),
            (Take::HalfSplit { heads: 1 }, &[]),
            (Take::MinusOne, &[13]),
        ] {
            assert!(taken(take, counted(&[4, 3]), shape).is_err(), "{take:?} of {shape:?}");
        }
    }

    #[test]
    fn blocks_are_never_cut() {
        let stored = || Tensor { dtype: DType::Q8_0, shape: vec![2, 32], data: Bytes::from(vec![0; 68]) };
        assert!(taken(Take::Range { start: 32 }, stored(), &[1, 32]).is_ok());
        for (take, shape) in [
            (Take::Range { start: 16 }, &[1, 32][..]),
            (Take::Range { start: 0 }, &[64, 1]),
            (Take::Columns { start: 0, of: 32 }, &[32, 2]),
            (Take::Chunks { chunk: 16, stride: 32, start: 0 }, &[1, 32]),
        ] {
            assert!(taken(take, stored(), shape).unwrap_err().contains("Q8_0 blocks do not end"), "{take:?}");
        }
    }
}
