//! A model ready to run, and its forward pass from token ids to hidden states, logits and sentence vectors.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ounce_kernels::attention::{KvType, LayerCache};
use ounce_kernels::norm::l2_normalise;
use ounce_kernels::{DType, quant, softmax::softcap};
use ounce_model::account::{Formats, sizes};
use ounce_model::spec::{HeadTransform, Layer as LayerSpec, PoolingMode, Spec};
use ounce_model::{Model, Tensor, Weights};
use smallvec::SmallVec;

use crate::arithmetic::{Arithmetic, Mode};
use crate::batch::{Batch, Part, Span};
use crate::beside::{Adapter, check};
use crate::cache::KvCache;
use crate::classifier::Classifier;
use crate::error::{Error, Result};
use crate::feed_forward::activate;
use crate::layer::Layer;
use crate::linear::Linear;
use crate::norm::{Norm, apply};
use crate::profile::Operator;
use crate::rotation::{Rotation, Rotations};
use crate::scratch::Scratch;
use crate::session::Session;

/// A model ready to run; several sessions share one.
#[derive(Debug)]
pub struct Engine {
    /// A number that no other engine of this process has.
    id: u64,
    spec: Spec,
    tokens: Tensor,
    rotations: Rotations,
    positions: Option<Vec<f32>>,
    types: Option<Vec<f32>>,
    embedding_norm: Option<Norm>,
    /// From token vectors to the residual stream, where these are narrower.
    projection: Option<Linear>,
    /// Layers that share weights are one.
    layers: Vec<Arc<Layer>>,
    final_norm: Option<Norm>,
    head: Option<Head>,
    classifier: Option<Classifier>,
    kv_type: KvType,
    /// What sessions have beside the weights where nobody says otherwise.
    adapter: Option<Arc<Adapter>>,
}

#[derive(Debug)]
struct Head {
    transform: Option<(Linear, HeadTransform, Option<Norm>)>,
    matrix: Linear,
    scale: f32,
    softcap: Option<f32>,
}

impl Engine {
    /// Takes a model's weights as they are stored: [`Mode::Reference`].
    ///
    /// # Errors
    /// As [`Engine::load`].
    pub fn new(model: &Model) -> Result<Engine> {
        Engine::load(model, Mode::Reference)
    }

    /// As [`Engine::new`], with other products in its inner products.
    ///
    /// # Errors
    /// As [`Engine::load`].
    pub fn with_arithmetic(model: &Model, arithmetic: Arithmetic) -> Result<Engine> {
        Engine::load(model, Mode::Emulated(arithmetic))
    }

    /// Takes a model's weights, in the form that `mode` says, and checks the scales of quantized ones.
    ///
    /// # Errors
    /// If a tensor can't be read or packed, or holds scales that are not finite.
    pub fn load(model: &Model, mode: Mode) -> Result<Engine> {
        let (spec, weights) = (&model.spec, &model.weights);
        let mut layers: Vec<Arc<Layer>> = Vec::with_capacity(spec.layers.len());
        for (index, layer) in spec.layers.iter().enumerate() {
            layers.push(match layer.shares {
                Some(owner) => layers[owner].clone(),
                None => {
                    let copies =
                        |it: &LayerSpec| it.attention.as_ref().and_then(|it| it.copies) == Some(index);
                    let copied = spec.layers.iter().any(copies);
                    Arc::new(Layer::load(weights, index, layer, copied, mode)?)
                }
            });
        }
        Ok(Engine { layers, ..Engine::load_shell(model, mode)? })
    }

    /// Everything but the layers, for those who bring them one by one.
    pub(crate) fn load_shell(model: &Model, mode: Mode) -> Result<Engine> {
        let (spec, weights) = (&model.spec, &model.weights);
        let table = |name: &str, there: bool| if there { weights.f32(name).map(Some) } else { Ok(None) };
        let tokens = weights.get("embed.tokens.weight")?;
        // A tied head checks the same bytes.
        if !spec.head.as_ref().is_some_and(|head| head.tied) {
            check_scales(weights, "embed.tokens.weight", &tokens)?;
            tokens.data.release();
        }
        let head = spec.head.as_ref().map(|head| -> Result<Head> {
            let transform = match head.transform {
                Some(spec) => {
                    let norm = Norm::load(weights, "head.norm", Some(spec.norm))?;
                    Some((Linear::load(weights, "head.dense", mode)?, spec, norm))
                }
                None => None,
            };
            let name = if head.tied { "embed.tokens.weight" } else { "head.weight" };
            let matrix =
                Linear::new(weights, name, weights.get(name)?, table("head.bias", head.bias)?, mode)?;
            Ok(Head { transform, matrix, scale: head.scale, softcap: head.softcap })
        });
        let projection = match spec.embedding.projected_from {
            Some(_) => Some(Linear::load(weights, "embed.projection", mode)?),
            None => None,
        };
        let ropes = spec.layers.iter().map(|layer| layer.attention.as_ref()?.rope.as_ref());
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Ok(Engine {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            tokens,
            rotations: Rotations::new(ropes),
            positions: table("embed.positions.weight", spec.embedding.positions.is_some())?,
            types: table("embed.types.weight", spec.embedding.token_types > 0)?,
            embedding_norm: Norm::load(weights, "embed.norm", spec.embedding.norm)?,
            projection,
            layers: Vec::new(),
            final_norm: Norm::load(weights, "final_norm", spec.final_norm)?,
            head: head.transpose()?,
            classifier: Classifier::load(weights, spec, mode)?,
            spec: spec.clone(),
            kv_type: KvType::F32,
            adapter: None,
        })
    }

    /// Bytes that [`Engine::packed_bytes`] will give for a model in the fast mode, without loading it.
    ///
    /// # Errors
    /// If a weight can't be read to see whether it has zeros.
    pub fn packed_size(model: &Model, quantize: Option<DType>) -> Result<usize> {
        let formats = Formats::with_zeros_of(&model.spec, &model.weights)?;
        Ok(sizes::packed_bytes(&model.spec, &formats, quantize) as usize)
    }

    /// Sets how the sessions made from now on store keys and values; F32 before the first call.
    pub fn set_kv_type(&mut self, kv_type: KvType) {
        self.kv_type = kv_type;
    }

    /// Sets what the sessions made from now on have beside the weights, where nobody says otherwise
    /// ([`Session::with_adapter`]), and whole texts of [`Engine::encode`].
    ///
    /// # Errors
    /// If the adapter was made for another engine.
    pub fn set_adapter(&mut self, adapter: Option<Arc<Adapter>>) -> Result<()> {
        check(adapter.as_deref(), self)?;
        self.adapter = adapter;
        Ok(())
    }

    /// What sessions have beside the weights where nobody says otherwise.
    pub(crate) fn adapter_of_all(&self) -> Option<&Arc<Adapter>> {
        self.adapter.as_ref()
    }

    /// How sessions store keys and values.
    pub fn kv_type(&self) -> KvType {
        self.kv_type
    }

    /// Bytes of weights repacked for the fast kernels, besides the file's mapping.
    pub fn packed_bytes(&self) -> usize {
        let head = self.head.as_ref().map_or(0, |head| {
            head.matrix.packed_bytes() + head.transform.as_ref().map_or(0, |(dense, ..)| dense.packed_bytes())
        });
        let own = self.layers.iter().zip(&self.spec.layers).filter(|(_, spec)| spec.shares.is_none());
        let projection = self.projection.as_ref().map_or(0, Linear::packed_bytes);
        head + projection + own.map(|(layer, _)| layer.packed_bytes()).sum::<usize>()
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The model's architecture.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// A new sequence on this model.
    pub fn session(&self) -> Session<'_> {
        Session::new(self)
    }

    /// Steps for several sequences at once.
    pub fn batch(&self) -> Batch<'_> {
        Batch::new(self)
    }

    /// An empty cache for one sequence, its keys and values stored as `kv_type`.
    pub(crate) fn new_cache(&self) -> KvCache {
        let kv_type = self.kv_type;
        let layer = |layer: &LayerSpec| {
            let spec = layer.attention.as_ref();
            let (kv_heads, head_dim) = spec.map_or((0, 0), |spec| (spec.kv_heads, spec.head_dim));
            match spec.and_then(|spec| spec.copies) {
                Some(_) => LayerCache::of_values(kv_heads, head_dim, kv_type),
                None => LayerCache::new(kv_heads, head_dim, kv_type),
            }
        };
        KvCache::new(self.spec.layers.iter().map(layer).collect())
    }

    /// Runs the tokens of a batch of sequences, each behind what its cache holds, and appends them to it; gives hidden
    /// states `[tokens, hidden]` after the last norm, sequence behind sequence.
    ///
    /// # Errors
    /// If an id or type is out of range, or the model has too few positions. Caches may hold some of the tokens then.
    pub(crate) fn hidden(&self, batch: &mut [Part<'_>], scratch: &mut Scratch) -> Result<Vec<f32>> {
        let (hidden, width) = (self.spec.hidden_size, self.spec.embedding_width());
        let spans: SmallVec<[Span; 4]> = batch.iter().map(|part| part.span).collect();
        let count = spans.iter().map(|span| span.count).sum::<usize>();
        let start = scratch.meter.start();
        let mut x = scratch.take(count * width);
        let mut rest = &mut x[..];
        for part in batch.iter() {
            let (own, more) = rest.split_at_mut(part.span.count * width);
            self.embed_tokens(part.ids, part.types, part.span.start, part.adapter, own)?;
            rest = more;
        }
        scratch.meter.stop(start, Operator::Embedding, || (0, 0));
        if let Some(projection) = &self.projection {
            let stream = projection.forward(&x, Operator::Embedding, scratch);
            scratch.give(std::mem::replace(&mut x, stream));
        }
        let mut rotations = std::mem::take(&mut scratch.rotations);
        let start = scratch.meter.start();
        self.rotations.fill(&spans, &mut rotations);
        scratch.meter.stop(start, Operator::Rotation, || (0, 0));
        scratch.beside.set(batch.iter().map(|part| (part.span.count, part.adapter)));
        scratch.beside.enter(&mut x, hidden);
        for (index, layer) in self.layers.iter().enumerate() {
            let rotation = self.rotations.pick(index, &rotations);
            layer.forward(&mut x, hidden, index, batch, rotation, scratch);
        }
        scratch.rotations = rotations;
        if self.final_norm.is_some() {
            let start = scratch.meter.start();
            apply(&self.final_norm, &mut x);
            scratch.meter.stop(start, Operator::Norm, || (0, 4 * x.len()));
        }
        // Labels are read off the stream itself; only words must find back.
        if self.spec.classifier.is_none() {
            scratch.beside.leave(&mut x, hidden);
        }
        scratch.beside.clear();
        batch.iter_mut().for_each(|part| part.cache.advance(part.span.count));
        Ok(x)
    }

    /// A sequence's part of the residual stream before the first layer, `[ids, hidden]`, from position `start` on.
    ///
    /// # Errors
    /// As [`Engine::hidden`].
    pub(crate) fn embedded(
        &self,
        ids: &[u32],
        types: &[u32],
        start: usize,
        scratch: &mut Scratch,
    ) -> Result<Vec<f32>> {
        let mut x = scratch.take(ids.len() * self.spec.embedding_width());
        self.embed_tokens(ids, types, start, None, &mut x)?;
        if let Some(projection) = &self.projection {
            let stream = projection.forward(&x, Operator::Embedding, scratch);
            scratch.give(std::mem::replace(&mut x, stream));
        }
        Ok(x)
    }

    /// The rotation of layer `index` for a batch, filled into `rotations`.
    pub(crate) fn rotations<'r>(
        &self,
        spans: &[Span],
        index: usize,
        rotations: &'r mut Vec<Rotation>,
    ) -> Option<&'r Rotation> {
        self.rotations.fill(spans, rotations);
        self.rotations.pick(index, rotations)
    }

    /// Hidden states after the last norm of those before it.
    pub(crate) fn final_normed(&self, x: &[f32], scratch: &mut Scratch) -> Vec<f32> {
        let mut normed = scratch.copy(x);
        apply(&self.final_norm, &mut normed);
        normed
    }

    /// Token, position and type vectors, summed and normed, into `x`: `[ids, hidden]`. An adapter may have other vectors for the
    /// first positions.
    fn embed_tokens(
        &self,
        ids: &[u32],
        types: &[u32],
        start: usize,
        adapter: Option<&Arc<Adapter>>,
        x: &mut [f32],
    ) -> Result<()> {
        let width = self.spec.embedding_width();
        let embedding = &self.spec.embedding;
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= self.spec.vocab_size) {
            return Err(Error::Token { id, vocab_size: self.spec.vocab_size });
        }
        if let Some(positions) = embedding.positions {
            let limit = positions.count - positions.offset.min(positions.count);
            if start + ids.len() > limit {
                return Err(Error::Positions { wanted: start + ids.len(), limit });
            }
        }
        if let Some(&kind) = types.iter().find(|&&kind| kind as usize >= embedding.token_types.max(1)) {
            let what =
                format!("token type {kind} is not below the {} this model has", embedding.token_types.max(1));
            return Err(Error::Option(what));
        }
        for (index, (x, &id)) in x.chunks_exact_mut(width).zip(ids).enumerate() {
            match adapter.and_then(|it| it.vector(start + index, width)) {
                Some(vector) => x.copy_from_slice(vector),
                None => {
                    self.tokens.read_rows(id as usize, x).map_err(Error::TokenVector)?;
                    x.iter_mut().for_each(|x| *x *= embedding.scale);
                }
            }
            let mut add = |table: &Option<Vec<f32>>, row: usize| {
                if let Some(table) = table {
                    let row = &table[row * width..(row + 1) * width];
                    x.iter_mut().zip(row).for_each(|(x, row)| *x += row);
                }
            };
            add(&self.types, types.get(index).map_or(0, |&kind| kind as usize));
            add(&self.positions, embedding.positions.map_or(0, |it| it.offset) + start + index);
        }
        apply(&self.embedding_norm, x);
        Ok(())
    }

    /// Logits `[positions, vocab]` of hidden states `[positions, hidden]`.
    ///
    /// # Errors
    /// If the model has no head.
    pub(crate) fn logits(&self, hidden: &[f32], scratch: &mut Scratch) -> Result<Vec<f32>> {
        let head = self.head.as_ref().ok_or_else(|| {
            Error::Unsuitable(
                "this model is a bare encoder without logits; use it with ounce embed".to_string(),
            )
        })?;
        let mut logits = match &head.transform {
            Some((dense, spec, norm)) => {
                let mut x = dense.forward(hidden, Operator::Head, scratch);
                activate(spec.activation, &mut x);
                apply(norm, &mut x);
                let logits = head.matrix.forward(&x, Operator::Head, scratch);
                scratch.give(x);
                logits
            }
            None => head.matrix.forward(hidden, Operator::Head, scratch),
        };
        let start = scratch.meter.start();
        if head.scale != 1.0 {
            logits.iter_mut().for_each(|logit| *logit *= head.scale);
        }
        if let Some(cap) = head.softcap {
            softcap(&mut logits, cap);
        }
        let finite = logits.iter().all(|logit| logit.is_finite());
        scratch.meter.stop(start, Operator::Head, || (0, 0));
        if finite { Ok(logits) } else { Err(Error::NotFinite) }
    }

    /// Hidden states `[ids, hidden]` of one whole text after the last norm; what encoders are for. `types` are
    /// token types, one an id, or empty.
    ///
    /// # Errors
    /// If an id or type is out of range, or the model has too few positions.
    pub fn encode(&self, ids: &[u32], types: &[u32]) -> Result<Vec<f32>> {
        if self.adapter.as_ref().is_some_and(|it| it.positions() > 0) {
            // Models that something can stand in front of have no types.
            return self.session().hidden(ids);
        }
        let mut cache = self.new_cache();
        let part = Part::new(&mut cache, ids, types, self.spec.causal);
        self.hidden(&mut [Part { adapter: self.adapter.as_ref(), ..part }], &mut Scratch::default())
    }

    /// Logits `[ids, vocab]` of one whole text: what a masked language model is for.
    ///
    /// # Errors
    /// As [`Engine::encode`], and if the model has no head.
    pub fn masked_logits(&self, ids: &[u32], types: &[u32]) -> Result<Vec<f32>> {
        self.logits(&self.encode(ids, types)?, &mut Scratch::default())
    }

    /// Scores of the labels of one whole text: `[labels]` for the text, or `[ids, labels]` where every token has scores.
    ///
    /// # Errors
    /// As [`Engine::encode`], for an empty text, and if the model has no classifier.
    pub fn classify(&self, ids: &[u32], types: &[u32]) -> Result<Vec<f32>> {
        let classifier = self.classifier.as_ref().ok_or_else(|| {
            Error::Unsuitable("this model has no classifier, so it gives texts no labels".to_string())
        })?;
        if ids.is_empty() {
            return Err(Error::Unsuitable("an empty text has no label".to_string()));
        }
        let scores = classifier.scores(&self.encode(ids, types)?, &mut Scratch::default());
        if scores.iter().any(|score| !score.is_finite()) {
            return Err(Error::NotFinite);
        }
        Ok(scores)
    }

    /// The sentence vector of one text, pooled as the model's files say (mean and normalised where they say
    /// nothing).
    ///
    /// # Errors
    /// As [`Engine::encode`], and for an empty text.
    pub fn embed(&self, ids: &[u32], types: &[u32]) -> Result<Vec<f32>> {
        if ids.is_empty() {
            return Err(Error::Unsuitable("an empty text has no embedding".to_string()));
        }
        let width = self.spec.hidden_size;
        let hidden = self.encode(ids, types)?;
        let (mode, normalise) =
            self.spec.pooling.map_or((PoolingMode::Mean, true), |pooling| (pooling.mode, pooling.normalise));
        let mut vector = match mode {
            PoolingMode::Cls => hidden[..width].to_vec(),
            PoolingMode::Last => hidden[hidden.len() - width..].to_vec(),
            PoolingMode::Max => {
                let mut greatest = vec![f32::NEG_INFINITY; width];
                for x in hidden.chunks_exact(width) {
                    greatest.iter_mut().zip(x).for_each(|(greatest, x)| *greatest = greatest.max(*x));
                }
                greatest
            }
            PoolingMode::Mean => {
                let mut sums = vec![0.0f64; width];
                for x in hidden.chunks_exact(width) {
                    sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += f64::from(*x));
                }
                sums.iter().map(|sum| (sum / ids.len() as f64) as f32).collect()
            }
        };
        if normalise {
            l2_normalise(&mut vector);
        }
        Ok(vector)
    }
}

/// Refuses a quantized table of token vectors with scales that are NaN or infinite; matrices are checked as they are
/// taken.
fn check_scales(weights: &Weights, name: &str, tensor: &Tensor) -> Result<()> {
    match quant::check_scales(tensor.dtype, &tensor.data) {
        None => Ok(()),
        Some(offset) => {
            let error = quant::QuantError::Scale { dtype: tensor.dtype, offset };
            let file_name = weights.file_name(name).unwrap_or(name);
            Err(ounce_model::Error::tensor(weights.path(), file_name, error.to_string()).into())
        }
    }
}
