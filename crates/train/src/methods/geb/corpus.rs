//! Generated texts in two languages with the same things to say: in one the verb comes after who does it, in the other last.
//!
//! A text is about two nouns and keeps to one place. A particle stands behind the first noun; either will do, so that a
//! model has no liking for one until it is taught.

use std::sync::Arc;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::Result;
use crate::data::{Cache, Documents};
use crate::methods::workbench::one_of;

pub(super) const BEGIN: u32 = 0;
/// Ends a sentence.
pub(super) const STOP: u32 = 1;
const NOUNS: u32 = 24;
const VERBS: u32 = 16;
const PLACES: u32 = 8;
const PARTICLES: u32 = 2;
const WORDS: u32 = NOUNS + VERBS + PLACES + PARTICLES;
/// One more than the highest id.
pub(super) const VOCABULARY: usize = (2 + 2 * WORDS) as usize;
/// Sentences of a text.
const SENTENCES: usize = 7;

/// What a text is about.
#[derive(Debug, Clone, Copy)]
struct Topic {
    /// 0 or 1.
    language: u32,
    nouns: [u32; 2],
    place: u32,
}

impl Topic {
    fn new(random: &mut ChaCha8Rng) -> Topic {
        Topic {
            language: random.random_range(0..2),
            nouns: [0, 1].map(|_| random.random_range(0..NOUNS)),
            place: random.random_range(0..PLACES),
        }
    }

    fn word(&self, index: u32) -> u32 {
        2 + self.language * WORDS + index
    }

    /// A sentence about a noun; what it does, and to what, hangs on the noun and the verb, the place on the text.
    fn sentence(&self, noun: u32, particle: u32, random: &mut ChaCha8Rng) -> Vec<u32> {
        let usual = random.random_range(0..10) < 8;
        let verb = if usual {
            (noun * 3 + random.random_range(0..3)) % VERBS
        } else {
            random.random_range(0..VERBS)
        };
        let usual = random.random_range(0..10) < 8;
        let object = if usual {
            (verb * 5 + random.random_range(0..3)) % NOUNS
        } else {
            random.random_range(0..NOUNS)
        };
        let place = if random.random_range(0..10) < 9 { self.place } else { random.random_range(0..PLACES) };
        let [verb, place] = [self.word(NOUNS + verb), self.word(NOUNS + VERBS + place)];
        let particle = self.word(NOUNS + VERBS + PLACES + particle);
        let (noun, object) = (self.word(noun), self.word(object));
        match self.language {
            0 => vec![noun, particle, verb, object, place, STOP],
            _ => vec![noun, particle, place, object, verb, STOP],
        }
    }

    /// A sentence about one of the text's nouns with any particle.
    fn any(&self, random: &mut ChaCha8Rng) -> Vec<u32> {
        let noun = one_of(random, &self.nouns);
        let particle = random.random_range(0..PARTICLES);
        self.sentence(noun, particle, random)
    }
}

/// Texts as documents.
pub(super) fn texts(count: usize, random: &mut ChaCha8Rng) -> Result<Documents> {
    let texts: Vec<Vec<u32>> = (0..count)
        .map(|_| {
            let topic = Topic::new(random);
            let sentences = (0..SENTENCES).flat_map(|_| topic.any(random));
            std::iter::once(BEGIN).chain(sentences.collect::<Vec<_>>()).collect()
        })
        .collect();
    Ok(Documents::all(Arc::new(Cache::in_memory(texts.iter().map(Vec::as_slice), VOCABULARY as u32)?)))
}

/// The beginning of a text with two ways to go on. Better is the one whose particle fits its noun: the first for even nouns, the
/// second for odd ones. All else is drawn twice.
pub(super) struct Choice {
    pub prompt: Vec<u32>,
    pub better: Vec<u32>,
    pub worse: Vec<u32>,
}

impl Choice {
    pub fn new(random: &mut ChaCha8Rng) -> Choice {
        let topic = Topic::new(random);
        let prompt = [vec![BEGIN], topic.any(random), topic.any(random)].concat();
        let noun = one_of(random, &topic.nouns);
        let particle = noun % PARTICLES;
        let better = topic.sentence(noun, particle, random);
        Choice { prompt, better, worse: topic.sentence(noun, 1 - particle, random) }
    }
}

/// Choices as a cache of pairs.
pub(super) fn pairs(choices: &[Choice]) -> Result<Documents> {
    let sequences: Vec<(Vec<u32>, Vec<bool>)> = choices
        .iter()
        .flat_map(|choice| [&choice.better, &choice.worse].map(|answer| (choice, answer)))
        .map(|(choice, answer)| {
            let ids = [choice.prompt.as_slice(), answer].concat();
            let counts = (0..ids.len()).map(|token| token >= choice.prompt.len()).collect();
            (ids, counts)
        })
        .collect();
    let both = sequences.iter().map(|(ids, counts)| (ids.as_slice(), counts.as_slice()));
    Ok(Documents::all(Arc::new(Cache::in_memory_masked(both, VOCABULARY as u32, true)?)))
}
