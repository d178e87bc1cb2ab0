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
use serde::Serialize;

use crate::Result;
use crate::quantize::training::mean;
use crate::quantize::training::memory::Memory;
use crate::quantize::training::next_token::{self, Schedule};

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
    let rates: Vec<f64> = net.params().iter().map(|param| options.rate * mean(&param.value)).collect();
    let schedule = Schedule { epochs: options.epochs, tokens: options.tokens, seed: SEED };
    let mut loss =
        |net: &mut Net, batch: &Batch, scale: Option<f32>| loss_of(net, teacher.as_mut(), batch, scale);
    let moved = &mut Net::store_steps;
    let course = next_token::train(&mut net, sequences, &schedule, &rates, &mut loss, moved, progress)?;
    let tuned = Tuned {
        distilled: teacher.is_some(),
        before: course.before,
        after: course.after,
        trained: course.trained,
        seconds: begun.elapsed().as_secs_f64(),
        memory: Memory {
            weights: net.params().iter().map(|param| 4 * param.value.len()).sum::<usize>()
                + net.stored_bytes(),
            gradients: course.gradients,
            optimizer: course.optimizer,
            // What stays mapped of the original is not counted.
            activations: net.peak_buffer_bytes() + teacher.as_ref().map_or(0, Net::peak_buffer_bytes),
            hidden: 0,
        },
    };
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

/// The loss of a batch; with a scale its gradient as well.
fn loss_of(net: &mut Net, teacher: Option<&mut Net>, batch: &Batch, scale: Option<f32>) -> Result<Loss> {
    let Some(teacher) = teacher else { return Ok(net.run(batch, scale, &mut CrossEntropy)?) };
    let mut predictions = Predictions::default();
    teacher.run(batch, None, &mut predictions)?;
    Ok(net.run(batch, scale, &mut Distillation::new(&predictions))?)
}
