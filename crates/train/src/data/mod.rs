//! From files to batches.

use serde::{Deserialize, Serialize};

use crate::{Batch, Result};

/// Where a source of batches stands: everything that is needed to go on with exactly the batches that would have
/// followed. It holds for other batch sizes too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Which data and order it belongs to.
    pub source: u64,
    /// How often all data was gone through.
    pub epoch: u64,
    /// The next document, counted in this epoch's order.
    pub index: u64,
    /// The next token in this document.
    pub offset: u64,
    /// Batches given since the first.
    pub step: u64,
}

/// Gives the batches of a training run, one after the other.
pub trait BatchSource {
    /// The next batch, or `None` when all epochs are done.
    ///
    /// # Errors
    /// If the data is damaged.
    fn next(&mut self) -> Result<Option<Batch>>;

    /// Where the next batch begins.
    fn position(&self) -> Position;

    /// Goes on from a position that [`BatchSource::position`] gave, of this source or of one made alike.
    ///
    /// # Errors
    /// If the position belongs to other data.
    fn seek(&mut self, position: &Position) -> Result<()>;

    /// Tokens that the batches of one epoch have together.
    fn tokens_per_epoch(&self) -> u64;
}
