//! Trains a network's parameters on the next token (or by another loss on the same sequences), each with a rate of its own.
//!
//! Some sequences are held out: what is kept is what was best on them, the start included.

use ounce_train::{Batch, Loss, Trainable};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::adam::{Adam, cosine};
use super::held_out;
use crate::{Error, Result};

/// How long is trained, and in what order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Passes over the sequences.
    pub epochs: usize,
    /// Tokens of a step, at least; whole sequences.
    pub tokens: usize,
    /// Seed of the order of sequences.
    pub seed: u64,
}

/// What became of the network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Course {
    /// Nats a token on held-out sequences, before.
    pub before: f64,
    /// The same of what was kept.
    pub after: f64,
    /// Steps that were done.
    pub steps: u64,
    /// Numbers that were trained.
    pub trained: usize,
    /// Bytes of their gradients.
    pub gradients: usize,
    /// Bytes of the optimizer's moments.
    pub optimizer: usize,
}

/// The loss of a batch; with a scale the network adds that times the gradient to its parameters' own.
pub type LossOf<'l, N> = &'l mut dyn FnMut(&mut N, &Batch, Option<f32>) -> Result<Loss>;

/// The next token's.
///
/// # Errors
/// If the batch does not fit the network.
pub fn usual<N: Trainable>(net: &mut N, batch: &Batch, scale: Option<f32>) -> Result<Loss> {
    Ok(match scale {
        Some(scale) => net.accumulate(batch, scale)?,
        None => net.loss(batch)?,
    })
}

/// Trains on token ids, one list a sequence, by a loss. `rates` are those of the network's parameters in their order, before they fall
/// along half a cosine; frozen ones are passed over. `moved` is called whenever parameters were changed; `progress` is told the
/// share that is done.
///
/// # Errors
/// If there are too few sequences or they don't fit the network, the loss is no number, or `progress` stops the work.
pub fn train<N: Trainable>(
    net: &mut N,
    sequences: &[Vec<u32>],
    schedule: &Schedule,
    rates: &[f64],
    loss: LossOf<'_, N>,
    moved: &mut dyn FnMut(&mut N),
    progress: &mut dyn FnMut(f64) -> Result<()>,
) -> Result<Course> {
    let held = held_out(sequences.len())?;
    let (learned, judged) = sequences.split_at(sequences.len() - held);
    let judge = batches(judged, schedule.tokens);
    let before = mean_loss(net, loss, &judge)?;
    let mut best = (before, values(net));
    let mut memories: Vec<Adam> = net.params().iter().map(|param| Adam::new(param.grad.len())).collect();
    let mut order: Vec<&Vec<u32>> = learned.iter().collect();
    let mut random = ChaCha8Rng::seed_from_u64(schedule.seed);
    let total = (batches(learned, schedule.tokens).len() * schedule.epochs).max(1) as u64;
    let mut step = 0;
    for _ in 0..schedule.epochs {
        order.shuffle(&mut random);
        for batch in batches(order.iter().copied(), schedule.tokens) {
            net.params_mut().iter_mut().for_each(|param| param.grad.fill(0.0));
            let found = loss(net, &batch, Some(1.0 / batch.counted().max(1) as f32))?;
            if !found.sum.is_finite() {
                return Err(Error::Option(
                    "the loss of training is no number; the model's weights are damaged, or the rate is too high".into(),
                ));
            }
            let slowed = cosine(step, total);
            step += 1;
            for ((param, memory), rate) in net.params_mut().iter_mut().zip(&mut memories).zip(rates) {
                if param.is_trainable() {
                    memory.step(&mut param.value, &param.grad, rate * slowed, step);
                }
            }
            moved(net);
            progress((step as f64 / total as f64).min(1.0))?;
        }
        let found = mean_loss(net, loss, &judge)?;
        if found < best.0 {
            best = (found, values(net));
        }
    }
    let trained = best.1.iter().map(Vec::len).sum();
    let places = net.params_mut().iter_mut().filter(|param| param.is_trainable());
    places.zip(best.1).for_each(|(param, values)| param.value = values);
    moved(net);
    Ok(Course {
        before,
        after: best.0,
        steps: step,
        trained,
        gradients: net.params().iter().map(|param| 4 * param.grad.len()).sum(),
        optimizer: memories.iter().map(Adam::bytes).sum(),
    })
}

fn values(net: &impl Trainable) -> Vec<Vec<f32>> {
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

fn mean_loss<N>(net: &mut N, loss: LossOf<'_, N>, batches: &[Batch]) -> Result<f64> {
    let mut sum = Loss::default();
    for batch in batches {
        sum += loss(net, batch, None)?;
    }
    Ok(sum.mean())
}
