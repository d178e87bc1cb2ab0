//! Which sequences of a cache a source of batches reads: all, or one side of a split.

use std::sync::Arc;

use super::cache::Cache;
use super::mix;
use crate::{Error, Result};

/// Some sequences of a cache.
#[derive(Debug, Clone)]
pub struct Documents {
    cache: Arc<Cache>,
    /// `None` for all.
    chosen: Option<Vec<u32>>,
    ids: u64,
}

impl Documents {
    /// All sequences.
    pub fn all(cache: Arc<Cache>) -> Documents {
        let ids = cache.header().tokens;
        Documents { cache, chosen: None, ids }
    }

    /// These sequences.
    ///
    /// # Errors
    /// If one doesn't exist.
    pub fn chosen(cache: Arc<Cache>, chosen: Vec<u32>) -> Result<Documents> {
        if let Some(wrong) = chosen.iter().find(|&&sequence| sequence as usize >= cache.len()) {
            return Err(Error::Settings(format!(
                "document {wrong} was chosen, but there are only {}",
                cache.len()
            )));
        }
        let ids = chosen.iter().map(|&sequence| cache.length(sequence as usize) as u64).sum();
        Ok(Documents { cache, chosen: Some(chosen), ids })
    }

    /// Splits all sequences of a cache in two, for training and for validation, which gets about the fraction `held_out`
    /// of them. What a sequence holds decides on which side it is: equal ones are on the same side, and a side does not
    /// change when others are added.
    ///
    /// # Errors
    /// If the fraction is not between 0 and 1, or a side would be empty.
    pub fn split(cache: Arc<Cache>, held_out: f64, seed: u64) -> Result<(Documents, Documents)> {
        if !(held_out > 0.0 && held_out < 1.0) {
            return Err(Error::Settings(format!(
                "a validation split of {held_out} is not possible; give a fraction between 0 and 1, such as 0.01"
            )));
        }
        let group = if cache.header().pairs { 2 } else { 1 };
        let count = u32::try_from(cache.len()).map_err(|_| {
            Error::Settings("more than 4 billion documents can't be split; use a file of its own".into())
        })?;
        let limit = (held_out * u64::MAX as f64) as u64;
        let (held, kept): (Vec<u32>, Vec<u32>) = (0..count).partition(|&sequence| {
            // The first of a pair decides for both.
            mix(cache.fingerprint((sequence - sequence % group) as usize), seed) < limit
        });
        if held.is_empty() || kept.is_empty() {
            return Err(Error::Settings(format!(
                "{count} documents are too few to hold out {held_out} of them; give a validation file, or cut documents \
                 at blank lines"
            )));
        }
        Ok((Documents::chosen(Arc::clone(&cache), kept)?, Documents::chosen(cache, held)?))
    }

    /// The cache.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// How many sequences.
    pub fn len(&self) -> usize {
        self.chosen.as_ref().map_or(self.cache.len(), Vec::len)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ids of all together.
    pub fn ids(&self) -> u64 {
        self.ids
    }

    /// Where in the cache a sequence is.
    pub fn sequence(&self, number: usize) -> usize {
        self.chosen.as_ref().map_or(number, |chosen| chosen[number] as usize)
    }

    /// Ids of a sequence.
    pub fn length(&self, number: usize) -> usize {
        self.cache.length(self.sequence(number))
    }

    /// A number that tells these documents, in this order, from others.
    pub(super) fn identity(&self, seed: u64) -> u64 {
        let header = self.cache.header();
        let hash = |bytes: &[u8; 32]| {
            bytes
                .chunks(8)
                .fold(0, |sum, word| mix(sum, u64::from_le_bytes(std::array::from_fn(|i| word[i]))))
        };
        let mut sum =
            [header.sequences, header.tokens, hash(&header.tokenizer), seed].into_iter().fold(0, mix);
        // What the sequences are, not what the files are called: a moved data set is still the same.
        for number in 0..self.len() {
            sum = mix(sum, self.cache.fingerprint(self.sequence(number)));
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(count: u32, pairs: bool) -> Arc<Cache> {
        let sequences: Vec<Vec<u32>> = (0..count).map(|i| vec![i % 500, i / 500, 7]).collect();
        let all = [true; 3];
        let sequences = sequences.iter().map(|ids| (ids.as_slice(), all.as_slice()));
        Arc::new(Cache::in_memory_masked(sequences, 1000, pairs).unwrap())
    }

    #[test]
    fn sides_follow_from_content_and_have_about_the_size_asked_for() {
        let (kept, held) = Documents::split(cache(2000, false), 0.1, 5).unwrap();
        assert_eq!(kept.len() + held.len(), 2000);
        assert!((150..250).contains(&held.len()), "{}", held.len());
        assert_eq!(kept.ids() + held.ids(), 6000);
        // The first thousand of more are split alike.
        let (_, few) = Documents::split(cache(1000, false), 0.1, 5).unwrap();
        let few: Vec<usize> = (0..few.len()).map(|i| few.sequence(i)).collect();
        let many: Vec<usize> = (0..held.len()).map(|i| held.sequence(i)).filter(|s| *s < 1000).collect();
        assert_eq!(few, many);
        assert_ne!(kept.identity(1), held.identity(1));
        assert_ne!(kept.identity(1), kept.identity(2));
    }

    #[test]
    fn pairs_stay_together() {
        let (kept, held) = Documents::split(cache(1000, true), 0.3, 5).unwrap();
        for side in [kept, held] {
            for number in (0..side.len()).step_by(2) {
                assert_eq!(side.sequence(number) % 2, 0);
                assert_eq!(side.sequence(number) + 1, side.sequence(number + 1));
            }
        }
    }

    #[test]
    fn impossible_splits_are_refused() {
        for (fraction, says) in [(0.0, "between 0 and 1"), (f64::NAN, "between"), (0.5, "too few")] {
            let error = Documents::split(cache(1, false), fraction, 1).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(Documents::chosen(cache(1, false), vec![1]).is_err());
    }
}
