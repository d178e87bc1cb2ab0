//! The network of a [`Spec`](ounce_model::spec::Spec) with a hand-written backward pass: any family that ounce reads,
//! decoders and encoders, dense or with experts.
//!
//! The forward pass keeps for each part what its backward pass needs, in buffers that are used again from step to step;
//! with [`Options::checkpointing`] it keeps only each layer's input and runs the layer a second time on the way back.
//! All sequences of a batch go through together, without padding.

mod attention;
mod beside;
mod buffers;
mod build;
pub mod classifier;
mod context;
mod embedding;
mod experts;
mod feed_forward;
mod head;
mod init;
mod layer;
mod linear;
mod norm;
pub mod one_layer;
mod rotation;
mod steps;
mod streams;

use std::path::Path;

use bytemuck::cast_slice;
use ounce_kernels::DType;
use ounce_kernels::gemm::Compute;
use ounce_kernels::pool::Pool;
use ounce_model::account::training;
use ounce_model::formats::{WriteOptions, hf};
use ounce_model::weights::MemorySource;
use ounce_model::{Model, Tensor, Weights};
use sha2::{Digest, Sha256};

use self::buffers::Buffers;
use self::build::Builder;
use self::context::Context;
use self::embedding::Embedding;
use self::head::Head;
use self::layer::Layer;
use self::steps::Packed;
use self::streams::NoStreams;
use crate::data::select::scale_to_one;
use crate::loss::{Choices, CrossEntropy, LogProbabilities, LogitLoss, PreferenceLoss, Scores, SpanLoss};
use crate::{Batch, Error, Loss, Param, ParamKind, Result, Trainable};

pub use self::beside::Pair;
pub use self::build::Pairs;
pub use self::init::{Init, normal};
pub use self::rotation::Rotation;
pub use self::streams::{StreamLoss, Watched};
pub(crate) use self::{
    build::kind_of, build::stored_table, embedding::check_positions, embedding::gather_stored,
    feed_forward::function, head::Reads, rotation::Rotations,
};

/// How a network is trained.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// How products of linear layers are computed; weights, sums and everything else are f32.
    pub compute: Compute,
    /// Keeps only the layers' inputs and computes the rest again: less memory, a third more time.
    pub checkpointing: bool,
    /// Factor on the gradient that reaches the embedding (GEB: 0.1); none leaves it as it is.
    pub embedding_gradient: Option<f32>,
    /// How closely choices between answers hold the model to the reference: β of direct preference optimization.
    pub beta: f64,
    /// Factor on the loss that keeps experts evenly used; 0 for none.
    pub balance: f32,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            compute: Compute::default(),
            checkpointing: false,
            embedding_gradient: None,
            beta: 0.1,
            balance: 0.0,
        }
    }
}

/// A network ready to be trained.
#[derive(Debug)]
pub struct Net {
    model: Model,
    params: Vec<Param>,
    /// Frozen matrices whose step sizes are among the parameters.
    packed: Vec<Packed>,
    embedding: Embedding,
    layers: Vec<Layer>,
    head: Option<Head>,
    rotations: Rotations,
    buffers: Buffers,
    options: Options,
    pool: &'static Pool,
    /// What became of choices since someone asked.
    choices: Option<Choices>,
}

impl Net {
    /// Takes all weights of a model as trainable.
    ///
    /// # Errors
    /// If a weight can't be read.
    pub fn from_model(model: &Model, options: Options) -> Result<Net> {
        Net::with_frozen(model, options, &|_| true)
    }

    /// Takes a model; weights for whose names `trains` is false stay as they are. Frozen matrices stay in the format in
    /// which they are stored, quantized or not.
    ///
    /// # Errors
    /// If a weight can't be read.
    pub fn with_frozen(model: &Model, options: Options, trains: &dyn Fn(&str) -> bool) -> Result<Net> {
        Net::build(model, options, Builder::new(&model.weights, trains))
    }

    /// As [`Net::with_frozen`], with pairs of thin matrices beside layers, which are trained. [`Net::model`] does not know of them.
    ///
    /// # Errors
    /// If a weight can't be read, or `pairs` fails.
    pub fn with_pairs(
        model: &Model,
        options: Options,
        trains: &dyn Fn(&str) -> bool,
        pairs: &Pairs<'_>,
    ) -> Result<Net> {
        let mut from = Builder::new(&model.weights, trains);
        from.pairs = Some(pairs);
        Net::build(model, options, from)
    }

    fn build(model: &Model, options: Options, mut from: Builder<'_>) -> Result<Net> {
        if model.spec.copying_layers() > 0 {
            return Err(Error::Unsupported(
                "layers of this model copy the attention of layers before them, which can't be trained; train the model that it was made of, and let layers \
                 copy anew (ounce prune --train echo-att)"
                    .to_string(),
            ));
        }
        let spec = &model.spec;
        let mut rotations = Rotations::default();
        let mut embedding = Embedding::build(&mut from, spec)?;
        embedding.gradient_scale = options.embedding_gradient.unwrap_or(1.0);
        let layers = spec.layers.iter().enumerate();
        let layers: Vec<Layer> = layers
            .map(|(index, layer)| {
                Layer::build(&mut from, spec.owner(index), layer, spec.causal, &mut rotations)
            })
            .collect::<Result<_>>()?;
        let head = Head::build(&mut from, spec)?;
        let (params, packed) = (from.params, from.packed);
        let (buffers, pool) = (Buffers::default(), Pool::global());
        Ok(Net {
            model: model.clone(),
            params,
            packed,
            embedding,
            layers,
            head,
            rotations,
            buffers,
            options,
            pool,
            choices: None,
        })
    }

    /// A network of a model's architecture with new random weights; the model's own are not read.
    ///
    /// # Errors
    /// If the architecture can't be trained.
    pub fn random(model: &Model, options: Options, init: Init, seed: u64) -> Result<Net> {
        let model = Model { weights: init.weights(&model.spec, seed), ..model.clone() };
        let mut net = Net::from_model(&model, options)?;
        // The network has them now.
        net.model.weights = Weights::in_memory(MemorySource::new(model.weights.path()));
        Ok(net)
    }

    /// The architecture, tokenizer and settings; its weights are those the network began with, or none.
    pub fn skeleton(&self) -> &Model {
        &self.model
    }

    /// Parameters without tables and head, as scaling laws count them.
    pub fn inner_parameters(&self) -> u64 {
        let outside =
            self.params().iter().filter(|it| matches!(it.kind, ParamKind::Embedding | ParamKind::Head));
        let outside = outside.map(|param| param.value.len() as u64).sum();
        self.model.spec.parameters().saturating_sub(outside)
    }

    /// The threads to compute on, in place of the whole program's.
    pub fn set_pool(&mut self, pool: &'static Pool) {
        self.pool = pool;
    }

    /// The most bytes of buffers that a step has used so far.
    pub fn peak_buffer_bytes(&self) -> usize {
        self.buffers.peak_bytes()
    }

    /// The model with the weights as they are now.
    pub fn model(&self) -> Result<Model> {
        let mut source = MemorySource::new(self.model.weights.path());
        for info in self.model.spec.tensors() {
            let tensor = match self.params.iter().find(|param| param.name == info.name) {
                Some(param) => Tensor::from_f32(&param.shape, &param.value),
                None => self.frozen(&info.name)?,
            };
            source.insert(info.name, tensor);
        }
        Ok(Model { weights: Weights::in_memory(source), ..self.model.clone() })
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

    /// The loss of a batch by any loss on logits; with `scale` adds that times the sum's gradient to the weights' own.
    ///
    /// # Errors
    /// If the batch does not fit the network, or it has no head.
    pub fn run(&mut self, batch: &Batch, scale: Option<f32>, loss: &mut dyn LogitLoss) -> Result<Loss> {
        self.run_with_streams(batch, scale, loss, &mut NoStreams)
    }

    /// [`Net::run`] with another loss on the stream behind layers; the sum of both is given.
    ///
    /// # Errors
    /// As [`Net::run`].
    pub fn run_with_streams(
        &mut self,
        batch: &Batch,
        scale: Option<f32>,
        loss: &mut dyn LogitLoss,
        streams: &mut dyn StreamLoss,
    ) -> Result<Loss> {
        match self.head.as_ref().filter(|_| self.model.spec.classifier.is_some()) {
            Some(head) => batch.check_labels(self.model.spec.vocab_size, head.outputs)?,
            None => batch.check(self.model.spec.vocab_size)?,
        }
        self.embedding.check(batch, &self.params)?;
        let head = self.head.as_ref().ok_or_else(|| {
            Error::Unsupported(
                "this model is a bare encoder without a head that could be trained".to_string(),
            )
        })?;
        self.rotations.fill(&batch.lengths);
        let mut cx = Context {
            params: &mut self.params,
            packed: &self.packed,
            buffers: &mut self.buffers,
            pool: self.pool,
            compute: self.options.compute,
            lengths: &batch.lengths,
            rotations: &self.rotations.values,
            // As a mean over targets counts, so does this.
            balance: scale.map_or(0.0, |scale| self.options.balance * scale * batch.counted() as f32),
        };
        let (mut x, embedded) = self.embedding.forward(batch, &mut cx);
        let mut kept = Vec::with_capacity(self.layers.len());
        let (mut of_streams, mut pulls) = (0.0, Vec::with_capacity(self.layers.len()));
        for (index, layer) in self.layers.iter().enumerate() {
            let (out, saved) = layer.forward(x, &mut cx);
            x = out;
            let (loss, pull) = streams.layer(index, &x, scale);
            of_streams += loss;
            pulls.push(pull);
            if scale.is_none() {
                let input = saved.into_input(&mut cx);
                cx.buffers.give(input);
            } else if self.options.checkpointing {
                kept.push(Kept::Input(saved.into_input(&mut cx)));
            } else {
                kept.push(Kept::All(Box::new(saved)));
            }
        }
        let (mut total, gradient) = head.run(x, batch, scale, loss, &mut cx);
        total.sum += of_streams;
        let Some(mut d) = gradient else {
            embedded.release(&mut cx);
            return Ok(total);
        };
        for ((layer, kept), pull) in self.layers.iter().zip(kept).zip(pulls).rev() {
            if let Some(pull) = pull {
                cx.add(1.0, &pull, &mut d);
            }
            let saved = match kept {
                Kept::All(saved) => *saved,
                Kept::Input(input) => {
                    let (out, saved) = layer.forward(input, &mut cx);
                    cx.buffers.give(out);
                    saved
                }
            };
            d = layer.backward(saved, d, &mut cx);
        }
        self.embedding.backward(batch, embedded, d, &mut cx);
        Ok(total)
    }
}

impl Net {
    /// The log-probability, in nats, of each sequence's targets.
    ///
    /// # Errors
    /// As [`Net::run`].
    pub fn log_probabilities(&mut self, batch: &Batch) -> Result<Vec<f64>> {
        let mut found = LogProbabilities::new(&batch.lengths);
        self.run(batch, None, &mut found)?;
        Ok(found.values().to_vec())
    }

    /// As [`Net::log_probabilities`], with a vector for the first `counts[i]` tokens of each sequence: the mean of the
    /// stream behind the last layer, each token's scaled to length one, `[hidden]`.
    ///
    /// # Errors
    /// As [`Net::run`].
    ///
    /// # Panics
    /// If a sequence is shorter than its count.
    pub fn log_probabilities_and_means(
        &mut self,
        batch: &Batch,
        counts: &[usize],
    ) -> Result<(Vec<f64>, Vec<Vec<f32>>)> {
        let (mut found, mut means) = (LogProbabilities::new(&batch.lengths), Vec::new());
        let (hidden, last) = (self.model.spec.hidden_size, self.layers.len().saturating_sub(1));
        let mut see = |layer: usize, x: &[f32]| {
            if layer != last {
                return;
            }
            let mut start = 0;
            for (&length, &count) in batch.lengths.iter().zip(counts) {
                assert!(count <= length, "the sequence has so many tokens");
                let mut mean = vec![0.0f32; hidden];
                for token in x[start * hidden..(start + count) * hidden].chunks_exact(hidden) {
                    let mut token = token.to_vec();
                    scale_to_one(&mut token);
                    mean.iter_mut().zip(&token).for_each(|(sum, value)| *sum += value / count as f32);
                }
                means.push(mean);
                start += length;
            }
        };
        self.run_with_streams(batch, None, &mut found, &mut Watched(&mut see))?;
        Ok((found.values().to_vec(), means))
    }

    /// A hash of all weights as they are now.
    ///
    /// # Errors
    /// If a weight that stayed in its file can't be read.
    pub fn fingerprint(&self) -> Result<[u8; 32]> {
        let mut hash = Sha256::new();
        for info in self.model.spec.tensors() {
            hash.update(info.name.as_bytes());
            match self.params.iter().find(|param| param.name == info.name) {
                Some(param) => hash.update(cast_slice::<f32, u8>(&param.value)),
                None => hash.update(&*self.frozen(&info.name)?.data),
            }
        }
        Ok(hash.finalize().into())
    }

    /// [`Net::run`] with the loss that goes with the batch and the head.
    fn run_usual(&mut self, batch: &Batch, scale: Option<f32>) -> Result<Loss> {
        if self.head.as_ref().is_some_and(Head::is_span) {
            return self.run(batch, scale, &mut SpanLoss { lengths: &batch.lengths, spans: &batch.spans });
        }
        if batch.reference.is_empty() {
            return self.run(batch, scale, &mut CrossEntropy);
        }
        batch.check(self.model.spec.vocab_size)?;
        let mut loss = PreferenceLoss::new(&batch.lengths, &batch.reference, self.options.beta);
        self.run(batch, scale, &mut loss)?;
        *self.choices.get_or_insert_default() += loss.choices();
        Ok(Loss { sum: loss.sum(), count: batch.counted() })
    }
}

/// What is kept of a layer until its backward pass.
enum Kept {
    Input(Vec<f32>),
    All(Box<layer::Saved>),
}

impl Trainable for Net {
    fn params(&self) -> &[Param] {
        &self.params
    }

    fn params_mut(&mut self) -> &mut [Param] {
        &mut self.params
    }

    fn loss(&mut self, batch: &Batch) -> Result<Loss> {
        self.run_usual(batch, None)
    }

    fn accumulate(&mut self, batch: &Batch, scale: f32) -> Result<Loss> {
        self.run_usual(batch, Some(scale))
    }

    fn take_choices(&mut self) -> Option<Choices> {
        self.choices.take()
    }

    fn scores(&mut self, batch: &Batch) -> Result<Vec<f32>> {
        let mut scores = Scores::default();
        self.run(batch, None, &mut scores)?;
        Ok(scores.0)
    }

    fn workspace_bytes(&self, tokens: usize) -> usize {
        training::workspace_bytes(&self.model.spec, tokens, self.options.checkpointing)
    }

    fn save(&self, folder: &Path) -> Result<()> {
        self.save_as(folder, None)
    }
}
