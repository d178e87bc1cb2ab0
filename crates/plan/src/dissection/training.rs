//! Training steps, with techniques on and off.

use std::time::Instant;

use ounce_kernels::gemm::Compute;
use ounce_model::Model;
use ounce_model::account::Formats;
use ounce_model::account::training::{Job, OptimizerState, Trained, memory};
use ounce_train::net::{Net, Options};
use ounce_train::optim::{Optimizer, Options as OptimizerOptions};
use ounce_train::{Batch, Trainable};

/// A combination of techniques.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags {
    /// Keep only the layers' inputs and compute the rest again.
    pub checkpointing: bool,
    /// Round operands of products to bf16.
    pub bf16: bool,
    /// Train only the layers' norms; all matrices are frozen.
    pub frozen: bool,
}

impl Flags {
    /// What is on, for people.
    pub fn name(self) -> String {
        let names = [(self.checkpointing, "checkpointing"), (self.bf16, "bf16"), (self.frozen, "frozen")];
        let on: Vec<&str> = names.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
        if on.is_empty() { "plain".to_string() } else { on.join(" + ") }
    }
}

/// What a step took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Seconds of the forward pass alone.
    pub forward: f64,
    /// Seconds of the whole pass less those of the forward pass: the backward pass, and what is computed again.
    pub backward: f64,
    /// Seconds of the optimizer.
    pub optimizer: f64,
    /// Bytes of weights, gradients, the optimizer's memory and buffers at most.
    pub bytes: u64,
    /// Bytes that the accountant says.
    pub told_bytes: u64,
    /// Bytes of buffers alone at most: activations and working memory.
    pub buffer_bytes: u64,
}

impl Step {
    /// Seconds of the step.
    pub fn seconds(&self) -> f64 {
        self.forward + self.backward + self.optimizer
    }
}

/// Runs steps of `sequences` sequences of `length` tokens; each part is the fastest of `runs` after one to warm up.
///
/// # Errors
/// If the model can't be trained.
pub fn step(
    model: &Model,
    flags: Flags,
    (sequences, length): (usize, usize),
    runs: usize,
) -> ounce_train::Result<Step> {
    let compute = if flags.bf16 { Compute::Bf16 } else { Compute::F32 };
    let options = Options { compute, checkpointing: flags.checkpointing, ..Options::default() };
    let trains = |name: &str| !flags.frozen || name.contains("norm");
    let mut net = Net::with_frozen(model, options, &trains)?;
    let mut optimizer = Optimizer::new(OptimizerOptions::default(), net.params())?;
    let vocab = model.spec.vocab_size as u32;
    let ids: Vec<u32> = (0..(sequences * (length + 1)) as u32)
        .map(|place| place.wrapping_mul(2_654_435_761) % vocab)
        .collect();
    let batch = Batch::next_token(ids.chunks_exact(length + 1));
    let (mut forward, mut whole, mut rule) = (f64::INFINITY, f64::INFINITY, f64::INFINITY);
    for run in 0..=runs {
        let start = Instant::now();
        net.loss(&batch)?;
        let first = start.elapsed().as_secs_f64();
        let start = Instant::now();
        net.accumulate(&batch, 1.0 / batch.counted() as f32)?;
        let second = start.elapsed().as_secs_f64();
        let start = Instant::now();
        optimizer.step(net.params_mut(), 1e-5, 1.0);
        net.params_mut().iter_mut().for_each(|param| param.grad.fill(0.0));
        let third = start.elapsed().as_secs_f64();
        if run > 0 {
            (forward, whole, rule) = (forward.min(first), whole.min(second), rule.min(third));
        }
    }
    let values: u64 =
        net.params().iter().map(|param| 4 * (param.value.len() + param.grad.len()) as u64).sum();
    let buffer_bytes = net.peak_buffer_bytes() as u64;
    let job = Job {
        trained: Trained::All,
        state: OptimizerState::AdamW,
        tokens: sequences * length,
        checkpointing: flags.checkpointing,
    };
    let mut told = memory(&model.spec, &Formats::of(&model.weights), &job);
    if flags.frozen {
        let trained = model.spec.tensors().into_iter().filter(|it| trains(&it.name));
        let own: u64 = trained.map(|it| it.shape.iter().product::<usize>() as u64).sum();
        (told.gradients, told.optimizer) = (4 * own, 8 * own);
    }
    Ok(Step {
        forward,
        backward: (whole - forward).max(0.0),
        optimizer: rule,
        bytes: values + optimizer.bytes() as u64 + buffer_bytes,
        told_bytes: told.total(),
        buffer_bytes,
    })
}
