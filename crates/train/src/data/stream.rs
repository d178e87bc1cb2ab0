//! Text for language models: documents in a new order each epoch, cut into sequences of at most the context, so many
//! that each batch has exactly the tokens asked for.

use super::permutation::Permutation;
use super::split::Documents;
use super::{BatchSource, Position};
use crate::{Batch, Error, IGNORE, Result};

/// How documents become sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// A sequence is of one document; no token sees another document's.
    #[default]
    Documents,
    /// Documents run on behind each other and are cut every `context` tokens, as many training programs do.
    Chunks,
}

/// How a stream gives its batches.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StreamSettings {
    /// The most tokens of a sequence.
    pub context: usize,
    /// A batch has `sequences * context` tokens.
    pub sequences: usize,
    /// Decides the order.
    pub seed: u64,
    /// Whether there is a new order each epoch; else documents come as they stand in the files.
    pub shuffle: bool,
    /// After so many the stream ends; `None` for never.
    pub epochs: Option<u64>,
    /// How documents become sequences.
    pub layout: Layout,
}

/// Text in batches that all have the same number of tokens; only the very last may have fewer.
#[derive(Debug)]
pub struct LanguageStream {
    documents: Documents,
    settings: StreamSettings,
    order: Permutation,
    at: Position,
    tokens: u64,
}

impl LanguageStream {
    /// A stream that begins with the first epoch.
    ///
    /// # Errors
    /// If the settings make no sense or no document has two tokens.
    pub fn new(documents: Documents, settings: StreamSettings) -> Result<LanguageStream> {
        if settings.context == 0 || settings.sequences == 0 {
            return Err(Error::Settings("a batch needs a sequence of one token at least".into()));
        }
        if settings.context.checked_mul(settings.sequences).is_none_or(|tokens| tokens > 1 << 30) {
            return Err(Error::Settings(format!(
                "a batch of {} sequences of {} tokens is too large",
                settings.sequences, settings.context
            )));
        }
        let per_document = |number| documents.length(number).saturating_sub(1) as u64;
        let tokens = match settings.layout {
            Layout::Documents => (0..documents.len()).map(per_document).sum(),
            Layout::Chunks => documents.ids(),
        };
        if tokens < if settings.layout == Layout::Chunks { 2 } else { 1 } {
            return Err(Error::Settings(format!(
                "the {} documents have no two tokens each, so there is nothing to predict",
                documents.len()
            )));
        }
        let at = Position {
            source: documents.identity(settings.seed ^ u64::from(settings.shuffle)),
            ..Position::default()
        };
        let order = order(&documents, &settings, 0);
        Ok(LanguageStream { documents, settings, order, at, tokens })
    }

    /// The documents it reads.
    pub fn documents(&self) -> &Documents {
        &self.documents
    }

    /// The settings.
    pub fn settings(&self) -> &StreamSettings {
        &self.settings
    }

    /// Goes to the next token of an unfinished document, at least `spare` before its end; false when all epochs are done.
    fn settle(&mut self, spare: usize) -> bool {
        loop {
            if self.settings.epochs.is_some_and(|epochs| self.at.epoch >= epochs) {
                return false;
            }
            if self.at.index as usize >= self.documents.len() {
                self.at.epoch += 1;
                (self.at.index, self.at.offset) = (0, 0);
                self.order = order(&self.documents, &self.settings, self.at.epoch);
                continue;
            }
            if self.at.offset as usize + spare < self.length() {
                return true;
            }
            self.at.index += 1;
            self.at.offset = 0;
        }
    }

    /// Where in the cache the current document is.
    fn sequence(&self) -> usize {
        self.documents.sequence(self.order.at(self.at.index as usize))
    }

    fn length(&self) -> usize {
        self.documents.cache().length(self.sequence())
    }

    fn of_documents(&mut self, batch: &mut Batch, budget: usize, ids: &mut Vec<u32>) -> Result<()> {
        while batch.tokens.len() < budget && self.settle(1) {
            let (sequence, offset) = (self.sequence(), self.at.offset as usize);
            let cache = self.documents.cache();
            if offset == 0 {
                cache.check(sequence)?;
            }
            let left = self.length() - 1 - offset;
            let count = left.min(self.settings.context).min(budget - batch.tokens.len());
            ids.clear();
            cache.read(sequence, offset..offset + count + 1, ids)?;
            batch.tokens.extend(&ids[..count]);
            let counts = |token: usize| cache.counts(sequence, offset + token + 1);
            batch.targets.extend((0..count).map(|token| if counts(token) { ids[token + 1] } else { IGNORE }));
            batch.lengths.push(count);
            self.at.offset += count as u64;
        }
        Ok(())
    }

    fn of_chunks(&mut self, batch: &mut Batch, ids: &mut Vec<u32>) -> Result<()> {
        for _ in 0..self.settings.sequences {
            ids.clear();
            // Which are to be learned, of the same ids.
            let mut counted = Vec::new();
            self.gather(self.settings.context, ids, &mut counted)?;
            // The target of the last token is the next one, which the next chunk begins with.
            let at = self.at.clone();
            self.gather(1, ids, &mut counted)?;
            if self.at.epoch != at.epoch {
                self.order = order(&self.documents, &self.settings, at.epoch);
            }
            self.at = at;
            if ids.len() < 2 {
                break;
            }
            let count = ids.len() - 1;
            batch.tokens.extend(&ids[..count]);
            batch.targets.extend((1..=count).map(|token| if counted[token] { ids[token] } else { IGNORE }));
            batch.lengths.push(count);
        }
        Ok(())
    }

    /// Takes up to `count` ids from as many documents as needed.
    fn gather(&mut self, count: usize, ids: &mut Vec<u32>, counted: &mut Vec<bool>) -> Result<()> {
        let end = ids.len() + count;
        while ids.len() < end && self.settle(0) {
            let (sequence, offset) = (self.sequence(), self.at.offset as usize);
            let cache = self.documents.cache();
            if offset == 0 {
                cache.check(sequence)?;
            }
            let count = (self.length() - offset).min(end - ids.len());
            cache.read(sequence, offset..offset + count, ids)?;
            counted.extend((offset..offset + count).map(|token| cache.counts(sequence, token)));
            self.at.offset += count as u64;
        }
        Ok(())
    }
}

fn order(documents: &Documents, settings: &StreamSettings, epoch: u64) -> Permutation {
    if settings.shuffle { Permutation::new(documents.len(), settings.seed, epoch) } else { Permutation::None }
}

impl BatchSource for LanguageStream {
    fn next(&mut self) -> Result<Option<Batch>> {
        let budget = self.settings.context * self.settings.sequences;
        let mut batch = Batch::default();
        let mut ids = Vec::with_capacity(self.settings.context + 1);
        match self.settings.layout {
            Layout::Documents => self.of_documents(&mut batch, budget, &mut ids)?,
            Layout::Chunks => self.of_chunks(&mut batch, &mut ids)?,
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
        self.order = order(&self.documents, &self.settings, position.epoch);
        if self.at.index < self.documents.len() as u64 && self.at.offset > self.length() as u64 {
            return Err(Error::Settings(
                "the position to resume from lies behind its document's end; the checkpoint is damaged"
                    .into(),
            ));
        }
        Ok(())
    }

    fn tokens_per_epoch(&self) -> u64 {
        self.tokens
    }
}

#[cfg(test)]
mod tests;
