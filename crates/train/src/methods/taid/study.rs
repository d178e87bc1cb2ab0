//! Training teachers and students, and judging them.

use std::collections::HashMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::workbench::{cosine, fit};
use super::language::{Language, Question, VOCABULARY, batch};
use crate::config::{self, Preset};
use crate::data::{BatchSource, Position};
use crate::distil::{Distilled, Lesson, LiveTeacher, Options, Teacher};
use crate::loss::{Divergence, Predictions};
use crate::net::Net;
use crate::{Batch, Loss, Result, Trainable};

/// Answers of a step.
const ANSWERS: usize = 48;

/// Draws in which a right answer should turn up.
const DRAWS: [f64; 2] = [200.0, 20.0];

/// A network of four layers.
pub fn network(width: usize, seed: u64) -> Result<Net> {
    let shape = config::Model {
        preset: Preset::Llama,
        hidden: width,
        layers: 4,
        heads: 2,
        context: 16,
        ..config::Model::default()
    };
    let model = shape.architecture(VOCABULARY, [])?;
    Net::random(&model, Default::default(), shape.initial(), seed)
}

/// Answers drawn at random, each right answer of a question as likely as the others.
struct Answers<'l> {
    questions: &'l [Question],
    random: ChaCha8Rng,
}

impl BatchSource for Answers<'_> {
    fn next(&mut self) -> Result<Option<Batch>> {
        let mut drawn = Vec::with_capacity(ANSWERS);
        for _ in 0..ANSWERS {
            let question = &self.questions[self.random.random_range(0..self.questions.len())];
            drawn.push(&question[self.random.random_range(0..question.len())]);
        }
        Ok(Some(batch(drawn)))
    }

    fn position(&self) -> Position {
        Position::default()
    }

    fn seek(&mut self, _: &Position) -> Result<()> {
        Ok(())
    }

    fn tokens_per_epoch(&self) -> u64 {
        0
    }
}

fn answers(language: &Language, seed: u64) -> Answers<'_> {
    Answers { questions: &language.train, random: ChaCha8Rng::seed_from_u64(seed) }
}

/// A teacher that learned the language itself.
pub fn teacher(language: &Language, width: usize, steps: u64, seed: u64) -> Result<Net> {
    let mut net = network(width, seed)?;
    fit(&mut net, &mut answers(language, seed ^ 0x7EAC), cosine(0.006, steps))?;
    Ok(net)
}

/// A teacher that was asked about every answer there is, once: all students hear the same.
#[derive(Debug)]
pub struct Asked(HashMap<Vec<u32>, Vec<f32>>);

impl Asked {
    pub fn new(teacher: Net, language: &Language) -> Result<Asked> {
        let mut teacher = LiveTeacher(teacher);
        let mut known = HashMap::new();
        for answer in language.train.iter().chain(&language.validation).chain(&language.test).flatten() {
            let mut rows = Predictions::default();
            let batch = batch([answer]);
            teacher.0.run(&batch, None, &mut rows)?;
            known.insert(batch.tokens, rows.values);
        }
        Ok(Asked(known))
    }
}

impl Teacher for Asked {
    fn vocabulary(&self) -> usize {
        VOCABULARY
    }

    fn streams(&self) -> Option<(usize, usize)> {
        None
    }

    fn lesson(&mut self, batch: &Batch, _layers: &[usize]) -> Result<Lesson> {
        let (mut values, mut at) = (Vec::new(), 0);
        for &length in &batch.lengths {
            values.extend_from_slice(&self.0[&batch.tokens[at..at + length]]);
            at += length;
        }
        Ok(Lesson { rows: Box::new(Predictions::new(values, VOCABULARY)), streams: Vec::new() })
    }
}

/// How a student answers questions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Score {
    /// Probability of right answers together, mean over questions.
    pub validity: f64,
    /// Share of right answers that turn up in 200 draws, and in 20, as expected from their probabilities.
    pub coverage: [f64; 2],
    /// KL from the teacher's predictions, nats a token.
    pub kl: f64,
    /// How far the target had moved, if it does.
    pub share: f64,
}

impl Score {
    /// What students are ranked by: the mean of validity and coverage.
    pub fn balance(&self) -> f64 {
        (self.validity + self.coverage[0]) / 2.0
    }
}

/// Judges by the probabilities of whole answers, which are exact where drawing would be noisy.
pub fn score(net: &mut Net, questions: &[Question]) -> Result<Score> {
    let mut score = Score::default();
    for question in questions {
        let likely = net.log_probabilities(&batch(question))?;
        let likely: Vec<f64> = likely.iter().map(|it| it.exp()).collect();
        score.validity += likely.iter().sum::<f64>() / questions.len() as f64;
        for (coverage, draws) in score.coverage.iter_mut().zip(DRAWS) {
            let turns_up = likely.iter().map(|p| 1.0 - (1.0 - p).powf(draws)).sum::<f64>();
            *coverage += turns_up / (question.len() * questions.len()) as f64;
        }
    }
    Ok(score)
}

/// How a student is taught.
#[derive(Debug, Clone, Copy)]
pub struct Course {
    pub width: usize,
    pub steps: u64,
    pub rate: f64,
    pub seed: u64,
}

/// Teaches a new student and judges it on questions.
pub fn student(
    asked: &mut Asked,
    language: &Language,
    course: Course,
    divergence: Box<dyn Divergence>,
    questions: &[Question],
) -> Result<Score> {
    let Course { width, steps, rate, seed } = course;
    let net = network(width, seed)?;
    let mut distilled = Distilled::new(net, Box::new(asked), divergence, Options::default())?;
    fit(&mut distilled, &mut answers(language, seed ^ 0xC0DE), cosine(rate, steps))?;
    let mut kl = Loss::default();
    for question in questions {
        kl += distilled.loss(&batch(question))?;
    }
    let share = distilled.divergence().share().unwrap_or(0.0);
    let found = score(distilled.student_mut(), questions)?;
    Ok(Score { kl: kl.mean(), share, ..found })
}
