//! Data with labels, for classifiers: texts with a label ([`texts`]), words with tags ([`tags`]), questions whose answers
//! stand in a text ([`questions`]). It is small enough to be kept in memory as tokens.
//!
//! [`read`] takes it from files, [`frame`] puts it into the tokenizer's frame, [`LabelledStream`] gives it in batches and
//! [`judge`] compares what a network says with what is right.

pub mod frame;
pub mod judge;
pub mod questions;
pub mod read;
pub mod tags;
pub mod texts;

use sha2::{Digest, Sha256};

use super::permutation::Permutation;
use super::{BatchSource, Position, mix};
use crate::{Batch, Error, IGNORE, Result};

/// Tokens of one sequence and what is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Token types; empty for models without.
    pub types: Vec<u32>,
    /// What is right.
    pub target: Target,
}

/// What is right for a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The label of the text.
    Label(u32),
    /// The label of each token, or [`IGNORE`].
    Tokens(Vec<u32>),
    /// First and last token of the answer, or [`IGNORE`] twice.
    Span([u32; 2]),
}

impl Example {
    /// Whether there is something to learn.
    pub fn counts(&self) -> bool {
        match &self.target {
            Target::Label(label) => *label != IGNORE,
            Target::Tokens(labels) => labels.iter().any(|label| *label != IGNORE),
            Target::Span(span) => span[0] != IGNORE,
        }
    }
}

/// A batch of these examples.
pub fn batch<'e>(examples: impl IntoIterator<Item = &'e Example>) -> Batch {
    let mut batch = Batch::default();
    for example in examples {
        batch.tokens.extend(&example.ids);
        batch.types.extend(&example.types);
        batch.lengths.push(example.ids.len());
        match &example.target {
            Target::Label(label) => batch.labels.push(*label),
            Target::Tokens(labels) => batch.targets.extend(labels),
            Target::Span(span) => batch.spans.push(*span),
        }
    }
    batch
}

/// Splits groups of examples that belong together (windows of one context) in two, for training and for validation, which
/// gets about the part `held_out`. What `key` gives decides on the side, so that equal texts are on the same one.
///
/// # Errors
/// If the part is not between 0 and 1, or a side would be empty.
pub fn split<T>(
    all: Vec<T>,
    held_out: f64,
    seed: u64,
    key: impl Fn(&T) -> String,
) -> Result<(Vec<T>, Vec<T>)> {
    if !(held_out > 0.0 && held_out < 1.0) {
        return Err(Error::Settings(format!(
            "a validation split of {held_out} is not possible; give a fraction between 0 and 1, such as 0.1"
        )));
    }
    let limit = (held_out * u64::MAX as f64) as u64;
    let count = all.len();
    let (held, kept): (Vec<T>, Vec<T>) = all.into_iter().partition(|item| {
        let digest = Sha256::digest(key(item).as_bytes());
        let print = digest.iter().take(8).fold(0u64, |print, &byte| print << 8 | u64::from(byte));
        mix(print, seed) < limit
    });
    if held.is_empty() || kept.is_empty() {
        return Err(Error::Settings(format!(
            "{count} examples are too few to hold out {held_out} of them; raise data.held_out or give data.validation"
        )));
    }
    Ok((kept, held))
}

/// How examples are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LabelledSettings {
    /// Examples of a batch.
    pub examples: usize,
    /// Decides the order.
    pub seed: u64,
    /// Whether there is a new order each epoch.
    pub shuffle: bool,
    /// After so many the source ends; `None` for never.
    pub epochs: Option<u64>,
}

/// Examples in batches.
#[derive(Debug)]
pub struct LabelledStream {
    examples: Vec<Example>,
    settings: LabelledSettings,
    order: Permutation,
    at: Position,
    tokens: u64,
}

impl LabelledStream {
    /// A source that begins with the first epoch.
    ///
    /// # Errors
    /// If there is nothing to learn.
    pub fn new(mut examples: Vec<Example>, settings: LabelledSettings) -> Result<LabelledStream> {
        examples.retain(Example::counts);
        if examples.is_empty() || settings.examples == 0 {
            return Err(Error::Settings("a batch needs an example with something to learn".to_string()));
        }
        let source =
            examples.iter().fold(mix(settings.seed, u64::from(settings.shuffle)), |source, example| {
                example.ids.iter().fold(mix(source, 1), |source, &id| mix(source, u64::from(id)))
            });
        let tokens = examples.iter().map(|example| example.ids.len() as u64).sum();
        let at = Position { source, ..Position::default() };
        let mut stream = LabelledStream { examples, settings, order: Permutation::None, at, tokens };
        stream.order = stream.order_of(0);
        Ok(stream)
    }

    /// The examples, in the order of the files.
    pub fn examples(&self) -> &[Example] {
        &self.examples
    }

    fn order_of(&self, epoch: u64) -> Permutation {
        match self.settings.shuffle {
            true => Permutation::new(self.examples.len(), self.settings.seed, epoch),
            false => Permutation::None,
        }
    }
}

impl BatchSource for LabelledStream {
    /// A batch may begin in one epoch and end in the next, so that all are full; the last epoch's may be smaller.
    fn next(&mut self) -> Result<Option<Batch>> {
        let mut chosen = Vec::with_capacity(self.settings.examples);
        while chosen.len() < self.settings.examples {
            if self.at.index as usize == self.examples.len() {
                self.at.index = 0;
                self.at.epoch += 1;
                self.order = self.order_of(self.at.epoch);
            }
            if self.settings.epochs.is_some_and(|epochs| self.at.epoch >= epochs) {
                break;
            }
            chosen.push(self.order.at(self.at.index as usize));
            self.at.index += 1;
        }
        if chosen.is_empty() {
            return Ok(None);
        }
        self.at.step += 1;
        Ok(Some(batch(chosen.into_iter().map(|number| &self.examples[number]))))
    }

    fn position(&self) -> Position {
        self.at.clone()
    }

    fn seek(&mut self, position: &Position) -> Result<()> {
        position.check(self.at.source, self.examples.len())?;
        self.at = position.clone();
        self.order = self.order_of(position.epoch);
        Ok(())
    }

    fn tokens_per_epoch(&self) -> u64 {
        self.tokens
    }
}

#[cfg(test)]
mod tests;
