//! Text for encoders: some tokens are hidden and to be found again, as in BERT; optionally two halves of a text stand in
//! their order or not, which is to be told, as in ALBERT.

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::permutation::Permutation;
use super::split::Documents;
use super::{BatchSource, Position, mix};
use crate::{Batch, Error, IGNORE, Result};

/// Whether a batch asks for the order of halves, and where texts may be halved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderTask {
    /// Ids that end a sentence: a text is halved behind the one nearest to its middle, if one is near.
    pub sentence_ends: Vec<u32>,
}

/// How tokens are hidden.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MaskSettings {
    /// The most tokens of a sequence, with those that begin and end it.
    pub context: usize,
    /// A batch has at most `sequences * context` tokens, and few less.
    pub sequences: usize,
    /// Decides the order and what is hidden.
    pub seed: u64,
    /// After so many the source ends; `None` for never.
    pub epochs: Option<u64>,
    /// The part of tokens to be found, 0.15 in BERT. Of these 80 % are hidden, 10 % exchanged, 10 % left.
    pub rate: f64,
    /// Up to so many tokens in a row are chosen at once, short rows more often (one over their length); 1 for single ones.
    pub longest_run: usize,
    /// The id that hides.
    pub mask: u32,
    /// The id that begins a sequence.
    pub cls: u32,
    /// The id that ends a sequence, and each half of one.
    pub sep: u32,
    /// Ids that are never put in place of others, such as special ones.
    pub never: Vec<u32>,
    /// Whether the order of halves is to be told: label 0 for the right one, 1 for the wrong one.
    pub order: Option<OrderTask>,
}

/// Batches with hidden tokens. Documents should be without tokens that begin or end them
/// ([`Limits::ends`](super::Limits) off). What is hidden follows from the seed and the place alone.
#[derive(Debug)]
pub struct MaskedStream {
    documents: Documents,
    settings: MaskSettings,
    order: Permutation,
    at: Position,
    tokens: u64,
}

impl MaskedStream {
    /// A source that begins with the first epoch.
    ///
    /// # Errors
    /// If the settings make no sense or no document is long enough.
    pub fn new(documents: Documents, settings: MaskSettings) -> Result<MaskedStream> {
        let limit = documents.cache().header().id_limit;
        if !(settings.rate > 0.0 && settings.rate <= 1.0) || settings.longest_run == 0 {
            return Err(Error::Settings(
                "the part of tokens to be hidden is above 0 and at most 1, in runs of 1 or more".into(),
            ));
        }
        if let Some(id) = [settings.mask, settings.cls, settings.sep].into_iter().find(|id| *id >= limit) {
            return Err(Error::Settings(format!(
                "the special token {id} is outside the vocabulary of {limit}"
            )));
        }
        let mut stream = MaskedStream {
            order: Permutation::new(documents.len(), settings.seed, 0),
            at: Position { source: documents.identity(settings.seed), ..Position::default() },
            documents,
            settings,
            tokens: 0,
        };
        let room = stream.settings.context.saturating_sub(stream.extra());
        let size = stream.settings.context.checked_mul(stream.settings.sequences);
        if room < stream.least() || size.is_none_or(|size| size == 0 || size > 1 << 30) {
            return Err(Error::Settings(format!(
                "a batch of {} sequences of {} tokens is not possible for an encoder",
                stream.settings.sequences, stream.settings.context
            )));
        }
        for number in 0..stream.documents.len() {
            let length = stream.documents.length(number);
            let rest = length % room;
            let whole = length - rest + if rest >= stream.least() { rest } else { 0 };
            stream.tokens += (whole + whole.div_ceil(room) * stream.extra()) as u64;
        }
        if stream.tokens == 0 {
            return Err(Error::Settings(format!(
                "none of the {} documents has {} tokens",
                stream.documents.len(),
                stream.least()
            )));
        }
        Ok(stream)
    }

    /// Tokens that begin and end a sequence.
    fn extra(&self) -> usize {
        if self.settings.order.is_some() { 3 } else { 2 }
    }

    /// The fewest tokens of text that make a sequence.
    fn least(&self) -> usize {
        if self.settings.order.is_some() { 2 } else { 1 }
    }

    fn sequence(&self) -> usize {
        self.documents.sequence(self.order.at(self.at.index as usize))
    }

    /// Goes to where enough text is left; false when all epochs are done.
    fn settle(&mut self) -> bool {
        loop {
            if self.settings.epochs.is_some_and(|epochs| self.at.epoch >= epochs) {
                return false;
            }
            if self.at.index as usize >= self.documents.len() {
                self.at.epoch += 1;
                (self.at.index, self.at.offset) = (0, 0);
                self.order = Permutation::new(self.documents.len(), self.settings.seed, self.at.epoch);
                continue;
            }
            let length = self.documents.cache().length(self.sequence());
            if self.at.offset as usize + self.least() <= length {
                return true;
            }
            self.at.index += 1;
            self.at.offset = 0;
        }
    }

    /// Appends one sequence with this text.
    fn push(&self, batch: &mut Batch, text: &[u32], random: &mut ChaCha8Rng) {
        let MaskSettings { cls, sep, .. } = self.settings;
        let (mut shown, mut targets) = self.hide(text, random);
        let start = batch.tokens.len();
        if let Some(task) = &self.settings.order {
            let cut = halve(text, &task.sentence_ends, random);
            let swapped = random.random::<bool>();
            if swapped {
                shown.rotate_left(cut);
                targets.rotate_left(cut);
            }
            let first = if swapped { text.len() - cut } else { cut };
            batch.tokens.push(cls);
            batch.tokens.extend(&shown[..first]);
            batch.tokens.push(sep);
            batch.tokens.extend(&shown[first..]);
            batch.targets.push(IGNORE);
            batch.targets.extend(&targets[..first]);
            batch.targets.push(IGNORE);
            batch.targets.extend(&targets[first..]);
            batch.types.extend(std::iter::repeat_n(0, first + 2));
            batch.types.extend(std::iter::repeat_n(1, text.len() - first + 1));
            batch.labels.push(u32::from(swapped));
        } else {
            batch.tokens.push(cls);
            batch.tokens.extend(&shown);
            batch.targets.push(IGNORE);
            batch.targets.extend(&targets);
        }
        batch.tokens.push(sep);
        batch.targets.push(IGNORE);
        batch.lengths.push(batch.tokens.len() - start);
    }

    /// The text with tokens hidden, and those to be found.
    fn hide(&self, text: &[u32], random: &mut ChaCha8Rng) -> (Vec<u32>, Vec<u32>) {
        let (mut shown, mut targets) = (text.to_vec(), vec![IGNORE; text.len()]);
        let wanted = ((text.len() as f64 * self.settings.rate).round() as usize).max(1);
        let mut starts: Vec<usize> = (0..text.len()).collect();
        starts.shuffle(random);
        let mut chosen = 0;
        for start in starts {
            if chosen == wanted {
                break;
            }
            let run = run_length(self.settings.longest_run, random).min(wanted - chosen);
            for token in start..text.len().min(start + run) {
                if targets[token] == IGNORE {
                    targets[token] = text[token];
                    shown[token] = self.shown(text[token], random);
                    chosen += 1;
                }
            }
        }
        (shown, targets)
    }

    /// What stands in place of a token that is to be found.
    fn shown(&self, id: u32, random: &mut ChaCha8Rng) -> u32 {
        match random.random_range(0..10) {
            0..8 => self.settings.mask,
            8 => {
                let limit = self.documents.cache().header().id_limit;
                // A vocabulary of nothing but special tokens must not hang.
                let drawn = (0..100).map(|_| random.random_range(0..limit));
                drawn.into_iter().find(|drawn| !self.is_special(*drawn)).unwrap_or(id)
            }
            _ => id,
        }
    }

    fn is_special(&self, id: u32) -> bool {
        let MaskSettings { mask, cls, sep, never, .. } = &self.settings;
        [*mask, *cls, *sep].contains(&id) || never.contains(&id)
    }
}

/// A length from 1 to `longest`, each with a weight of one over itself.
fn run_length(longest: usize, random: &mut ChaCha8Rng) -> usize {
    let weights = (1..=longest).map(|length| 1.0 / length as f64);
    let mut left = random.random::<f64>() * weights.clone().sum::<f64>();
    for (length, weight) in (1..).zip(weights) {
        left -= weight;
        if left < 0.0 {
            return length;
        }
    }
    longest
}

/// Where the second half begins: behind the sentence end nearest to the middle if one lies in the middle half of the text,
/// else anywhere there.
fn halve(text: &[u32], sentence_ends: &[u32], random: &mut ChaCha8Rng) -> usize {
    let least = (text.len() / 4).max(1);
    let most = (text.len() * 3 / 4).max(least);
    let drawn = random.random_range(least..=most);
    (least..=most)
        .filter(|&cut| sentence_ends.contains(&text[cut - 1]))
        .min_by_key(|cut| cut.abs_diff(text.len() / 2))
        .unwrap_or(drawn)
}

impl BatchSource for MaskedStream {
    fn next(&mut self) -> Result<Option<Batch>> {
        let budget = self.settings.context * self.settings.sequences;
        let mut batch = Batch::default();
        let mut text = Vec::new();
        while batch.tokens.len() + self.extra() + self.least() <= budget && self.settle() {
            let (sequence, offset) = (self.sequence(), self.at.offset as usize);
            let cache = self.documents.cache();
            if offset == 0 {
                cache.check(sequence)?;
            }
            let room = self.settings.context.min(budget - batch.tokens.len()) - self.extra();
            let count = (cache.length(sequence) - offset).min(room);
            text.clear();
            cache.read(sequence, offset..offset + count, &mut text)?;
            let place = mix(mix(self.settings.seed, self.at.epoch), mix(sequence as u64, offset as u64));
            self.push(&mut batch, &text, &mut ChaCha8Rng::seed_from_u64(place));
            self.at.offset += count as u64;
        }
        if batch.tokens.is_empty() {
            return Ok(None);
        }
        self.at.step += 1;
        Ok(Some(batch))
    }

    fn position(&self) -> Position {
        self.at.clone()
    }

    fn seek(&mut self, position: &Position) -> Result<()> {
        position.check(self.at.source, self.documents.len())?;
        self.at = position.clone();
        self.order = Permutation::new(self.documents.len(), self.settings.seed, position.epoch);
        Ok(())
    }

    /// A little less than the batches have, since a full batch cuts a sequence in two.
    fn tokens_per_epoch(&self) -> u64 {
        self.tokens
    }
}

#[cfg(test)]
mod tests;
