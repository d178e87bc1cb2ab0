//! A made-up language in which a question has several right answers, all equally likely.
//!
//! A question is two letters, `a` and `b`. An answer is a stem that `a` allows, of three letters, and the ending that belongs to
//! `b`, of two: `qk>` may go on as `trome`, `balme` or `vicme`. Who has learnt stems and endings can answer questions it has
//! never seen.

use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::{Batch, IGNORE};

const LETTERS: u32 = 26;
const ASK: u32 = 26;
const END: u32 = 27;

/// Tokens: letters, what ends a question and what ends an answer.
pub const VOCABULARY: usize = 28;

/// First and second letters of questions.
const FIRST: usize = 16;
const SECOND: usize = 16;

/// Tokens of a question with its mark.
const QUESTION: usize = 3;

/// A question with its right answers, each as the whole sequence of tokens.
pub type Question = Vec<Vec<u32>>;

/// Questions to learn, to choose settings by and to be judged by; no question is in two of them.
#[derive(Debug)]
pub struct Language {
    pub train: Vec<Question>,
    pub validation: Vec<Question>,
    pub test: Vec<Question>,
}

impl Language {
    /// A language whose stems and endings are drawn.
    pub fn new(random: &mut ChaCha8Rng) -> Language {
        let mut word =
            |length: usize| -> Vec<u32> { (0..length).map(|_| random.random_range(0..LETTERS)).collect() };
        // From three to six stems a letter.
        let stems: Vec<Vec<Vec<u32>>> =
            (0..FIRST).map(|a| (0..3 + a % 4).map(|_| word(3)).collect()).collect();
        let endings: Vec<Vec<u32>> = (0..SECOND).map(|_| word(2)).collect();
        let question = |pair: usize| -> Question {
            let (a, b) = (pair / SECOND, pair % SECOND);
            let answer = |stem: &Vec<u32>| {
                [&[a as u32, b as u32, ASK][..], stem.as_slice(), endings[b].as_slice(), &[END]].concat()
            };
            let mut answers: Vec<Vec<u32>> = stems[a].iter().map(answer).collect();
            answers.sort();
            answers.dedup();
            answers
        };
        let mut pairs: Vec<usize> = (0..FIRST * SECOND).collect();
        pairs.shuffle(random);
        let all: Vec<Question> = pairs.into_iter().map(question).collect();
        let (held, train) = all.split_at(96);
        let (validation, test) = held.split_at(32);
        Language { train: train.to_vec(), validation: validation.to_vec(), test: test.to_vec() }
    }
}

/// A batch in which answers are learned, not questions.
pub fn batch<'s>(sequences: impl IntoIterator<Item = &'s Vec<u32>>) -> Batch {
    let mut batch = Batch::next_token(sequences.into_iter().map(Vec::as_slice));
    let mut at = 0;
    for length in &batch.lengths {
        batch.targets[at..at + QUESTION - 1].fill(IGNORE);
        at += length;
    }
    batch
}
