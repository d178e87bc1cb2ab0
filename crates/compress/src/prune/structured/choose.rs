//! From scores and a wished size to a cut.
//!
//! Everywhere the units that are worth least for their weights leave first, until enough weights are gone. Scores that mean
//! something else from layer to layer are measured by the mean of their kind in their layer first. In the uniform way all layers
//! lose the same number of heads and channels, so that programs that know layers of one shape only read the result.

use ounce_model::spec::Spec;

use super::cut::{Cut, LayerCut};
use super::groups::{self, Unit, attention, mlp, slices};
use super::saliency::Scores;
use crate::{Error, Result};

/// How small the model is to become.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// At least this share of the layers' weights leaves, above 0 and below 1.
    Share(f64),
    /// So many parameters stay at most, embedding and head included.
    Parameters(u64),
}

/// What may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Whether heads may.
    pub heads: bool,
    /// Whether channels of feed-forward halves may.
    pub channels: bool,
    /// Key/value heads that every attention keeps, at least one.
    pub least_heads: usize,
    /// Channels stay in multiples of this, one such at least: blocks of number formats and kernels want whole ones.
    pub multiple: usize,
    /// Whether all layers keep the same shape.
    pub uniform: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { heads: true, channels: true, least_heads: 1, multiple: 32, uniform: false }
    }
}

/// Units of a layer that leave together.
#[derive(Debug, Clone)]
struct Block {
    layer: usize,
    units: Vec<Unit>,
    worth: f64,
    size: u64,
}

/// Weights of the layers.
fn layer_weights(spec: &Spec) -> u64 {
    let own = spec.tensors().into_iter().filter(|tensor| tensor.name.starts_with("layers."));
    own.map(|tensor| tensor.shape.iter().product::<usize>() as u64).sum()
}

impl Target {
    /// How many weights must leave.
    ///
    /// # Errors
    /// If the target is none, or reached already.
    pub fn weights_to_remove(self, spec: &Spec) -> Result<u64> {
        match self {
            Target::Share(share) if !(share > 0.0 && share < 1.0) => Err(Error::Option(format!(
                "the share to remove should be above 0 and below 1, found {share}"
            ))),
            Target::Share(share) => Ok((share * layer_weights(spec) as f64).ceil() as u64),
            Target::Parameters(most) => {
                let all = spec.parameters();
                all.checked_sub(most).filter(|&it| it > 0).ok_or_else(|| {
                    Error::Option(format!(
                        "the model has {all} parameters, which is no more than the {most} that are asked for"
                    ))
                })
            }
        }
    }
}

/// The error of a target that nothing reaches.
fn too_small(spec: &Spec, target: Target, removable: u64) -> Error {
    let (all, layers) = (spec.parameters(), layer_weights(spec));
    let least = all - removable;
    let share = removable as f64 / layers.max(1) as f64;
    match target {
        Target::Share(asked) => Error::Option(format!(
            "a share of {asked} can't leave: with what must stay of every layer at most {share:.3} can; ask for less, or let more \
             kinds of parts leave"
        )),
        Target::Parameters(asked) => Error::Option(format!(
            "{asked} parameters are too few: with what must stay the model has {least}; ask for more, or let more kinds of \
             parts leave"
        )),
    }
}

/// Weights of a unit.
fn size(spec: &Spec, unit: Unit) -> Result<u64> {
    let tensors = spec.tensors();
    let sizes = slices(spec, unit)?.into_iter().map(|slice| {
        let shape =
            tensors.iter().find(|it| it.name == slice.tensor).map(|it| it.shape.as_slice()).unwrap_or(&[]);
        let along = if slice.axis == groups::Axis::Rows { shape.first() } else { shape.last() };
        shape.iter().product::<usize>() / along.copied().unwrap_or(1).max(1) * slice.range.len()
    });
    Ok(sizes.sum::<usize>() as u64)
}

/// What may leave of each layer in its order: the least worthy first. Heads' queues, then channels'.
fn queues(spec: &Spec, scores: &Scores, limits: &Limits) -> Result<[Vec<Vec<Block>>; 2]> {
    let (mut heads, mut channels) = (Vec::new(), Vec::new());
    let multiple = limits.multiple.max(1);
    for layer in 0..spec.layers.len() {
        let unit = |kv_head| Unit::Heads { layer, kv_head };
        let own = attention(spec, layer).filter(|_| limits.heads).map_or(0, |it| it.kv_heads);
        heads.push(queue(spec, layer, &scores.heads[layer][..own], &unit, 1, limits.least_heads.max(1))?);
        let unit = |channel| Unit::Channel { layer, channel };
        let own = mlp(spec, layer).filter(|_| limits.channels).map_or(0, |it| it.width);
        channels.push(queue(spec, layer, &scores.channels[layer][..own], &unit, multiple, multiple)?);
    }
    if !scores.comparable {
        heads.iter_mut().chain(&mut channels).for_each(|queue| relative(queue));
    }
    Ok([heads, channels])
}

/// Measures worth by the mean of a queue.
fn relative(queue: &mut [Block]) {
    let all = queue.iter().map(|block| block.worth).sum::<f64>();
    let size = queue.iter().map(|block| block.size as f64).sum::<f64>();
    queue.iter_mut().for_each(|block| block.worth *= if all > 0.0 { size / all } else { 1.0 });
}

fn queue(
    spec: &Spec,
    layer: usize,
    scores: &[f64],
    unit: &dyn Fn(usize) -> Unit,
    multiple: usize,
    least: usize,
) -> Result<Vec<Block>> {
    let count = scores.len();
    if count <= least {
        return Ok(Vec::new());
    }
    if let Some(place) = scores.iter().position(|score| !score.is_finite()) {
        let what = format!(
            "the worth of part {place} of layer {layer} is no number; the model's weights are damaged"
        );
        return Err(Error::Option(what));
    }
    let one = size(spec, unit(0))?;
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]).then(b.cmp(a)));
    // What is over whole multiples leaves first.
    let (first, rest) = order[..count - least].split_at((count - least) % multiple);
    let blocks = [first].into_iter().chain(rest.chunks(multiple)).filter(|block| !block.is_empty());
    Ok(blocks
        .map(|block| Block {
            layer,
            units: block.iter().map(|&it| unit(it)).collect(),
            worth: block.iter().map(|&it| scores[it]).sum(),
            size: one * block.len() as u64,
        })
        .collect())
}

/// The cut that reaches a target with the least worth lost, block by block.
///
/// # Errors
/// If no cut within the limits reaches the target, a kind of unit can't be cut out of this model, or layers that differ are to become alike.
pub fn choose(spec: &Spec, scores: &Scores, target: Target, limits: &Limits) -> Result<Cut> {
    let wanted = target.weights_to_remove(spec)?;
    let [heads, channels] = queues(spec, scores, limits)?;
    let removable: u64 = heads.iter().chain(&channels).flatten().map(|block| block.size).sum();
    if removable < wanted {
        return Err(too_small(spec, target, removable));
    }
    let gone = if limits.uniform {
        uniform(&heads, &channels, wanted).ok_or_else(|| {
            Error::Option(
                "layers of this model differ in shape, so they can't be cut to the same; leave out --uniform"
                    .into(),
            )
        })?
    } else {
        let mut all: Vec<Block> = heads.into_iter().chain(channels).flatten().collect();
        all.sort_by(|a, b| {
            (a.worth / a.size as f64).total_cmp(&(b.worth / b.size as f64)).then(a.layer.cmp(&b.layer))
        });
        let mut removed = 0;
        let enough = all.iter().position(|block| {
            removed += block.size;
            removed >= wanted
        });
        all.truncate(enough.map_or(all.len(), |at| at + 1));
        all
    };
    let units: Vec<Unit> = gone.into_iter().flat_map(|block| block.units).collect();
    Cut::without(spec, &units)
}

/// The units that may leave in blocks, those that are worth least for their weights first; blocks of `stream` channels of the stream among them,
/// none for 0 or where the stream can't be cut.
pub(crate) fn blocks(spec: &Spec, scores: &Scores, limits: &Limits, stream: usize) -> Result<Vec<Vec<Unit>>> {
    let [heads, channels] = queues(spec, scores, limits)?;
    let mut all: Vec<Block> = heads.into_iter().chain(channels).flatten().collect();
    if stream > 0 && groups::check(spec, Unit::Stream { channel: 0 }).is_ok() {
        let mut own = queue(spec, 0, &scores.stream, &|channel| Unit::Stream { channel }, stream, stream)?;
        if !scores.comparable {
            relative(&mut own);
        }
        all.extend(own);
    }
    all.sort_by(|a, b| {
        (a.worth / a.size as f64).total_cmp(&(b.worth / b.size as f64)).then(a.layer.cmp(&b.layer))
    });
    Ok(all.into_iter().map(|block| block.units).collect())
}

/// The same number of blocks from each layer: of all pairs that remove enough the one that loses least. None if layers differ.
fn uniform(heads: &[Vec<Block>], channels: &[Vec<Block>], wanted: u64) -> Option<Vec<Block>> {
    let sizes = |queue: &[Block]| queue.iter().map(|block| block.size).collect::<Vec<u64>>();
    for queues in [heads, channels] {
        let first = sizes(queues.first()?);
        if queues.iter().any(|queue| sizes(queue) != first) {
            return None;
        }
    }
    let lost = |queues: &[Vec<Block>], count: usize| -> (f64, u64) {
        let blocks = queues.iter().flat_map(|queue| &queue[..count]);
        blocks.fold((0.0, 0), |(worth, size), block| (worth + block.worth, size + block.size))
    };
    let mut best: Option<(f64, usize, usize)> = None;
    for of_heads in 0..=heads[0].len() {
        let (worth, size) = lost(heads, of_heads);
        let enough = (0..=channels[0].len()).find(|&count| size + lost(channels, count).1 >= wanted);
        if let Some(count) = enough {
            let worth = worth + lost(channels, count).0;
            if best.is_none_or(|(least, ..)| worth < least) {
                best = Some((worth, of_heads, count));
            }
        }
    }
    let (_, of_heads, of_channels) = best?;
    let heads = heads.iter().flat_map(|queue| &queue[..of_heads]);
    let channels = channels.iter().flat_map(|queue| &queue[..of_channels]);
    Some(heads.chain(channels).cloned().collect())
}

/// The cut that takes whole layers out, the least influential first, until a target is reached.
///
/// # Errors
/// If that would take all layers.
pub fn choose_layers(spec: &Spec, influence: &[f64], target: Target) -> Result<Cut> {
    let wanted = target.weights_to_remove(spec)?;
    let order = rising(influence);
    let sizes: Vec<u64> =
        (0..spec.layers.len()).map(|layer| size(spec, Unit::Layer { layer })).collect::<Result<_>>()?;
    let (mut removed, mut gone) = (0, Vec::new());
    for layer in order {
        if removed >= wanted {
            break;
        }
        removed += sizes[layer];
        gone.push(layer);
    }
    if gone.len() == spec.layers.len() || removed < wanted {
        let largest = sizes.iter().sum::<u64>() - sizes.iter().min().copied().unwrap_or(0);
        return Err(too_small(spec, target, largest));
    }
    without_layers(spec, &gone)
}

/// The cut that keeps so many layers, the most influential.
///
/// # Errors
/// If there are not more than that, or none would stay.
pub fn keep_layers(spec: &Spec, influence: &[f64], kept: usize) -> Result<Cut> {
    let all = spec.layers.len();
    if kept == 0 || kept >= all {
        return Err(Error::Option(format!(
            "{kept} of {all} layers can't be kept; from 1 to {} can",
            all.saturating_sub(1)
        )));
    }
    without_layers(spec, &rising(influence)[..all - kept])
}

fn rising(influence: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..influence.len()).collect();
    order.sort_by(|a, b| influence[*a].total_cmp(&influence[*b]).then(b.cmp(a)));
    order
}

/// The cut that takes these layers out.
///
/// # Errors
/// If a layer can't be cut out.
pub fn without_layers(spec: &Spec, gone: &[usize]) -> Result<Cut> {
    let units: Vec<Unit> = gone.iter().map(|&layer| Unit::Layer { layer }).collect();
    Cut::without(spec, &units)
}

/// The cut that narrows the residual stream by its least worthy channels, to a multiple of `multiple`, until a target is reached.
///
/// # Errors
/// If the stream can't be cut, or no width reaches the target.
pub fn choose_stream(spec: &Spec, scores: &[f64], target: Target, multiple: usize) -> Result<Cut> {
    let wanted = target.weights_to_remove(spec)?;
    let (multiple, width) = (multiple.max(1), spec.hidden_size);
    let order = rising(scores);
    let mut removable = 0;
    for kept in (1..width).rev().filter(|kept| kept.is_multiple_of(multiple)) {
        let mut stream: Vec<usize> = order[width - kept..].to_vec();
        stream.sort_unstable();
        let cut = Cut { stream: Some(stream), ..Cut::nothing(spec) };
        let left = cut.spec(spec, false)?;
        removable = match target {
            Target::Share(_) => layer_weights(spec) - layer_weights(&left),
            Target::Parameters(_) => spec.parameters() - left.parameters(),
        };
        if removable >= wanted {
            return Ok(cut);
        }
    }
    groups::check(spec, Unit::Stream { channel: 0 })?;
    Err(too_small(spec, target, removable))
}

impl LayerCut {
    /// Key/value heads and channels that stay of a layer of the whole model.
    pub fn counts(&self, spec: &Spec, layer: usize) -> (usize, usize) {
        let heads = attention(spec, layer).map_or(0, |it| it.kv_heads);
        let width = mlp(spec, layer).map_or(0, |it| it.width);
        (self.kv_heads.as_ref().map_or(heads, Vec::len), self.channels.as_ref().map_or(width, Vec::len))
    }
}
