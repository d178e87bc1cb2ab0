//! What a unit is worth: three scores for heads, channels of feed-forward halves, and channels of the stream.
//!
//! - `taylor`: how much the loss on calibration text changes without it (LLM-Pruner, arXiv 2305.11627, equations 3 to 5). A unit is out when
//!   what it adds to the stream is scaled by a `z` of 0; the derivative of the loss by `z` is `d = Σ ∂L/∂w · w` over the columns with which
//!   the unit's result enters the output (or down) matrix, so gradients of these matrices are all that is needed. Near a minimum `d` is
//!   small, however much a large unit is worth, so curvature counts too: `|E[d]| + ½ n E[d²]`, where `E` is over sequences of `n` tokens and
//!   `n E[d²]` is the Fisher information of `z`, as tokens' derivatives cancel in a sequence's mean.
//! - `activation`: how large its result is, `√(Σ ‖W[:, c]‖² E[x_c²])` over its columns `c`: Wanda's measure, summed over a unit.
//! - `magnitude`: the norm of all its weights, without any text.

use std::sync::PoisonError;

use ounce_engine::Walk;
use ounce_model::Model;
use ounce_model::spec::Spec;
use ounce_train::net::{Net, Options};
use ounce_train::{Batch, Param, Trainable};

use super::groups::{Axis, Unit, attention, layer_of, mlp, query_range, slices};
use crate::stages::{look, mode, not_empty};
use crate::{Error, Result};

/// The worth of each unit of a model.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Scores {
    /// Of each layer's key/value heads; empty where there are none.
    pub heads: Vec<Vec<f64>>,
    /// Of each layer's feed-forward channels; empty where there are none.
    pub channels: Vec<Vec<f64>>,
    /// Of the stream's channels; empty where they weren't looked at.
    pub stream: Vec<f64>,
    /// Whether the scores of different layers, and of heads and channels, are in one measure.
    pub comparable: bool,
}

impl Scores {
    /// Zeros for a model.
    pub fn zeros(spec: &Spec, comparable: bool) -> Scores {
        let layers = 0..spec.layers.len();
        Scores {
            heads: layers
                .clone()
                .map(|it| vec![0.0; attention(spec, it).map_or(0, |it| it.kv_heads)])
                .collect(),
            channels: layers.map(|it| vec![0.0; mlp(spec, it).map_or(0, |it| it.width)]).collect(),
            stream: Vec::new(),
            comparable,
        }
    }
}

/// Where a unit's result enters: the matrices whose columns (of the stream: rows) the first-order change is summed over.
pub(crate) fn is_entrance(name: &str, stream: bool) -> bool {
    name.ends_with(".attention.output.weight")
        || name.ends_with(".feed_forward.down.weight")
        || (stream && (name == "embed.tokens.weight" || name == "embed.positions.weight"))
}

/// Scores by the change of the next token's loss on sequences of token ids, to first order and by curvature. `stream` asks for the channels of the stream
/// too. `progress` is told the sequences done and in all.
///
/// Holds gradients of the output and down matrices, and the activations of one sequence.
///
/// # Errors
/// If there is no text, the model can't be trained, or `progress` stops the work.
pub fn taylor(
    model: &Model,
    sequences: &[Vec<u32>],
    stream: bool,
    progress: &mut dyn FnMut(usize, usize) -> Result<()>,
) -> Result<Scores> {
    not_empty(sequences)?;
    let spec = &model.spec;
    if !spec.causal || spec.head.is_none() || spec.classifier.is_some() {
        return Err(Error::Option(
            "this model predicts no next token, whose loss the score is made of; choose --score activation or magnitude".into(),
        ));
    }
    let mut net = Net::with_frozen(model, Options::default(), &|name| is_entrance(name, stream))?;
    let (mut sum, mut curvature) = (zeros(spec, stream), zeros(spec, stream));
    for (done, ids) in sequences.iter().enumerate() {
        progress(done, sequences.len())?;
        let batch = Batch::next_token([ids.as_slice()]);
        if batch.counted() == 0 {
            continue;
        }
        net.params_mut().iter_mut().for_each(|param| param.grad.fill(0.0));
        let loss = net.accumulate(&batch, 1.0 / batch.counted() as f32)?;
        if !loss.sum.is_finite() {
            return Err(Error::Option(
                "the loss on the calibration text is no number; the model's weights are damaged".into(),
            ));
        }
        let mut slopes = slopes(spec, net.params(), stream);
        let (share, tokens) = (1.0 / sequences.len() as f64, batch.counted() as f64);
        for ((sum, curvature), slopes) in parts(&mut sum).zip(parts(&mut curvature)).zip(parts(&mut slopes)) {
            for ((sum, curvature), d) in sum.iter_mut().zip(curvature).zip(slopes) {
                *sum += share * *d;
                *curvature += share * tokens * *d * *d;
            }
        }
    }
    for (sum, curvature) in parts(&mut sum).zip(parts(&mut curvature)) {
        sum.iter_mut().zip(curvature).for_each(|(sum, curvature)| *sum = sum.abs() + 0.5 * *curvature);
    }
    progress(sequences.len(), sequences.len())?;
    Ok(sum)
}

/// Zeros for a model, of the stream's channels too if they are asked for.
pub(crate) fn zeros(spec: &Spec, stream: bool) -> Scores {
    Scores { stream: vec![0.0; if stream { spec.hidden_size } else { 0 }], ..Scores::zeros(spec, true) }
}

/// The derivative of the loss by a factor on each unit, `Σ g w` over its entrances.
pub(crate) fn slopes(spec: &Spec, params: &[Param], stream: bool) -> Scores {
    let mut slopes = zeros(spec, stream);
    for param in params.iter().filter(|param| is_entrance(&param.name, stream)) {
        let products = param.value.iter().zip(&param.grad).map(|(w, g)| f64::from(*w) * f64::from(*g));
        add(&mut slopes, spec, &param.name, param.shape[1], products);
    }
    slopes
}

/// All numbers, in lists.
pub(crate) fn parts(scores: &mut Scores) -> impl Iterator<Item = &mut Vec<f64>> {
    scores.heads.iter_mut().chain(&mut scores.channels).chain([&mut scores.stream])
}

/// Adds numbers that belong to the weights of an entrance to the units that they are of.
pub(crate) fn add(
    scores: &mut Scores,
    spec: &Spec,
    name: &str,
    width: usize,
    numbers: impl Iterator<Item = f64>,
) {
    let wide = width.max(1);
    let mut columns = vec![0.0; width];
    let tables = name.starts_with("embed.");
    for (place, number) in numbers.enumerate() {
        columns[place % wide] += number;
        if !tables && let Some(row) = scores.stream.get_mut(place / wide) {
            *row += number;
        }
    }
    if tables {
        scores.stream.iter_mut().zip(columns).for_each(|(sum, column)| *sum += column);
        return;
    }
    let Some(layer) = layer_of(name) else { return };
    if name.contains(".attention.") {
        if let Some(heads) = attention(spec, layer) {
            for (kv_head, score) in scores.heads[layer].iter_mut().enumerate() {
                *score += columns[query_range(heads, kv_head)].iter().sum::<f64>();
            }
        }
    } else {
        // Experts' channels are no units.
        scores.channels[layer].iter_mut().zip(columns).for_each(|(sum, column)| *sum += column);
    }
}

/// Scores by the size of what a unit adds to the stream, on sequences of token ids. `progress` is told the layers done and in all.
///
/// # Errors
/// If there is no text, a weight can't be read, or `progress` stops the work.
pub fn activation(
    model: &Model,
    sequences: Vec<Vec<u32>>,
    progress: &mut dyn FnMut(usize, usize) -> Result<()>,
) -> Result<Scores> {
    not_empty(&sequences)?;
    let (spec, weights) = (&model.spec, &model.weights);
    let mut scores = Scores::zeros(spec, false);
    let mut walk = Walk::begin(model, sequences, mode())?;
    let layers = spec.layers.len();
    for layer in 0..layers {
        let mut check = || progress(layer, layers).map_err(Error::into_engine);
        for name in ["attention.output", "feed_forward.down"].map(|it| format!("layers.{layer}.{it}.weight"))
        {
            if !weights.contains(&name) {
                continue;
            }
            let seen = look(&mut walk, weights, std::slice::from_ref(&name), false, &mut check)?;
            let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(moments) = seen.moments(name.trim_end_matches(".weight")) else { continue };
            let mean_squares = moments.importance();
            let values = weights.f32(&name)?;
            let width = mean_squares.len();
            let sizes =
                values.iter().enumerate().map(|(place, w)| f64::from(w * w * mean_squares[place % width]));
            add(&mut scores, spec, &name, width, sizes);
        }
        walk.advance(weights, |_| check())?;
    }
    parts(&mut scores).flatten().for_each(|score| *score = score.sqrt());
    progress(layers, layers)?;
    Ok(scores)
}

/// Scores by the norm of all weights of a unit.
///
/// # Errors
/// If a weight can't be read, or a unit can't be cut out.
pub fn magnitude(model: &Model, stream: bool) -> Result<Scores> {
    let spec = &model.spec;
    let mut scores = Scores::zeros(spec, false);
    scores.stream = vec![0.0; if stream { spec.hidden_size } else { 0 }];
    let wanted = spec.tensors().into_iter().filter(|tensor| tensor.shape.len() > 1);
    for tensor in wanted {
        let values = model.weights.f32(&tensor.name)?;
        let (rows, columns) = squares(&values, tensor.shape[1]);
        let (along_rows, along_columns) = super::groups::along_stream(&tensor.name);
        for (along, sums) in [(along_rows, &rows), (along_columns, &columns)] {
            if along {
                scores.stream.iter_mut().zip(sums).for_each(|(score, sum)| *score += sum);
            }
        }
        let Some(layer) = layer_of(&tensor.name) else { continue };
        let units = (0..scores.heads[layer].len()).map(|kv_head| (true, kv_head));
        let units = units.chain((0..scores.channels[layer].len()).map(|channel| (false, channel)));
        let units: Vec<(bool, usize)> =
            units.filter(|(head, _)| tensor.name.contains(".attention.") == *head).collect();
        for (head, at) in units {
            let (range, of) = match head {
                true => {
                    let Some(heads) = attention(spec, layer) else { continue };
                    let (queries, keys) = (query_range(heads, at), super::groups::kv_range(heads, at));
                    match tensor.name.rsplit('.').nth(1) {
                        Some("query") => (queries, &rows),
                        Some("output") => (queries, &columns),
                        _ => (keys, &rows),
                    }
                }
                false if tensor.name.ends_with(".down.weight") => (at..at + 1, &columns),
                false => (at..at + 1, &rows),
            };
            let score = if head { &mut scores.heads[layer][at] } else { &mut scores.channels[layer][at] };
            *score += of[range].iter().sum::<f64>();
        }
    }
    parts(&mut scores).flatten().for_each(|score| *score = score.sqrt());
    Ok(scores)
}

/// Sums of squares of each row and of each column.
fn squares(values: &[f32], width: usize) -> (Vec<f64>, Vec<f64>) {
    let mut columns = vec![0.0; width];
    let rows = values.chunks_exact(width.max(1)).map(|row| {
        row.iter().zip(&mut columns).fold(0.0, |sum, (w, column)| {
            let square = f64::from(*w) * f64::from(*w);
            *column += square;
            sum + square
        })
    });
    (rows.collect(), columns)
}

/// The sum of `number` over all weights of a unit, slice by slice: what other sums are tested against.
///
/// # Errors
/// As `slices`, and if a weight can't be read.
pub fn sum_over(model: &Model, unit: Unit, number: &dyn Fn(&str, usize, f32) -> f64) -> Result<f64> {
    let mut sum = 0.0;
    for slice in slices(&model.spec, unit)? {
        let values = model.weights.f32(&slice.tensor)?;
        let shape = model.weights.info(&slice.tensor).map(|(_, shape)| shape.to_vec()).unwrap_or_default();
        let width: usize = shape.iter().skip(1).product();
        let all = values.iter().enumerate();
        let own = all.filter(|(place, _)| {
            let at = if slice.axis == Axis::Rows { place / width } else { place % width };
            slice.range.contains(&at)
        });
        sum += own.map(|(place, w)| number(&slice.tensor, place, *w)).sum::<f64>();
    }
    Ok(sum)
}
