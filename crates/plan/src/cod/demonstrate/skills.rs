//! A suite of small skills and a ladder of networks that learn it, each with twice the compute of the one before.

use ounce_eval::method::Lab;
use ounce_train::methods::workbench::cosine;
use ounce_train::net::Net;
use ounce_train::{Batch, IGNORE, Result};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::scores::{ModelScores, Scores};
use crate::training::{Guidance, network, train as fit};

/// Letters, which are also the digits' and the facts' signs.
const LETTERS: u32 = 20;
/// Digits, behind the letters.
const DIGITS: u32 = 10;
/// Begins a question of each skill, one id each, behind the digits; then the sign before an answer.
const SKILLS: u32 = 5;
const ANSWER: u32 = LETTERS + DIGITS + SKILLS;
/// Ids in all.
const VOCABULARY: usize = ANSWER as usize + 1;
/// The longest question with its answer.
const CONTEXT: usize = 24;
/// The highest learning rate.
const RATE: f64 = 4e-3;

/// How large everything is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    /// The width of each network, by compute.
    pub widths: &'static [usize],
    /// Operations of the first; every next takes twice as many.
    pub first: f64,
    /// Questions of a step.
    pub questions: usize,
    /// Facts to know.
    pub facts: usize,
    /// Items of the suite.
    pub items: usize,
}

impl Scale {
    /// Of the stored evidence.
    pub const FULL: Scale = Scale {
        widths: &[16, 16, 24, 32, 32, 48, 48, 64],
        first: 4e9,
        questions: 64,
        facts: 200,
        items: 500,
    };
    /// For tests.
    #[cfg(test)]
    pub const SMALL: Scale =
        Scale { widths: &[8, 8, 8, 8, 8], first: 1e7, questions: 16, facts: 20, items: 60 };
}

/// A question and its answer.
struct Item {
    question: Vec<u32>,
    answer: Vec<u32>,
}

/// Where questions come from.
struct Suite {
    /// What each pair of letters leads to.
    facts: Vec<([u32; 2], u32)>,
    /// Sums of the facts' frequencies.
    frequencies: Vec<f64>,
}

impl Suite {
    fn new(facts: usize, rng: &mut ChaCha8Rng) -> Suite {
        let mut known = Vec::new();
        while known.len() < facts.min((LETTERS * LETTERS) as usize) {
            let pair = [rng.random_range(0..LETTERS), rng.random_range(0..LETTERS)];
            if known.iter().all(|(it, _)| *it != pair) {
                known.push((pair, rng.random_range(0..LETTERS)));
            }
        }
        let mut sum = 0.0;
        let frequencies = (0..known.len()).map(|rank| {
            sum += 1.0 / (rank + 3) as f64;
            sum
        });
        Suite { frequencies: frequencies.collect(), facts: known }
    }

    /// A question: facts by their frequency, the other skills of random difficulty.
    fn question(&self, rng: &mut ChaCha8Rng) -> Item {
        let skill = [0, 0, 1, 2, 3, 4, 4][rng.random_range(0..7)];
        let (body, answer) = match skill {
            0 => {
                let place = rng.random_range(0.0..self.frequencies[self.frequencies.len() - 1]);
                let fact = self.frequencies.partition_point(|sum| *sum <= place).min(self.facts.len() - 1);
                (self.facts[fact].0.to_vec(), vec![self.facts[fact].1])
            }
            1 => sum(rng),
            2 | 3 => {
                let length = rng.random_range(1..=5);
                let word: Vec<u32> = (0..length).map(|_| rng.random_range(0..LETTERS)).collect();
                let answer = if skill == 2 { word.clone() } else { word.iter().rev().copied().collect() };
                (word, answer)
            }
            _ => lookup(rng),
        };
        let question = [LETTERS + DIGITS + skill].into_iter().chain(body).chain([ANSWER]).collect();
        Item { question, answer }
    }
}

/// The sum of two numbers of one or two digits, last digit first, so that carries come in their order.
fn sum(rng: &mut ChaCha8Rng) -> (Vec<u32>, Vec<u32>) {
    let digits = rng.random_range(1..=2);
    let [a, b] = [(); 2].map(|()| rng.random_range(0..10u32.pow(digits)));
    let write = |number: u32, digits: u32| (0..digits).map(move |at| LETTERS + number / 10u32.pow(at) % 10);
    (write(a, digits).chain(write(b, digits)).collect(), write(a + b, digits + 1).collect())
}

/// Pairs of letter and digit, then a letter: its digit is asked for.
fn lookup(rng: &mut ChaCha8Rng) -> (Vec<u32>, Vec<u32>) {
    let count = rng.random_range(1..=6usize);
    let mut keys: Vec<u32> = Vec::new();
    while keys.len() < count {
        let key = rng.random_range(0..LETTERS);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let values: Vec<u32> = keys.iter().map(|_| LETTERS + rng.random_range(0..DIGITS)).collect();
    let asked = rng.random_range(0..count);
    let body = keys.iter().zip(&values).flat_map(|(key, value)| [*key, *value]).chain([keys[asked]]);
    (body.collect(), vec![values[asked]])
}

/// Only answers are learned.
fn batch(items: &[Item]) -> Batch {
    let sequences: Vec<Vec<u32>> =
        items.iter().map(|item| [item.question.as_slice(), item.answer.as_slice()].concat()).collect();
    let mut batch = Batch::next_token(sequences.iter().map(Vec::as_slice));
    let mut at = 0;
    for (item, length) in items.iter().zip(&batch.lengths) {
        batch.targets[at..at + item.question.len() - 1].fill(IGNORE);
        at += length;
    }
    batch
}

/// Trains all networks and asks them the suite; gives their scores and which is the largest. `share` turns what is done
/// of this into what is done of the demonstration.
///
/// # Errors
/// If a network can't be trained.
pub(super) fn train(lab: &dyn Lab, scale: &Scale, share: &dyn Fn(f64) -> f64) -> Result<(Scores, usize)> {
    let mut rng = ChaCha8Rng::seed_from_u64(lab.seed());
    let suite = Suite::new(scale.facts, &mut rng);
    let items: Vec<Item> = (0..scale.items).map(|_| suite.question(&mut rng)).collect();
    let mut source = rng.clone();
    let tokens =
        (0..1000).map(|_| suite.question(&mut source)).map(|it| it.question.len() + it.answer.len() - 1);
    let per_step = tokens.sum::<usize>() as f64 / 1000.0 * scale.questions as f64;
    let whole = f64::exp2(scale.widths.len() as f64) - 1.0;
    let mut models = Vec::new();
    for (at, &width) in scale.widths.iter().enumerate() {
        let mut net = network(width, VOCABULARY, CONTEXT, lab.seed())?;
        let inner = net.inner_parameters() as f64;
        let steps = (scale.first * f64::exp2(at as f64) / (6.0 * inner * per_step)).ceil().max(2.0) as u64;
        // The same questions for all, as many as each has compute for.
        let mut source = ChaCha8Rng::seed_from_u64(lab.seed() ^ 0x5eed);
        let mut seen = 0;
        let mut questions = || {
            let items: Vec<Item> = (0..scale.questions).map(|_| suite.question(&mut source)).collect();
            let batch = batch(&items);
            seen += batch.tokens.len();
            batch
        };
        let before = (f64::exp2(at as f64) - 1.0) / whole;
        let own = f64::exp2(at as f64) / whole;
        let mut behind = |_: &mut Net, done: f64| {
            lab.progress(
                &format!("network {} of {}", at + 1, scale.widths.len()),
                share(before + own * done),
            );
        };
        let guidance = Guidance { behind: Some(&mut behind), ..Guidance::default() };
        fit(&mut net, cosine(RATE, steps), &mut questions, guidance)?;
        let logs = net.log_probabilities(&batch(&items))?;
        models.push(ModelScores {
            model: format!("width {width}, {steps} steps"),
            compute: Some(6.0 * inner * seen as f64),
            loss: Some(-logs.iter().sum::<f64>() / logs.len() as f64),
            scores: logs.iter().map(|log| log.exp().clamp(0.0, 1.0)).collect(),
        });
    }
    let largest = models.len() - 1;
    Ok((Scores::new(models, items.iter().map(chance).collect())?, largest))
}

/// What guessing scores: answers are of letters, or of digits.
fn chance(item: &Item) -> f64 {
    let signs = if item.answer[0] < LETTERS { LETTERS } else { DIGITS };
    f64::from(signs).powi(-(item.answer.len() as i32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_right() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let suite = Suite::new(30, &mut rng);
        for _ in 0..300 {
            let Item { question, answer } = suite.question(&mut rng);
            let body = &question[1..question.len() - 1];
            assert!(question.len() + answer.len() <= CONTEXT);
            match question[0] - LETTERS - DIGITS {
                0 => assert!(suite.facts.contains(&([body[0], body[1]], answer[0]))),
                1 => {
                    let number =
                        |digits: &[u32]| digits.iter().rev().fold(0, |sum, it| 10 * sum + it - LETTERS);
                    let (a, b) = body.split_at(body.len() / 2);
                    assert_eq!(number(a) + number(b), number(&answer));
                }
                2 => assert_eq!(body, answer),
                3 => assert!(body.iter().rev().eq(&answer)),
                _ => {
                    let (asked, pairs) = body.split_last().expect("a key");
                    let pair = pairs.chunks(2).find(|pair| pair[0] == *asked).expect("is there");
                    assert_eq!(pair[1], answer[0]);
                }
            }
        }
    }

    #[test]
    fn only_answers_are_learned() {
        let items = [
            Item { question: vec![30, 1, 2, 35], answer: vec![3] },
            Item { question: vec![32, 4, 35], answer: vec![4, 5] },
        ];
        let batch = batch(&items);
        assert_eq!(batch.targets, [IGNORE, IGNORE, IGNORE, 3, IGNORE, IGNORE, 4, 5]);
        assert_eq!(batch.lengths, [4, 4]);
    }
}
