//! A small language of instructions: copy a word, shift each letter, turn a word round. Some are easy and come again and
//! again, some are hard, and some have the answer of another.

use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::data::encode::Sequence;
use crate::methods::workbench::one_of;

/// Ids of the language.
pub(super) const BEGIN: u32 = 0;
const END: u32 = 1;
const IS: u32 = 2;
const COPY: u32 = 3;
const SHIFT: u32 = 4;
const REVERSE: u32 = 5;
const FIRST_LETTER: u32 = 6;
const LETTERS: u32 = 16;
/// One more than the highest id.
pub(super) const VOCABULARY: usize = (FIRST_LETTER + LETTERS) as usize;

/// What kind of record it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A short word is copied; there are few different ones.
    Easy,
    /// Each letter of a longer word becomes the next.
    Medium,
    /// A longer word is turned round.
    Hard,
    /// A question with the answer of another question of its kind.
    Mismatched,
}

/// Different words of [`Kind::Easy`].
const EASY_WORDS: u64 = 60;

/// A question and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Task {
    pub kind: Kind,
    question: Vec<u32>,
    answer: Vec<u32>,
}

fn word(random: &mut ChaCha8Rng, length: usize) -> Vec<u32> {
    (0..length).map(|_| FIRST_LETTER + random.random_range(0..LETTERS)).collect()
}

fn apply(operation: u32, word: &[u32]) -> Vec<u32> {
    match operation {
        SHIFT => word.iter().map(|letter| FIRST_LETTER + (letter - FIRST_LETTER + 1) % LETTERS).collect(),
        REVERSE => word.iter().rev().copied().collect(),
        _ => word.to_vec(),
    }
}

impl Task {
    fn new(kind: Kind, operation: u32, word: &[u32]) -> Task {
        let question = [&[operation], word].concat();
        Task { kind, question, answer: apply(operation, word) }
    }

    /// One of a kind, with words that may not have been seen.
    pub fn of(kind: Kind, random: &mut ChaCha8Rng) -> Task {
        match kind {
            Kind::Easy | Kind::Mismatched => {
                // A word that follows from its number, so that there are few.
                let number = random.random_range(0..EASY_WORDS) as u32;
                let letter = |factor: u32| FIRST_LETTER + (number * factor + number / 7) % LETTERS;
                Task::new(kind, COPY, &[letter(5), letter(3), letter(11)])
            }
            Kind::Medium => {
                let length = random.random_range(4..=6);
                Task::new(kind, SHIFT, &word(random, length))
            }
            Kind::Hard => {
                let length = random.random_range(5..=6);
                Task::new(kind, REVERSE, &word(random, length))
            }
        }
    }

    /// The ids, of which the answer counts.
    pub fn sequence(&self) -> Sequence {
        let ids = [&[BEGIN], self.question.as_slice(), &[IS], &self.answer, &[END]].concat();
        let first = 2 + self.question.len();
        let counts = (0..ids.len()).map(|token| token >= first).collect();
        Sequence { ids, counts, truncated: false }
    }
}

/// Instruction data: of each hundred records 40 easy, 25 medium, 20 hard and 15 mismatched, in any order.
pub(super) fn corpus(count: usize, random: &mut ChaCha8Rng) -> Vec<Task> {
    let mut tasks: Vec<Task> = (0..count)
        .map(|number| {
            let kind = match number % 100 {
                0..40 => Kind::Easy,
                40..65 => Kind::Medium,
                65..85 => Kind::Hard,
                _ => Kind::Mismatched,
            };
            if kind != Kind::Mismatched {
                return Task::of(kind, random);
            }
            let like = one_of(random, &[Kind::Easy, Kind::Medium, Kind::Hard]);
            let (asked, other) = (Task::of(like, random), Task::of(like, random));
            Task { kind, question: asked.question, answer: other.answer }
        })
        .collect();
    tasks.shuffle(random);
    tasks
}

/// What a model has read before it is tuned: words alone, and tasks of which the longer ones are rare.
pub(super) fn language(count: usize, random: &mut ChaCha8Rng) -> Vec<Sequence> {
    (0..count)
        .map(|_| {
            let (operation, longest) = match random.random_range(0..100) {
                0..25 => (None, 6),
                25..60 => (Some(COPY), 6),
                60..85 => (Some(SHIFT), 5),
                _ => (Some(REVERSE), 4),
            };
            let length = random.random_range(2..=longest);
            let word = word(random, length);
            let ids = match operation {
                None => [&[BEGIN], word.as_slice(), &[END]].concat(),
                Some(operation) => Task::new(Kind::Easy, operation, &word).sequence().ids,
            };
            Sequence { ids, counts: Vec::new(), truncated: false }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn answers_follow_from_questions_but_for_the_mismatched() {
        let tasks = corpus(1000, &mut ChaCha8Rng::seed_from_u64(1));
        let right = |task: &Task| apply(task.question[0], &task.question[1..]) == task.answer;
        let of = |kind: Kind| tasks.iter().filter(move |task| task.kind == kind);
        for kind in [Kind::Easy, Kind::Medium, Kind::Hard] {
            assert!(of(kind).all(right), "{kind:?}");
        }
        assert_eq!(of(Kind::Mismatched).count(), 150);
        // Easy ones may meet the same word again.
        assert!(of(Kind::Mismatched).filter(|task| right(task)).count() < 5);
        let sequence = tasks[0].sequence();
        let answer = sequence.counts.iter().filter(|counts| **counts).count();
        assert_eq!(answer, tasks[0].answer.len() + 1);
        assert!(sequence.ids.iter().all(|&id| (id as usize) < VOCABULARY));
    }
}
