//! Block-AP, the first phase: all numbers of one layer are trained at once, so that the layer's output, given what the
//! quantized layers before it give, comes near to what the original layer gives behind the original ones.
//!
//! The loss is `‖layer_q(X_q) − layer(X)‖²` over all tokens, with X_q `[tokens, hidden]` behind quantized and X behind original
//! layers: errors of earlier layers are worked against, not only passed on. Each token's error counts as a share of its
//! `‖layer(X)‖²`, as the norms behind the layer see it; the paper counts all alike, and few tokens with a large stream decide.
//! Weights, step sizes and zero points move; norms and biases stay. Some sequences are held out: what is kept is what was best on them, the start included.

use ounce_model::{Model, Tensor, Weights};
use ounce_train::net::Options as NetOptions;
use ounce_train::net::one_layer::OneLayer;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::quantize::training::adam::cosine;
use crate::quantize::training::held_out;
use crate::quantize::training::memory::Memory as Bytes;
use crate::quantize::training::quantizer::{Memory, Numbers, Quantized, Rates, Start};
use crate::{Error, Result};

/// Seed of the order of sequences.
const SEED: u64 = 75;

/// Epochs without gain on held-out sequences after which a layer is done, and the share of all epochs that they are at
/// least: rates that have not fallen yet often hide what the last epochs gain.
const PATIENCE: usize = 4;
const PATIENCE_SHARE: usize = 2;

/// How a layer is trained. Rates are shares of a matrix's mean step size that AdamW moves a number by in one step, so that
/// they hold for weights of any size; those of the paper, 2e-5 for weights and 1e-4 for step sizes of about 0.02, are 0.001
/// and 0.005, for 4096 steps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Options {
    /// Passes over the calibration sequences.
    pub epochs: usize,
    /// Tokens of a step, at least; whole sequences.
    pub tokens: usize,
    /// Rate of weights.
    pub weight_rate: f64,
    /// Rate of step sizes.
    pub step_rate: f64,
    /// Rate of zero points, in levels.
    pub zero_rate: f64,
    /// Where weights begin.
    pub start: Start,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            epochs: 4,
            tokens: 256,
            weight_rate: 0.003,
            step_rate: 0.004,
            zero_rate: 0.0005,
            start: Start::Codes,
        }
    }
}

/// What became of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Trained {
    /// Its number.
    pub layer: usize,
    /// Squared error of its output on held-out sequences, as a share of the output's square, before training.
    pub before: f64,
    /// The same of what was kept.
    pub after: f64,
    /// Epochs done.
    pub epochs: usize,
    /// Whether it was taken over from an earlier run.
    pub resumed: bool,
    /// Seconds it took.
    pub seconds: f64,
    /// What training held in memory.
    pub memory: Bytes,
}

/// Hidden states on both sides of a layer.
#[derive(Debug, Clone, Copy)]
pub struct Streams<'s> {
    /// Before the layer, behind quantized layers, `[tokens, hidden]`.
    pub input: &'s [f32],
    /// Behind the original layer and those before it, `[tokens, hidden]`.
    pub target: &'s [f32],
    /// Tokens of each sequence.
    pub lengths: &'s [usize],
}

/// A matrix of the layer.
struct Matrix {
    name: String,
    /// Its place among the layer's parameters.
    param: usize,
    quantized: Quantized,
    /// Of its scales.
    gradients: Numbers,
    memory: Memory,
}

/// Trains the matrices of `names` in layer `index`. `model` has them packed in blocks, from where they begin; `original` has the
/// weights that they were packed from. Gives them packed anew. `progress` is told the share that is done.
///
/// # Errors
/// If a weight can't be read, or `progress` stops the work.
pub fn train(
    model: &Model,
    original: &Weights,
    index: usize,
    names: &[String],
    streams: &Streams<'_>,
    options: &Options,
    progress: &mut dyn FnMut(f64) -> Result<()>,
) -> Result<(Vec<(String, Tensor)>, Trained)> {
    let begun = std::time::Instant::now();
    let trains = |name: &str| names.iter().any(|it| it == name);
    let layer = OneLayer::new(model, index, NetOptions::default(), &trains)?;
    let mut matrices = Vec::new();
    for (param, weight) in layer.params().iter().enumerate().filter(|(_, it)| it.is_trainable()) {
        let stored = model.weights.get(&weight.name)?;
        let values = original.f32(&weight.name)?;
        let quantized =
            Quantized::begin(stored.dtype, &stored.data, &values, stored.row_len(), options.start);
        let quantized = quantized.ok_or_else(|| {
            let what =
                format!("is stored as {}; only blocks such as g2_64 or q2_k can be trained", stored.dtype);
            Error::matrix(&weight.name, what)
        })?;
        let (gradients, memory) = (quantized.scales.zeros(), Memory::of(&quantized));
        matrices.push(Matrix { name: weight.name.clone(), param, quantized, gradients, memory });
    }
    let mut training = Training { layer, matrices, streams, options, steps: 0, total: 0 };
    let (kept, mut trained) = training.run(progress)?;
    (trained.layer, trained.seconds) = (index, begun.elapsed().as_secs_f64());
    let mut tensors = Vec::new();
    for (matrix, bytes) in training.matrices.iter().zip(kept) {
        let stored = model.weights.get(&matrix.name)?;
        tensors.push((matrix.name.clone(), Tensor { data: bytes.into(), ..stored }));
    }
    Ok((tensors, trained))
}

fn distance(x: &[f32], y: &[f32]) -> f64 {
    x.iter().zip(y).map(|(x, y)| f64::from(x - y).powi(2)).sum()
}

fn square(x: &[f32]) -> f64 {
    x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().max(f64::MIN_POSITIVE)
}

/// A layer in training.
struct Training<'t> {
    layer: OneLayer,
    matrices: Vec<Matrix>,
    streams: &'t Streams<'t>,
    options: &'t Options,
    steps: u64,
    total: u64,
}

/// Sequences that lie behind each other: first token, and tokens of each.
#[derive(Debug, Clone, PartialEq)]
struct Part {
    first: usize,
    lengths: Vec<usize>,
}

impl Part {
    fn tokens(&self) -> usize {
        self.lengths.iter().sum()
    }
}

/// Sequences in parts of at least `tokens` tokens, but for the last.
fn parts(lengths: &[usize], first: usize, tokens: usize) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut at = first;
    for &length in lengths.iter() {
        match parts.last_mut() {
            Some(part) if part.tokens() < tokens => part.lengths.push(length),
            _ => parts.push(Part { first: at, lengths: vec![length] }),
        }
        at += length;
    }
    parts
}

impl Training<'_> {
    /// The blocks that were best.
    fn run(&mut self, progress: &mut dyn FnMut(f64) -> Result<()>) -> Result<(Vec<Vec<u8>>, Trained)> {
        let lengths = self.streams.lengths;
        let held = held_out(lengths.len())?;
        let (learned, judged) = lengths.split_at(lengths.len() - held);
        let mut learn = parts(learned, 0, self.options.tokens);
        let judge = parts(judged, learned.iter().sum(), self.options.tokens);
        self.total = (learn.len() * self.options.epochs) as u64;
        let mut random = ChaCha8Rng::seed_from_u64(SEED);
        self.fill();
        let before = self.error(&judge);
        let mut best = (before, self.pack());
        let (mut epochs, mut since) = (0, 0);
        let patience = PATIENCE.max(self.options.epochs / PATIENCE_SHARE);
        while epochs < self.options.epochs && since < patience {
            learn.shuffle(&mut random);
            for part in &learn {
                self.step(part, before);
                progress(self.steps as f64 / self.total as f64)?;
            }
            (epochs, since) = (epochs + 1, since + 1);
            let error = self.error(&judge);
            if error < best.0 {
                best = (error, self.pack());
                since = 0;
            }
        }
        progress(1.0)?;
        let trained = Trained {
            layer: 0,
            before,
            after: best.0,
            epochs,
            resumed: false,
            seconds: 0.0,
            memory: self.memory(&best.1),
        };
        Ok((best.1, trained))
    }

    /// Puts what weights round to where the layer takes its weights from.
    fn fill(&mut self) {
        let params = self.layer.params_mut();
        for matrix in &self.matrices {
            matrix.quantized.values(&mut params[matrix.param].value);
        }
    }

    fn pack(&self) -> Vec<Vec<u8>> {
        self.matrices.iter().map(|matrix| matrix.quantized.pack()).collect()
    }

    fn hidden(&self) -> usize {
        let tokens: usize = self.streams.lengths.iter().sum();
        self.streams.input.len() / tokens.max(1)
    }

    fn range(&self, part: &Part) -> std::ops::Range<usize> {
        let hidden = self.hidden();
        part.first * hidden..(part.first + part.tokens()) * hidden
    }

    /// The squared error of the layer's output as a share of the target's square, mean over tokens.
    fn error(&mut self, parts: &[Part]) -> f64 {
        let (mut error, mut tokens) = (0.0, 0);
        for part in parts {
            let (range, hidden) = (self.range(part), self.hidden());
            let target = &self.streams.target[range.clone()];
            error += self.layer.forward(&self.streams.input[range], &part.lengths, |out| {
                let tokens = out.chunks_exact(hidden).zip(target.chunks_exact(hidden));
                tokens.map(|(out, target)| distance(out, target) / square(target)).sum::<f64>()
            });
            tokens += part.tokens();
        }
        error / tokens.max(1) as f64
    }

    /// One step of AdamW on the sequences of a part. The loss is measured in the error before training, so that what AdamW
    /// adds to the root of its second moment is small beside it in any model.
    fn step(&mut self, part: &Part, before: f64) {
        let (range, hidden) = (self.range(part), self.hidden());
        let target = &self.streams.target[range.clone()];
        let whole = 2.0 / (part.tokens() as f64 * before).max(f64::MIN_POSITIVE);
        self.layer.accumulate(&self.streams.input[range], &part.lengths, |out| {
            for (out, target) in out.chunks_exact_mut(hidden).zip(target.chunks_exact(hidden)) {
                let scale = (whole / square(target)) as f32;
                out.iter_mut().zip(target).for_each(|(x, y)| *x = (*x - y) * scale);
            }
        });
        let slowed = cosine(self.steps, self.total);
        self.steps += 1;
        let params = self.layer.params_mut();
        for matrix in &mut self.matrices {
            let Matrix { quantized, gradients, memory, param, .. } = matrix;
            let gradient = &mut params[*param].grad;
            quantized.backward(gradient, gradients);
            let Options { weight_rate, step_rate, zero_rate, .. } = *self.options;
            let rates = Rates {
                weights: weight_rate * slowed,
                scales: step_rate * slowed,
                zeros: zero_rate * slowed,
            };
            quantized.step(gradient, gradients, memory, rates, self.steps);
            gradient.fill(0.0);
            gradients.kinds_mut().into_iter().for_each(|kind| kind.fill(0.0));
        }
        self.fill();
    }

    fn memory(&self, kept: &[Vec<u8>]) -> Bytes {
        let params = self.layer.params();
        let mut memory = Bytes { activations: self.layer.peak_buffer_bytes(), ..Bytes::default() };
        memory.weights += params.iter().map(|param| 4 * param.value.len()).sum::<usize>();
        memory.weights += kept.iter().map(Vec::len).sum::<usize>();
        memory.gradients += params.iter().map(|param| 4 * param.grad.len()).sum::<usize>();
        for matrix in &self.matrices {
            memory.weights += matrix.quantized.bytes();
            memory.gradients += 4 * matrix.gradients.count();
            memory.optimizer += matrix.memory.bytes();
        }
        memory.hidden = 4 * (self.streams.input.len() + self.streams.target.len());
        memory
    }
}
