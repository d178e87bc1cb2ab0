//! From files to batches.
//!
//! Files become records ([`readers`]), records examples ([`form`]), examples token ids with a mark on those that are to
//! be learned ([`encode`]), and these a file that is mapped into memory ([`cache`]), built once. Sources of batches read it:
//!
//! - [`stream`]: text for language models, in any order of documents.
//! - [`samples`]: questions with answers, and choices between two answers; [`packing`] lays them out, [`mod@reference`] keeps
//!   what a model thought of answers before it learned to choose.
//! - [`pieces`]: sequences that stay the same from epoch to epoch, for distillation.
//! - [`masked`]: text with hidden tokens, for encoders.
//! - [`labelled`]: texts, words and questions with what is right, for classifiers; kept in memory, without a cache.
//!
//! [`agreement`] makes labels of what several labellers say. [`split`] holds documents out for validation, [`select`](mod@select) keeps the hard and diverse part of instruction data.

pub mod agreement;
pub mod build;
pub mod cache;
mod documents;
pub mod encode;
pub mod form;
pub mod labelled;
pub mod masked;
pub mod packing;
mod permutation;
pub mod pieces;
pub mod readers;
pub mod reference;
pub mod samples;
pub mod select;
pub mod split;
pub mod stream;

use serde::{Deserialize, Serialize};

use crate::{Batch, Error, Result};

pub use build::{Built, Recipe};
pub use cache::Cache;
pub use documents::documents;
pub use encode::{Encoder, Limits};
pub use form::Form;
pub use masked::{MaskSettings, MaskedStream, OrderTask};
pub use packing::{Packing, PackingStats};
pub use pieces::Pieces;
pub use readers::{ReadOptions, Separator};
pub use samples::{BatchSize, SampleSettings, SampleStream};
pub use split::Documents;
pub use stream::{LanguageStream, Layout, StreamSettings};

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

impl Position {
    /// Checks that a position belongs to a source with so many documents.
    ///
    /// # Errors
    /// If it does not.
    pub fn check(&self, source: u64, documents: usize) -> Result<()> {
        if self.source != source {
            return Err(Error::Settings(
                "the position to resume from belongs to other data, another seed or another split; start anew, or give \
                 the data and settings of the interrupted run"
                    .into(),
            ));
        }
        if self.index > documents as u64 {
            return Err(Error::Settings(format!(
                "the position to resume from is at document {} of {documents}; the checkpoint is damaged",
                self.index
            )));
        }
        Ok(())
    }
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

    /// Tokens of padding in the batches given so far.
    fn padding(&self) -> u64 {
        0
    }
}

/// A well-mixed number from two.
fn mix(a: u64, b: u64) -> u64 {
    let mut x = a ^ b.wrapping_add(0x9E37_79B9_7F4A_7C15).wrapping_add(a << 6).wrapping_add(a >> 2);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}
