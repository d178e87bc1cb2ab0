//! Training with masks that grow.

use ounce_model::Model;
use ounce_train::methods::workbench;
use ounce_train::net::{Net, Options as NetOptions};
use ounce_train::optim::{self, Optimizer};
use ounce_train::{Batch, Param, Trainable};

use crate::prune::learning::{Shuffled, accumulate, check_share, descend};
use crate::prune::lowest;
use crate::stages::not_empty;
use crate::{Error, Result};

/// How sparse matrices are at which step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// The sparsity at the end, 0 to below 1.
    pub last: f64,
    /// The first step at which weights are masked.
    pub start: u64,
    /// Steps from one ranking to the next.
    pub every: u64,
    /// Rankings after the first.
    pub times: u64,
}

impl Schedule {
    /// The sparsity from this step on, if matrices are ranked at it.
    pub fn at(&self, step: u64) -> Option<f64> {
        let since = step.checked_sub(self.start)?;
        if !since.is_multiple_of(self.every.max(1)) || since / self.every.max(1) > self.times {
            return None;
        }
        let left = 1.0 - since as f64 / (self.times * self.every).max(1) as f64;
        Some(if self.times == 0 { self.last } else { self.last * (1.0 - left.powi(3)) })
    }

    /// All at once at a step, for comparison.
    pub fn at_once(last: f64, step: u64) -> Schedule {
        Schedule { last, start: step, every: 1, times: 0 }
    }
}

/// How a model is trained.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Steps.
    pub steps: u64,
    /// Tokens of a step, at least; whole sequences.
    pub tokens: usize,
    /// The highest learning rate; it falls along half a cosine.
    pub rate: f64,
    /// How sparse matrices get; none trains a dense model.
    pub schedule: Option<Schedule>,
    /// Seed of the order of sequences.
    pub seed: u64,
}

/// The mask of a matrix: which weights are out, and the values that they keep.
#[derive(Debug, Clone)]
pub(super) struct Mask {
    param: usize,
    pub(super) out: Vec<bool>,
    kept: Vec<f32>,
}

impl Mask {
    pub(super) fn new(param: usize, count: usize) -> Mask {
        Mask { param, out: vec![false; count], kept: vec![0.0; count] }
    }

    /// Ranks all weights of the matrix anew; exactly `⌊sparsity · count⌋` are out then.
    pub(super) fn rank(&mut self, param: &mut Param, sparsity: f64) {
        for ((value, out), kept) in param.value.iter_mut().zip(&self.out).zip(&mut self.kept) {
            if *out {
                *value = *kept;
            }
        }
        let sizes: Vec<f32> = param.value.iter().map(|value| value.abs()).collect();
        self.out.fill(false);
        for at in lowest(&sizes, (sparsity * sizes.len() as f64) as usize) {
            self.out[at] = true;
            self.kept[at] = param.value[at];
            param.value[at] = 0.0;
        }
    }

    /// Takes what the optimizer did to masked weights back: its momentum and decay move them, and they must stay.
    pub(super) fn hold(&self, param: &mut Param) {
        param.value.iter_mut().zip(&self.out).filter(|(_, out)| **out).for_each(|(value, _)| *value = 0.0);
    }

    fn silence(&self, param: &mut Param) {
        param.grad.iter_mut().zip(&self.out).filter(|(_, out)| **out).for_each(|(grad, _)| *grad = 0.0);
    }
}

/// Whether a weight is pruned: matrices and tables are, norms and biases are not.
pub fn is_pruned(shape: &[usize]) -> bool {
    shape.len() > 1
}

/// Trains on token ids, one list a sequence. `progress` is told the steps done and in all.
///
/// # Errors
/// If there is no text, the sparsity is out of its range or not reached within the steps, the model can't be trained, the loss is no number, or
/// `progress` stops the work.
pub fn train(
    model: &Model,
    sequences: &[Vec<u32>],
    options: &Options,
    progress: &mut dyn FnMut(u64, u64) -> Result<()>,
) -> Result<Model> {
    not_empty(sequences)?;
    if let Some(schedule) = options.schedule {
        let end = schedule.start + schedule.times * schedule.every;
        check_share(schedule.last)?;
        if end >= options.steps {
            let what =
                format!("the last ranking would be at step {end} of {}; give more steps", options.steps);
            return Err(Error::Option(what));
        }
    }
    let mut net = Net::from_model(model, NetOptions::default())?;
    let mut optimizer = Optimizer::new(optim::Options::default(), net.params())?;
    let pruned = net.params().iter().enumerate().filter(|(_, param)| is_pruned(&param.shape));
    let mut masks: Vec<Mask> = pruned.map(|(at, param)| Mask::new(at, param.value.len())).collect();
    let rates = workbench::cosine(options.rate, options.steps);
    let mut order = Shuffled::new(sequences, options.seed);
    for step in 0..options.steps {
        progress(step, options.steps)?;
        if let Some(sparsity) = options.schedule.and_then(|it| it.at(step)) {
            masks.iter_mut().for_each(|mask| mask.rank(&mut net.params_mut()[mask.param], sparsity));
        }
        accumulate(&mut net, &Batch::next_token(order.next(options.tokens)))?;
        masks.iter().for_each(|mask| mask.silence(&mut net.params_mut()[mask.param]));
        descend(&mut net, &mut optimizer, rates.rate(step));
        masks.iter().for_each(|mask| mask.hold(&mut net.params_mut()[mask.param]));
    }
    progress(options.steps, options.steps)?;
    Ok(net.model()?)
}
