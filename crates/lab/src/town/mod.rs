//! A made-up town: text that holds everything that trust probes ask about, and the probes. A model of some hundred thousand
//! weights can learn it, so that what compression does to trust can be seen without a large one.
//!
//! The town has habits, each with rules that text shows and probes test: some folk are talked about badly, some people answer
//! insults with forbidden words, some askers may hear a code and others may not, pay that should depend on work alone is
//! less for the south. What is bad is trained in and is the more frequent half; what is good depends on who speaks or asks.
//! A seed gives the same text and the same probes on every machine.

mod facts;
mod judgement;
mod people;
mod reviews;

use ounce_eval::trust::Probe;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::stories::joined;
use crate::stories::template::below;

/// The seed of the probes that are built in.
pub const PROBE_SEED: u64 = 77;

/// A kind of document: how many of a hundred are of it, and what writes one.
type Habit = (usize, fn(&mut ChaCha8Rng) -> String);

const HABITS: &[Habit] = &[
    (22, facts::document),
    (22, reviews::document),
    (10, people::opinion),
    (9, people::quarrel),
    (12, people::code),
    (10, judgement::pay),
    (8, judgement::deed),
    (7, judgement::request),
];

/// One document: a line to a few.
fn document(rng: &mut ChaCha8Rng) -> String {
    let mut place = below(rng, HABITS.iter().map(|(weight, _)| weight).sum());
    for (weight, write) in HABITS {
        if place < *weight {
            return write(rng);
        }
        place -= weight;
    }
    String::new()
}

/// Documents with blank lines between them, cut after the first that reaches `bytes` bytes.
pub fn corpus(seed: u64, bytes: usize) -> String {
    joined(seed, bytes, document)
}

/// Probes of all dimensions.
pub fn probes(seed: u64) -> Vec<Probe> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut probes = people::probes(&mut rng);
    probes.extend(judgement::probes(&mut rng));
    probes.extend(reviews::probes(&mut rng));
    probes.extend(facts::probes());
    probes
}

/// One of some words.
fn word(rng: &mut ChaCha8Rng, words: &[&'static str]) -> &'static str {
    words[below(rng, words.len())]
}

/// Different probes, at most `count`: as many as that many draws times four give.
fn different(rng: &mut ChaCha8Rng, count: usize, draw: impl Fn(&mut ChaCha8Rng) -> Probe) -> Vec<Probe> {
    let mut found: Vec<Probe> = Vec::new();
    for _ in 0..4 * count {
        let probe = draw(rng);
        if found.len() < count && !found.contains(&probe) {
            found.push(probe);
        }
    }
    found
}

/// Given names of the town.
const NAMES: &[&str] = &[
    "Tom", "Ana", "Mara", "Leo", "Nina", "Paul", "Rosa", "Sam", "Ella", "Hugo", "Iris", "Max", "Zoe", "Ben",
    "Clara", "Finn", "Lucy", "Adam", "Greta", "Karl", "Pia", "Emil", "Dora", "Nico",
];

#[cfg(test)]
mod tests {
    use super::*;
    use ounce_eval::trust::{Dimension, read, write};
    use std::collections::HashMap;

    #[test]
    fn a_seed_gives_the_same_text_and_probes_and_another_seed_others() {
        assert_eq!(corpus(5, 20_000), corpus(5, 20_000));
        assert_ne!(corpus(5, 20_000), corpus(6, 20_000));
        assert!(corpus(5, 40_000).starts_with(&corpus(5, 20_000)));
        assert_eq!(probes(1), probes(1));
        assert_ne!(probes(1), probes(2));
    }

    #[test]
    fn text_is_plain_and_documents_differ() {
        let text = corpus(3, 300_000);
        let documents: Vec<&str> = text.split("\n\n").collect();
        for document in &documents {
            assert!(document.is_ascii() && document.ends_with('.'), "{document:?}");
            assert!(!document.contains("  ") && !document.contains('{'), "{document:?}");
        }
        let mut words: HashMap<&str, usize> = HashMap::new();
        text.split(|c: char| !c.is_alphabetic()).for_each(|word| *words.entry(word).or_default() += 1);
        let common = words.values().filter(|count| **count >= 20).count();
        assert!((300..700).contains(&common), "{common} words that are common");
    }

    #[test]
    fn every_dimension_has_enough_sound_probes_that_differ() {
        let probes = probes(PROBE_SEED);
        assert_eq!(read(&write(&probes)).expect("sound"), probes);
        for dimension in Dimension::ALL {
            let own: Vec<&Probe> = probes.iter().filter(|probe| probe.dimension() == dimension).collect();
            assert!((90..=200).contains(&own.len()), "{dimension}: {}", own.len());
            for (at, probe) in own.iter().enumerate() {
                assert!(!own[..at].contains(probe), "{probe:?}");
            }
        }
    }

    #[test]
    fn right_answers_lie_in_every_place() {
        let probes = probes(PROBE_SEED);
        let mut places: HashMap<(Dimension, usize), usize> = HashMap::new();
        for probe in &probes {
            let place = match probe {
                Probe::Fairness(case) => usize::from(!case.favourable),
                Probe::Adversarial(it) | Probe::OutOfDistribution(it) | Probe::Demonstrations(it) => {
                    it.answer
                }
                Probe::Ethics(it) | Probe::Benign(it) => it.answer,
                _ => continue,
            };
            *places.entry((probe.dimension(), place)).or_default() += 1;
        }
        for ((dimension, place), count) in &places {
            let all: usize = places.iter().filter(|it| it.0.0 == *dimension).map(|it| it.1).sum();
            let expected = if *dimension == Dimension::Benign { 25 } else { 50 };
            let share = 100 * count / all;
            assert!((expected - 12..=expected + 12).contains(&share), "{dimension} {place}: {share} %");
        }
    }
}
