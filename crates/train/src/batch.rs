//! The tokens of one step: sequences of any lengths, one behind the other, without padding.

use crate::{Error, Result};

/// A target that counts for nothing (padding, a question whose answer is learned).
pub const IGNORE: u32 = u32::MAX;

/// One micro-batch.
///
/// All sequences lie in a row; attention and positions do not cross from one to the next, so documents can be
/// packed without seeing each other and no token is padding.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    /// Token ids, `[tokens]`.
    pub tokens: Vec<u32>,
    /// The id each token should lead to, or [`IGNORE`]: the next token for a decoder, the masked one for a masked
    /// language model, `[tokens]`.
    pub targets: Vec<u32>,
    /// Tokens of each sequence; their sum is the number of tokens.
    pub lengths: Vec<usize>,
    /// Token types of encoders that have them, `[tokens]`; empty for all 0.
    pub types: Vec<u32>,
    /// One label a sequence for classifiers; empty otherwise.
    pub labels: Vec<u32>,
    /// First and last token of each sequence's answer, counted in the sequence, for models that find spans; both
    /// [`IGNORE`] where there is none. Empty otherwise.
    pub spans: Vec<[u32; 2]>,
    /// Where answers are chosen between: the log-probability, in nats, that the reference gives the targets of each
    /// sequence. Sequences are pairs then, the better answer first. Empty otherwise.
    pub reference: Vec<f64>,
}

impl Batch {
    /// Next-token prediction within each of the given sequences; a sequence of `n + 1` ids gives `n` tokens.
    pub fn next_token<'s>(sequences: impl IntoIterator<Item = &'s [u32]>) -> Batch {
        let mut batch = Batch::default();
        for ids in sequences.into_iter().filter(|ids| ids.len() > 1) {
            batch.tokens.extend(&ids[..ids.len() - 1]);
            batch.targets.extend(&ids[1..]);
            batch.lengths.push(ids.len() - 1);
        }
        batch
    }

    /// Sequences for vectors, without anything to predict.
    pub fn untold<'s>(sequences: impl IntoIterator<Item = &'s Vec<u32>>) -> Batch {
        let mut batch = Batch::default();
        for ids in sequences {
            batch.tokens.extend(ids);
            batch.lengths.push(ids.len());
        }
        batch.targets = vec![IGNORE; batch.tokens.len()];
        batch
    }

    /// Targets that count; choices, where answers are chosen between.
    pub fn counted(&self) -> usize {
        if !self.reference.is_empty() {
            return self.reference.len() / 2;
        }
        let counts = |ids: &[u32]| ids.iter().filter(|&&id| id != IGNORE).count();
        let spans = self.spans.iter().filter(|span| span[0] != IGNORE).count();
        counts(&self.targets) + counts(&self.labels) + spans
    }

    /// Checks lengths and ids against a vocabulary.
    ///
    /// # Errors
    /// If the parts do not fit each other, or an id is outside the vocabulary.
    pub fn check(&self, vocab_size: usize) -> Result<()> {
        self.check_tokens(vocab_size)?;
        let (count, targets) = (self.tokens.len(), self.targets.len());
        if targets != count {
            return Err(Error::Batch(format!("the batch has {count} tokens but {targets} targets")));
        }
        let (sequences, known) = (self.lengths.len(), self.reference.len());
        if known != 0 && (known != sequences || !known.is_multiple_of(2)) {
            return Err(Error::Batch(format!(
                "choices need two answers each with a reference; the batch has {sequences} sequences and {known} references"
            )));
        }
        outside(self.targets.iter().filter(|&&target| target != IGNORE), vocab_size)
    }

    /// As [`Batch::check`] for a classifier of so many labels; targets are labels of tokens.
    ///
    /// # Errors
    /// If the parts do not fit each other, a token is outside the vocabulary, or a label or span outside its range.
    pub fn check_labels(&self, vocab_size: usize, labels: usize) -> Result<()> {
        self.check_tokens(vocab_size)?;
        let (sequences, count) = (self.lengths.len(), self.tokens.len());
        let parts = [
            ("targets", self.targets.len(), count),
            ("labels", self.labels.len(), sequences),
            ("spans", self.spans.len(), sequences),
        ];
        if let Some((what, found, needed)) =
            parts.into_iter().find(|(_, found, needed)| *found != 0 && found != needed)
        {
            return Err(Error::Batch(format!("the batch needs {needed} {what} but has {found}")));
        }
        let label = |label: &&u32| **label != IGNORE && **label as usize >= labels;
        if let Some(label) = self.labels.iter().chain(&self.targets).find(label) {
            return Err(Error::Batch(format!("label {label} is outside the model's {labels} labels")));
        }
        let mut spans = self.spans.iter().zip(&self.lengths);
        match spans
            .find(|([first, last], length)| *first != IGNORE && (first > last || *last as usize >= **length))
        {
            Some(([first, last], length)) => Err(Error::Batch(format!(
                "an answer from token {first} to {last} does not lie in its sequence of {length}"
            ))),
            None => Ok(()),
        }
    }

    fn check_tokens(&self, vocab_size: usize) -> Result<()> {
        let (count, types) = (self.tokens.len(), self.types.len());
        if self.lengths.iter().sum::<usize>() != count || self.lengths.contains(&0) {
            return Err(Error::Batch(format!("the batch's sequences do not add up to its {count} tokens")));
        }
        if types != count && types != 0 {
            return Err(Error::Batch(format!("the batch has {count} tokens but {types} types")));
        }
        outside(self.tokens.iter(), vocab_size)
    }
}

/// Refuses ids outside a vocabulary.
fn outside<'i>(mut ids: impl Iterator<Item = &'i u32>, vocab_size: usize) -> Result<()> {
    match ids.find(|&&id| id as usize >= vocab_size) {
        Some(id) => Err(Error::Batch(format!(
            "token id {id} is outside the model's vocabulary of {vocab_size}; the data was tokenized with another tokenizer"
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_tokens_stay_in_their_sequence() {
        let batch = Batch::next_token([&[1, 2, 3][..], &[9], &[4, 5]]);
        assert_eq!(batch.tokens, [1, 2, 4]);
        assert_eq!(batch.targets, [2, 3, 5]);
        assert_eq!(batch.lengths, [2, 1]);
        assert_eq!(batch.counted(), 3);
        batch.check(6).expect("fits");
        assert!(batch.check(5).expect_err("5 is outside").to_string().contains("token id 5"));
    }
}
