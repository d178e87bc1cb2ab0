//! Questions with answers, as batches: only answers are learned.

use std::sync::Arc;

use ounce_train::data::{BatchSource, Position};
use ounce_train::{Batch, IGNORE};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::super::task::Learner;
use crate::{Error, Result};

/// A question and its answer, the end of the text included.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pair {
    /// What is given.
    pub question: Vec<u32>,
    /// What is to come.
    pub answer: Vec<u32>,
}

/// A batch of pairs.
pub fn batch<'p>(pairs: impl IntoIterator<Item = &'p Pair>) -> Batch {
    let mut batch = Batch::default();
    for Pair { question, answer } in pairs {
        let ids = || question.iter().chain(answer).copied();
        let length = question.len() + answer.len() - 1;
        batch.tokens.extend(ids().take(length));
        batch.targets.extend(ids().skip(1).enumerate().map(|(at, id)| {
            // What the question's last token leads to is the answer's first.
            if at + 1 < question.len() { IGNORE } else { id }
        }));
        batch.lengths.push(length);
    }
    batch
}

/// Pairs in batches, in a new order each epoch, without an end.
pub struct Pairs {
    pairs: Arc<[Pair]>,
    size: usize,
    random: ChaCha8Rng,
    order: Vec<usize>,
    step: u64,
}

impl Pairs {
    /// Batches of so many pairs.
    ///
    /// # Errors
    /// If there are fewer, or one has no question or no answer.
    pub fn new(pairs: Arc<[Pair]>, size: usize, seed: u64) -> Result<Pairs> {
        if size == 0
            || pairs.len() < size
            || pairs.iter().any(|it| it.question.is_empty() || it.answer.is_empty())
        {
            return Err(Error::Option(format!(
                "{} questions are too few for batches of {size}, or one is empty",
                pairs.len()
            )));
        }
        Ok(Pairs { pairs, size, random: ChaCha8Rng::seed_from_u64(seed), order: Vec::new(), step: 0 })
    }
}

impl BatchSource for Pairs {
    fn next(&mut self) -> ounce_train::Result<Option<Batch>> {
        if self.order.len() < self.size {
            self.order = (0..self.pairs.len()).collect();
            self.order.shuffle(&mut self.random);
        }
        let drawn = self.order.split_off(self.order.len() - self.size);
        self.step += 1;
        Ok(Some(batch(drawn.iter().map(|&at| &self.pairs[at]))))
    }

    fn position(&self) -> Position {
        Position { step: self.step, ..Position::default() }
    }

    fn seek(&mut self, _: &Position) -> ounce_train::Result<()> {
        // Grids begin runs anew.
        Err(ounce_train::Error::Unsupported("these batches can't be gone back to".into()))
    }

    fn tokens_per_epoch(&self) -> u64 {
        self.pairs.iter().map(|it| (it.question.len() + it.answer.len() - 1) as u64).sum()
    }
}

/// Pairs that are judged at a time.
const AT_ONCE: usize = 32;

/// Nats a target.
///
/// # Errors
/// If the pairs do not fit the model.
pub fn loss(learner: &mut Learner, pairs: &[Pair]) -> Result<f64> {
    use ounce_train::Trainable;
    let mut sum = ounce_train::Loss::default();
    for some in pairs.chunks(AT_ONCE) {
        sum += learner.loss(&batch(some))?;
    }
    Ok(sum.mean())
}

/// The part of answers' tokens that come first in the model's mind, each with the right ones before it.
///
/// # Errors
/// If the pairs do not fit the model.
pub fn hits(learner: &mut Learner, pairs: &[Pair]) -> Result<f64> {
    let (mut hits, mut all) = (0, 0);
    for some in pairs.chunks(AT_ONCE) {
        let batch = batch(some);
        hits += learner.hits(&batch)?;
        all += batch.counted();
    }
    Ok(hits as f64 / all.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_are_targets() {
        let pair = Pair { question: vec![5, 6], answer: vec![7, 0] };
        let batch = batch([&pair]);
        assert_eq!(batch.tokens, [5, 6, 7]);
        assert_eq!(batch.targets, [IGNORE, 7, 0]);
        assert_eq!(batch.counted(), 2);
    }
}
