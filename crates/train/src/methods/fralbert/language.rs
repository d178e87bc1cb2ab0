//! Two generated languages that have no word in common and order words differently, with questions on their texts.
//!
//! A text tells things of a person, one of each kind, such as "anna likes old bread". In the second language adjectives and
//! verbs stand last: "anna bread old likes". A question asks for a kind of thing and names the person and the verb.

use std::collections::BTreeMap;

use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::data::labelled::{Example, Target};

/// Begins a sequence.
pub(super) const CLS: u32 = 0;
/// Ends a part of a sequence.
pub(super) const SEP: u32 = 1;
/// Hides a word.
pub(super) const MASK: u32 = 2;
/// Ends a sentence of either language.
const STOP: u32 = 3;
/// Ends a question of either language.
const ASKED: u32 = 4;
/// Ids that are no word.
pub(super) const SPECIAL: u32 = 5;

const PERSONS: u32 = 12;
/// Kinds of things: places, foods, works, beasts. A text tells one of each.
const KINDS: u32 = 4;
const VERBS_OF_A_KIND: u32 = 2;
const VERBS: u32 = KINDS * VERBS_OF_A_KIND;
const THINGS_OF_A_KIND: u32 = 8;
const ADJECTIVES: u32 = 6;
/// Words of a language: persons, verbs, question words, things, adjectives.
const WORDS: u32 = PERSONS + VERBS + KINDS + KINDS * THINGS_OF_A_KIND + ADJECTIVES;
/// Ids of both languages.
pub(super) const VOCABULARY: u32 = SPECIAL + 2 * WORDS;

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    /// With much data; verbs in the middle, adjectives in front.
    Rich,
    /// With little; verbs last, adjectives behind.
    Poor,
}

/// One thing that a text tells of its person.
#[derive(Debug, Clone, Copy)]
struct Told {
    verb: u32,
    thing: u32,
    adjective: Option<u32>,
}

/// What a text tells, in no language.
#[derive(Debug, Clone)]
struct Story {
    person: u32,
    told: Vec<Told>,
}

impl Story {
    fn new(random: &mut ChaCha8Rng) -> Story {
        let mut kinds: Vec<u32> = (0..KINDS).collect();
        kinds.shuffle(random);
        let told = kinds.into_iter().map(|kind| Told {
            verb: kind * VERBS_OF_A_KIND + random.random_range(0..VERBS_OF_A_KIND),
            thing: kind * THINGS_OF_A_KIND + random.random_range(0..THINGS_OF_A_KIND),
            adjective: random.random::<bool>().then(|| random.random_range(0..ADJECTIVES)),
        });
        Story { told: told.collect(), person: random.random_range(0..PERSONS) }
    }
}

impl Language {
    fn id(self, word: u32) -> u32 {
        SPECIAL + word + if self == Language::Poor { WORDS } else { 0 }
    }

    fn person(self, story: &Story) -> u32 {
        self.id(story.person)
    }

    fn verb(self, told: &Told) -> u32 {
        self.id(PERSONS + told.verb)
    }

    /// A thing with its adjective.
    fn thing(self, told: &Told) -> Vec<u32> {
        let first = PERSONS + VERBS + KINDS;
        let adjective = told.adjective.map(|adjective| self.id(first + KINDS * THINGS_OF_A_KIND + adjective));
        let thing = Some(self.id(first + told.thing));
        let order = if self == Language::Rich { [adjective, thing] } else { [thing, adjective] };
        order.into_iter().flatten().collect()
    }

    /// A sentence, and where in it the thing stands.
    fn sentence(self, story: &Story, told: &Told) -> (Vec<u32>, std::ops::Range<usize>) {
        let (person, verb, thing) = (self.person(story), self.verb(told), self.thing(told));
        let (mut words, end) = (vec![person], [verb, STOP]);
        let at = if self == Language::Rich { 2 } else { 1 };
        let place = at..at + thing.len();
        match self {
            Language::Rich => words.extend([verb].into_iter().chain(thing).chain([STOP])),
            Language::Poor => words.extend(thing.into_iter().chain(end)),
        }
        (words, place)
    }

    fn question(self, story: &Story, told: &Told) -> Vec<u32> {
        let asks = self.id(PERSONS + VERBS + told.verb / VERBS_OF_A_KIND);
        let (person, verb) = (self.person(story), self.verb(told));
        match self {
            Language::Rich => vec![asks, person, verb, ASKED],
            Language::Poor => vec![person, asks, verb, ASKED],
        }
    }

    /// A text to learn the language from; questions with their answers follow, as in talk.
    pub(super) fn text(self, random: &mut ChaCha8Rng) -> Vec<u32> {
        let story = Story::new(random);
        let mut words: Vec<u32> = story.told.iter().flat_map(|told| self.sentence(&story, told).0).collect();
        let mut asked: Vec<&Told> = story.told.iter().collect();
        asked.shuffle(random);
        for told in &asked {
            words.extend(self.question(&story, told));
            words.extend(self.thing(told));
            words.push(STOP);
        }
        words
    }

    /// A question with the text that answers it.
    pub(super) fn question_on_a_text(self, random: &mut ChaCha8Rng) -> Example {
        let story = Story::new(random);
        let asked = random.random_range(0..story.told.len());
        let mut ids = vec![CLS];
        ids.extend(self.question(&story, &story.told[asked]));
        ids.push(SEP);
        let mut span = [0, 0];
        for (at, told) in story.told.iter().enumerate() {
            let (words, place) = self.sentence(&story, told);
            if at == asked {
                span = [ids.len() + place.start, ids.len() + place.end - 1].map(|at| at as u32);
            }
            ids.extend(words);
        }
        ids.push(SEP);
        Example { ids, types: Vec::new(), target: Target::Span(span) }
    }
}

/// A question of the rich language word by word in the poor one, as a simple machine translates: the order of words stays,
/// and a part of them, `wrong`, is some other word. The answer stays where it is.
pub(super) fn translated(example: &Example, wrong: f64, random: &mut ChaCha8Rng) -> Example {
    let mut chosen = BTreeMap::new();
    let ids = example.ids.iter().map(|&id| {
        if id < SPECIAL {
            return id;
        }
        // A word that is wrong is so in the whole text.
        *chosen.entry(id).or_insert_with(|| match random.random_bool(wrong) {
            true => Language::Poor.id(random.random_range(0..WORDS)),
            false => id + WORDS,
        })
    });
    Example { ids: ids.collect(), ..example.clone() }
}

/// Where the text of an example stands in it.
pub(super) fn text_of(example: &Example) -> std::ops::Range<usize> {
    let first = example.ids.iter().position(|&id| id == SEP).map_or(0, |at| at + 1);
    first..example.ids.len() - 1
}

/// The things of an example's text, as spans.
pub(super) fn things_of(example: &Example) -> Vec<[usize; 2]> {
    let first = PERSONS + VERBS + KINDS;
    let is_thing = |id: u32| id >= SPECIAL && (id - SPECIAL) % WORDS >= first;
    let mut spans: Vec<[usize; 2]> = Vec::new();
    for at in text_of(example).filter(|&at| is_thing(example.ids[at])) {
        match spans.last_mut() {
            Some(last) if last[1] + 1 == at => last[1] = at,
            _ => spans.push([at, at]),
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn an_answer_is_the_thing_told_by_the_verb_of_the_question() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        for language in [Language::Rich, Language::Poor] {
            for _ in 0..50 {
                let example = language.question_on_a_text(&mut random);
                let Target::Span([first, last]) = example.target else { panic!("a span") };
                let (first, last) = (first as usize, last as usize);
                assert!(things_of(&example).contains(&[first, last]));
                assert_eq!(things_of(&example).len(), KINDS as usize);
                let verb = if language == Language::Rich { first - 1 } else { last + 1 };
                assert_eq!(example.ids[verb], example.ids[3]);
                assert!(example.ids.iter().all(|&id| id < VOCABULARY));
                let translation = translated(&example, 0.0, &mut random);
                assert!(
                    language == Language::Poor
                        || translation.ids.iter().all(|id| !(SPECIAL..SPECIAL + WORDS).contains(id))
                );
            }
        }
    }
}
