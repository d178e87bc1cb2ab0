//! Made-up sequences: one group of words prevails among those of a first kind, another among those of a second, and the label is the
//! greater of both groups' numbers. No word tells it, the whole sequence does.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Groups of each kind, and labels.
pub(super) const GROUPS: usize = 4;

/// Words of a group.
const WORDS: usize = 8;

/// Words of both kinds.
pub(super) const VOCABULARY: usize = 2 * GROUPS * WORDS;

/// The part of a kind's words that is drawn from the group that prevails; the others come from all groups.
const PREVAILS: f64 = 0.5;

/// Sequences of one length with their labels.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Samples {
    pub words: Vec<u32>,
    pub labels: Vec<u32>,
}

/// Draws sequences.
pub(super) fn draw(seed: u64, count: usize, length: usize) -> Samples {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut samples = Samples { words: Vec::with_capacity(count * length), labels: Vec::new() };
    for _ in 0..count {
        let groups = [0; 2].map(|_| random.random_range(0..GROUPS));
        for _ in 0..length {
            let kind = random.random_range(0..2usize);
            let group = match random.random::<f64>() < PREVAILS {
                true => groups[kind],
                false => random.random_range(0..GROUPS),
            };
            samples.words.push(((kind * GROUPS + group) * WORDS + random.random_range(0..WORDS)) as u32);
        }
        samples.labels.push(label(groups) as u32);
    }
    samples
}

/// The label of the groups that prevail.
fn label([first, second]: [usize; 2]) -> usize {
    first.max(second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counting_finds_the_label() {
        let (count, length) = (200, 128);
        let samples = draw(3, count, length);
        let right = samples.words.chunks(length).zip(&samples.labels).filter(|(words, label)| {
            let mut counts = [0; 2 * GROUPS];
            words.iter().for_each(|&word| counts[word as usize / WORDS] += 1);
            let most =
                |kind: usize| (0..GROUPS).max_by_key(|group| counts[kind * GROUPS + group]).unwrap_or(0);
            super::label([most(0), most(1)]) == **label as usize
        });
        assert!(right.count() >= 195);
        assert_eq!(samples, draw(3, count, length));
    }
}
