//! Quantizing a whole model: matrix by matrix, or layer by layer behind what is already quantized.
//!
//! No more than a layer's weights, its Hessians and the hidden states of the calibration tokens are in memory; finished
//! matrices go to a [`Store`] and are mapped from there. Layers that are trained behind that ([`block_ap`]) have the hidden
//! states of the original model beside them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::PoisonError;
use std::time::Instant;

use ounce_engine::Walk;
use ounce_kernels::quant::grid::{self, Grid};
use ounce_kernels::quant::lattice::Lattice;
use ounce_kernels::{DType, quant};
use ounce_model::storage::Bytes;
use ounce_model::{Model, Tensor, Weights};
use serde::Serialize;

use super::codebook;
use super::efficient_qat;
use super::efficient_qat::block_ap::{self, Streams, Trained};
use super::gptq::{self, Hessian};
use super::hqq;
use super::plan::Plan;
use super::store::Store;
use crate::stages::{look, mode, not_empty, stages};
use crate::{Error, Result};

/// How values become codes.
#[derive(Debug, Clone, Copy)]
pub enum Method {
    /// To the nearest level of the scales that ggml's quantizers would choose, byte for byte.
    Round,
    /// To the nearest level of scales that fit best where inputs are large.
    Weighted,
    /// With zero points that make outliers weigh less; group formats only, no calibration.
    Hqq(hqq::Options),
    /// Column by column with error feedback, then coordinate descent.
    Gptq(gptq::Options),
}

/// What happened to a matrix.
#[derive(Debug, Clone, Serialize)]
pub struct Finished {
    /// ounce's name.
    pub matrix: String,
    /// Its new format.
    #[serde(serialize_with = "name_of")]
    pub dtype: DType,
    /// Share of its output on calibration inputs, squared, that is now error; none without calibration.
    pub error: Option<f64>,
    /// Whether it was taken over from an earlier run.
    pub resumed: bool,
    /// Seconds it took.
    pub seconds: f64,
}

fn name_of<S: serde::Serializer>(dtype: &DType, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(dtype.name())
}

/// Is told of every finished matrix and of the values done and in all; may stop the work.
pub type Observer<'o> = &'o mut dyn FnMut(Option<&Finished>, u64, u64) -> Result<()>;

/// Is told of every layer that was trained.
pub type TrainedObserver<'o> = &'o mut dyn FnMut(&Trained);

/// A model on its way to fewer bits.
pub struct Quantizer<'m> {
    model: &'m Model,
    plan: &'m Plan,
    method: Method,
    store: &'m Store,
    importance: Option<&'m HashMap<String, Vec<f32>>>,
    weights: Weights,
    done: u64,
    total: u64,
    observer: Observer<'m>,
    training: Option<(block_ap::Options, TrainedObserver<'m>)>,
}

impl<'m> Quantizer<'m> {
    /// Gets ready; nothing is done yet.
    pub fn new(
        model: &'m Model,
        plan: &'m Plan,
        method: Method,
        store: &'m Store,
        observer: Observer<'m>,
    ) -> Quantizer<'m> {
        let shapes = plan.formats.keys().filter_map(|name| model.weights.info(name));
        let total = shapes.map(|(_, shape)| shape.iter().product::<usize>() as u64).sum();
        let weights = model.weights.clone();
        Quantizer {
            model,
            plan,
            method,
            store,
            importance: None,
            weights,
            done: 0,
            total,
            observer,
            training: None,
        }
    }

    /// With mean squares of the inputs by matrix, which [`Method::Weighted`] then takes in the place of calibration.
    #[must_use]
    pub fn with_importance(self, importance: &'m HashMap<String, Vec<f32>>) -> Quantizer<'m> {
        Quantizer { importance: Some(importance), ..self }
    }

    /// Trains each layer's matrices in blocks once they are quantized, before the next layer's turn. Work on a value counts
    /// once more for each epoch.
    #[must_use]
    pub fn with_training(
        mut self,
        options: block_ap::Options,
        observer: TrainedObserver<'m>,
    ) -> Quantizer<'m> {
        for index in 0..self.model.spec.layers.len() {
            self.total += self.training_work(index, &options);
        }
        self.training = Some((options, observer));
        self
    }

    /// Quantizes all that the plan names and gives the weights of the new model. `calibration` are token ids, one list a
    /// sequence; [`Method::Round`], [`Method::Hqq`] and given importance do without, unless layers are trained.
    ///
    /// # Errors
    /// If a weight can't be read or holds values that are no numbers, the calibration sequences are empty or don't fit
    /// the model, the store can't be written, or the observer stops the work.
    pub fn run(mut self, calibration: Vec<Vec<u32>>) -> Result<Weights> {
        if self.training.is_some() || self.looks() {
            self.calibrated(calibration)?;
        } else {
            let names: Vec<String> = self.plan.formats.keys().cloned().collect();
            self.without_look(&names)?;
        }
        Ok(self.weights)
    }

    /// Whether the method wants to see what linear layers are given.
    fn looks(&self) -> bool {
        match self.method {
            Method::Round | Method::Hqq(_) => false,
            Method::Weighted => self.importance.is_none(),
            Method::Gptq(_) => true,
        }
    }

    /// Quantizes matrices with what is known of their inputs beforehand, if anything.
    fn without_look(&mut self, names: &[String]) -> Result<()> {
        let importance = self.importance.filter(|_| matches!(self.method, Method::Weighted));
        names.iter().try_for_each(|name| {
            let seen = importance.and_then(|it| it.get(name)).map(|it| Seen::Squares(it.clone()));
            self.matrix(name, seen.as_ref())
        })
    }

    fn calibrated(&mut self, calibration: Vec<Vec<u32>>) -> Result<()> {
        not_empty(&calibration)?;
        let spec = &self.model.spec;
        let tied = spec.head.as_ref().is_some_and(|head| head.tied);
        // Token vectors that are nothing else come first, so that all layers see what is left of them.
        let tokens = "embed.tokens.weight";
        if !tied && self.plan.dtype(tokens).is_some() {
            self.without_look(&[tokens.to_owned()])?;
        }
        let current = Model { weights: self.weights.clone(), ..self.model.clone() };
        let lengths: Vec<usize> = calibration.iter().map(Vec::len).collect();
        let mut originals = match self.training {
            Some(_) => Some(Walk::begin(self.model, calibration.clone(), mode())?),
            None => None,
        };
        let mut walk = Walk::begin(&current, calibration, mode())?;
        for index in 0..spec.layers.len() {
            if spec.layers[index].shares.is_none() {
                for stage in stages(self.plan.formats.keys(), index) {
                    self.stage(&stage, Some(&mut walk))?;
                }
            }
            if let Some(originals) = &mut originals {
                let weights = self.model.weights.clone();
                originals.advance(&weights, |_| self.check())?;
                let (input, target) = (walk.hidden(), originals.hidden());
                self.train(index, &Streams { input, target, lengths: &lengths })?;
                // Matrices that the way into the layer was gone with have changed.
                walk.forget();
            }
            let weights = self.weights.clone();
            walk.advance(&weights, |_| self.check())?;
        }
        drop(originals);
        let head = if tied { tokens } else { "head.weight" };
        let rest: Vec<String> =
            self.plan.formats.keys().filter(|name| !name.starts_with("layers.")).cloned().collect();
        for name in rest {
            if name == head {
                self.stage(&[name], Some(&mut walk))?;
            } else if name != tokens || tied {
                self.stage(&[name], None)?;
            }
        }
        Ok(())
    }

    fn check(&mut self) -> ounce_engine::Result<()> {
        (self.observer)(None, self.done, self.total).map_err(Error::into_engine)
    }

    /// The matrices of a layer that can be trained; none of one that uses another's.
    fn trainable(&self, layer: usize) -> Vec<String> {
        let prefix = format!("layers.{layer}.");
        let own = self.model.spec.layers[layer].shares.is_none();
        let suits = |name: &&String| self.plan.dtype(name).is_some_and(efficient_qat::suits);
        let names = self.plan.formats.keys().filter(|name| own && name.starts_with(&prefix));
        names.filter(suits).cloned().collect()
    }

    fn training_work(&self, layer: usize, options: &block_ap::Options) -> u64 {
        let values = |name: &String| self.model.weights.info(name).map_or(0, |it| it.1.iter().product());
        (self.trainable(layer).iter().map(values).sum::<usize>() * options.epochs) as u64
    }

    /// Trains the matrices of a layer, or takes them over from an earlier run.
    fn train(&mut self, layer: usize, streams: &Streams<'_>) -> Result<()> {
        let names = self.trainable(layer);
        let Some((options, _)) = self.training.as_ref().filter(|_| !names.is_empty()) else { return Ok(()) };
        let (options, work) = (*options, self.training_work(layer, options));
        let kept = |name: &String| format!("{name}.trained");
        let known: Option<Vec<Tensor>> = (names.iter())
            .map(|name| {
                let (_, shape) = self.model.weights.info(name)?;
                Some(self.store.get(&kept(name), self.plan.dtype(name)?, shape)?.0)
            })
            .collect();
        let note = format!("layers.{layer}.trained");
        let (tensors, trained) = match (known, self.store.note::<Trained>(&note)) {
            (Some(tensors), Some(trained)) => {
                let named = names.iter().cloned().zip(tensors).collect();
                (named, Trained { resumed: true, seconds: 0.0, ..trained })
            }
            _ => {
                let model = Model { weights: self.weights.clone(), ..self.model.clone() };
                let (done, total, observer) = (self.done, self.total, &mut self.observer);
                let mut progress = |share: f64| observer(None, done + (share * work as f64) as u64, total);
                let original = &self.model.weights;
                let (tensors, trained) =
                    block_ap::train(&model, original, layer, &names, streams, &options, &mut progress)?;
                let stored: Result<Vec<(String, Tensor)>> = (tensors.into_iter())
                    .map(|(name, tensor)| {
                        let tensor = self.store.put(&kept(&name), &tensor, None)?;
                        Ok((name, tensor))
                    })
                    .collect();
                let stored = stored?;
                // The note comes last: with it the layer counts as trained.
                self.store.put_note(&note, &trained)?;
                (stored, trained)
            }
        };
        self.done += work;
        tensors.into_iter().try_for_each(|(name, tensor)| self.weights.replace(name, tensor))?;
        if let Some((_, observer)) = &mut self.training {
            observer(&trained);
        }
        (self.observer)(None, self.done, self.total)
    }

    /// Quantizes matrices that need nothing of each other.
    fn stage(&mut self, names: &[String], walk: Option<&mut Walk>) -> Result<()> {
        let finished = |name: &String| self.finished(name).is_some();
        let blind = !self.looks() || names.iter().all(finished);
        let (Some(walk), false) = (walk, blind) else { return self.without_look(names) };
        let pairs = matches!(self.method, Method::Gptq(_));
        let weights = self.weights.clone();
        let collector = look(walk, &weights, names, pairs, || self.check())?;
        let collector = collector.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that share their input share the Hessian.
        let mut known: HashMap<usize, Seen> = HashMap::new();
        for name in names {
            let linear = name.trim_end_matches(".weight");
            let Some((place, moments)) = collector.place(linear).zip(collector.moments(linear)) else {
                tracing::warn!("{name}: calibration never reached it; it is rounded without data");
                self.matrix(name, None)?;
                continue;
            };
            let seen = match known.entry(place) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(match self.method {
                    Method::Gptq(options) => Seen::Pairs(
                        Hessian::new(moments, &options).map_err(|what| Error::matrix(name, what))?,
                    ),
                    _ => Seen::Squares(moments.importance()),
                }),
            };
            self.matrix(name, Some(seen))?;
        }
        Ok(())
    }

    fn finished(&self, name: &str) -> Option<(Tensor, super::store::Note)> {
        let (_, shape) = self.model.weights.info(name)?;
        self.store.get(name, self.plan.dtype(name)?, shape)
    }

    /// Quantizes one matrix, or takes it over from an earlier run.
    fn matrix(&mut self, name: &str, seen: Option<&Seen>) -> Result<()> {
        let start = Instant::now();
        let Some(dtype) = self.plan.dtype(name) else { return Ok(()) };
        let (tensor, error, resumed) = match self.finished(name) {
            Some((tensor, note)) => (tensor, note.error, true),
            None => {
                let stored = self.model.weights.get(name)?;
                let (tensor, error) = quantized(&stored, dtype, self.method, seen).map_err(|what| {
                    Error::matrix(self.model.weights.file_name(name).unwrap_or(name), what)
                })?;
                (self.store.put(name, &tensor, error)?, error, false)
            }
        };
        self.done += tensor.values() as u64;
        let finished = Finished {
            matrix: name.to_owned(),
            dtype,
            error,
            resumed,
            seconds: start.elapsed().as_secs_f64(),
        };
        self.weights.replace(name.to_owned(), tensor)?;
        (self.observer)(Some(&finished), self.done, self.total)
    }
}

impl std::fmt::Debug for Quantizer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Quantizer({} of {} values)", self.done, self.total)
    }
}

/// What calibration knows of an input.
enum Seen {
    Squares(Vec<f32>),
    Pairs(Hessian),
}

/// A matrix in its new format, and the share of error if that is known.
fn quantized(
    stored: &Tensor,
    dtype: DType,
    method: Method,
    seen: Option<&Seen>,
) -> Result<(Tensor, Option<f64>), String> {
    let text = |error: quant::QuantError| error.to_string();
    let values = stored.to_f32().map_err(text)?;
    stored.data.release();
    let row = stored.row_len();
    let mut bytes = Vec::new();
    let mut error = None;
    let lattice = Lattice::of(dtype);
    if let (Method::Gptq(options), Some(Seen::Pairs(hessian)), Some(lattice)) = (method, seen, lattice) {
        finite(&values)?;
        let done = codebook::quantize(&values, lattice, hessian, &options)?;
        let shape = stored.shape.clone();
        return Ok((Tensor { dtype, shape, data: Bytes::from(done.bytes) }, Some(done.error)));
    }
    match (method, seen, Grid::of(dtype)) {
        (Method::Round, ..) => quant::encode_rows(dtype, &values, row, &mut bytes).map_err(text)?,
        (_, _, None) if lattice.is_none() => {
            // Plain types leave nothing to choose.
            quant::encode_rows(dtype, &values, row, &mut bytes).map_err(text)?
        }
        (Method::Hqq(_), ..) if !hqq::suits(dtype) => {
            return Err(format!(
                "HQQ chooses the zero points of groups, which {dtype} does not have; choose a format like g4_64, or \
                 another method"
            ));
        }
        (Method::Hqq(options), _, Some(grid)) => {
            finite(&values)?;
            bytes = hqq::quantize(&values, grid, &options);
            if let Some(at) = quant::check_scales(dtype, &bytes) {
                let first = at / dtype.block_bytes() * dtype.block_len();
                return Err(format!(
                    "the values from {first} on are too large for {dtype}; keep this matrix as it is"
                ));
            }
        }
        (Method::Gptq(options), Some(Seen::Pairs(hessian)), Some(grid)) => {
            finite(&values)?;
            let done = gptq::quantize(&values, grid, hessian, &options);
            (bytes, error) = (done.bytes, Some(done.error));
        }
        (_, Some(Seen::Squares(importance)), _) => {
            grid::encode_weighted(dtype, &values, row, importance, &mut bytes).map_err(text)?;
        }
        _ => grid::encode_weighted(dtype, &values, row, &[], &mut bytes).map_err(text)?,
    }
    Ok((Tensor { dtype, shape: stored.shape.clone(), data: Bytes::from(bytes) }, error))
}

fn finite(values: &[f32]) -> Result<(), String> {
    match values.iter().position(|x| !x.is_finite()) {
        Some(place) => Err(format!("value {place} is {}; repair the weights first", values[place])),
        None => Ok(()),
    }
}
