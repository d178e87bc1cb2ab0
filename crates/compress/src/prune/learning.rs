//! What training while parts leave has in common: sequences in a random order, and the gradients of a batch.

use ounce_train::net::Net;
use ounce_train::{Batch, Trainable};
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
pub(super) fn accumulate(net: &mut Net, batch: &Batch) -> Result<()> {
    net.params_mut().iter_mut().for_each(|param| param.grad.fill(0.0));
    let loss = net.accumulate(batch, 1.0 / batch.counted().max(1) as f32)?;
    match loss.sum.is_finite() {
        true => Ok(()),
        false => Err(Error::Option(
            "the loss of training is no number; the rate is too high, or weights are damaged".into(),
        )),
    }
}
