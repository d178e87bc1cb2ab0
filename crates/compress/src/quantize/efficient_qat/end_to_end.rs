//! E2E-QP, the second phase: codes and zero points are frozen, the step sizes of all matrices are trained together on the
//! loss of the whole model: of the next token, as in the paper, or the divergence from the original's predictions.
//!
//! With `ŵ = d (c − z)` the gradient of a group's step size is `Σ (c − z) dL/dŵ`: no straight-through estimator, and no
//! weight as a float in memory. The network multiplies packed rows (`ounce_train::net::Net::with_steps`). What is learned is
//! rounded to F16 before every pass, as it will be stored.

use ounce_model::{Model, Weights};
use ounce_train::loss::{CrossEntropy, Distillation, Predictions};
use ounce_train::net::{Net, Options as NetOptions};
use ounce_train::{Batch, Loss, Trainable};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::adam::{Adam, cosine};
use super::held_out;
use super::memory::Memory;
use crate::{Error, Result};

/// Seed of the order of sequences.
const SEED: u64 = 76;

/// How step sizes are trained.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Options {
    /// Passes over the sequences.
    pub epochs: usize,
    /// Tokens of a step, at least; whole sequences.
    pub tokens: usize,
    /// Share of a matrix's mean step size that AdamW moves a step size by in one step. The paper's 2e-5 are about 0.001.
    pub rate: f64,
}

impl Default for Options {
    fn default() -> Options {
        Options { epochs: 2, tokens: 512, rate: 0.005 }
    }
}

/// What became of the model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Tuned {
    /// Whether the loss is the divergence from the original.
    pub distilled: bool,
    /// Nats a token on held-out sequences, before: of the next token, or of divergence from the original.
    pub before: f64,
    /// The same of what was kept.
    pub after: f64,
    /// Step sizes that were trained.
    pub trained: usize,
    /// Seconds it took.
    pub seconds: f64,
    /// What training held in memory.
    pub memory: Memory,
}

/// Trains the step sizes of a model whose matrices are packed in blocks, on token ids, one list a sequence. With an
/// `original` its predictions are what the model learns, else the next token. Some sequences are held out: what is kept is
/// what was best on them, the start included. `progress` is told the share that is done.
///
/// # Errors
/// If nothing is packed in blocks, the sequences don't fit the model, the loss is no number, or `progress` stops the work.
pub fn train(
    model: &Model,
    original: Option<&Model>,
    sequences: &[Vec<u32>],
    options: &Options,
    progress: &mut dyn FnMut(f64) -> Result<()>,
) -> Result<(Weights, Tuned)> {
    let begun = std::time::Instant::now();
    let net_options = NetOptions { checkpointing: true, ..NetOptions::default() };
    let mut net = Net::with_steps(model, net_options)?;
    let mut teacher = match original {
        Some(original) => Some(Net::with_frozen(original, NetOptions::default(), &|_| false)?),
        None => None,
    };
    let held = held_out(sequences.len())?;
    let (learned, judged) = sequences.split_at(sequences.len() - held);
    let judge = batches(judged, options.tokens);
    let before = mean_loss(&mut net, teacher.as_mut(), &judge)?;
    let mut best = (before, steps(&net));
    let units: Vec<f64> = net.params().iter().map(|param| mean(&param.value)).collect();
    let mut memories: Vec<Adam> = net.params().iter().map(|param| Adam::new(param.grad.len())).collect();
    let mut order: Vec<&Vec<u32>> = learned.iter().collect();
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let total = (batches(learned, options.tokens).len() * options.epochs).max(1) as u64;
    let mut step = 0;
    for _ in 0..options.epochs {
        order.shuffle(&mut random);
        for batch in batches(order.iter().copied(), options.tokens) {
            net.params_mut().iter_mut().for_each(|param| param.grad.fill(0.0));
            let scale = 1.0 / batch.counted().max(1) as f32;
            let loss = loss_of(&mut net, teacher.as_mut(), &batch, Some(scale))?;
            if !loss.sum.is_finite() {
                return Err(Error::Option(
                    "the loss of training step sizes is no number; the model's weights are damaged".into(),
                ));
            }
            let slowed = cosine(step, total);
            step += 1;
            for ((param, memory), unit) in net.params_mut().iter_mut().zip(&mut memories).zip(&units) {
                if param.is_trainable() {
                    memory.step(&mut param.value, &param.grad, options.rate * unit * slowed, step);
                }
            }
            net.store_steps();
            progress((step as f64 / total as f64).min(1.0))?;
        }
        let loss = mean_loss(&mut net, teacher.as_mut(), &judge)?;
        if loss < best.0 {
            best = (loss, steps(&net));
        }
    }
    let memory = memory(&net, teacher.as_ref(), &memories);
    let trained = best.1.iter().map(Vec::len).sum();
    let places = net.params_mut().iter_mut().filter(|param| param.is_trainable());
    places.zip(best.1).for_each(|(param, steps)| param.value = steps);
    net.store_steps();
    let seconds = begun.elapsed().as_secs_f64();
    let tuned = Tuned { distilled: teacher.is_some(), before, after: best.0, trained, seconds, memory };
    Ok((packed(model, &net)?, tuned))
}

/// The model's weights with the blocks as they are now.
fn packed(model: &Model, net: &Net) -> Result<Weights> {
    let trained = net.model()?.weights;
    let mut tensors = Vec::new();
    for name in net.params().iter().filter_map(|param| param.name.strip_suffix(".steps")) {
        let name = format!("{name}.weight");
        let tensor = trained.get(&name)?;
        tensors.push((name, tensor));
    }
    Ok(model.weights.replaced(tensors)?)
}

fn mean(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(value.abs())).sum::<f64>() / values.len().max(1) as f64
}

fn steps(net: &Net) -> Vec<Vec<f32>> {
    net.params().iter().filter(|it| it.is_trainable()).map(|it| it.value.clone()).collect()
}

/// Sequences in batches of at least so many tokens, but for the last.
fn batches<'s>(sequences: impl IntoIterator<Item = &'s Vec<u32>>, tokens: usize) -> Vec<Batch> {
    let mut batches = Vec::new();
    let (mut own, mut count) = (Vec::new(), 0);
    for ids in sequences {
        own.push(ids.as_slice());
        count += ids.len();
        if count >= tokens {
            batches.push(Batch::next_token(own.drain(..)));
            count = 0;
        }
    }
    if !own.is_empty() {
        batches.push(Batch::next_token(own));
    }
    batches.retain(|batch| batch.counted() > 0);
    batches
}

fn mean_loss(net: &mut Net, mut teacher: Option<&mut Net>, batches: &[Batch]) -> Result<f64> {
    let mut sum = Loss::default();
    for batch in batches {
        sum += loss_of(net, teacher.as_deref_mut(), batch, None)?;
    }
    Ok(sum.mean())
}

/// The loss of a batch; with a scale its gradient as well.
fn loss_of(net: &mut Net, teacher: Option<&mut Net>, batch: &Batch, scale: Option<f32>) -> Result<Loss> {
    let Some(teacher) = teacher else { return Ok(net.run(batch, scale, &mut CrossEntropy)?) };
    let mut predictions = Predictions::default();
    teacher.run(batch, None, &mut predictions)?;
    Ok(net.run(batch, scale, &mut Distillation::new(&predictions))?)
}

fn memory(net: &Net, teacher: Option<&Net>, adam: &[Adam]) -> Memory {
    let values = |param: &ounce_train::Param| 4 * param.value.len();
    Memory {
        weights: net.params().iter().map(values).sum::<usize>() + net.stored_bytes(),
        gradients: net.params().iter().map(|param| 4 * param.grad.len()).sum(),
        optimizer: adam.iter().map(Adam::bytes).sum(),
        // What stays mapped of the original is not counted.
        activations: net.peak_buffer_bytes() + teacher.map_or(0, Net::peak_buffer_bytes),
        hidden: 0,
    }
}
