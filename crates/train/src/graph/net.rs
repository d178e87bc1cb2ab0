//! The network and how a trainer drives it.

use std::path::Path;

use candle_core::Tensor;
use ounce_kernels::DType;
use ounce_kernels::matmul::add_scaled;
use ounce_kernels::pool::Pool;
use ounce_model::account::training;
use ounce_model::formats::{WriteOptions, hf};
use ounce_model::weights::MemorySource;
use ounce_model::{Model, Weights};

use super::build::{Builder, Place, Wrap};
use super::embedding::Embedding;
use super::head::Head;
use super::hook::NoHook;
use super::layer::Layer;
use super::ops::{Kernels, read};
use super::pass::{Parts, Pass, State};
use super::weight::{Lent, Weight};
use crate::net::{Options, Rotations};
use crate::{Batch, Error, Loss, Param, Result, Trainable};

/// What is made smaller: from a pass to a scalar whose gradient is taken, and what is reported of it.
pub type Objective<'o> = dyn FnMut(&Pass<'_>) -> Result<(Tensor, Loss)> + 'o;

/// A network of slots.
pub struct GraphNet {
    model: Model,
    parts: Parts,
    weights: Vec<Weight>,
    params: Vec<Param>,
    rotations: Rotations,
    objective: Box<Objective<'static>>,
}

impl std::fmt::Debug for GraphNet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GraphNet({}, {} weights)", self.model.spec.family, self.params.len())
    }
}

/// Bytes of a pass by those that [`crate::net::Net`] needs.
const KEPT: usize = 2;

/// Cross-entropy with the batch's targets, labels or spans.
fn cross_entropy(pass: &Pass<'_>) -> Result<(Tensor, Loss)> {
    pass.usual_loss(&pass.hidden(&mut NoHook)?)
}

impl GraphNet {
    /// Takes a model with all weights trainable. `wrap` makes the slot of each linear layer of its parts; a
    /// [`super::Linear`] is a slot itself: `&mut |_, linear| Ok(Box::new(linear))`. Layers are named as their weights are,
    /// without `.weight`; the output matrix is `head`, even if it is the embedding's.
    ///
    /// # Errors
    /// If a weight can't be read, or `wrap` fails.
    pub fn from_model(model: &Model, options: Options, wrap: &mut Wrap<'_>) -> Result<GraphNet> {
        GraphNet::with_frozen(model, options, &|_| true, wrap)
    }

    /// As [`GraphNet::from_model`]; weights for whose names `trains` is false stay as they are, and such matrices in
    /// the format in which they are stored.
    ///
    /// # Errors
    /// As [`GraphNet::from_model`].
    pub fn with_frozen(
        model: &Model,
        options: Options,
        trains: &dyn Fn(&str) -> bool,
        wrap: &mut Wrap<'_>,
    ) -> Result<GraphNet> {
        if options.checkpointing {
            return Err(Error::Unsupported(
                "a network of slots keeps everything until the way back; turn checkpointing off".to_string(),
            ));
        }
        if model.spec.copying_layers() > 0 {
            return Err(Error::Unsupported(
                "layers of this model copy the attention of layers before them, which can't be trained; train the model that it was made of, and let layers \
                 copy anew (ounce prune --train echo-att)"
                    .to_string(),
            ));
        }
        if !model.spec.ranks.is_empty() {
            return Err(Error::Unsupported(
                "a network of slots has no factorised layers; train this model without them".to_string(),
            ));
        }
        let spec = &model.spec;
        let on = Kernels { pool: Pool::global(), compute: options.compute };
        let mut from = Builder { source: &model.weights, trains, wrap, on, weights: Vec::new() };
        let mut rotations = Rotations::default();
        let embedding = Embedding::build(&mut from, spec, options.embedding_gradient.unwrap_or(1.0))?;
        let own: Vec<usize> = (0..spec.layers.len()).filter(|&index| spec.owner(index) == index).collect();
        let layers = own
            .iter()
            .map(|&index| Layer::build(&mut from, index, &spec.layers[index], spec.causal, &mut rotations))
            .collect::<Result<_>>()?;
        let place = |index: usize| own.binary_search(&spec.owner(index)).expect("an owner is its own");
        let order = (0..spec.layers.len()).map(place).collect();
        let final_norm = from.norm("final_norm", spec.final_norm)?;
        let head = Head::build(&mut from, spec)?;
        let weights = from.weights;
        let params = weights.iter().map(Weight::param).collect::<Result<_>>()?;
        let parts = Parts { embedding, layers, order, final_norm, head };
        Ok(GraphNet {
            model: model.clone(),
            parts,
            weights,
            params,
            rotations,
            objective: Box::new(cross_entropy),
        })
    }

    /// Takes in a weight that no slot has: prompts, and what hooks compute with. It is lent to passes and trained as others.
    ///
    /// # Errors
    /// If another weight has its name.
    pub fn add(&mut self, weight: Weight) -> Result<()> {
        if self.weights.iter().any(|known| known.name() == weight.name()) {
            return Err(Error::Unsupported(format!("two weights are called {}", weight.name())));
        }
        self.params.push(weight.param()?);
        self.weights.push(weight);
        Ok(())
    }

    /// What [`Trainable::loss`] and [`Trainable::accumulate`] compute, in place of cross-entropy with the targets.
    pub fn set_objective(&mut self, objective: impl FnMut(&Pass<'_>) -> Result<(Tensor, Loss)> + 'static) {
        self.objective = Box::new(objective);
    }

    /// Sends a batch through the network. With `scale`, adds that times the gradient of the objective's scalar to the
    /// weights' gradients; without, nothing is kept for a way back.
    ///
    /// # Errors
    /// If the batch does not fit the network, or the objective fails.
    pub fn run(&mut self, batch: &Batch, scale: Option<f32>, objective: &mut Objective<'_>) -> Result<Loss> {
        let vocab = self.model.spec.vocab_size;
        match self.parts.head.as_ref().and_then(|head| head.labels) {
            Some(labels) => batch.check_labels(vocab, labels)?,
            None => batch.check(vocab)?,
        }
        if batch.tokens.is_empty() {
            return Ok(Loss::default());
        }
        self.rotations.fill(&batch.lengths);
        let rotations = self.rotations.values.iter().map(|rotation| rotation.clone().into()).collect();
        let state = State { lengths: batch.lengths.as_slice().into(), rotations };
        let lent = Lent::new(&self.weights, &mut self.params, scale.is_some())?;
        let (value, loss) = objective(&Pass { parts: &self.parts, state, batch })?;
        let Some(scale) = scale else { return Ok(loss) };
        let mut gradients = value.backward()?;
        drop(value);
        for (weight, param) in self.weights.iter().zip(lent.params.iter_mut()) {
            if let Some(gradient) = gradients.remove(weight.var()) {
                read([&gradient.contiguous()?], |[gradient]| add_scaled(scale, gradient, &mut param.grad))?;
            }
        }
        Ok(loss)
    }

    fn places(&self) -> impl Iterator<Item = &Place> {
        let layers = self.parts.layers.iter().flat_map(Layer::places);
        let around = self.parts.embedding.places().chain(self.parts.head.iter().flat_map(Head::places));
        layers.chain(around)
    }

    /// The architecture, tokenizer and settings; its weights are those the network began with.
    pub fn skeleton(&self) -> &Model {
        &self.model
    }

    fn param(&self, name: &str) -> Option<&Param> {
        self.params.iter().find(|param| param.name == name)
    }

    /// The model with the weights as they are now; what slots added is merged into the matrices.
    ///
    /// # Errors
    /// If a slot can't be merged.
    pub fn model(&self) -> Result<Model> {
        let mut source = MemorySource::new(self.model.weights.path());
        for info in self.model.spec.tensors() {
            let tensor = match self.param(&info.name) {
                Some(param) => ounce_model::Tensor::from_f32(&param.shape, &param.value),
                None => self.model.weights.get(&info.name)?,
            };
            source.insert(info.name, tensor);
        }
        for place in self.places().filter(|place| place.slot.plain().is_none()) {
            if let Some(merged) = self.merged(place)? {
                source.insert(place.matrix.clone(), merged);
            }
        }
        Ok(Model { weights: Weights::in_memory(source), ..self.model.clone() })
    }

    /// The matrix that stands for a slot, if it has one.
    fn merged(&self, place: &Place) -> Result<Option<ounce_model::Tensor>> {
        let weights = place.slot.vars();
        // Copies of this slot's weights alone, because the parameters are not to be changed here.
        let mut copies: Vec<Param> =
            weights.iter().filter_map(|weight| self.param(weight.name())).cloned().collect();
        let lent = Lent::new(&weights, &mut copies, false)?;
        let Some(merged) = place.slot.merged()? else { return Ok(None) };
        if place.matrix == "embed.tokens.weight" {
            return Err(Error::Unsupported(
                "what was added to the head can't be merged into the embedding that serves as its matrix"
                    .to_string(),
            ));
        }
        let merged = merged.contiguous()?;
        let tensor = read([&merged], |[values]| ounce_model::Tensor::from_f32(merged.dims(), values))?;
        drop(lent);
        Ok(Some(tensor))
    }

    /// [`GraphNet::run`] with the network's own objective.
    fn run_own(&mut self, batch: &Batch, scale: Option<f32>) -> Result<Loss> {
        let mut objective = std::mem::replace(&mut self.objective, Box::new(cross_entropy));
        let loss = self.run(batch, scale, &mut objective);
        self.objective = objective;
        loss
    }

    /// Writes the network as a Hugging Face folder, with matrices in `dtype` (none: F32 where trained).
    ///
    /// # Errors
    /// If the folder can't be written; an older model there stands as it was.
    pub fn save_as(&self, folder: &Path, dtype: Option<DType>) -> Result<()> {
        let options = WriteOptions { dtype, overwrite: true, ..WriteOptions::default() };
        hf::write_model(&self.model()?, folder, &options, &mut |_, _| Ok(()))?;
        Ok(())
    }
}

impl Trainable for GraphNet {
    fn params(&self) -> &[Param] {
        &self.params
    }

    fn params_mut(&mut self) -> &mut [Param] {
        &mut self.params
    }

    fn loss(&mut self, batch: &Batch) -> Result<Loss> {
        self.run_own(batch, None)
    }

    fn accumulate(&mut self, batch: &Batch, scale: f32) -> Result<Loss> {
        self.run_own(batch, Some(scale))
    }

    /// Without what slots add.
    fn workspace_bytes(&self, tokens: usize) -> usize {
        KEPT * training::workspace_bytes(&self.model.spec, tokens, false)
    }

    fn save(&self, folder: &Path) -> Result<()> {
        self.save_as(folder, None)
    }
}
