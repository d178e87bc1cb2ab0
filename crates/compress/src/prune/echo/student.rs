//! A model of which some layers attend by another's matrix.

use candle_core::Tensor;
use ounce_model::families::reshaped;
use ounce_model::weights::MemorySource;
use ounce_model::{Config, Model, Spec, Weights};
use ounce_train::graph::{GraphNet, Hook, Pass};
use ounce_train::loss::CrossEntropy;
use ounce_train::net::Options;
use ounce_train::{Batch, Loss};

use super::similarity::alike;
use crate::{Error, Result};

/// Lets layers attend by another's queries and keys, and keeps the streams behind some layers.
#[derive(Debug)]
pub struct Echo<'s> {
    sources: &'s [usize],
    kept: Vec<Option<[Tensor; 2]>>,
    wanted: &'s [usize],
    /// The streams behind the layers that were wanted, in the order in which they come, `[tokens, hidden]`.
    pub streams: Vec<Tensor>,
}

impl<'s> Echo<'s> {
    /// For one pass.
    pub fn new(sources: &'s [usize], wanted: &'s [usize]) -> Echo<'s> {
        Echo { sources, kept: vec![None; sources.len()], wanted, streams: Vec::new() }
    }
}

impl Hook for Echo<'_> {
    fn shared_attention(&mut self, layer: usize) -> ounce_train::Result<Option<[Tensor; 2]>> {
        let source = self.sources[layer];
        Ok(if source == layer { None } else { self.kept[source].clone() })
    }

    fn attends(&mut self, layer: usize, queries: &Tensor, keys: &Tensor) -> ounce_train::Result<()> {
        if self.sources[layer] == layer {
            self.kept[layer] = Some([queries.clone(), keys.clone()]);
        }
        Ok(())
    }

    fn layer_output(&mut self, layer: usize, x: Tensor) -> ounce_train::Result<Tensor> {
        if self.wanted.contains(&layer) {
            self.streams.push(x.clone());
        }
        Ok(x)
    }
}

/// A model of which some layers attend by another's matrix, as a network to train.
#[derive(Debug)]
pub struct Student {
    /// The network. Query and key matrices of layers that copy are in it, frozen and without use.
    pub net: GraphNet,
    /// Of each layer the one by whose matrix it attends.
    pub sources: Vec<usize>,
}

/// Whether a tensor is one that a layer which copies has no use for.
fn is_dropped(name: &str, sources: &[usize]) -> bool {
    let mut parts = name.strip_prefix("layers.").unwrap_or_default().split('.');
    let layer = parts.next().and_then(|it| it.parse::<usize>().ok());
    let copies = layer.is_some_and(|layer| sources.get(layer).is_some_and(|source| *source != layer));
    let part = if parts.next() == Some("attention") { parts.next() } else { None };
    copies && matches!(part, Some("query" | "key" | "query_norm" | "key_norm"))
}

/// Parameters that layers which copy do without.
pub fn dropped(spec: &Spec, sources: &[usize]) -> u64 {
    let own = spec.tensors().into_iter().filter(|tensor| is_dropped(&tensor.name, sources));
    own.map(|tensor| tensor.shape.iter().product::<usize>() as u64).sum()
}

/// Configuration and spec of a model whose layers attend by these sources.
///
/// # Errors
/// If its family has no way to say it.
pub fn said(model: &Model, sources: &[usize]) -> Result<(Config, Spec)> {
    let mut spec = model.spec.clone();
    for (index, (layer, &source)) in spec.layers.iter_mut().zip(sources).enumerate() {
        if let Some(attention) = &mut layer.attention {
            attention.copies = (source != index).then_some(source);
        }
    }
    let all: Vec<usize> = (0..spec.layers.len()).collect();
    Ok((reshaped(&model.config, &spec, &all)?, spec))
}

impl Student {
    /// A student with its teacher's weights.
    ///
    /// # Errors
    /// If layers differ in shape, a source is no layer before with a matrix of its own, or a weight can't be read.
    pub fn new(teacher: &Model, sources: &[usize]) -> Result<Student> {
        alike(teacher)?;
        let fits = sources.len() == teacher.spec.layers.len()
            && sources
                .iter()
                .enumerate()
                .all(|(layer, &source)| source <= layer && sources[source] == source);
        if !fits {
            return Err(Error::Option(format!(
                "each of {} layers should attend by its own matrix or by that of one before it that has its own, found {sources:?}",
                teacher.spec.layers.len()
            )));
        }
        let trains = |name: &str| !is_dropped(name, sources);
        let net = GraphNet::with_frozen(teacher, Options::default(), &trains, &mut |_, linear| {
            Ok(Box::new(linear))
        })?;
        Ok(Student { net, sources: sources.to_vec() })
    }

    /// The student as a model whose layers copy: without the matrices that they do without.
    ///
    /// # Errors
    /// If its family has no way to say it, or a weight can't be read.
    pub fn model(&self) -> Result<Model> {
        let whole = self.net.model()?;
        let (config, spec) = said(&whole, &self.sources)?;
        let mut weights = MemorySource::new(whole.weights.path());
        for tensor in spec.tensors() {
            let own = whole.weights.get(&tensor.name)?;
            weights.insert(tensor.name, own);
        }
        Ok(Model { spec, config, weights: Weights::in_memory(weights), ..whole })
    }

    /// The last layer of each block that shares a matrix.
    pub fn block_ends(&self) -> Vec<usize> {
        let copies = |layer: usize| self.sources.get(layer).is_some_and(|source| *source != layer);
        (0..self.sources.len()).filter(|&layer| copies(layer) && !copies(layer + 1)).collect()
    }

    /// The next token's loss on a batch; with a scale its gradient is added.
    ///
    /// # Errors
    /// If the batch does not fit.
    pub fn run(&mut self, batch: &Batch, scale: Option<f32>) -> Result<Loss> {
        let Student { net, sources } = self;
        let mut objective = |pass: &Pass<'_>| {
            let hidden = pass.hidden(&mut Echo::new(sources, &[]))?;
            pass.loss(&hidden, &mut CrossEntropy)
        };
        Ok(net.run(batch, scale, &mut objective)?)
    }

    /// Nats a token on sequences.
    ///
    /// # Errors
    /// If they do not fit.
    pub fn loss(&mut self, sequences: &[Vec<u32>]) -> Result<f64> {
        let mut sum = Loss::default();
        for own in sequences.chunks(16) {
            sum += self.run(&Batch::next_token(own.iter().map(Vec::as_slice)), None)?;
        }
        Ok(sum.mean())
    }
}
