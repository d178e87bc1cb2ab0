//! Coupled groups: the sets of weights that leave a model together, so that every product still fits.
//!
//! - A **key/value head** leaves with the query heads that attend with it: their rows of the query, key and value
//!   matrices (and biases, and norms of their own) and their columns of the output matrix.
//! - A **channel** of a feed-forward half: its row of gate and up, its column of down.
//! - A **layer**: all its weights.
//! - A **channel of the residual stream**: its column of every matrix that reads the stream, its row of every one that
//!   writes to it, its place in embeddings and norms.

use std::ops::Range;

use ounce_model::spec::{Attention, FeedForwardKind, Mlp, QkScope, Spec};

use crate::{Error, Result};

/// What leaves at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unit {
    /// A key/value head of a layer, with its query heads.
    Heads {
        /// The layer.
        layer: usize,
        /// The key/value head.
        kv_head: usize,
    },
    /// A channel between the matrices of a layer's feed-forward half.
    Channel {
        /// The layer.
        layer: usize,
        /// The channel.
        channel: usize,
    },
    /// A whole layer.
    Layer {
        /// The layer.
        layer: usize,
    },
    /// A channel of the residual stream.
    Stream {
        /// The channel.
        channel: usize,
    },
}

/// A direction in a tensor. Vectors have rows only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// Along the first dimension, that of a linear layer's outputs.
    Rows,
    /// Along the last, that of its inputs.
    Columns,
}

/// A part of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// The tensor, by ounce's name.
    pub tensor: String,
    /// Whether the range is of rows or columns.
    pub axis: Axis,
    /// Which of them.
    pub range: Range<usize>,
}

impl Slice {
    fn rows(tensor: String, range: Range<usize>) -> Slice {
        Slice { tensor, axis: Axis::Rows, range }
    }

    fn columns(tensor: String, range: Range<usize>) -> Slice {
        Slice { tensor, axis: Axis::Columns, range }
    }
}

/// Whether a tensor lies along the residual stream by its rows, and by its columns.
pub(super) fn along_stream(name: &str) -> (bool, bool) {
    let linear = name.trim_end_matches(".weight").trim_end_matches(".bias");
    let is_weight = name.ends_with(".weight");
    match linear.rsplit('.').next().unwrap_or_default() {
        "before_norm" | "after_norm" | "residual_norm" | "final_norm" => (true, false),
        "norm" => (linear == "embed.norm", false),
        "tokens" | "positions" | "types" | "head" | "classifier" | "token_classifier" | "span_classifier" => {
            (false, is_weight)
        }
        "query" | "key" | "value" | "gate" | "up" | "router" | "shared_gate" => (false, is_weight),
        "output" | "down" => (true, false),
        "dense" => (linear == "classifier.dense", linear == "classifier.dense" && is_weight),
        _ => (false, false),
    }
}

/// The number of the layer that a tensor or a linear layer (`layers.3.attention.query`) is of; none for what is outside of layers.
pub fn layer_of(name: &str) -> Option<usize> {
    name.strip_prefix("layers.")?.split('.').next()?.parse().ok()
}

/// The dense feed-forward half of a layer, if it has one.
pub fn mlp(spec: &Spec, layer: usize) -> Option<&Mlp> {
    match &spec.layers.get(layer)?.feed_forward.as_ref()?.kind {
        FeedForwardKind::Dense(mlp) => Some(mlp),
        FeedForwardKind::Experts(_) => None,
    }
}

/// The attention of a layer, if it has one.
pub fn attention(spec: &Spec, layer: usize) -> Option<&Attention> {
    spec.layers.get(layer)?.attention.as_ref()
}

/// Where a key/value head's queries lie: rows of the query matrix, columns of the output matrix.
pub fn query_range(attention: &Attention, kv_head: usize) -> Range<usize> {
    let wide = attention.heads / attention.kv_heads * attention.head_dim;
    kv_head * wide..(kv_head + 1) * wide
}

/// Where a key/value head lies in the key and value matrices.
pub fn kv_range(attention: &Attention, kv_head: usize) -> Range<usize> {
    kv_head * attention.head_dim..(kv_head + 1) * attention.head_dim
}

/// All weights of a unit.
///
/// # Errors
/// If the spec has no such unit, or it can't be cut out so that the rest computes what it computed.
pub fn slices(spec: &Spec, unit: Unit) -> Result<Vec<Slice>> {
    check(spec, unit)?;
    let all = spec.tensors();
    let has = |name: &str| all.iter().any(|tensor| tensor.name == name);
    let mut slices = Vec::new();
    match unit {
        Unit::Heads { layer, kv_head } => {
            let Some(heads) = attention(spec, layer) else { return Err(nothing(unit)) };
            let prefix = format!("layers.{layer}.attention");
            let (queries, keys) = (query_range(heads, kv_head), kv_range(heads, kv_head));
            for (part, range) in [("query", &queries), ("key", &keys), ("value", &keys)] {
                let names = ["weight", "bias"].map(|kind| format!("{prefix}.{part}.{kind}"));
                slices.extend(
                    names.into_iter().filter(|name| has(name)).map(|name| Slice::rows(name, range.clone())),
                );
            }
            slices.push(Slice::columns(format!("{prefix}.output.weight"), queries));
            // Norms of single heads leave with them.
            let group = heads.heads / heads.kv_heads;
            let own =
                (kv_head * group..(kv_head + 1) * group).map(|head| format!("{prefix}.query_norm.{head}"));
            for norm in own.chain([format!("{prefix}.key_norm.{kv_head}")]) {
                let names = ["weight", "bias"].map(|kind| format!("{norm}.{kind}"));
                let there = names.into_iter().filter(|name| has(name));
                slices.extend(there.map(|name| Slice::rows(name, 0..heads.head_dim)));
            }
        }
        Unit::Channel { layer, channel } => {
            let prefix = format!("layers.{layer}.feed_forward");
            let rows =
                ["gate.weight", "gate.bias", "up.weight", "up.bias"].map(|it| format!("{prefix}.{it}"));
            let there = rows.into_iter().filter(|name| has(name));
            slices.extend(there.map(|name| Slice::rows(name, channel..channel + 1)));
            slices.push(Slice::columns(format!("{prefix}.down.weight"), channel..channel + 1));
        }
        Unit::Layer { layer } => {
            let prefix = format!("layers.{layer}.");
            let own = all.iter().filter(|tensor| tensor.name.starts_with(&prefix));
            slices.extend(own.map(|tensor| Slice::rows(tensor.name.clone(), 0..tensor.shape[0])));
        }
        Unit::Stream { channel } => {
            for tensor in &all {
                let (rows, columns) = along_stream(&tensor.name);
                let range = channel..channel + 1;
                if rows {
                    slices.push(Slice::rows(tensor.name.clone(), range.clone()));
                }
                if columns {
                    slices.push(Slice::columns(tensor.name.clone(), range));
                }
            }
        }
    }
    Ok(slices)
}

fn nothing(unit: Unit) -> Error {
    Error::Option(format!("the model has no {unit:?} that could be cut"))
}

/// Whether a unit is there and can be cut out exactly.
///
/// # Errors
/// In one sentence, if not.
pub fn check(spec: &Spec, unit: Unit) -> Result<()> {
    if spec.sharing_layers() > 0 {
        return Err(Error::Option(
            "layers of this model share their weights, so no part of one of them can be cut out".into(),
        ));
    }
    if spec.copying_layers() > 0 {
        return Err(Error::Option(
            "layers of this model copy the attention of layers before them, so no part can be cut out; cut the model that it was made of, and let \
             layers copy afterwards"
                .into(),
        ));
    }
    match unit {
        Unit::Heads { layer, kv_head } => {
            let heads = attention(spec, layer).filter(|it| kv_head < it.kv_heads);
            let heads = heads.ok_or_else(|| nothing(unit))?;
            if heads.qk_norm.is_some_and(|norm| norm.scope == QkScope::Width) {
                return Err(Error::Option(format!(
                    "layer {layer} norms all its heads together, so that none can be cut out; cut channels or layers"
                )));
            }
        }
        Unit::Channel { layer, channel } => {
            mlp(spec, layer).filter(|it| channel < it.width).ok_or_else(|| nothing(unit))?;
        }
        Unit::Layer { layer } => {
            spec.layers.get(layer).ok_or_else(|| nothing(unit))?;
        }
        Unit::Stream { channel } => {
            if channel >= spec.hidden_size {
                return Err(nothing(unit));
            }
            check_stream(spec)?;
        }
    }
    Ok(())
}

/// Norms over the stream divide by its width; without a mean that can be made up for exactly.
fn check_stream(spec: &Spec) -> Result<()> {
    use ounce_model::spec::NormKind;
    let layers = spec.layers.iter().flat_map(|layer| {
        let halves =
            [layer.attention.as_ref().map(|it| it.norms), layer.feed_forward.as_ref().map(|it| it.norms)];
        halves.into_iter().flatten().flat_map(|norms| [norms.before, norms.after, norms.residual])
    });
    let mut norms = layers.chain([spec.embedding.norm, spec.final_norm]).flatten();
    let transformed = spec.head.as_ref().is_some_and(|head| head.transform.is_some());
    if norms.any(|norm| norm.kind != NormKind::Rms || norm.bias)
        || transformed
        || spec.embedding.projected_from.is_some()
    {
        return Err(Error::Option(
            "the width of the stream can be cut where all norms over it are RMSNorm and nothing else is computed on the \
             whole of it, which this model isn't; cut heads, channels or layers"
                .into(),
        ));
    }
    Ok(())
}
