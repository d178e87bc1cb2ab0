//! Token ids in a file that is mapped into memory.
//!
//! ```text
//!   0  magic, version, bytes an id has (2 or 4), flags, one more than the highest id
//!  24  hash of the tokenizer, hash of what the ids were made from (32 bytes each)
//!  88  sequences, tokens, how many were cut, how many left out, checksum of all but the ids (8 bytes each)
//! 128  ids, one sequence behind the other, then up to a multiple of 8
//!      one bit a token: whether it is to be learned; only with that flag
//!      where each sequence begins, and where the last ends (8 bytes each)
//!      a fingerprint of each sequence's ids (8 bytes each)
//! ```
//!
//! All numbers are little-endian. Opening checks sizes, offsets and the checksum, reading an id that it lies in the
//! vocabulary, [`Cache::check`] that a sequence is as it was written.

mod writer;

use std::ops::Range;
use std::path::{Path, PathBuf};

use ounce_model::storage::Bytes;

use super::mix;
use crate::{Error, Result};

pub use writer::Writer;

const MAGIC: [u8; 8] = *b"ounce\0tk";
const VERSION: u32 = 1;
const HEADER: usize = 128;
const CHECKSUM_AT: usize = 120;
/// Whether only some tokens are learned.
const FLAG_LOSS: u32 = 1;
/// Whether two sequences belong together, the better one first.
const FLAG_PAIRS: u32 = 2;

/// What identifies a cache and what it counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// Bytes of an id on disk, 2 or 4.
    pub width: usize,
    /// Whether only some tokens are to be learned.
    pub has_loss: bool,
    /// Whether two sequences belong together, the better one first.
    pub pairs: bool,
    /// One more than the tokenizer's highest id.
    pub id_limit: u32,
    /// Hash of the tokenizer.
    pub tokenizer: [u8; 32],
    /// Hash of files and settings.
    pub source: [u8; 32],
    /// Sequences.
    pub sequences: u64,
    /// Ids of all sequences together.
    pub tokens: u64,
    /// Examples that were cut at the greatest length.
    pub truncated: u64,
    /// Examples that were left out: too short, or nothing to learn after the cut.
    pub skipped: u64,
}

/// Sequences of token ids.
#[derive(Debug, Clone)]
pub struct Cache {
    path: PathBuf,
    bytes: Bytes,
    header: Header,
    loss: Range<usize>,
    offsets: Range<usize>,
    fingerprints: Range<usize>,
}

impl Cache {
    /// Maps a file that [`Writer`] wrote.
    ///
    /// # Errors
    /// If it can't be read, is no such file, or is damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<Cache> {
        let path = path.as_ref();
        Cache::from_bytes(Bytes::map(path)?, path)
    }

    /// [`Cache::open`] for a file's bytes; `path` is named in errors.
    ///
    /// # Errors
    /// As [`Cache::open`].
    pub fn from_bytes(bytes: Bytes, path: &Path) -> Result<Cache> {
        let wrong = |what: &str| Error::file(path, format!("{what}; delete the file, it will be made again"));
        if bytes.len() < HEADER || bytes[..8] != MAGIC {
            return Err(wrong("this is no cache of tokens"));
        }
        if number32(&bytes, 8) != VERSION {
            return Err(wrong("the cache of tokens was written by another version of ounce"));
        }
        let (header, flags) = (read_header(&bytes), number32(&bytes, 16));
        let damaged = || wrong("the cache of tokens is damaged or cut off");
        let even = !header.pairs || header.sequences.is_multiple_of(2);
        if ![2, 4].contains(&header.width) || flags & !(FLAG_LOSS | FLAG_PAIRS) != 0 || !even {
            return Err(damaged());
        }
        let places = places(&header).filter(|[_, _, _, end]| *end == bytes.len()).ok_or_else(damaged)?;
        let [loss, offsets, fingerprints, end] = places;
        let cache = Cache {
            path: path.to_path_buf(),
            loss: loss..offsets,
            offsets: offsets..fingerprints,
            fingerprints: fingerprints..end,
            header,
            bytes,
        };
        if !cache.is_consistent() {
            return Err(damaged());
        }
        Ok(cache)
    }

    /// The bytes with the checksum that belongs to them where one can be computed; for tests of what lies behind it.
    #[doc(hidden)]
    pub fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
        let header = (bytes.len() >= HEADER).then(|| read_header(&bytes));
        if let Some([tables, ..]) = header.as_ref().and_then(places).filter(|places| places[3] == bytes.len())
        {
            let sum = checksum(&bytes, tables);
            bytes[CHECKSUM_AT..HEADER].copy_from_slice(&sum.to_le_bytes());
        }
        bytes
    }

    fn is_consistent(&self) -> bool {
        if checksum(&self.bytes, self.loss.start) != number64(&self.bytes, CHECKSUM_AT) {
            return false;
        }
        let mut before = 0;
        let sorted = self.bytes[self.offsets.clone()].chunks_exact(8).all(|number| {
            let offset = number64(number, 0);
            offset >= std::mem::replace(&mut before, offset)
        });
        sorted && number64(&self.bytes, self.offsets.start) == 0 && before == self.header.tokens
    }

    /// What it is and counts.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The file, or what it was called when it was made from bytes.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sequences.
    pub fn len(&self) -> usize {
        self.header.sequences as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.header.sequences == 0
    }

    /// Ids of a sequence.
    ///
    /// # Panics
    /// If there is no such sequence; as all methods that take one.
    pub fn length(&self, sequence: usize) -> usize {
        let Range { start, end } = self.span(sequence);
        end - start
    }

    /// Appends some ids of a sequence.
    ///
    /// # Errors
    /// If an id is outside the vocabulary, so that the file is damaged.
    ///
    /// # Panics
    /// If the sequence is shorter.
    pub fn read(&self, sequence: usize, range: Range<usize>, ids: &mut Vec<u32>) -> Result<()> {
        let Range { start, end } = self.span(sequence);
        assert!(range.start <= range.end && range.end <= end - start, "the range lies in the sequence");
        let width = self.header.width;
        let first = HEADER + (start + range.start) * width;
        let bytes = &self.bytes[first..first + range.len() * width];
        let before = ids.len();
        if width == 2 {
            ids.extend(bytes.chunks_exact(2).map(|id| u32::from(u16::from_le_bytes([id[0], id[1]]))));
        } else {
            ids.extend(bytes.chunks_exact(4).map(|id| number32(id, 0)));
        }
        match ids[before..].iter().find(|id| **id >= self.header.id_limit) {
            Some(id) => {
                Err(self.changed(sequence, &format!("holds the id {id}, which the tokenizer does not have")))
            }
            None => Ok(()),
        }
    }

    /// Whether a token of a sequence is to be learned.
    pub fn counts(&self, sequence: usize, token: usize) -> bool {
        if !self.header.has_loss {
            return true;
        }
        let bit = self.span(sequence).start + token;
        self.bytes[self.loss.start + bit / 8] >> (bit % 8) & 1 == 1
    }

    /// A number that follows from a sequence's ids alone.
    pub fn fingerprint(&self, sequence: usize) -> u64 {
        assert!(sequence < self.len(), "the sequence exists");
        number64(&self.bytes, self.fingerprints.start + 8 * sequence)
    }

    /// Checks that a sequence has the ids that were written.
    ///
    /// # Errors
    /// If not.
    pub fn check(&self, sequence: usize) -> Result<()> {
        let mut ids = Vec::new();
        let length = self.length(sequence);
        let mut state = Fingerprint::default();
        // A document may be large: a piece at a time.
        for start in (0..length).step_by(1 << 16) {
            ids.clear();
            self.read(sequence, start..length.min(start + (1 << 16)), &mut ids)?;
            state.add(&ids);
        }
        if state.finish() == self.fingerprint(sequence) {
            Ok(())
        } else {
            Err(self.changed(sequence, "is not what was written"))
        }
    }

    /// Checks all sequences.
    ///
    /// # Errors
    /// If one has changed.
    pub fn verify(&self) -> Result<()> {
        (0..self.len()).try_for_each(|sequence| self.check(sequence))
    }

    fn changed(&self, sequence: usize, what: &str) -> Error {
        Error::file(
            &self.path,
            format!(
                "the cache of tokens is damaged: sequence {sequence} {what}; delete the file, it will be made again"
            ),
        )
    }

    fn span(&self, sequence: usize) -> Range<usize> {
        assert!(sequence < self.len(), "the sequence exists");
        let at = self.offsets.start + 8 * sequence;
        // Checked when opened: sorted and within the tokens, which lie in memory.
        number64(&self.bytes, at) as usize..number64(&self.bytes, at + 8) as usize
    }
}

/// The head of a file that has one.
fn read_header(bytes: &[u8]) -> Header {
    let flags = number32(bytes, 16);
    Header {
        width: number32(bytes, 12) as usize,
        has_loss: flags & FLAG_LOSS != 0,
        pairs: flags & FLAG_PAIRS != 0,
        id_limit: number32(bytes, 20),
        tokenizer: hash(bytes, 24),
        source: hash(bytes, 56),
        sequences: number64(bytes, 88),
        tokens: number64(bytes, 96),
        truncated: number64(bytes, 104),
        skipped: number64(bytes, 112),
    }
}

/// The checksum of the head and of the tables, which begin at `tables`.
fn checksum(bytes: &[u8], tables: usize) -> u64 {
    let mut sum = Checksum::default();
    sum.add(&bytes[..CHECKSUM_AT]);
    sum.add(&bytes[tables..]);
    sum.finish()
}

/// Where the bits, the offsets and the fingerprints begin, and where the file ends; `None` for impossible numbers.
fn places(header: &Header) -> Option<[usize; 4]> {
    let tokens = usize::try_from(header.tokens).ok()?;
    let sequences = usize::try_from(header.sequences).ok()?;
    let eights = |bytes: usize| bytes.checked_next_multiple_of(8);
    let loss = eights(tokens.checked_mul(header.width)?)?.checked_add(HEADER)?;
    let bits = if header.has_loss { eights(tokens.div_ceil(8))? } else { 0 };
    let offsets = loss.checked_add(bits)?;
    let fingerprints = offsets.checked_add(sequences.checked_add(1)?.checked_mul(8)?)?;
    let end = fingerprints.checked_add(sequences.checked_mul(8)?)?;
    Some([loss, offsets, fingerprints, end])
}

fn number32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn number64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn hash(bytes: &[u8], at: usize) -> [u8; 32] {
    std::array::from_fn(|i| bytes[at + i])
}

/// A number that follows from ids, fed in pieces of any size.
#[derive(Default)]
struct Fingerprint {
    state: u64,
    count: u64,
}

impl Fingerprint {
    fn add(&mut self, ids: &[u32]) {
        for &id in ids {
            self.state = (self.state.rotate_left(23) ^ u64::from(id)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
        self.count += ids.len() as u64;
    }

    fn finish(self) -> u64 {
        mix(self.state, self.count)
    }
}

/// A checksum of bytes, fed in pieces whose lengths are multiples of 8.
#[derive(Default)]
struct Checksum {
    state: u64,
}

impl Checksum {
    fn add(&mut self, bytes: &[u8]) {
        for word in bytes.chunks_exact(8) {
            self.state = (self.state.rotate_left(29) ^ number64(word, 0)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        }
    }

    fn finish(self) -> u64 {
        mix(self.state, 1)
    }
}

#[cfg(test)]
mod tests;
