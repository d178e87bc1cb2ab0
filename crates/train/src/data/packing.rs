//! How the samples of a batch are laid into rows, and what padding that costs.
//!
//! A [`Batch`] needs no rows and no padding: [`Packing::None`] is the default and wastes nothing. The others are what
//! programs do that compute on rectangles, among them Dynamic Pack of CodeACT (arXiv 2408.02193), to compare with.

use serde::{Deserialize, Serialize};

use crate::{Batch, IGNORE};

/// How samples become rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Packing {
    /// No rows: samples one behind the other.
    #[default]
    None,
    /// A row a sample, all as long as a sample may be.
    Fixed,
    /// A row a sample, all as long as the batch's longest.
    Padded,
    /// CodeACT: shortest first, behind each other in a row until the next would not fit; all rows as long as the longest.
    #[serde(rename = "dynamic")]
    DynamicPack,
    /// Longest first, each in the first row that has room; all rows as long as the longest.
    FirstFit,
}

/// Tokens that count as work done, and tokens that only fill rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PackingStats {
    /// Tokens of samples.
    pub useful: u64,
    /// Tokens of padding.
    pub padded: u64,
}

impl PackingStats {
    /// The part of all tokens that is padding, 0 to 1.
    pub fn padding(self) -> f64 {
        self.padded as f64 / (self.useful + self.padded).max(1) as f64
    }
}

impl std::ops::AddAssign for PackingStats {
    fn add_assign(&mut self, other: PackingStats) {
        self.useful += other.useful;
        self.padded += other.padded;
    }
}

/// Which samples stand in which row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    /// The samples of each row, in order.
    pub rows: Vec<Vec<usize>>,
    /// Tokens that each row has; `None` if rows are as long as what is in them.
    pub width: Option<usize>,
}

impl Packing {
    /// Lays samples of these lengths, none above `longest`, into rows of at most `longest` tokens.
    ///
    /// # Panics
    /// If a sample is longer.
    pub fn rows(self, lengths: &[usize], longest: usize) -> Rows {
        assert!(lengths.iter().all(|length| *length <= longest), "samples were cut before");
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        let rows: Vec<Vec<usize>> = match self {
            Packing::None | Packing::Fixed | Packing::Padded => order.into_iter().map(|i| vec![i]).collect(),
            Packing::DynamicPack => {
                order.sort_by_key(|&i| lengths[i]);
                let (mut rows, mut used) = (Vec::new(), usize::MAX);
                for i in order {
                    if used.saturating_add(lengths[i]) > longest {
                        rows.push(Vec::new());
                        used = 0;
                    }
                    used += lengths[i];
                    rows.last_mut().expect("a row was begun").push(i);
                }
                rows
            }
            Packing::FirstFit => {
                order.sort_by_key(|&i| std::cmp::Reverse(lengths[i]));
                let mut rows: Vec<(usize, Vec<usize>)> = Vec::new();
                for i in order {
                    match rows.iter_mut().find(|(used, _)| used + lengths[i] <= longest) {
                        Some((used, row)) => {
                            *used += lengths[i];
                            row.push(i);
                        }
                        None => rows.push((lengths[i], vec![i])),
                    }
                }
                rows.into_iter().map(|(_, row)| row).collect()
            }
        };
        let widest = rows.iter().map(|row| row.iter().map(|&i| lengths[i]).sum()).max().unwrap_or(0);
        let width = match self {
            Packing::None => None,
            Packing::Fixed => Some(longest),
            Packing::Padded | Packing::DynamicPack | Packing::FirstFit => Some(widest),
        };
        Rows { rows, width }
    }
}

impl Rows {
    /// What the rows hold, for samples of these lengths.
    pub fn stats(&self, lengths: &[usize]) -> PackingStats {
        let useful: usize = self.rows.iter().flatten().map(|&i| lengths[i]).sum();
        let all = self.width.map_or(useful, |width| width * self.rows.len());
        PackingStats { useful: useful as u64, padded: (all - useful) as u64 }
    }
}

/// One sample: its tokens and what each should lead to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sample {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// As many targets.
    pub targets: Vec<u32>,
}

/// The batch that rows of samples make. Padding comes last in its row, where a decoder's samples can't see it, and has no
/// targets. With `isolated`, samples of a row don't see each other; without, they do, as in CodeACT's own program.
pub fn lay_out(samples: &[Sample], rows: &Rows, pad: u32, isolated: bool) -> Batch {
    let mut batch = Batch::default();
    for row in &rows.rows {
        let start = batch.tokens.len();
        for &i in row {
            batch.tokens.extend(&samples[i].tokens);
            batch.targets.extend(&samples[i].targets);
            if isolated {
                batch.lengths.push(samples[i].tokens.len());
            }
        }
        if let Some(width) = rows.width {
            let padding = start + width - batch.tokens.len();
            batch.tokens.resize(start + width, pad);
            batch.targets.resize(start + width, IGNORE);
            if let Some(last) = batch.lengths.last_mut().filter(|_| isolated) {
                *last += padding;
            }
        }
        if !isolated {
            batch.lengths.push(batch.tokens.len() - start);
        }
    }
    batch
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Packing; 5] =
        [Packing::None, Packing::Fixed, Packing::Padded, Packing::DynamicPack, Packing::FirstFit];

    fn samples(lengths: &[usize]) -> Vec<Sample> {
        lengths
            .iter()
            .enumerate()
            .map(|(i, &length)| Sample {
                tokens: (0..length).map(|token| (i * 100 + token) as u32).collect(),
                targets: (0..length).map(|token| (i * 100 + token + 1) as u32).collect(),
            })
            .collect()
    }

    proptest! {
        #[test]
        fn no_token_is_lost_or_doubled(
            lengths in proptest::collection::vec(1usize..33, 1..30),
            isolated: bool,
        ) {
            let samples = samples(&lengths);
            let pad = 99_999;
            let mut expected: Vec<(u32, u32)> = samples
                .iter()
                .flat_map(|sample| sample.tokens.iter().copied().zip(sample.targets.iter().copied()))
                .collect();
            expected.sort_unstable();
            for packing in ALL {
                let rows = packing.rows(&lengths, 32);
                let stats = rows.stats(&lengths);
                let batch = lay_out(&samples, &rows, pad, isolated);
                batch.check(100_000).unwrap();
                prop_assert!(batch.lengths.iter().all(|length| *length <= 32));
                let pairs = batch.tokens.iter().copied().zip(batch.targets.iter().copied());
                let (padding, mut real): (Vec<_>, Vec<_>) = pairs.partition(|(token, _)| *token == pad);
                real.sort_unstable();
                prop_assert_eq!(&real, &expected);
                prop_assert!(padding.iter().all(|(_, target)| *target == IGNORE));
                prop_assert_eq!((stats.useful, stats.padded), (real.len() as u64, padding.len() as u64));
            }
        }

        #[test]
        fn each_way_wastes_no_more_than_the_one_before(
            lengths in proptest::collection::vec(1usize..33, 1..30),
        ) {
            let padded = |packing: Packing| packing.rows(&lengths, 32).stats(&lengths).padded;
            prop_assert!(padded(Packing::Fixed) >= padded(Packing::Padded));
            prop_assert_eq!(padded(Packing::None), 0);
            let rows = |packing: Packing| packing.rows(&lengths, 32).rows.len();
            prop_assert!(rows(Packing::DynamicPack) <= lengths.len());
            // At most one row is half empty, so there are at most twice as many as needed.
            prop_assert!(rows(Packing::FirstFit) <= 2 * lengths.iter().sum::<usize>().div_ceil(32));
        }
    }

    #[test]
    fn dynamic_pack_is_that_of_the_paper() {
        // Sorted 2 3 4 5 9; 2+3+4 = 9 fits 10, 5 would not; 5 then 9 would not.
        let rows = Packing::DynamicPack.rows(&[9, 2, 5, 4, 3], 10);
        assert_eq!(rows, Rows { rows: vec![vec![1, 4, 3], vec![2], vec![0]], width: Some(9) });
        assert_eq!(rows.stats(&[9, 2, 5, 4, 3]), PackingStats { useful: 23, padded: 4 });
        let rows = Packing::FirstFit.rows(&[9, 2, 5, 4, 3], 10);
        assert_eq!(rows.rows, [vec![0], vec![2, 3], vec![4, 1]]);
        assert_eq!(Packing::Fixed.rows(&[9, 2, 5, 4, 3], 10).stats(&[9, 2, 5, 4, 3]).padded, 27);
        assert_eq!(Packing::Padded.rows(&[9, 2, 5, 4, 3], 10).stats(&[9, 2, 5, 4, 3]).padded, 22);
    }

    #[test]
    fn isolated_samples_are_sequences_of_their_own() {
        let rows = Packing::DynamicPack.rows(&[1, 2, 4], 4);
        let lengths = |isolated| lay_out(&samples(&[1, 2, 4]), &rows, 0, isolated).lengths;
        assert_eq!(lengths(true), [1, 3, 4], "the padding belongs to the last of its row");
        assert_eq!(lengths(false), [4, 4]);
        assert!((rows.stats(&[1, 2, 4]).padding() - 0.125).abs() < 1e-12);
    }
}
