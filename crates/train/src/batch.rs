//! The tokens of one step: sequences of any lengths, one behind the other, without padding.

use crate::{Error, Result};

/// A target that counts for nothing (padding, a question whose answer is learned).
pub const IGNORE: u32 = u32::MAX;

/// One micro-batch.
///
/// All sequences lie in a row; attention and positions do not cross from one to the next, so documents can be
/// packed without seeing each other and no token is padding.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
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

    /// Targets that count.
    pub fn counted(&self) -> usize {
        self.targets.iter().filter(|&&target| target != IGNORE).count() + self.labels.len()
    }

    /// Checks lengths and ids against a vocabulary.
    ///
    /// # Errors
    /// If the parts do not fit each other, or an id is outside the vocabulary.
    pub fn check(&self, vocab_size: usize) -> Result<()> {
        let count = self.tokens.len();
        if self.lengths.iter().sum::<usize>() != count || self.lengths.contains(&0) {
            return Err(Error::Batch(format!("the batch's sequences do not add up to its {count} tokens")));
        }
        for (what, len) in [("targets", self.targets.len()), ("types", self.types.len())] {
            if len != count && !(len == 0 && what == "types") {
                return Err(Error::Batch(format!("the batch has {count} tokens but {len} {what}")));
            }
        }
        if !self.labels.is_empty() && self.labels.len() != self.lengths.len() {
            return Err(Error::Batch(format!(
                "the batch has {} sequences but {} labels",
                self.lengths.len(),
                self.labels.len()
            )));
        }
        let targets = self.targets.iter().filter(|&&target| target != IGNORE);
        match self.tokens.iter().chain(targets).find(|&&id| id as usize >= vocab_size) {
            Some(id) => Err(Error::Batch(format!(
                "token id {id} is outside the model's vocabulary of {vocab_size}; the data was tokenized with another tokenizer"
            ))),
            None => Ok(()),
        }
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
