//! Questions with answers, and choices between two answers: each is a sequence of its own, in a new order each epoch.

use serde::{Deserialize, Serialize};

use super::packing::{Packing, PackingStats, Sample, lay_out};
use super::permutation::Permutation;
use super::reference::Reference;
use super::split::Documents;
use super::{BatchSource, Cache, Position};
use crate::{Batch, Error, IGNORE, Result};

/// When a batch is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchSize {
    /// So many samples, a choice counting as one.
    Samples(usize),
    /// As many as fit into so many tokens, one at least.
    Tokens(usize),
}

/// How samples are given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleSettings {
    /// The most tokens of a sample; what is longer is cut at its end.
    pub context: usize,
    /// When a batch is full.
    pub size: BatchSize,
    /// Decides the order.
    pub seed: u64,
    /// Whether there is a new order each epoch; else samples come as they stand in the files.
    pub shuffle: bool,
    /// After so many the source ends; `None` for never.
    pub epochs: Option<u64>,
    /// How samples are laid out.
    pub packing: Packing,
    /// Whether packed samples don't see each other.
    pub isolated: bool,
    /// The id that fills rows.
    pub pad: u32,
}

/// Samples in batches. Of choices, the better answer comes right before the worse one.
#[derive(Debug)]
pub struct SampleStream {
    documents: Documents,
    settings: SampleSettings,
    /// Sequences that belong together.
    group: usize,
    order: Permutation,
    at: Position,
    tokens: u64,
    stats: PackingStats,
    reference: Option<Reference>,
}

impl SampleStream {
    /// A source that begins with the first epoch.
    ///
    /// # Errors
    /// If the settings make no sense, or no sample has anything to learn.
    pub fn new(documents: Documents, settings: SampleSettings) -> Result<SampleStream> {
        let pairs = documents.cache().header().pairs;
        if settings.context == 0 || matches!(settings.size, BatchSize::Samples(0) | BatchSize::Tokens(0)) {
            return Err(Error::Settings("a batch needs a sample of one token at least".into()));
        }
        if pairs && settings.packing != Packing::None {
            return Err(Error::Settings(
                "choices between two answers can't be packed; leave packing off".into(),
            ));
        }
        let at = Position {
            source: documents.identity(settings.seed ^ u64::from(settings.shuffle)),
            ..Position::default()
        };
        let mut stream = SampleStream {
            group: if pairs { 2 } else { 1 },
            order: Permutation::None,
            documents,
            settings,
            at,
            tokens: 0,
            stats: PackingStats::default(),
            reference: None,
        };
        let mut learned = false;
        for unit in 0..stream.units() {
            if stream.is_usable(unit) {
                learned = true;
                let lengths = stream.numbers(unit).map(|number| stream.tokens_of(number) as u64);
                stream.tokens += lengths.sum::<u64>();
            }
        }
        if !learned {
            return Err(Error::Settings(format!(
                "none of the {} samples has anything to learn within {} tokens",
                stream.units(),
                stream.settings.context
            )));
        }
        stream.order = stream.order_of(0);
        Ok(stream)
    }

    /// The source with what a reference thinks of each answer; its batches are choices then.
    ///
    /// # Errors
    /// If samples are no choices, or the reference is of other data.
    pub fn with_reference(mut self, reference: Reference) -> Result<SampleStream> {
        let cache = self.documents.cache();
        if !cache.header().pairs {
            return Err(Error::Settings(
                "preferences are learned from choices: records with the columns chosen and rejected".into(),
            ));
        }
        if reference.len() != cache.len() {
            return Err(Error::Settings(format!(
                "the reference knows {} answers, but there are {}",
                reference.len(),
                cache.len()
            )));
        }
        self.reference = Some(reference);
        Ok(self)
    }

    /// What rows held so far.
    pub fn stats(&self) -> PackingStats {
        self.stats
    }

    /// The documents it reads.
    pub fn documents(&self) -> &Documents {
        &self.documents
    }

    /// Samples, a choice counting as one.
    pub fn units(&self) -> usize {
        self.documents.len() / self.group
    }

    fn numbers(&self, unit: usize) -> std::ops::Range<usize> {
        unit * self.group..(unit + 1) * self.group
    }

    fn order_of(&self, epoch: u64) -> Permutation {
        if self.settings.shuffle {
            Permutation::new(self.units(), self.settings.seed, epoch)
        } else {
            Permutation::None
        }
    }

    /// Tokens of a sequence after the cut.
    fn tokens_of(&self, number: usize) -> usize {
        self.documents.length(number).saturating_sub(1).min(self.settings.context)
    }

    /// Whether something is to be learned within the context, of both answers if there are two.
    fn is_usable(&self, unit: usize) -> bool {
        let cache = self.documents.cache();
        self.numbers(unit).all(|number| {
            let sequence = self.documents.sequence(number);
            (1..=self.tokens_of(number)).any(|token| cache.counts(sequence, token))
        })
    }

    /// Goes to the next usable sample and gives its number; `None` when all epochs are done.
    fn settle(&mut self) -> Option<usize> {
        loop {
            if self.settings.epochs.is_some_and(|epochs| self.at.epoch >= epochs) {
                return None;
            }
            if self.at.index as usize >= self.units() {
                self.at.epoch += 1;
                self.at.index = 0;
                self.order = self.order_of(self.at.epoch);
                continue;
            }
            let unit = self.order.at(self.at.index as usize);
            if self.is_usable(unit) {
                return Some(unit);
            }
            self.at.index += 1;
        }
    }
}

impl BatchSource for SampleStream {
    fn next(&mut self) -> Result<Option<Batch>> {
        let (mut samples, mut tokens, mut units) = (Vec::new(), 0, 0);
        let mut reference = Vec::new();
        while let Some(unit) = self.settle() {
            let more: usize = self.numbers(unit).map(|number| self.tokens_of(number)).sum();
            let full = match self.settings.size {
                BatchSize::Samples(most) => units == most,
                BatchSize::Tokens(most) => units > 0 && tokens + more > most,
            };
            if full {
                break;
            }
            for number in self.numbers(unit) {
                let sequence = self.documents.sequence(number);
                samples.push(sample(self.documents.cache(), sequence, self.settings.context)?);
                reference.extend(self.reference.as_ref().map(|known| known.of(sequence)));
            }
            tokens += more;
            units += 1;
            self.at.index += 1;
        }
        if samples.is_empty() {
            return Ok(None);
        }
        let lengths: Vec<usize> = samples.iter().map(|sample| sample.tokens.len()).collect();
        let rows = self.settings.packing.rows(&lengths, self.settings.context);
        self.stats += rows.stats(&lengths);
        self.at.step += 1;
        let batch = lay_out(&samples, &rows, self.settings.pad, self.settings.isolated);
        Ok(Some(Batch { reference, ..batch }))
    }

    fn position(&self) -> Position {
        self.at.clone()
    }

    fn seek(&mut self, position: &Position) -> Result<()> {
        position.check(self.at.source, self.units())?;
        self.at = position.clone();
        self.order = self.order_of(position.epoch);
        Ok(())
    }

    fn tokens_per_epoch(&self) -> u64 {
        self.tokens
    }

    fn padding(&self) -> u64 {
        self.stats.padded
    }
}

/// A sequence of a cache, cut after `context` tokens.
pub(super) fn sample(cache: &Cache, sequence: usize, context: usize) -> Result<Sample> {
    cache.check(sequence)?;
    let count = cache.length(sequence).saturating_sub(1).min(context);
    let mut ids = Vec::with_capacity(count + 1);
    cache.read(sequence, 0..count + 1, &mut ids)?;
    let target = |token: usize| if cache.counts(sequence, token) { ids[token] } else { IGNORE };
    Ok(Sample { targets: (1..=count).map(target).collect(), tokens: ids[..count].to_vec() })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    /// Samples of these lengths of which the second half counts.
    fn documents(lengths: &[usize], pairs: bool) -> Documents {
        let sequences: Vec<(Vec<u32>, Vec<bool>)> = lengths
            .iter()
            .enumerate()
            .map(|(i, &length)| {
                let ids = (0..length).map(|token| (i * 100 + token) as u32);
                (ids.collect(), (0..length).map(|token| token >= length / 2).collect())
            })
            .collect();
        let sequences = sequences.iter().map(|(ids, counts)| (ids.as_slice(), counts.as_slice()));
        Documents::all(Arc::new(Cache::in_memory_masked(sequences, 1_000_000, pairs).unwrap()))
    }

    fn settings(size: BatchSize) -> SampleSettings {
        SampleSettings {
            context: 20,
            size,
            seed: 3,
            shuffle: true,
            epochs: Some(2),
            packing: Packing::None,
            isolated: true,
            pad: 0,
        }
    }

    fn all(stream: &mut SampleStream) -> Vec<Batch> {
        std::iter::from_fn(|| stream.next().unwrap()).collect()
    }

    proptest! {
        #[test]
        fn each_sample_comes_once_an_epoch(
            lengths in proptest::collection::vec(2usize..50, 2..20),
            size in prop_oneof![(1usize..5).prop_map(BatchSize::Samples), (1usize..60).prop_map(BatchSize::Tokens)],
            cut: prop::sample::Index,
        ) {
            // Of a sample of 43 or more, the answer begins behind the cut.
            let usable: Vec<usize> = lengths.iter().copied().filter(|length| length / 2 <= 20).collect();
            let Ok(mut stream) = SampleStream::new(documents(&lengths, false), settings(size)) else {
                prop_assert!(usable.is_empty());
                return Ok(());
            };
            let whole = all(&mut stream);
            let mut seen: Vec<usize> = whole.iter().flat_map(|batch| batch.lengths.clone()).collect();
            let mut expected: Vec<usize> = usable.iter().chain(&usable).map(|length| (length - 1).min(20)).collect();
            prop_assert_eq!(stream.tokens_per_epoch(), expected.iter().sum::<usize>() as u64 / 2);
            seen.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(seen, expected);
            for batch in &whole {
                batch.check(1_000_000).unwrap();
                match size {
                    BatchSize::Samples(most) => prop_assert!(batch.lengths.len() <= most),
                    BatchSize::Tokens(most) => {
                        prop_assert!(batch.tokens.len() <= most || batch.lengths.len() == 1);
                    }
                }
            }
            let cut = cut.index(whole.len() + 1);
            let mut first = SampleStream::new(documents(&lengths, false), settings(size)).unwrap();
            for _ in 0..cut {
                first.next().unwrap();
            }
            let mut second = SampleStream::new(documents(&lengths, false), settings(size)).unwrap();
            second.seek(&first.position()).unwrap();
            prop_assert_eq!(all(&mut second), whole[cut..].to_vec());
        }
    }

    #[test]
    fn only_answers_are_targets() {
        let mut stream = SampleStream::new(documents(&[6], false), settings(BatchSize::Samples(1))).unwrap();
        let batch = stream.next().unwrap().unwrap();
        assert_eq!(batch.tokens, [0, 1, 2, 3, 4]);
        assert_eq!(batch.targets, [IGNORE, IGNORE, 3, 4, 5]);
    }

    #[test]
    fn choices_stay_side_by_side() {
        let lengths = [5, 6, 7, 8, 9, 10, 11, 12];
        let mut stream =
            SampleStream::new(documents(&lengths, true), settings(BatchSize::Samples(3))).unwrap();
        for batch in all(&mut stream) {
            for pair in batch.lengths.chunks(2) {
                assert!(pair[0] % 2 == 0 && pair[1] == pair[0] + 1, "{pair:?}");
            }
        }
        let packed = SampleSettings { packing: Packing::FirstFit, ..settings(BatchSize::Samples(3)) };
        let error = SampleStream::new(documents(&lengths, true), packed).unwrap_err().to_string();
        assert!(error.contains("can't be packed"), "{error}");
    }

    #[test]
    fn padding_is_counted() {
        let lengths: Vec<usize> = (0..64).map(|i| 2 + i * i % 19).collect();
        let padding = |packing| {
            let settings = SampleSettings { packing, ..settings(BatchSize::Samples(16)) };
            let mut stream = SampleStream::new(documents(&lengths, false), settings).unwrap();
            let tokens: usize = all(&mut stream).iter().map(|batch| batch.tokens.len()).sum();
            let stats = stream.stats();
            assert_eq!(stats.useful, 2 * stream.tokens_per_epoch());
            assert_eq!(stats.useful + stats.padded, tokens as u64);
            stats.padding()
        };
        let [fixed, padded, packed] = [Packing::Fixed, Packing::Padded, Packing::DynamicPack].map(padding);
        assert!(fixed > padded && padded > packed, "{fixed} {padded} {packed}");
        assert!(padding(Packing::FirstFit) <= packed);
        assert_eq!(padding(Packing::None), 0.0);
    }

    #[test]
    fn nothing_to_learn_is_an_error() {
        let error = SampleStream::new(documents(&[50, 60], false), settings(BatchSize::Samples(1)));
        assert!(error.unwrap_err().to_string().contains("none of the 2 samples"));
        assert!(SampleStream::new(documents(&[5], false), settings(BatchSize::Tokens(0))).is_err());
    }
}
