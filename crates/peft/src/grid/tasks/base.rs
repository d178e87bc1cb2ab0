//! Language models of the small language of programs, trained on the spot: they know programs, what constants come to, and sentences
//! that ask for sums, differences and products. They have seen no tests, no sentences with other words, and none of the programs
//! that are kept for judging.

use ounce_eval::programs::make::{self, Shape};
use ounce_eval::programs::similar::tokens;
use ounce_eval::programs::syntax::{Expr, Operator, Program};
use ounce_eval::programs::{Limits, evaluate};
use ounce_model::Model;
use ounce_train::config::{self, Preset};
use ounce_train::data::Pieces;
use ounce_train::net::{Net, Options};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::study::fit_watched;
use crate::{Error, Result};

/// Positions of a base.
pub const CONTEXT: usize = 192;

/// Which base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// Two layers of width 48.
    Small,
    /// Three layers of width 96.
    Large,
}

impl Size {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Size::Small => "small",
            Size::Large => "large",
        }
    }

    /// That of the name.
    pub fn parse(name: &str) -> Option<Size> {
        [Size::Small, Size::Large].into_iter().find(|it| it.name() == name)
    }

    fn shape(self) -> config::Model {
        let (hidden, layers) = match self {
            Size::Small => (48, 2),
            Size::Large => (96, 3),
        };
        config::Model {
            preset: Preset::Llama,
            hidden,
            layers,
            heads: hidden / 16,
            context: CONTEXT,
            ..config::Model::default()
        }
    }
}

/// What can be written: the end of a text, and words, digits and signs.
const WORDS: [&str; 43] = [
    "\n",
    "0",
    "1",
    "2",
    "3",
    "4",
    "5",
    "6",
    "7",
    "8",
    "9",
    "a",
    "b",
    "f",
    "(",
    ")",
    ",",
    "=",
    "+",
    "-",
    "*",
    ";",
    ":",
    "#",
    "?",
    "min",
    "max",
    "abs",
    "the",
    "sum",
    "difference",
    "product",
    "smaller",
    "larger",
    "size",
    "of",
    "and",
    "c",
    "i",
    "if",
    "<",
    "up",
    "to",
];

/// The id that ends a text.
pub const END: u32 = 0;

/// Ids of a text.
///
/// # Errors
/// If a word is none of the language's.
pub fn encode(text: &str) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    for token in tokens(text) {
        // Numbers are written digit by digit.
        let digits = token.chars().all(|c| c.is_ascii_digit());
        let pieces = if digits {
            token.char_indices().map(|(at, c)| &token[at..at + c.len_utf8()]).collect()
        } else {
            vec![token]
        };
        for piece in pieces {
            let id = WORDS.iter().position(|word| *word == piece);
            ids.push(
                id.ok_or_else(|| Error::Option(format!("{piece:?} is no word of the language of programs")))?
                    as u32,
            );
        }
    }
    Ok(ids)
}

/// The text of ids; spaces stand between words only.
pub fn decode(ids: &[u32]) -> String {
    let mut text = String::new();
    for id in ids {
        let word = WORDS.get(*id as usize).copied().unwrap_or("");
        let letter = |c: char| c.is_alphabetic();
        if text.ends_with(letter) && word.starts_with(letter) {
            text.push(' ');
        }
        text.push_str(word);
    }
    text
}

/// Operators whose sentences bases know.
const KNOWN: [Operator; 3] = [Operator::Add, Operator::Subtract, Operator::Multiply];

/// A sentence and its program, as a model is to write them.
pub fn asked(program: &Program) -> (String, String) {
    (format!("# {} :", make::sentence(&program.body)), program.to_string())
}

/// A document of what bases learn from.
fn document(random: &mut ChaCha8Rng) -> String {
    let all = Shape { operators: &Operator::ALL, abs: true, least: 1, most: 2 };
    match random.random_range(0..4) {
        0 => make::program(random, all, false).to_string(),
        1 | 2 => {
            // What an expression of numbers comes to.
            let shape = Shape { least: 1, most: 2, ..all };
            let body = make::program(random, shape, false).body;
            let values: Vec<i64> = (0..2).map(|_| random.random_range(0..=4)).collect();
            let program = Program { parameters: 2, body };
            let given = evaluate(&program, &values, Limits::default()).unwrap_or(0);
            format!("{}={given}", filled(&program.body, &values))
        }
        _ => {
            let shape = Shape { operators: &KNOWN, abs: false, least: 1, most: 2 };
            let (sentence, program) = asked(&make::program(random, shape, false));
            format!("{sentence} {program}")
        }
    }
}

/// An expression with numbers for its parameters.
fn filled(of: &Expr, values: &[i64]) -> Expr {
    let inner = |part: &Expr| Box::new(filled(part, values));
    match of {
        Expr::Variable('a') => Expr::Number(values[0]),
        Expr::Variable('b') => Expr::Number(values[1]),
        Expr::Number(_) | Expr::Variable(_) => of.clone(),
        Expr::Abs(part) => Expr::Abs(inner(part)),
        Expr::Sum(to, part) => Expr::Sum(inner(to), inner(part)),
        Expr::Pair(operator, left, right) => Expr::Pair(*operator, inner(left), inner(right)),
        Expr::If { equal, left, right, then, other } => Expr::If {
            equal: *equal,
            left: inner(left),
            right: inner(right),
            then: inner(then),
            other: inner(other),
        },
    }
}

/// Documents in a sequence, so that several stand behind each other.
const TOGETHER: usize = 3;
/// Sequences of a step.
const SEQUENCES: usize = 12;
/// The highest learning rate.
const RATE: f64 = 4e-3;

/// A base, trained so many steps.
///
/// # Errors
/// If the watch ends it.
pub fn trained(size: Size, steps: u64, seed: u64, watch: &mut dyn FnMut(u64) -> Result<()>) -> Result<Model> {
    let shape = size.shape();
    let architecture = shape.architecture(WORDS.len(), [("bos_token_id", END), ("eos_token_id", END)])?;
    let mut net = Net::random(&architecture, Options::default(), shape.initial(), seed)?;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut sequences = Vec::new();
    for _ in 0..steps as usize * SEQUENCES {
        let mut ids = vec![END];
        for _ in 0..TOGETHER {
            ids.extend(encode(&document(&mut random))?);
            ids.push(END);
        }
        ids.truncate(CONTEXT);
        sequences.push(ids);
    }
    let mut source = Pieces::new(sequences.into(), SEQUENCES, seed, None)?;
    fit_watched(&mut net, &mut source, RATE, steps, watch)?;
    let mut model = net.model()?;
    model.origin.name = Some(format!("programs-{}", size.name()));
    Ok(model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_bases_learn_can_be_written_and_read() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut kinds = [0; 3];
        for _ in 0..200 {
            let text = document(&mut random);
            let again = decode(&encode(&text).expect(&text));
            assert_eq!(again.replace(' ', ""), text.replace(' ', ""));
            kinds[if text.starts_with('#') { 0 } else { 1 + usize::from(text.starts_with('f')) }] += 1;
            if let Some((_, program)) = text.split_once(": ").filter(|_| text.starts_with('#')) {
                assert!(!make::is_kept(&Program::parse(program).expect(program)), "{text}");
            }
        }
        assert!(kinds.iter().all(|count| *count > 20), "{kinds:?}");
        assert_eq!(decode(&encode("# the sum of a and 12 :").expect("words")), "#the sum of a and12:");
        assert!(encode("zebra").is_err());
    }
}
