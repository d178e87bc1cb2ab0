//! What a reference model thinks of answers: the log-probability of each sequence of a cache, computed once and kept in a
//! file, so that learning from choices needs no second model in memory.
//!
//! ```text
//!   0  magic
//!   8  hash of the cache, the cut and the model (32 bytes)
//!  40  sequences (8 bytes)
//!  48  a log-probability a sequence, in nats (f64)
//!      the first 8 bytes of the hash of all before
//! ```
//!
//! All numbers are little-endian.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use ounce_model::storage::{AtomicFile, Bytes};
use sha2::{Digest, Sha256};

use super::build::OnProgress;
use super::cache::Cache;
use super::samples::sample;
use crate::{Batch, Error, Result};

const MAGIC: [u8; 8] = *b"ounce\0rf";
const HEADER: usize = 48;
const CHECKSUM: usize = 8;

/// Log-probabilities of the targets of all sequences of a cache.
#[derive(Debug, Clone)]
pub struct Reference {
    values: Arc<[f64]>,
}

/// What a reference is made from.
#[derive(Debug, Clone, Copy)]
pub struct Scored<'c> {
    /// The sequences.
    pub cache: &'c Cache,
    /// The most tokens of a sequence; what is longer is cut at its end.
    pub context: usize,
    /// Tokens of a batch, about.
    pub tokens: usize,
    /// A hash of the model's weights.
    pub model: [u8; 32],
}

impl Reference {
    /// The log-probabilities at `path` if they are of the same sequences, cut and model, else new ones in their place. `score`
    /// gives those of a batch's sequences, in nats. Progress counts sequences.
    ///
    /// # Errors
    /// If the data is damaged, a value is no number, or the file can't be written.
    pub fn open_or_compute(
        path: &Path,
        of: Scored<'_>,
        score: &mut dyn FnMut(&Batch) -> Result<Vec<f64>>,
        progress: OnProgress<'_>,
    ) -> Result<Reference> {
        let key = of.key();
        if let Some(values) = read(path, &key, of.cache.len()) {
            return Ok(Reference { values: values.into() });
        }
        let values = of.compute(score, progress)?;
        write(path, &key, &values)?;
        Ok(Reference { values: values.into() })
    }

    /// Log-probabilities that are in memory only, one for each sequence of a cache.
    pub fn new(values: Vec<f64>) -> Reference {
        Reference { values: values.into() }
    }

    /// How many sequences it knows.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Of a sequence of the cache, in nats.
    ///
    /// # Panics
    /// If there is no such sequence.
    pub fn of(&self, sequence: usize) -> f64 {
        self.values[sequence]
    }
}

impl Scored<'_> {
    fn key(&self) -> [u8; 32] {
        let header = self.cache.header();
        let mut hash = Sha256::new();
        hash.update(header.tokenizer);
        for number in [self.context as u64, self.cache.len() as u64] {
            hash.update(number.to_le_bytes());
        }
        // Of content, not of files: a data set that was moved is still the same.
        (0..self.cache.len())
            .for_each(|sequence| hash.update(self.cache.fingerprint(sequence).to_le_bytes()));
        hash.update(self.model);
        hash.finalize().into()
    }

    /// Computes all log-probabilities, as many sequences at a time as a batch has room for.
    ///
    /// # Errors
    /// As [`Reference::open_or_compute`].
    pub fn compute(
        &self,
        score: &mut dyn FnMut(&Batch) -> Result<Vec<f64>>,
        progress: OnProgress<'_>,
    ) -> Result<Vec<f64>> {
        let count = self.cache.len();
        let mut values = Vec::with_capacity(count);
        let mut batch = Batch::default();
        for sequence in 0..count {
            let sample = sample(self.cache, sequence, self.context)?;
            batch.lengths.push(sample.tokens.len());
            batch.tokens.extend(sample.tokens);
            batch.targets.extend(sample.targets);
            if batch.tokens.len() >= self.tokens || sequence + 1 == count {
                values.extend(score(&std::mem::take(&mut batch))?);
                progress(values.len() as u64, count as u64)?;
            }
        }
        match values.iter().position(|value| !value.is_finite()) {
            Some(sequence) => Err(Error::Diverged(format!(
                "the log-probability of answer {sequence} under the reference is {}; is the model damaged?",
                values[sequence]
            ))),
            None => Ok(values),
        }
    }
}

/// The values of a file that is whole and has this key; anything else is made again.
fn read(path: &Path, key: &[u8; 32], count: usize) -> Option<Vec<f64>> {
    let bytes = Bytes::map(path).ok()?;
    let end = count.checked_mul(8)?.checked_add(HEADER)?;
    if bytes.len() != end + CHECKSUM || bytes[..8] != MAGIC || bytes[8..40] != key[..] {
        return None;
    }
    let sum = Sha256::digest(&bytes[..end]);
    if bytes[40..HEADER] != (count as u64).to_le_bytes() || bytes[end..] != sum[..CHECKSUM] {
        return None;
    }
    let value = |bytes: &[u8]| f64::from_le_bytes(std::array::from_fn(|at| bytes[at]));
    Some(bytes[HEADER..end].chunks_exact(8).map(value).collect())
}

fn write(path: &Path, key: &[u8; 32], values: &[f64]) -> Result<()> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(key);
    bytes.extend((values.len() as u64).to_le_bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    let sum = Sha256::digest(&bytes);
    bytes.extend(&sum[..CHECKSUM]);
    let mut file = AtomicFile::create(path)?;
    file.write_all(&bytes).map_err(Error::io(path))?;
    Ok(file.commit()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(count: u32) -> Cache {
        let sequences: Vec<Vec<u32>> = (0..count).map(|i| (0..4 + i % 7).collect()).collect();
        let marks: Vec<Vec<bool>> =
            sequences.iter().map(|ids| (0..ids.len()).map(|at| at > 1).collect()).collect();
        let both = sequences.iter().zip(&marks).map(|(ids, marks)| (ids.as_slice(), marks.as_slice()));
        Cache::in_memory_masked(both, 100, true).unwrap()
    }

    /// Minus the number of targets, so that the cut shows.
    fn score(batch: &Batch) -> Result<Vec<f64>> {
        let mut at = 0;
        let of = |length: &usize| {
            at += length;
            let targets = &batch.targets[at - length..at];
            -(targets.iter().filter(|target| **target != crate::IGNORE).count() as f64)
        };
        Ok(batch.lengths.iter().map(of).collect())
    }

    #[test]
    fn values_are_computed_once_for_the_same_data_cut_and_model() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reference.bin");
        let cache = cache(20);
        let of = |context, model| Scored { cache: &cache, context, tokens: 9, model: [model; 32] };
        let mut calls = 0;
        let mut values = |of: Scored<'_>| {
            let mut counting = |batch: &Batch| {
                calls += 1;
                score(batch)
            };
            let known = Reference::open_or_compute(&path, of, &mut counting, &mut |_, _| Ok(())).unwrap();
            (known.values.to_vec(), std::mem::take(&mut calls))
        };
        let (first, computed) = values(of(100, 1));
        assert!(computed > 5);
        assert_eq!(first[..8], [-2.0, -3.0, -4.0, -5.0, -6.0, -7.0, -8.0, -2.0]);
        assert_eq!(values(of(100, 1)), (first.clone(), 0));
        let (cut, computed) = values(of(4, 1));
        assert!(computed > 0 && cut[4] == -3.0, "{cut:?}");
        assert!(values(of(4, 2)).1 > 0, "another model");
        // A byte of the file changes: it is made again.
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[60] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(values(of(4, 2)), (cut, computed));
    }

    #[test]
    fn values_that_are_no_numbers_are_refused() {
        let cache = cache(4);
        let of = Scored { cache: &cache, context: 10, tokens: 1, model: [0; 32] };
        let mut nan = |batch: &Batch| Ok(vec![f64::NAN; batch.lengths.len()]);
        let error = of.compute(&mut nan, &mut |_, _| Ok(())).unwrap_err().to_string();
        assert!(error.contains("answer 0"), "{error}");
    }
}
