//! For language models: tests of small functions ("Parameter-Efficient Fine-Tuning of Large Language Models for Unit Test Generation",
//! arXiv 2411.02462), and functions from sentences ("Exploring Parameter-Efficient Fine-Tuning Techniques for Code Generation with
//! Large Language Models", arXiv 2308.10462), in the language of [`ounce_eval::programs`].
//!
//! ```text
//! f(a,b)=a+2*b ?  f(1,2)=5;f(3,0)=3;f(0,4)=8
//! # the larger of a and the size of b :  f(a,b)=max(a,abs(b))
//! ```

use std::collections::HashSet;
use std::sync::Arc;

use ounce_eval::bm25::Bm25;
use ounce_eval::programs::Suite;
use ounce_eval::programs::make::{self, Shape};
use ounce_eval::programs::mutate::{probes, same};
use ounce_eval::programs::similar::{likeness, tokens};
use ounce_eval::programs::syntax::{Operator, Program};
use ounce_eval::tasks::pass_at;
use ounce_model::Model;
use ounce_model::tokenizer::Tokenizer;
use ounce_train::data::BatchSource;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::cell::Value;
use super::super::task::{Learner, Shots, Task};
use super::base;
use super::pairs::{Pair, Pairs, loss};
use crate::net::Draw;
use crate::{Error, Result};

/// Pairs of a step.
const SEQUENCES: usize = 12;
/// Pairs by which rates are chosen.
const CHOOSING: usize = 48;
/// Assertions of a suite.
const ASSERTIONS: usize = 3;
/// Tokens of an answer, at most.
const LONGEST: usize = 48;
/// Answers that are drawn by chance, for pass@k.
const DRAWN: usize = 4;
/// k.
const TRIES: usize = 2;
/// Their temperature.
const TEMPERATURE: f64 = 0.8;
/// Texts that go on at a time.
const AT_ONCE: usize = 64;

/// What is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// Tests of a function.
    Tests,
    /// A function that a sentence asks for.
    Programs,
}

/// How texts become ids.
enum Writer {
    /// As [`base`] has it.
    Own,
    /// By the model's tokenizer.
    Of(Box<Tokenizer>, u32),
}

impl Writer {
    fn of(model: &Model) -> Writer {
        match &model.tokenizer {
            None => Writer::Own,
            Some(tokenizer) => {
                let special = tokenizer.special();
                let end = special.eos.first().copied().or(special.bos).unwrap_or(0);
                Writer::Of(Box::new(tokenizer.clone()), end)
            }
        }
    }

    fn end(&self) -> u32 {
        match self {
            Writer::Own => base::END,
            Writer::Of(_, end) => *end,
        }
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        match self {
            Writer::Own => base::encode(text),
            Writer::Of(tokenizer, _) => Ok(tokenizer.encode(text, false)?),
        }
    }

    fn decode(&self, ids: &[u32]) -> Result<String> {
        match self {
            Writer::Own => Ok(base::decode(ids)),
            Writer::Of(tokenizer, _) => Ok(tokenizer.decode(ids, true)?),
        }
    }

    /// A question behind the beginning of a text, and an answer with its end.
    fn pair(&self, question: &str, answer: &str) -> Result<Pair> {
        let mut ids = vec![self.end()];
        ids.extend(self.encode(question)?);
        let mut answer = self.encode(&format!(" {answer}"))?;
        answer.push(self.end());
        Ok(Pair { question: ids, answer })
    }
}

/// A function, and what is asked and answered of it.
struct Item {
    program: Program,
    question: String,
    answer: String,
}

/// The task.
pub struct Code {
    model: Model,
    name: String,
    writes: Writes,
    writer: Writer,
    shown: Vec<Item>,
    learn: Arc<[Pair]>,
    choose: Vec<Pair>,
    test: Vec<Item>,
    known: Bm25,
}

/// What functions are asked for by sentences with words that bases don't know, beside one that they do.
const ASKED: [Operator; 3] = [Operator::Add, Operator::Min, Operator::Max];

fn items(writes: Writes, count: usize, kept: bool, random: &mut ChaCha8Rng) -> Vec<Item> {
    let shape = match writes {
        Writes::Tests => Shape { operators: &Operator::ALL, abs: false, least: 1, most: 2 },
        Writes::Programs => Shape { operators: &ASKED, abs: true, least: 1, most: 2 },
    };
    let (mut items, mut seen, mut tries) = (Vec::new(), HashSet::new(), 0);
    while items.len() < count && tries < 50 * count {
        tries += 1;
        let program = make::program(random, shape, kept);
        // What is judged is judged once, however it is written.
        if kept && !seen.insert(make::behaviour(&program)) {
            continue;
        }
        items.push(match writes {
            Writes::Tests => {
                let mut calls = probes(program.parameters);
                calls.shuffle(random);
                calls.truncate(ASSERTIONS);
                let answer = Suite::of(&program, calls).to_string();
                Item { question: format!("{program} ?"), answer, program }
            }
            Writes::Programs => {
                let (question, answer) = base::asked(&program);
                Item { question, answer, program }
            }
        });
    }
    items
}

impl Code {
    /// So many pairs to learn from, and functions to be judged by.
    ///
    /// # Errors
    /// If the model is no language model, or its tokenizer can't write them.
    pub fn new(
        model: Model,
        name: &str,
        writes: Writes,
        learn: usize,
        test: usize,
        seed: u64,
    ) -> Result<Code> {
        if !model.spec.causal {
            return Err(Error::Option(format!("programs are written by language models; {name} is none")));
        }
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let writer = Writer::of(&model);
        let pairs = |items: &[Item]| -> Result<Vec<Pair>> {
            items.iter().map(|it| writer.pair(&it.question, &it.answer)).collect()
        };
        let shown = items(writes, learn, false, &mut random);
        let chosen = items(writes, CHOOSING, false, &mut random);
        let test = items(writes, test, true, &mut random);
        let (learn, choose) = (pairs(&shown)?, pairs(&chosen)?);
        let questions: Vec<String> = shown.iter().map(|it| spaced(&it.question)).collect();
        Ok(Code {
            known: Bm25::new(&questions),
            learn: learn.into(),
            name: name.to_owned(),
            model,
            writes,
            writer,
            shown,
            choose,
            test,
        })
    }

    /// Answers to questions, each with texts in front.
    fn answers(&self, learner: &mut Learner, front: &[Vec<u32>], draw: Draw) -> Result<Vec<String>> {
        let mut texts = Vec::new();
        for (item, front) in self.test.iter().zip(front) {
            let mut ids = front.clone();
            ids.push(self.writer.end());
            ids.extend(self.writer.encode(&item.question)?);
            texts.push(ids);
        }
        let mut answers = Vec::new();
        let context = self.model.spec.context_length;
        for texts in texts.chunks(AT_ONCE) {
            for ids in learner.go_on(texts, LONGEST, self.writer.end(), context, draw)? {
                answers.push(self.writer.decode(&ids)?);
            }
        }
        Ok(answers)
    }

    fn judged(&self, learner: &mut Learner, front: &[Vec<u32>], seed: u64) -> Result<Vec<Value>> {
        let answers = self.answers(learner, front, Draw::Likeliest)?;
        if self.writes == Writes::Tests {
            return Ok(self.tests(&answers));
        }
        let mut right = vec![0; self.test.len()];
        for draw in 0..DRAWN {
            let draw = Draw::Chance { temperature: TEMPERATURE, seed: seed ^ ((draw as u64 + 1) << 32) };
            for (at, answer) in self.answers(learner, front, draw)?.iter().enumerate() {
                right[at] += usize::from(gives(answer, &self.test[at].program));
            }
        }
        let tries = right.iter().map(|right| pass_at(TRIES, DRAWN, *right)).sum();
        let mut values = self.programs(&answers);
        values.push(Value::new("pass@2", self.percent(tries), "%"));
        Ok(values)
    }

    fn percent(&self, sum: f64) -> f64 {
        100.0 * sum / self.test.len().max(1) as f64
    }

    fn likeness(&self, answers: &[String]) -> Value {
        let sum = answers.iter().zip(&self.test).map(|(answer, item)| likeness(answer, &item.answer)).sum();
        Value::new("likeness", self.percent(sum), "%")
    }

    /// How good tests are.
    fn tests(&self, answers: &[String]) -> Vec<Value> {
        let scores: Vec<_> =
            answers.iter().zip(&self.test).map(|(text, item)| Suite::score(text, &item.program)).collect();
        let sum = |of: fn(&ounce_eval::programs::suite::Score) -> usize| {
            scores.iter().map(of).sum::<usize>() as f64
        };
        // A suite that can't be read, or is short, has assertions that are not true.
        let asked = sum(|it| it.assertions.max(ASSERTIONS));
        vec![
            Value::new("assertions true", 100.0 * sum(|it| it.right) / asked, "%"),
            Value::new("valid", self.percent(sum(|it| usize::from(it.valid))), "%"),
            Value::new("mutants killed", 100.0 * sum(|it| it.killed) / sum(|it| it.mutants).max(1.0), "%"),
            self.likeness(answers),
        ]
    }

    /// How good functions are.
    fn programs(&self, answers: &[String]) -> Vec<Value> {
        let both = || answers.iter().zip(&self.test);
        let exact = both().filter(|(text, item)| Program::parse(text).as_ref() == Ok(&item.program)).count();
        let right = both().filter(|(text, item)| gives(text, &item.program)).count();
        vec![
            Value::new("exact match", self.percent(exact as f64), "%"),
            Value::new("pass@1", self.percent(right as f64), "%"),
            self.likeness(answers),
        ]
    }

    /// The examples that stand in front of each question.
    fn examples(&self, shots: Shots) -> Vec<Vec<usize>> {
        let mut random = ChaCha8Rng::seed_from_u64(shots.seed);
        let each = |item: &Item| -> Vec<usize> {
            if !shots.nearest {
                return (0..shots.count).map(|_| random.random_range(0..self.shown.len())).collect();
            }
            let scores = self.known.scores(&spaced(&item.question));
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
            // One example of each sentence; the nearest comes last, right before the question.
            let mut seen = HashSet::new();
            order.retain(|at| seen.insert(self.shown[*at].question.as_str()));
            order.truncate(shots.count);
            order.reverse();
            order
        };
        self.test.iter().map(each).collect()
    }
}

/// A text with its words and signs apart, as the search for similar ones wants it: a function is written without spaces.
fn spaced(text: &str) -> String {
    tokens(text).join(" ")
}

/// Whether an answer is a program that gives what another does.
fn gives(answer: &str, program: &Program) -> bool {
    // A function may leave out a parameter that it does not use.
    Program::parse(answer).is_ok_and(|found| same(&found, program))
}

impl Task for Code {
    fn name(&self) -> &str {
        match self.writes {
            Writes::Tests => "unit-tests",
            Writes::Programs => "programs",
        }
    }

    fn model_name(&self) -> &str {
        &self.name
    }

    fn identity(&self) -> String {
        let test: Vec<Pair> = self
            .test
            .iter()
            .map(|it| {
                self.writer
                    .pair(&it.question, &it.answer)
                    .unwrap_or(Pair { question: vec![], answer: vec![] })
            })
            .collect();
        super::identity(&self.model, &[&self.learn[..], &self.choose, &test])
    }

    fn model(&self) -> &Model {
        &self.model
    }

    fn source(&self, seed: u64) -> Result<Box<dyn BatchSource>> {
        Ok(Box::new(Pairs::new(self.learn.clone(), SEQUENCES, seed)?))
    }

    fn loss(&self, learner: &mut Learner) -> Result<f64> {
        loss(learner, &self.choose)
    }

    fn judge(&self, learner: &mut Learner, seed: u64) -> Result<Vec<Value>> {
        self.judged(learner, &vec![Vec::new(); self.test.len()], seed)
    }

    fn shown(&self, learner: &mut Learner, shots: Shots) -> Result<Vec<Value>> {
        let examples = self.examples(shots);
        if shots.copied {
            let copied: Vec<String> = examples
                .iter()
                .map(|own| own.last().map_or(String::new(), |at| self.shown[*at].answer.clone()))
                .collect();
            return Ok(match self.writes {
                Writes::Tests => self.tests(&copied),
                Writes::Programs => {
                    let mut values = self.programs(&copied);
                    // All tries are the same.
                    values.push(Value::new("pass@2", values[1].value, "%"));
                    values
                }
            });
        }
        let mut front = Vec::new();
        for own in examples {
            let mut ids = Vec::new();
            for at in own {
                let Pair { question, mut answer } =
                    self.writer.pair(&self.shown[at].question, &self.shown[at].answer)?;
                answer.pop();
                ids.extend(question);
                ids.extend(answer);
            }
            front.push(ids);
        }
        self.judged(learner, &front, shots.seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn right_answers_score_full_marks_and_the_nearest_example_is_like_the_question() {
        let mut watch = |_| Ok(());
        let model = base::trained(base::Size::Small, 1, 1, &mut watch).expect("a base");
        for writes in [Writes::Tests, Writes::Programs] {
            let code = Code::new(model.clone(), "small", writes, 60, 12, 1).expect("a task");
            let right: Vec<String> = code.test.iter().map(|it| it.answer.clone()).collect();
            let values = match writes {
                Writes::Tests => code.tests(&right),
                Writes::Programs => code.programs(&right),
            };
            for value in values.iter().filter(|it| it.name != "mutants killed") {
                assert!((value.value - 100.0).abs() < 1e-9, "{value:?}");
            }
            let shots = Shots { count: 2, nearest: true, copied: false, seed: 1 };
            let (mut near, mut any) = (0, 0);
            for (own, item) in code.examples(shots).iter().zip(&code.test) {
                let shared = |at: usize| {
                    let of = |text: &str| base::encode(text).expect("words of the language");
                    let own: HashSet<u32> = of(&item.question).into_iter().collect();
                    of(&code.shown[at].question).into_iter().filter(|it| own.contains(it)).count()
                };
                near += shared(own[1]);
                any += shared(0);
            }
            assert!(near > any, "the nearest examples share {near} words, the first one {any}");
            for pair in code.learn.iter() {
                assert!(pair.answer.len() <= LONGEST, "{}", pair.answer.len());
            }
        }
    }
}
