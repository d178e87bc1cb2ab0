//! E2E-QP, the second phase: codes and zero points are frozen, the step sizes of all matrices are trained together on the
//! next-token loss of the whole model.
//!
//! With `ŵ = d (c − z)` the gradient of a group's step size is `Σ (c − z) dL/dŵ`: no straight-through estimator, and no
//! weight as a float in memory. The network multiplies packed rows (`ounce_train::net::Net::with_steps`). What is learned is
//! rounded to f16 before every pass, as it will be stored.

use ounce_model::{Model, Weights};
use ounce_train::Trainable;
use ounce_train::net::{Net, Options as NetOptions};
use serde::Serialize;

use crate::Result;
use crate::quantize::training::memory::Memory;
use crate::quantize::training::next_token::{self, Schedule, mean};

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
    /// Nats a token on held-out sequences, before.
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

/// Trains the step sizes of a model whose matrices are packed in groups, on token ids, one list a sequence. Some are held
/// out: what is kept is what was best on them, the start included. `progress` is told the share that is done.
///
/// # Errors
/// If nothing is packed in groups, the sequences don't fit the model, the loss is no number, or `progress` stops the work.
pub fn train(
    model: &Model,
    sequences: &[Vec<u32>],
    options: &Options,
    progress: &mut dyn FnMut(f64) -> Result<()>,
) -> Result<(Weights, Tuned)> {
    let begun = std::time::Instant::now();
    let net_options = NetOptions { checkpointing: true, ..NetOptions::default() };
    let mut net = Net::with_steps(model, net_options)?;
    let rates: Vec<f64> = net.params().iter().map(|param| options.rate * mean(&param.value)).collect();
    let schedule = Schedule { epochs: options.epochs, tokens: options.tokens, seed: SEED };
    let course = next_token::train(&mut net, sequences, &schedule, &rates, &mut Net::store_steps, progress)?;
    let tuned = Tuned {
        before: course.before,
        after: course.after,
        trained: course.trained,
        seconds: begun.elapsed().as_secs_f64(),
        memory: Memory {
            weights: net.params().iter().map(|param| 4 * param.value.len()).sum::<usize>()
                + net.stored_bytes(),
            gradients: course.gradients,
            optimizer: course.optimizer,
            activations: net.peak_buffer_bytes(),
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
