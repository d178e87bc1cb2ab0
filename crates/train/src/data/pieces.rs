//! A text cut once into sequences that stay the same from epoch to epoch, so that what was computed for one can be kept.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::permutation::Permutation;
use super::{BatchSource, Position};
use crate::{Batch, Error, Result};

/// Batches of whole sequences in a new order each epoch.
#[derive(Debug, Clone)]
pub struct Pieces {
    sequences: Arc<[Vec<u32>]>,
    per_batch: usize,
    seed: u64,
    epochs: Option<u64>,
    order: Permutation,
    at: Position,
}

impl Pieces {
    /// Sequences of two tokens at least, so many a batch. With a number of epochs they come in their order and then end,
    /// else for ever in an order that follows from the seed.
    ///
    /// # Errors
    /// If there is no sequence, or one has nothing to predict.
    pub fn new(
        sequences: Arc<[Vec<u32>]>,
        per_batch: usize,
        seed: u64,
        epochs: Option<u64>,
    ) -> Result<Pieces> {
        if per_batch == 0 || sequences.is_empty() || sequences.iter().any(|ids| ids.len() < 2) {
            return Err(Error::Settings("batches need sequences of two tokens at least".into()));
        }
        let mut hash = Sha256::new();
        hash.update(seed.to_le_bytes());
        for ids in sequences.iter() {
            hash.update((ids.len() as u64).to_le_bytes());
            hash.update(bytemuck::cast_slice::<u32, u8>(ids));
        }
        let digest = hash.finalize();
        let source = u64::from_le_bytes(std::array::from_fn(|at| digest[at]));
        let at = Position { source, ..Position::default() };
        let mut pieces = Pieces { sequences, per_batch, seed, epochs, order: Permutation::None, at };
        pieces.order = pieces.order_of(0);
        Ok(pieces)
    }

    /// The sequences.
    pub fn sequences(&self) -> &[Vec<u32>] {
        &self.sequences
    }

    fn order_of(&self, epoch: u64) -> Permutation {
        match self.epochs {
            Some(_) => Permutation::None,
            None => Permutation::new(self.sequences.len(), self.seed, epoch),
        }
    }
}

impl BatchSource for Pieces {
    fn next(&mut self) -> Result<Option<Batch>> {
        let mut drawn: Vec<&[u32]> = Vec::with_capacity(self.per_batch);
        while drawn.len() < self.per_batch {
            if self.at.index as usize >= self.sequences.len() {
                self.at.epoch += 1;
                self.at.index = 0;
                self.order = self.order_of(self.at.epoch);
            }
            if self.epochs.is_some_and(|epochs| self.at.epoch >= epochs) {
                break;
            }
            drawn.push(&self.sequences[self.order.at(self.at.index as usize)]);
            self.at.index += 1;
        }
        if drawn.is_empty() {
            return Ok(None);
        }
        self.at.step += 1;
        Ok(Some(Batch::next_token(drawn)))
    }

    fn position(&self) -> Position {
        self.at.clone()
    }

    fn seek(&mut self, position: &Position) -> Result<()> {
        position.check(self.at.source, self.sequences.len())?;
        self.at = position.clone();
        self.order = self.order_of(position.epoch);
        Ok(())
    }

    fn tokens_per_epoch(&self) -> u64 {
        self.sequences.iter().map(|ids| ids.len() as u64 - 1).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequences(count: u32) -> Arc<[Vec<u32>]> {
        (0..count).map(|at| vec![at, at + 1, at + 2]).collect()
    }

    #[test]
    fn every_epoch_has_all_pieces_whole_in_another_order() {
        let mut pieces = Pieces::new(sequences(10), 5, 3, None).expect("made");
        let mut epoch = || -> Vec<u32> {
            let batches = [pieces.next(), pieces.next()].map(|batch| batch.expect("read").expect("a batch"));
            batches.iter().flat_map(|batch| batch.tokens.iter().step_by(2).copied()).collect()
        };
        let (first, second) = (epoch(), epoch());
        assert_ne!(first, second);
        for mut seen in [first, second] {
            seen.sort_unstable();
            assert_eq!(seen, (0..10).collect::<Vec<u32>>());
        }
        let mut once = Pieces::new(sequences(3), 2, 3, Some(1)).expect("made");
        let sizes: Vec<usize> =
            std::iter::from_fn(|| once.next().expect("read")).map(|batch| batch.lengths.len()).collect();
        assert_eq!(sizes, [2, 1]);
    }

    #[test]
    fn it_goes_on_from_a_position() {
        let mut pieces = Pieces::new(sequences(7), 2, 1, None).expect("made");
        (0..5).for_each(|_| drop(pieces.next().expect("read")));
        let position = pieces.position();
        let mut other = Pieces::new(sequences(7), 2, 1, None).expect("made");
        other.seek(&position).expect("the same data");
        for _ in 0..6 {
            assert_eq!(pieces.next().expect("read"), other.next().expect("read"));
        }
        let mut foreign = Pieces::new(sequences(6), 2, 1, None).expect("made");
        assert!(foreign.seek(&position).is_err());
        assert!(Pieces::new(Arc::from([vec![1u32]]), 2, 1, None).is_err());
    }
}
