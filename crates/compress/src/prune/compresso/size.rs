//! How large a model is that is open with some chances: the sum over its matrices of the products of what stays of their sides.

use std::ops::Range;

use ounce_model::Spec;

use super::gates;
use crate::prune::structured::groups::{attention, mlp};

/// Where the gates of a model lie in one list.
#[derive(Debug, Clone, PartialEq)]
pub struct Places {
    /// Of each layer's key/value heads.
    pub heads: Vec<Range<usize>>,
    /// Of each layer's channels.
    pub channels: Vec<Range<usize>>,
    /// Of the stream's channels; empty if the stream stays whole.
    pub stream: Range<usize>,
}

impl Places {
    /// The gates of a spec; of the stream only if asked for.
    pub fn of(spec: &Spec, stream: bool) -> Places {
        let mut end = 0;
        let mut take = |count: usize| {
            let start = end;
            end += count;
            start..end
        };
        let layers = 0..spec.layers.len();
        let heads = layers.clone().map(|it| take(attention(spec, it).map_or(0, |it| it.kv_heads))).collect();
        let channels = layers.map(|it| take(mlp(spec, it).map_or(0, |it| it.width))).collect();
        let stream = take(if stream { spec.hidden_size } else { 0 });
        Places { heads, channels, stream }
    }

    /// How many gates there are.
    pub fn count(&self) -> usize {
        self.stream.end
    }
}

/// The expected share of weights that are gone, of all that lie along a gated side; and its derivative by each gate's `ln α`.
#[derive(Debug, Clone)]
pub struct Sparsity {
    /// The share, from 0 to 1.
    pub share: f64,
    /// Its derivatives.
    pub slopes: Vec<f32>,
}

/// Parameters of a spec whose parts stay in these numbers, for one layer after the other: heads, channels; and the stream.
///
/// Biases and norms along the stream count; all else that no gate touches does not.
pub(super) fn weights(spec: &Spec, layer: usize) -> (f64, f64, f64) {
    let per_head = attention(spec, layer).map_or(0, |it| (2 * it.heads / it.kv_heads + 2) * it.head_dim);
    let per_channel = mlp(spec, layer).map_or(0, |it| if it.gated { 3 } else { 2 });
    let norms =
        spec.layers[layer].attention.is_some() as usize + spec.layers[layer].feed_forward.is_some() as usize;
    (per_head as f64, per_channel as f64, norms as f64)
}

/// The expected sparsity of gates with these `ln α`.
pub fn sparsity(spec: &Spec, places: &Places, log_alpha: &[f32]) -> Sparsity {
    let open: Vec<(f32, f32)> = log_alpha.iter().map(|&it| gates::open(it)).collect();
    let sum = |range: &Range<usize>| open[range.clone()].iter().map(|it| f64::from(it.0)).sum::<f64>();
    let hidden = spec.hidden_size as f64;
    let stream = if places.stream.is_empty() { hidden } else { sum(&places.stream) };
    let untied = spec.head.as_ref().is_some_and(|head| !head.tied);
    let tables = spec.vocab_size as f64 * if untied { 2.0 } else { 1.0 };
    // What a channel of the stream takes, all others being as likely as they are.
    let mut along = if places.stream.is_empty() { 0.0 } else { tables + 1.0 };
    let mut whole = along * hidden;
    let mut slopes = vec![0.0; log_alpha.len()];
    let mut inner = 0.0;
    for layer in 0..spec.layers.len() {
        let (per_head, per_channel, norms) = weights(spec, layer);
        let (heads, channels) = (&places.heads[layer], &places.channels[layer]);
        let kept = per_head * sum(heads) + per_channel * sum(channels);
        inner += kept;
        whole += (per_head * heads.len() as f64 + per_channel * channels.len() as f64) * hidden;
        if !places.stream.is_empty() {
            along += norms;
            whole += norms * hidden;
        }
        heads.clone().for_each(|at| slopes[at] = (per_head * stream) as f32 * open[at].1);
        channels.clone().for_each(|at| slopes[at] = (per_channel * stream) as f32 * open[at].1);
    }
    places.stream.clone().for_each(|at| slopes[at] = (along + inner) as f32 * open[at].1);
    let size = along * if places.stream.is_empty() { 0.0 } else { stream } + inner * stream;
    slopes.iter_mut().for_each(|slope| *slope = -*slope / whole as f32);
    Sparsity { share: 1.0 - size / whole, slopes }
}

/// Weights that some gate touches.
pub fn gated_weights(spec: &Spec, places: &Places) -> f64 {
    let hidden = spec.hidden_size as f64;
    let untied = spec.head.as_ref().is_some_and(|head| !head.tied);
    let along = match places.stream.is_empty() {
        true => 0.0,
        false => spec.vocab_size as f64 * if untied { 2.0 } else { 1.0 } + 1.0,
    };
    let layers = (0..spec.layers.len()).map(|layer| {
        let (per_head, per_channel, norms) = weights(spec, layer);
        let norms = if places.stream.is_empty() { 0.0 } else { norms };
        per_head * places.heads[layer].len() as f64
            + per_channel * places.channels[layer].len() as f64
            + norms
    });
    (along + layers.sum::<f64>()) * hidden
}
