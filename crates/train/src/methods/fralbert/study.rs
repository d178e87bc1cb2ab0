//! Encoders that learn both languages from texts, and then to answer questions of the poor one.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;
use std::time::Instant;

use super::Scale;
use super::language::{CLS, Language, MASK, SEP, SPECIAL, VOCABULARY, text_of, things_of};
use crate::config::{self, Preset};
use crate::data::labelled::questions::best_span;
use crate::data::labelled::{Example, LabelledSettings, LabelledStream, Target, batch};
use crate::data::masked::{MaskSettings, MaskedStream};
use crate::data::{Cache, Documents};
use crate::methods::workbench::{cosine, fit};
use crate::net::classifier::{Task, with_classifier};
use crate::net::{Net, Options};
use crate::{Error, Result, Trainable};

/// Tokens of a sequence at most.
const CONTEXT: usize = 72;
/// Sequences of a step of learning the languages.
const TEXTS: usize = 32;
/// Questions of a step of learning to answer.
const QUESTIONS: usize = 16;
/// Learning rate on texts.
const TEXT_RATE: f64 = 2e-3;

/// An encoder's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// Width.
    pub width: usize,
    /// Blocks with weights of their own.
    pub blocks: usize,
}

/// An encoder that knows the languages.
pub(super) struct Encoder {
    model: ounce_model::Model,
    /// Parameters of its blocks.
    pub block_parameters: u64,
    /// The loss on hidden words at the end of its learning, in nats.
    pub loss: f64,
}

impl Encoder {
    /// Learns both languages from as many texts of each.
    pub(super) fn learn(shape: Shape, scale: &Scale, seed: u64) -> Result<Encoder> {
        let settings = config::Model {
            preset: Preset::Albert,
            hidden: shape.width,
            layers: scale.layers,
            heads: 4,
            feed_forward: 4 * shape.width,
            embedding: scale.width / 2,
            groups: shape.blocks,
            context: CONTEXT,
            init: 0.12,
            ..config::Model::default()
        };
        let model = settings.bare(VOCABULARY as usize)?;
        let mut net = Net::random(&model, Options::default(), settings.initial(), seed)?;
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let languages = [Language::Rich, Language::Poor];
        let texts: Vec<Vec<u32>> =
            (0..scale.texts).map(|number| languages[number % 2].text(&mut random)).collect();
        let cache = Cache::in_memory(texts.iter().map(Vec::as_slice), VOCABULARY)?;
        let mut source = MaskedStream::new(
            Documents::all(Arc::new(cache)),
            MaskSettings {
                context: CONTEXT,
                sequences: TEXTS,
                seed,
                epochs: None,
                rate: 0.25,
                longest_run: 2,
                mask: MASK,
                cls: CLS,
                sep: SEP,
                never: (0..SPECIAL).collect(),
                order: None,
            },
        )?;
        fit(&mut net, &mut source, cosine(TEXT_RATE, scale.text_steps))?;
        let loss = net.loss(&crate::data::BatchSource::next(&mut source)?.unwrap_or_default())?.mean();
        let blocks = net.params().iter().filter(|param| param.name.starts_with("layers."));
        let block_parameters = blocks.map(|param| param.value.len() as u64).sum();
        Ok(Encoder { model: net.model()?, block_parameters, loss })
    }

    /// The encoder with a new head for spans.
    pub(super) fn reader(&self, seed: u64) -> Result<Reader> {
        let model = with_classifier(&self.model, Task::Spans, &[], crate::net::Init::default(), seed)?;
        Ok(Reader { net: Net::from_model(&model, Options::default())? })
    }
}

/// An encoder that finds answers.
pub(super) struct Reader {
    net: Net,
}

/// How well answers were found, in per cent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Score {
    /// Answers that are right to the word.
    pub exact: f64,
    /// Mean F1 of words.
    pub f1: f64,
}

impl Reader {
    /// A copy that learns on by itself.
    pub(super) fn copy(&self) -> Result<Reader> {
        Ok(Reader { net: Net::from_model(&self.net.model()?, Options::default())? })
    }

    /// Learns to answer these questions.
    pub(super) fn learn(&mut self, examples: &[Example], rate: f64, steps: u64, seed: u64) -> Result<()> {
        let settings = LabelledSettings { examples: QUESTIONS, seed, shuffle: true, epochs: None };
        let mut source = LabelledStream::new(examples.to_vec(), settings)?;
        fit(&mut self.net, &mut source, cosine(rate, steps)).map(|_| ())
    }

    /// Answers questions.
    pub(super) fn score(&mut self, examples: &[Example]) -> Result<Score> {
        let mut sum = Score::default();
        for some in examples.chunks(TEXTS) {
            let scores = self.net.scores(&batch(some))?;
            let mut rest = &scores[..];
            for example in some {
                let (own, more) = rest.split_at(2 * example.ids.len());
                rest = more;
                let found = best_span(own, text_of(example));
                let (first, last, _) = found.ok_or_else(|| Error::Settings("a text is empty".into()))?;
                let score = agreement(example, [first, last]);
                sum.exact += score.exact;
                sum.f1 += score.f1;
            }
        }
        let count = examples.len().max(1) as f64;
        Ok(Score { exact: sum.exact / count, f1: sum.f1 / count })
    }

    /// Seconds of the quickest of a few passes over questions.
    pub(super) fn seconds(&mut self, examples: &[Example]) -> Result<f64> {
        let batch = batch(examples);
        let start = Instant::now();
        self.net.scores(&batch)?;
        Ok(start.elapsed().as_secs_f64())
    }
}

/// What choosing any of a text's things scores on average.
pub(super) fn guessing(examples: &[Example]) -> f64 {
    let of = |example: &Example| {
        let things = things_of(example);
        let sum: f64 = things.iter().map(|&span| agreement(example, span).f1).sum();
        sum / things.len().max(1) as f64
    };
    examples.iter().map(of).sum::<f64>() / examples.len().max(1) as f64
}

/// How far a span agrees with the answer; words count as often as they stand in both.
fn agreement(example: &Example, [first, last]: [usize; 2]) -> Score {
    let Target::Span([from, to]) = example.target else { return Score::default() };
    let (from, to) = (from as usize, to as usize);
    let mut left = example.ids[from..=to].to_vec();
    let found = &example.ids[first..=last];
    let mut same = 0.0;
    for word in found {
        if let Some(at) = left.iter().position(|other| other == word) {
            left.swap_remove(at);
            same += 1.0;
        }
    }
    let f1 = 200.0 * same / (found.len() + to - from + 1) as f64;
    Score { exact: if found == &example.ids[from..=to] { 100.0 } else { 0.0 }, f1 }
}

/// Questions of a language, and so many of them for one try.
pub(super) struct Questions {
    /// To learn from.
    pub train: Vec<Example>,
    /// To choose settings by.
    pub validation: Vec<Example>,
    /// To be judged by.
    pub test: Vec<Example>,
}

impl Questions {
    /// Draws them.
    pub(super) fn new(language: Language, [train, validation, test]: [usize; 3], seed: u64) -> Questions {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut draw = |count: usize| -> Vec<Example> {
            (0..count).map(|_| language.question_on_a_text(&mut random)).collect()
        };
        Questions { train: draw(train), validation: draw(validation), test: draw(test) }
    }

    /// A try's own `count` to learn from.
    pub(super) fn some(&self, count: usize, seed: u64) -> Vec<Example> {
        let mut all: Vec<&Example> = self.train.iter().collect();
        all.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        all.into_iter().take(count).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreement_counts_words() {
        let example = Example {
            ids: vec![CLS, 9, SEP, 20, 21, 22, 21, SEP],
            types: Vec::new(),
            target: Target::Span([4, 5]),
        };
        assert_eq!(agreement(&example, [4, 5]).exact, 100.0);
        let part = agreement(&example, [5, 6]);
        assert_eq!((part.exact, part.f1), (0.0, 100.0));
        assert!((agreement(&example, [4, 4]).f1 - 200.0 / 3.0).abs() < 1e-9);
        assert_eq!(agreement(&example, [3, 3]).f1, 0.0);
    }
}
