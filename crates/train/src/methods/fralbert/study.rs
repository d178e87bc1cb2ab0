//! The study of the demonstration, piece by piece: pretraining on text of both languages, training on questions, judging.

use std::sync::Arc;

use ounce_eval::answers::Articles;
use ounce_kernels::pool::Pool;
use ounce_model::Model;
use ounce_model::tokenizer::Tokenizer;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::language::{self, Language};
use crate::config::{self, Preset};
use crate::data::labelled::judge::{Judge, Metrics};
use crate::data::labelled::questions::{Asked, Question};
use crate::data::labelled::{Example, LabelledSettings, LabelledStream};
use crate::data::masked::{MaskSettings, MaskedStream};
use crate::data::{BatchSource, Documents, Encoder, Limits, ReadOptions, Recipe, Separator};
use crate::net::classifier::{Task, with_classifier};
use crate::net::{Net, Options};
use crate::optim::norm::{clip_factor, global_norm};
use crate::optim::{self, Optimizer};
use crate::{Batch, Error, Result, Trainable};

/// How large everything is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    pub hidden: usize,
    pub layers: usize,
    /// Steps of pretraining.
    pub pretraining: usize,
    /// Steps on questions of language A, before those of B.
    pub transfer: usize,
    /// Steps on questions of language B.
    pub tuning: usize,
    /// Runs of each kind, from different seeds.
    pub seeds: u64,
    /// Questions that a model is judged on.
    pub questions: usize,
}

/// Positions of the models; texts are shorter.
const CONTEXT: usize = 64;

/// Sequences of a step.
const BATCH: usize = 16;

/// Highest learning rates.
const PRETRAINING_RATE: f64 = 2e-3;
const TUNING_RATE: f64 = 1e-3;

/// How a model comes to answer questions in language B.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strategy {
    /// From its few questions alone.
    Plain,
    /// Half of what it sees are questions of A that a machine has translated.
    Augmented,
    /// It has learned to answer in A.
    Transferred,
}

/// Tokenizer and settings of a study.
pub(super) struct Study {
    pub scale: Scale,
    pub tokenizer: Tokenizer,
    seed: u64,
}

impl Study {
    pub fn new(scale: Scale, seed: u64) -> Result<Study> {
        Ok(Study { scale, tokenizer: language::tokenizer()?, seed })
    }

    fn random(&self, purpose: u64, seed: u64) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(self.seed.wrapping_mul(1_000_003) ^ (purpose << 32) ^ seed)
    }

    /// An encoder of this many sets of layer weights, trained on hidden words of both languages.
    pub fn pretrained(&self, groups: usize) -> Result<Model> {
        let shape = config::Model {
            preset: Preset::Albert,
            hidden: self.scale.hidden,
            layers: self.scale.layers,
            heads: 4,
            feed_forward: 2 * self.scale.hidden,
            embedding: self.scale.hidden / 2,
            groups,
            context: CONTEXT,
            ..config::Model::default()
        };
        let skeleton = shape.skeleton(&self.tokenizer, None)?;
        let mut net = Net::random(&skeleton, Options::default(), shape.initial(), self.seed)?;
        let mut stream = self.texts()?;
        learn(&mut net, self.scale.pretraining, PRETRAINING_RATE, &mut || {
            stream.next()?.ok_or_else(|| Error::Settings("the texts have no end".to_string()))
        })?;
        net.model()
    }

    /// Texts of both languages with hidden words, without end.
    fn texts(&self) -> Result<MaskedStream> {
        let mut random = self.random(1, 0);
        // Enough for each text to be seen a few times at most.
        let count = (self.scale.pretraining * BATCH / 2).clamp(64, 20_000);
        let one = |index: usize| match index % 2 {
            0 => language::document(Language::A, &mut random),
            _ => language::document(Language::B, &mut random),
        };
        let text = (0..count).map(one).collect::<Vec<_>>().join("\n\n");
        let folder = tempfile::tempdir().map_err(ounce_model::Error::io("temporary folder"))?;
        let path = folder.path().join("texts.txt");
        std::fs::write(&path, text).map_err(ounce_model::Error::io(&path))?;
        let limits = Limits { max_length: CONTEXT, ends: false, ..Limits::default() };
        let encoder = Encoder::new(self.tokenizer.clone(), None, limits)?;
        let read = ReadOptions { separator: Separator::BlankLines, kind: None };
        let cache = Recipe { paths: vec![path], read, form: None, encoder }.in_memory()?;
        let settings = MaskSettings {
            context: CONTEXT,
            sequences: BATCH,
            seed: self.seed,
            epochs: None,
            rate: 0.15,
            longest_run: 1,
            mask: 4,
            cls: 2,
            sep: 3,
            never: (0..5).collect(),
            order: None,
        };
        MaskedStream::new(Documents::all(Arc::new(cache)), settings)
    }

    fn asked(&self, question: &Question) -> Result<Asked> {
        let asked = Asked::new(&self.tokenizer, question, CONTEXT, CONTEXT, true)?;
        asked.ok_or_else(|| Error::Settings("a question of the demonstration is too long".to_string()))
    }

    fn examples(&self, count: usize, mut question: impl FnMut() -> Question) -> Result<Vec<Example>> {
        let mut examples = Vec::with_capacity(count);
        for _ in 0..count {
            examples.extend(self.asked(&question())?.windows);
        }
        Ok(examples)
    }

    /// Questions of language B that no model learns from.
    pub fn judge(&self) -> Result<Judge> {
        let mut random = self.random(2, 0);
        let questions = (0..self.scale.questions).map(|_| {
            let question = language::question(Language::B, &mut random);
            let asked = self.asked(&question)?;
            Ok((question, asked))
        });
        Ok(Judge::Spans { questions: questions.collect::<Result<_>>()?, articles: Articles::French })
    }

    /// The model after questions of language A, as many as there are steps times the batch.
    pub fn transferred(&self, encoder: &Model, seed: u64) -> Result<Net> {
        let mut net = self.answering(encoder, seed)?;
        let mut random = self.random(3, seed);
        let count = self.scale.transfer * BATCH;
        let examples = self.examples(count, || language::question(Language::A, &mut random))?;
        let mut stream = stream(examples, BATCH, seed)?;
        learn(&mut net, self.scale.transfer, TUNING_RATE, &mut || next(&mut stream))?;
        Ok(net)
    }

    /// The encoder with a new head for answers.
    pub fn answering(&self, encoder: &Model, seed: u64) -> Result<Net> {
        let init = config::Model { preset: Preset::Albert, ..config::Model::default() }.initial();
        Net::from_model(&with_classifier(encoder, Task::Spans, &[], init, seed)?, Options::default())
    }

    /// Trains on so many questions of language B, drawn by the seed, and judges.
    pub fn tuned(
        &self,
        mut net: Net,
        count: usize,
        strategy: Strategy,
        seed: u64,
        judge: &Judge,
    ) -> Result<Metrics> {
        let mut random = self.random(4, seed);
        let own = self.examples(count, || language::question(Language::B, &mut random))?;
        let steps = self.scale.tuning;
        match strategy {
            Strategy::Plain | Strategy::Transferred => {
                let mut stream = stream(own, BATCH, seed)?;
                learn(&mut net, steps, TUNING_RATE, &mut || next(&mut stream))?;
            }
            Strategy::Augmented => {
                let more = self.examples(steps * BATCH / 2, || language::translated(&mut random))?;
                let (mut own, mut more) = (stream(own, BATCH / 2, seed)?, stream(more, BATCH / 2, seed)?);
                learn(&mut net, steps, TUNING_RATE, &mut || {
                    let (mut batch, more) = (next(&mut own)?, next(&mut more)?);
                    batch.tokens.extend(more.tokens);
                    batch.types.extend(more.types);
                    batch.lengths.extend(more.lengths);
                    batch.spans.extend(more.spans);
                    Ok(batch)
                })?;
            }
        }
        judge.judge(&mut net, 64)
    }

    /// F1 on the very questions that were learned.
    #[cfg(test)]
    pub fn learned(&self, mut net: Net, count: usize, seed: u64) -> Result<f64> {
        let mut random = self.random(4, seed);
        let questions: Vec<Question> =
            (0..count).map(|_| language::question(Language::B, &mut random)).collect();
        let mut each = questions.iter().cloned();
        let own = self.examples(count, || each.next().expect("as many as are asked for"))?;
        let mut stream = stream(own, count, seed)?;
        learn(&mut net, self.scale.tuning, TUNING_RATE, &mut || next(&mut stream))?;
        let asked = |question: Question| Ok((question.clone(), self.asked(&question)?));
        let questions = questions.into_iter().map(asked).collect::<Result<_>>()?;
        let judge = Judge::Spans { questions, articles: Articles::French };
        Ok(judge.judge(&mut net, 64)?.f1.unwrap_or(0.0))
    }

    /// F1 of who always answers with the person of a text.
    pub fn blind(&self, judge: &Judge) -> f64 {
        let Judge::Spans { questions, articles } = judge else { return 0.0 };
        let f1 = questions.iter().map(|(question, _)| {
            let answer = language::person(question);
            ounce_eval::answers::compare(answer, &question.answers[0].0, *articles).f1
        });
        f1.sum::<f64>() / questions.len().max(1) as f64
    }

    /// A sequence of random words, for measuring time.
    pub fn some_ids(&self) -> Vec<u32> {
        let mut random = self.random(5, 0);
        (0..CONTEXT).map(|_| random.random_range(5..self.tokenizer.id_limit())).collect()
    }
}

fn stream(examples: Vec<Example>, size: usize, seed: u64) -> Result<LabelledStream> {
    LabelledStream::new(examples, LabelledSettings { examples: size, seed, shuffle: true, epochs: None })
}

fn next(stream: &mut LabelledStream) -> Result<Batch> {
    stream.next()?.ok_or_else(|| Error::Settings("the questions have no end".to_string()))
}

/// AdamW with bias correction; a tenth of the steps warms up, then the rate falls to nothing in a straight line.
fn learn(net: &mut Net, steps: usize, peak: f64, next: &mut dyn FnMut() -> Result<Batch>) -> Result<()> {
    let mut optimizer = Optimizer::new(optim::Options::default(), net.params())?;
    let warmup = (steps / 10).max(1);
    for step in 0..steps {
        let batch = next()?;
        net.params_mut().iter_mut().for_each(|param| param.grad.fill(0.0));
        net.accumulate(&batch, 1.0 / batch.counted().max(1) as f32)?;
        let rising = (step + 1) as f64 / warmup as f64;
        let falling = (steps - step) as f64 / (steps - warmup).max(1) as f64;
        let factor = clip_factor(global_norm(Pool::global(), net.params()), Some(1.0));
        optimizer.step(net.params_mut(), peak * rising.min(falling).min(1.0), factor);
    }
    Ok(())
}
