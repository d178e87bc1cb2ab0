//! What adapters add beside frozen weights, chosen by sequence.
//!
//! An [`Adapter`] is a set of changes for one engine. Every sequence of a batch may have another one, or none: the frozen weights are read
//! once for all, then each row gets what its own adapter adds. A row is computed by itself, so that a sequence gets in a batch what it gets
//! alone. There are five kinds:
//!
//! - [`LowRank`]: `y = W x + s B (A x)` (LoRA, arXiv 2106.09685, equation 3);
//! - [`Narrow`]: `y = f(x) + s (U σ(D z + b) + c)`, a network of one narrow layer, `z` what a linear layer gave (arXiv 1902.00751) or what a
//!   feed-forward half was given (arXiv 2110.04366);
//! - [`Look`]: `attention(q) + g softmax(s q Kᵀ) V`, what queries find in keys and values apart from the text's (arXiv 2303.16199);
//! - [`Around`]: an invertible network between embedding and layers, and its inverse before the head (arXiv 2005.00052);
//! - [`Front`]: what stands in front of a text, as vectors in the place of tokens (arXiv 2104.08691) or as keys and values of every layer
//!   (arXiv 2101.00190).

mod around;
mod look;
mod rows;

use std::collections::HashMap;
use std::sync::Arc;

use ounce_model::spec::Activation;

use crate::cache::KvCache;
use crate::engine::Engine;
use crate::error::{Error, Result};

pub use around::Around;
pub use look::Look;
pub(crate) use rows::Beside;
use rows::Delta;

/// A change of one linear layer.
#[derive(Debug, Clone)]
pub struct LowRank {
    /// The layer, as ounce calls its weight, without `.weight`: `layers.0.attention.query`.
    pub name: String,
    /// The width between both matrices.
    pub rank: usize,
    /// `A`, `[rank, in]`.
    pub reduce: Vec<f32>,
    /// `B`, `[out, rank]`.
    pub expand: Vec<f32>,
    /// The factor `s` on their product.
    pub scale: f32,
}

/// A narrow network behind a linear layer, which sees what that gave; or beside a feed-forward half, which sees what the half is given.
#[derive(Debug, Clone)]
pub struct Narrow {
    /// The linear layer that it follows, as in [`LowRank`], or the half that it stands beside: `layers.0.feed_forward`.
    pub name: String,
    /// Its inner width.
    pub width: usize,
    /// `D`, `[width, d]`, where the layer or half gives `d` values.
    pub reduce: Vec<f32>,
    /// `b`, `[width]`.
    pub reduce_bias: Vec<f32>,
    /// `U`, `[d, width]`.
    pub expand: Vec<f32>,
    /// `c`, `[d]`.
    pub expand_bias: Vec<f32>,
    /// `σ`.
    pub activation: Activation,
    /// `s`.
    pub scale: f32,
}

/// What stands in front of each text.
#[derive(Debug, Clone, PartialEq)]
pub enum Front {
    /// Vectors in the place of those of tokens, `[count, embedding width]`.
    Vectors(Vec<f32>),
    /// Keys and values of `count` positions for every layer, `[count, key width]` each; keys are as attention sees them, behind norm
    /// and rotation.
    KeysAndValues {
        /// Positions.
        count: usize,
        /// Of each layer.
        layers: Vec<[Vec<f32>; 2]>,
    },
}

/// All that an adapter changes.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// Products of two thin matrices, at most one a layer.
    pub low_rank: Vec<LowRank>,
    /// Narrow networks; those of one place lie on each other in this order.
    pub narrow: Vec<Narrow>,
    /// What queries find besides, at most one a layer.
    pub looks: Vec<Look>,
    /// Around all layers, from the embedding inwards.
    pub around: Vec<Around>,
    /// In front of texts.
    pub front: Option<Front>,
}

impl From<Vec<LowRank>> for Changes {
    fn from(low_rank: Vec<LowRank>) -> Changes {
        Changes { low_rank, ..Changes::default() }
    }
}

/// Changes of an engine's layers, to be used by any number of its sequences.
#[derive(Debug)]
pub struct Adapter {
    engine: u64,
    /// By the layer or half whose results they change, in the order in which they are added.
    deltas: HashMap<String, Vec<Delta>>,
    /// By layer.
    looks: HashMap<usize, Look>,
    /// From the embedding inwards.
    around: Vec<around::Both>,
    front: Option<Front>,
    /// Positions that the front takes.
    positions: usize,
}

impl Adapter {
    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        let front = match &self.front {
            None => 0,
            Some(Front::Vectors(values)) => values.len(),
            Some(Front::KeysAndValues { layers, .. }) => layers.iter().flatten().map(Vec::len).sum(),
        };
        let deltas: usize = self.deltas.values().flatten().map(Delta::values).sum();
        let looks: usize = self.looks.values().map(|it| it.keys.len() + it.values.len()).sum();
        let around: usize = self.around.iter().map(around::Both::values).sum();
        (deltas + looks + around + front) * size_of::<f32>()
    }

    /// Positions in front of a text that hold no token.
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// The vector of a position, if it stands in the place of a token's.
    pub(crate) fn vector(&self, position: usize, width: usize) -> Option<&[f32]> {
        match &self.front {
            Some(Front::Vectors(values)) => values.chunks_exact(width).nth(position),
            _ => None,
        }
    }

    /// Fills an empty cache with what stands in front of every text.
    pub(crate) fn begin(&self, cache: &mut KvCache) {
        if let Some(Front::KeysAndValues { count, layers }) = self.front.as_ref().filter(|_| cache.is_empty())
        {
            for (cache, [keys, values]) in cache.layers.iter_mut().zip(layers) {
                cache.push(keys, values);
            }
            cache.advance(*count);
        }
    }
}

/// An error, if the adapter was made for another engine.
pub(crate) fn check(adapter: Option<&Adapter>, engine: &Engine) -> Result<()> {
    match adapter {
        Some(it) if it.engine != engine.id() => {
            Err(Error::Unsuitable("the adapter was made for another engine".to_string()))
        }
        _ => Ok(()),
    }
}

impl Engine {
    /// An adapter for this engine's layers.
    ///
    /// # Errors
    /// If a change is of no linear layer of the model's attention or feed-forward parts, has other sides than it, is no number, or a layer
    /// has two products of thin matrices; or if texts of this model can't have anything in front.
    pub fn adapter(&self, changes: impl Into<Changes>) -> Result<Arc<Adapter>> {
        let Changes { low_rank, narrow, looks, around, front } = changes.into();
        let shapes: HashMap<String, Vec<usize>> =
            self.spec().tensors().into_iter().map(|it| (it.name, it.shape)).collect();
        let mut deltas: HashMap<String, Vec<Delta>> = HashMap::new();
        for change in low_rank {
            let (name, delta) = self.product(&shapes, change)?;
            if deltas.insert(name.clone(), vec![delta]).is_some() {
                return Err(wrong(&name, "comes twice"));
            }
        }
        for change in narrow {
            let (name, delta) = self.network(&shapes, change)?;
            deltas.entry(name).or_default().push(delta);
        }
        let looks = look::by_layer(self.spec(), looks)?;
        let width = self.spec().hidden_size;
        let around = around.into_iter().map(|it| it.both(width)).collect::<Result<_>>()?;
        let positions = self.check_front(front.as_ref())?;
        Ok(Arc::new(Adapter { engine: self.id(), deltas, looks, around, front, positions }))
    }

    fn product(&self, shapes: &HashMap<String, Vec<usize>>, change: LowRank) -> Result<(String, Delta)> {
        let LowRank { name, rank, reduce, expand, scale } = change;
        // Experts are given a part of the rows, and the head those that are wanted.
        let outside = !name.starts_with("layers.") || name.contains(".experts.") || name.contains(".router");
        let shape = shapes.get(&format!("{name}.weight")).filter(|it| it.len() == 2 && !outside);
        let Some(&[output, input]) = shape.map(Vec::as_slice) else {
            return Err(wrong(&name, "can't be run beside the weights; merge it (ounce merge)"));
        };
        if rank == 0 || reduce.len() != rank * input || expand.len() != output * rank {
            let what = format!(
                "has {} and {} values at rank {rank}; a layer of {output} × {input} has {} and {}",
                reduce.len(),
                expand.len(),
                rank * input,
                output * rank
            );
            return Err(wrong(&name, &what));
        }
        if !scale.is_finite() || !reduce.iter().chain(&expand).all(|it| it.is_finite()) {
            return Err(wrong(&name, "has values that are no numbers"));
        }
        let expand = turned(&expand, output, rank, scale);
        Ok((name, Delta::product(output, input, reduce, expand)))
    }

    fn network(&self, shapes: &HashMap<String, Vec<usize>>, change: Narrow) -> Result<(String, Delta)> {
        let name = change.name.clone();
        let beside = name.ends_with(".feed_forward");
        let matrix = if beside { format!("{name}.down.weight") } else { format!("{name}.weight") };
        let inside = name.starts_with("layers.") && !name.contains(".experts.") && !name.contains(".router");
        let shape = shapes.get(&matrix).filter(|it| it.len() == 2 && inside);
        let Some(&[output, _]) = shape.map(Vec::as_slice) else {
            return Err(wrong(&name, "stands at no layer that it could follow"));
        };
        let delta = change.delta(output, beside)?;
        Ok((name, delta))
    }

    /// Positions that it takes.
    fn check_front(&self, front: Option<&Front>) -> Result<usize> {
        let spec = self.spec();
        let Some(front) = front else { return Ok(0) };
        if !spec.causal || spec.classifier.is_some() {
            let what = "nothing can stand in front of this model's texts: it does not continue them";
            return Err(Error::Unsuitable(what.to_string()));
        }
        let unfit = |what: String| Err(Error::Unsuitable(format!("what stands in front of texts {what}")));
        let (count, mut values): (usize, Box<dyn Iterator<Item = &f32>>) = match front {
            Front::Vectors(values) => {
                let width = spec.embedding_width();
                if values.is_empty() || !values.len().is_multiple_of(width) {
                    return unfit(format!("has {} values; vectors have {width} each", values.len()));
                }
                (values.len() / width, Box::new(values.iter()))
            }
            Front::KeysAndValues { count, layers } => {
                let widths = spec.layers.iter().map(|it| it.attention.as_ref().map_or(0, |it| it.kv_width()));
                let fits =
                    |width: usize, pair: &[Vec<f32>; 2]| pair.iter().all(|it| it.len() == count * width);
                let all = widths.zip(layers).all(|(width, pair)| fits(width, pair));
                if *count == 0 || layers.len() != spec.layers.len() || !all {
                    return unfit("does not have the width of the layers' keys".to_string());
                }
                (*count, Box::new(layers.iter().flatten().flatten()))
            }
        };
        if !values.all(|it| it.is_finite()) {
            return unfit("has values that are no numbers".to_string());
        }
        Ok(count)
    }
}

impl Narrow {
    /// In the form in which it is added, for results of `output` values; `beside` them, or behind them.
    fn delta(self, output: usize, beside: bool) -> Result<Delta> {
        let Narrow { name, width, reduce, reduce_bias, expand, expand_bias, activation, scale } = self;
        let found = [reduce.len(), reduce_bias.len(), expand.len(), expand_bias.len()];
        let wanted = [width * output, width, output * width, output];
        if width == 0 || found != wanted {
            return Err(wrong(
                &name,
                &format!("has {found:?} values; at a width of {width} it has {wanted:?}"),
            ));
        }
        let mut all = reduce.iter().chain(&reduce_bias).chain(&expand).chain(&expand_bias);
        if !scale.is_finite() || !all.all(|it| it.is_finite()) {
            return Err(wrong(&name, "has values that are no numbers"));
        }
        let bias = [reduce_bias, expand_bias.iter().map(|it| scale * it).collect()];
        let expand = turned(&expand, output, width, scale);
        Ok(Delta::network(output, reduce, expand, bias, activation, beside))
    }
}

fn wrong(name: &str, what: &str) -> Error {
    Error::Unsuitable(format!("the adapter's change of {name} {what}"))
}

/// `[output, inner]` as `[inner, output]`, times a factor: a row of it is added for each value between the matrices.
fn turned(expand: &[f32], output: usize, inner: usize, scale: f32) -> Vec<f32> {
    (0..inner * output).map(|at| scale * expand[at % output * inner + at / output]).collect()
}
