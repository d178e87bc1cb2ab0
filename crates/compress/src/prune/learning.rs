//! What training while parts leave has in common: sequences in a random order, the gradients of a batch, a step, the loss on a text.

use ounce_kernels::pool::Pool;
use ounce_model::Model;
use ounce_train::net::{Net, Options};
use ounce_train::optim::Optimizer;
use ounce_train::optim::norm::{clip_factor, global_norm};
use ounce_train::{Batch, Loss, Trainable};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::{Error, Result};

/// Sequences in a new random order each time they were all drawn. There is one at least.
pub(super) struct Shuffled<'s> {
    sequences: &'s [Vec<u32>],
    order: Vec<usize>,
    random: ChaCha8Rng,
}

impl<'s> Shuffled<'s> {
    pub fn new(sequences: &'s [Vec<u32>], seed: u64) -> Shuffled<'s> {
        Shuffled { sequences, order: Vec::new(), random: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// The next sequences, of so many tokens at least.
    pub fn next(&mut self, tokens: usize) -> Vec<&'s [u32]> {
        let (mut own, mut count) = (Vec::new(), 0);
        while count < tokens.max(1) {
            let Some(at) = self.order.pop() else {
                self.order = (0..self.sequences.len()).collect();
                self.order.shuffle(&mut self.random);
                continue;
            };
            count += self.sequences[at].len().max(1);
            own.push(self.sequences[at].as_slice());
        }
        own
    }
}

/// Puts the gradients of a batch's mean loss in the place of those that are there.
///
/// # Errors
/// If the batch does not fit the network, or the loss is no number.
pub(super) fn accumulate(net: &mut impl Trainable, batch: &Batch) -> Result<()> {
    silence(net);
    finite(&net.accumulate(batch, 1.0 / batch.counted().max(1) as f32)?)
}

/// Forgets gradients.
pub(super) fn silence(net: &mut impl Trainable) {
    net.params_mut().iter_mut().for_each(|param| param.grad.fill(0.0));
}

/// Refuses a loss that is no number.
///
/// # Errors
/// If it is none.
pub(super) fn finite(loss: &Loss) -> Result<()> {
    match loss.sum.is_finite() {
        true => Ok(()),
        false => Err(Error::Option(
            "the loss of training is no number; the rate is too high, or weights are damaged".into(),
        )),
    }
}

/// A step along the gradients, clipped to a norm of 1.
pub(super) fn descend(net: &mut impl Trainable, optimizer: &mut Optimizer, rate: f64) {
    let clip = clip_factor(global_norm(Pool::global(), net.params()), Some(1.0));
    optimizer.step(net.params_mut(), rate, clip);
}

/// Nats a token of a model on sequences of token ids.
///
/// # Errors
/// If the model can't be run, or a sequence does not fit.
pub(super) fn mean_loss(model: &Model, sequences: &[Vec<u32>]) -> Result<f64> {
    const TOKENS: usize = 4096;
    let mut net = Net::with_frozen(model, Options::default(), &|_| false)?;
    let (mut sum, mut own, mut count) = (Loss::default(), Vec::new(), 0);
    for (at, ids) in sequences.iter().enumerate() {
        own.push(ids.as_slice());
        count += ids.len();
        if count >= TOKENS || at + 1 == sequences.len() {
            sum += net.loss(&Batch::next_token(own.drain(..)))?;
            count = 0;
        }
    }
    Ok(sum.mean())
}

/// Refuses a share of weights that can't become zero.
///
/// # Errors
/// If it is not from 0 to below 1.
pub(super) fn check_share(share: f64) -> Result<()> {
    match (0.0..1.0).contains(&share) {
        true => Ok(()),
        false => {
            Err(Error::Option(format!("the share to remove should be from 0 to below 1, found {share}")))
        }
    }
}

/// Whether a weight is of the head, which learns as it is where only changes of layers learn.
pub(super) fn is_head(name: &str) -> bool {
    !name.starts_with("layers.") && !name.starts_with("embed")
}
