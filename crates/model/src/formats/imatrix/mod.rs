//! Importance matrices, as llama.cpp's `llama-imatrix` writes them: for every weight matrix the squares of what was
//! multiplied with each of its columns, summed over the tokens of a text. Quantizers spend their precision there.
//!
//! Two formats are read: the one on GGUF, which is also written, and the older binary one (`.dat`), of which the
//! sums are already means times the number of chunks. The format and its rules are those of `tools/imatrix`,
//! `common/imatrix-loader.cpp` and `tools/quantize` in llama.cpp.

mod gguf;
mod legacy;

use std::collections::BTreeMap;
use std::path::Path;

use crate::storage::Bytes;
use crate::{Error, Result};

/// An importance matrix for the weights of a model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Imatrix {
    /// Names of the texts it was made on; none if the file does not say.
    pub datasets: Vec<String>,
    /// Chunks of text that were run; 0 if the file does not say.
    pub chunk_count: u32,
    /// Tokens in a chunk; 0 if the file does not say, as older ones.
    pub chunk_size: u32,
    /// What is known of each weight, by its name in GGUF files.
    pub entries: BTreeMap<String, Entry>,
}

/// What a weight matrix was multiplied with.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Sums of squares, `[counts, width]`: one row for a dense matrix, one an expert for stacked experts.
    pub in_sum2: Vec<f32>,
    /// Tokens that each row is a sum over; chunks in files that come from the older format.
    pub counts: Vec<f32>,
    /// Values of a row: the matrix's columns. Stacked matrices with a single count, as all of the older format, are
    /// one long row: columns times matrices.
    pub width: usize,
}

impl Entry {
    /// An entry whose width follows from the lengths.
    ///
    /// # Errors
    /// A sentence without its subject if the sums can't be shared out among the counts, or a number is none that
    /// sums of squares and counts can be.
    pub fn new(in_sum2: Vec<f32>, counts: Vec<f32>) -> Result<Entry, String> {
        if in_sum2.is_empty() || counts.is_empty() || !in_sum2.len().is_multiple_of(counts.len()) {
            return Err(format!(
                "has {} sums for {} counts, which should be the same number of sums for each",
                in_sum2.len(),
                counts.len()
            ));
        }
        for (what, values) in [("sum", &in_sum2), ("count", &counts)] {
            if let Some((place, value)) =
                values.iter().enumerate().find(|(_, it)| !(it.is_finite() && **it >= 0.0))
            {
                return Err(format!("has {value} for {what} {place}, which should be 0 or more"));
            }
        }
        let width = in_sum2.len() / counts.len();
        Ok(Entry { in_sum2, counts, width })
    }

    /// Mean squares, `[counts, width]`; 1 in rows that saw no token.
    fn means(&self) -> Vec<f32> {
        let rows = self.in_sum2.chunks(self.width.max(1)).zip(&self.counts);
        // llama.cpp keeps counts as integers.
        rows.flat_map(|(sums, count)| {
            let count = count.round();
            sums.iter().map(move |sum| if count > 0.0 { sum / count } else { 1.0 })
        })
        .collect()
    }
}

impl Imatrix {
    /// Reads a file of either format.
    ///
    /// # Errors
    /// [`Error::Io`] if it can't be opened, [`Error::Format`] or [`Error::Tensor`] if it is no importance matrix or
    /// damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<Imatrix> {
        let path = path.as_ref();
        Imatrix::parse(Bytes::map(path)?, path)
    }

    /// Reads a file that is in memory; `path` is only used in messages.
    ///
    /// # Errors
    /// As [`Imatrix::open`].
    pub fn parse(bytes: Bytes, path: impl AsRef<Path>) -> Result<Imatrix> {
        let path = path.as_ref();
        if bytes.starts_with(b"GGUF") { gguf::read(bytes, path) } else { legacy::read(&bytes, path) }
    }

    /// Writes the format on GGUF, as `llama-imatrix` does to the byte, replacing an older file; gives its bytes.
    ///
    /// # Errors
    /// [`Error::Tensor`] if an entry is inconsistent or its name too long for the format, [`Error::Format`] if there
    /// are no entries, which no tool accepts, [`Error::Io`] if the file can't be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<u64> {
        gguf::write(self, path.as_ref())
    }

    /// Mean squares of what a weight was multiplied with, as llama-quantize weighs its columns: `[columns]` for a
    /// dense matrix, `[experts, columns]` for stacked experts. Rows that saw no token are 1. None if the weight is
    /// not in the file.
    pub fn importance(&self, gguf_name: &str) -> Option<Vec<f32>> {
        self.entries.get(gguf_name).map(Entry::means)
    }

    /// Adds an entry that was read.
    fn add(&mut self, path: &Path, name: String, entry: Entry) -> Result<()> {
        if self.entries.contains_key(&name) {
            return Err(Error::tensor(path, name, "occurs twice; the file is damaged, make it again"));
        }
        self.entries.insert(name, entry);
        Ok(())
    }
}

/// `f32` values as they lie in a file.
fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}
