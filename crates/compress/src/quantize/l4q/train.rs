//! From a model to a quantized one that has learned a text.

use std::sync::Arc;

use ounce_model::{Model, Tensor, Weights};
use ounce_train::graph::{GraphNet, Slot};
use ounce_train::net::Options as NetOptions;
use ounce_train::{Param, Trainable};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::lsq::Codes;
use super::merged::{Merged, Numbers, Start};
use super::slot::MergedSlot;
use crate::quantize::Plan;
use crate::quantize::training::mean;
use crate::quantize::training::memory::Memory;
use crate::quantize::training::next_token::{self, Schedule};
use crate::quantize::training::quantizer::{self, Quantized};
use crate::{Error, Result};

/// Seed of adapters and of the order of sequences.
pub(super) const SEED: u64 = 30;

/// How is trained.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Options {
    /// r, the rank of adapters; the paper's 4.
    pub rank: usize,
    /// α/r, the scale of adapters.
    pub scale: f32,
    /// Passes over the sequences.
    pub epochs: usize,
    /// Tokens of a step, at least; whole sequences.
    pub tokens: usize,
    /// AdamW's rate of adapters, which falls along a cosine.
    pub rate: f64,
    /// Share of a matrix's mean step that AdamW moves a step by.
    pub step_rate: f64,
    /// The same of an offset.
    pub offset_rate: f64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            rank: 4,
            scale: 2.0,
            epochs: 4,
            tokens: 512,
            rate: 5e-3,
            step_rate: 0.005,
            offset_rate: 0.0005,
        }
    }
}

/// What became of the model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Trained {
    /// Nats a token on held-out sequences at the start, where everything is rounded and nothing is learned.
    pub before: f64,
    /// The same of what was kept.
    pub after: f64,
    /// Steps that were done.
    pub steps: u64,
    /// Numbers that were trained.
    pub trained: usize,
    /// Weights that they stand for.
    pub weights: usize,
    /// Seconds it took.
    pub seconds: f64,
    /// What training held in memory, activations apart.
    pub memory: Memory,
}

/// Fine-tunes and quantizes the matrices to which `plan` gives formats of groups, on token ids, one list a sequence. Codes, steps
/// and offsets begin at those of `blocks`, which has these matrices packed, or where the paper has them. Gives the weights with
/// these matrices packed; `progress` is told the share that is done.
///
/// # Errors
/// If nothing is to be in groups, an option is out of range, the sequences are too few or don't fit the model, the loss is no
/// number, or `progress` stops the work.
pub fn train(
    model: &Model,
    plan: &Plan,
    blocks: Option<&Weights>,
    sequences: &[Vec<u32>],
    options: &Options,
    progress: &mut dyn FnMut(f64) -> Result<()>,
) -> Result<(Weights, Trained)> {
    let begun = std::time::Instant::now();
    if options.rank == 0 {
        return Err(Error::Option("the rank of adapters should be 1 at least".into()));
    }
    let near = blocks.map(|blocks| beside_codes(model, plan, blocks)).transpose()?;
    let (mut net, matrices) = network(near.as_ref().unwrap_or(model), plan, blocks, options)?;
    let places = Places::of(&net, matrices)?;
    let rates = places.rates(net.params(), options);
    let schedule = Schedule { epochs: options.epochs, tokens: options.tokens, seed: SEED };
    let course = next_token::train(
        &mut net,
        sequences,
        &schedule,
        &rates,
        &mut next_token::usual,
        &mut |net| places.confine(net.params_mut()),
        progress,
    )?;
    let trained = Trained {
        before: course.before,
        after: course.after,
        steps: course.steps,
        trained: course.trained,
        weights: places.0.iter().map(|(_, merged, _)| merged.size().0 * merged.size().1).sum(),
        seconds: begun.elapsed().as_secs_f64(),
        memory: Memory {
            weights: net.params().iter().map(|param| 4 * param.value.len()).sum::<usize>(),
            gradients: course.gradients,
            optimizer: course.optimizer,
            ..Memory::default()
        },
    };
    Ok((model.weights.replaced(places.packed(net.params())?)?, trained))
}

/// The model with weights moved as little as needed to round to the codes of `blocks`, so that what another quantizer found is
/// where training begins.
pub(super) fn beside_codes(model: &Model, plan: &Plan, blocks: &Weights) -> Result<Model> {
    let mut tensors = Vec::new();
    for name in plan.formats.keys() {
        let Some(dtype) = plan.dtype(name).filter(|dtype| dtype.group_shape().is_some()) else { continue };
        let (values, stored) = (model.weights.f32(name)?, blocks.get(name)?);
        let whole = stored.dtype == dtype && stored.values() == values.len();
        let begun = whole
            .then(|| {
                Quantized::begin(dtype, &stored.data, &values, stored.row_len(), quantizer::Start::Codes)
            })
            .flatten();
        let begun = begun.ok_or_else(|| Error::matrix(name, format!("is not stored as {dtype}")))?;
        tensors.push((name.clone(), Tensor::from_f32(&stored.shape, &begun.weights)));
    }
    Ok(Model { weights: model.weights.replaced(tensors)?, ..model.clone() })
}

/// Merged matrices by the names of their layers.
type Matrices = Vec<(String, Arc<Merged>)>;

/// A network whose matrices in groups are merged ones.
fn network(
    model: &Model,
    plan: &Plan,
    blocks: Option<&Weights>,
    options: &Options,
) -> Result<(GraphNet, Matrices)> {
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let mut matrices = Vec::new();
    let mut failure = None;
    let mut wrap = |name: &str, linear: ounce_train::graph::Linear| -> ounce_train::Result<Box<dyn Slot>> {
        let matrix = format!("{name}.weight");
        let Some(dtype) = plan.dtype(&matrix).filter(|dtype| dtype.group_shape().is_some()) else {
            return Ok(Box::new(linear));
        };
        let mut slot = || -> Result<MergedSlot> {
            let base = model.weights.get(&matrix)?;
            let stored = blocks.map(|blocks| blocks.get(&matrix)).transpose()?;
            let start = stored.as_ref().map_or(Start::Extremes, |it| Start::Blocks(&it.data));
            MergedSlot::new(name, linear.clone(), base, (dtype, start), options, &mut random)
        };
        match slot() {
            Ok(slot) => {
                matrices.push((name.to_owned(), slot.matrix()));
                Ok(Box::new(slot))
            }
            Err(error) => {
                let text = error.to_string();
                failure = Some(error);
                Err(ounce_train::Error::Unsupported(text))
            }
        }
    };
    let net = GraphNet::with_frozen(model, NetOptions::default(), &|_| false, &mut wrap);
    if let Some(error) = failure {
        return Err(error);
    }
    if matrices.is_empty() {
        return Err(Error::Option(
            "no matrix is to be stored in groups, so there is nothing to train".into(),
        ));
    }
    Ok((net?, matrices))
}

/// Brings the steps and offsets of a matrix, parameters of these places, back to where they can be stored.
pub(super) fn confine(codes: Codes, params: &mut [Param], steps: usize, offsets: usize) {
    let mut own = std::mem::take(&mut params[steps].value);
    codes.confine(&mut own, &mut params[offsets].value);
    params[steps].value = own;
}

/// Merged matrices with where their numbers are among the parameters.
struct Places(Vec<(String, Arc<Merged>, Numbers<usize>)>);

impl Places {
    fn of(net: &GraphNet, matrices: Matrices) -> Result<Places> {
        let place = |name: &str, part: &str| {
            let full = format!("{name}.{part}");
            let found = net.params().iter().position(|param| param.name == full);
            found.ok_or_else(|| Error::matrix(name, format!("has no {part}")))
        };
        let places = matrices.into_iter().map(|(name, merged)| {
            let numbers = Numbers {
                a: place(&name, "lora_a")?,
                b: place(&name, "lora_b")?,
                steps: place(&name, "steps")?,
                offsets: place(&name, "offsets")?,
            };
            Ok((name, merged, numbers))
        });
        places.collect::<Result<_>>().map(Places)
    }

    /// The rate of every parameter.
    fn rates(&self, params: &[Param], options: &Options) -> Vec<f64> {
        let mut rates = vec![0.0; params.len()];
        for (_, _, at) in &self.0 {
            let step = mean(&params[at.steps].value);
            (rates[at.a], rates[at.b]) = (options.rate, options.rate);
            (rates[at.steps], rates[at.offsets]) = (options.step_rate * step, options.offset_rate * step);
        }
        rates
    }

    fn confine(&self, params: &mut [Param]) {
        for (_, merged, at) in &self.0 {
            confine(merged.codes(), params, at.steps, at.offsets);
        }
    }

    fn packed(&self, params: &[Param]) -> Result<Vec<(String, Tensor)>> {
        let packed = self.0.iter().map(|(name, merged, at)| {
            let value = |index: usize| params[index].value.as_slice();
            let numbers = Numbers {
                a: value(at.a),
                b: value(at.b),
                steps: value(at.steps),
                offsets: value(at.offsets),
            };
            Ok((format!("{name}.weight"), merged.pack(&numbers)?))
        });
        packed.collect()
    }
}
