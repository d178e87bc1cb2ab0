//! What demonstrations have in common: a plain training loop, losses and answers of a network, random choices.

use ounce_kernels::pool::Pool;
use std::time::Instant;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::data::BatchSource;
use crate::loss::{Chunk, LogitLoss};
use crate::net::Net;
use crate::optim::norm::{clip_factor, global_norm};
use crate::optim::{Optimizer, Options};
use crate::schedule::{Schedule, Shape};
use crate::{Batch, Loss, Result, Trainable};

/// A warm-up of a twentieth of the steps, then half a cosine down to a twentieth of the peak.
pub fn cosine(peak: f64, total: u64) -> Schedule {
    Schedule { peak, warmup: total / 20, total, shape: Shape::Cosine { floor: peak / 20.0 } }
}

/// Trains with AdamW, gradients clipped to 1, until the schedule or the data ends; gives the seconds it took.
///
/// # Errors
/// If the data can't be read or doesn't fit the network.
pub fn fit<N: Trainable>(net: &mut N, source: &mut dyn BatchSource, schedule: Schedule) -> Result<f64> {
    fit_watched(net, source, schedule, &mut |_| {})
}

/// [`fit`]; `see` is shown the network with the gradients of each step.
///
/// # Errors
/// As [`fit`].
pub fn fit_watched<N: Trainable>(
    net: &mut N,
    source: &mut dyn BatchSource,
    schedule: Schedule,
    see: &mut dyn FnMut(&N),
) -> Result<f64> {
    let mut optimizer = Optimizer::new(Options::default(), net.params())?;
    let start = Instant::now();
    for step in 0..schedule.total {
        let Some(batch) = source.next()? else { break };
        net.params_mut().iter_mut().for_each(|param| param.grad.fill(0.0));
        let loss = net.accumulate(&batch, 1.0 / batch.counted().max(1) as f32)?;
        see(net);
        let clip = clip_factor(global_norm(Pool::global(), net.params()), Some(1.0));
        optimizer.step(net.params_mut(), schedule.rate(step), clip);
        net.stepped(loss.mean());
    }
    Ok(start.elapsed().as_secs_f64())
}

/// The loss of all batches that a source has.
pub(super) fn loss(net: &mut Net, source: &mut dyn BatchSource) -> Result<Loss> {
    let mut sum = Loss::default();
    while let Some(batch) = source.next()? {
        sum += net.loss(&batch)?;
    }
    Ok(sum)
}

/// The batches that a source gives.
pub(super) fn batches(source: &mut dyn BatchSource) -> Result<Vec<Batch>> {
    let mut all = Vec::new();
    while let Some(batch) = source.next()? {
        all.push(batch);
    }
    Ok(all)
}

/// Keeps the logits of all rows with a target, `[rows, vocabulary]`.
#[derive(Debug, Default)]
pub(super) struct Logits(pub Vec<f32>);

impl LogitLoss for Logits {
    fn chunk(&mut self, chunk: Chunk<'_>, _scale: Option<f32>) -> f64 {
        self.0.extend_from_slice(chunk.logits);
        0.0
    }
}

/// The likeliest id of logits, the first of equal ones.
pub(super) fn likeliest(logits: &[f32]) -> u32 {
    let better = |best: usize, id: usize| if logits[id] > logits[best] { id } else { best };
    (0..logits.len()).fold(0, better) as u32
}

/// A random element.
pub(super) fn one_of<T: Copy>(random: &mut ChaCha8Rng, of: &[T]) -> T {
    of[random.random_range(0..of.len())]
}
