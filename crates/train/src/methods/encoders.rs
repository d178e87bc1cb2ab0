//! Small encoders for demonstrations: a vocabulary, hidden tokens, a teacher's lessons, classifiers on top.

use std::sync::Arc;
use std::time::Instant;

use ounce_model::Model;
use ounce_model::tokenizer::Tokenizer;

use super::workbench::{cosine, fit};
use crate::config::{self, Preset};
use crate::data::labelled::judge::Judge;
use crate::data::labelled::tags::{self, Tagged};
use crate::data::labelled::texts::{Labelled, examples};
use crate::data::labelled::{Example, LabelledSettings, LabelledStream, batch};
use crate::data::masked::{MaskSettings, MaskedStream};
use crate::data::{Cache, Documents};
use crate::distil::projected::projected;
use crate::distil::relations::{Relations, relations};
use crate::distil::{self, LiveTeacher};
use crate::loss::{ForwardKl, Softness};
use crate::net::classifier::{Task, with_classifier};
use crate::net::{Init, Net, Options};
use crate::tokenizer::{TokenizerSettings, train};
use crate::{Error, Result, Trainable};

/// Tokens of a sequence at most.
pub const CONTEXT: usize = 64;
/// Sequences of a step of learning the domain; a batch has as many tokens as this many of the longest.
const TEXTS: usize = 8;
/// Labelled texts of a step.
const LABELLED: usize = 16;
/// Learning rates on texts and on labels.
const TEXT_RATE: f64 = 1.5e-3;
const LABEL_RATE: f64 = 1e-3;
const SPECIAL: [&str; 4] = ["[PAD]", "[CLS]", "[SEP]", "[MASK]"];

/// `L = CE + T² KL + features`: the halves of [`distil::Options`] mean the first two with equal weight.
const LESSON: distil::Options =
    distil::Options { softness: Softness { temperature: 2.0, hard: 0.5 }, features: 1.0 };

/// An encoder's width and layers; four heads, a feed-forward half of four widths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Width of the residual stream.
    pub width: usize,
    /// Layers.
    pub layers: usize,
}

/// Texts as tokens.
#[derive(Debug)]
pub struct Corpus(Documents);

/// What all encoders share: the tokenizer.
#[derive(Debug)]
pub struct Bench {
    tokenizer: Tokenizer,
    special: [u32; 4],
}

impl Bench {
    /// A byte-level BPE vocabulary learned from texts.
    ///
    /// # Errors
    /// If a special token gets no place.
    pub fn new<'t>(texts: impl Iterator<Item = &'t str>, vocabulary: usize) -> Result<Bench> {
        let texts: Vec<Result<String>> = texts.map(|text| Ok(text.to_string())).collect();
        let special = SPECIAL.map(String::from).to_vec();
        let settings = TokenizerSettings { vocab_size: vocabulary, special, ..TokenizerSettings::default() };
        let tokenizer = train(texts.into_iter(), &settings)?;
        let id = |name| tokenizer.id(name).ok_or_else(|| Error::Settings(format!("no token {name}")));
        let special = [id(SPECIAL[0])?, id(SPECIAL[1])?, id(SPECIAL[2])?, id(SPECIAL[3])?];
        Ok(Bench { tokenizer, special })
    }

    /// Texts to learn from.
    ///
    /// # Errors
    /// If there are none.
    pub fn corpus<'t>(&self, texts: impl Iterator<Item = &'t str>) -> Result<Corpus> {
        let ids: Vec<Vec<u32>> =
            texts.map(|text| Ok(self.tokenizer.encode(text, false)?)).collect::<Result<_>>()?;
        let ids = ids.iter().map(Vec::as_slice).filter(|ids| !ids.is_empty());
        let cache = Cache::in_memory(ids, self.tokenizer.id_limit())?;
        Ok(Corpus(Documents::all(Arc::new(cache))))
    }

    /// Texts with the numbers of their labels.
    ///
    /// # Errors
    /// If a text can't be tokenized.
    pub fn examples<'t>(
        &self,
        texts: impl Iterator<Item = (&'t str, usize)>,
        labels: &[&str],
    ) -> Result<Vec<Example>> {
        let labelled: Vec<Labelled> = texts
            .map(|(text, label)| Labelled { text: text.into(), pair: None, label: labels[label].into() })
            .collect();
        Ok(examples(&self.tokenizer, &labelled, &owned(labels), CONTEXT, false)?.0)
    }

    /// Sentences with tagged words.
    ///
    /// # Errors
    /// If a sentence can't be tokenized.
    pub fn tagged(&self, sentences: &[Tagged], tags: &[&str]) -> Result<Vec<Example>> {
        Ok(tags::examples(&self.tokenizer, sentences, &owned(tags), CONTEXT, false)?.0)
    }

    /// A text as the sequence that an encoder is given.
    ///
    /// # Errors
    /// If it can't be tokenized.
    pub fn sequence(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = self.tokenizer.encode(text, true)?;
        ids.truncate(CONTEXT);
        Ok(ids)
    }

    /// Tokens of a text.
    ///
    /// # Errors
    /// If it can't be tokenized.
    pub fn tokens(&self, text: &str) -> Result<usize> {
        Ok(self.tokenizer.encode(text, false)?.len())
    }

    /// Batches of a corpus with hidden tokens.
    ///
    /// # Errors
    /// If no text is long enough.
    pub fn masked(&self, corpus: &Corpus, seed: u64) -> Result<MaskedStream> {
        let [_, cls, sep, mask] = self.special;
        let settings = MaskSettings {
            context: CONTEXT,
            sequences: TEXTS,
            seed,
            epochs: None,
            rate: 0.2,
            longest_run: 1,
            mask,
            cls,
            sep,
            never: self.special.to_vec(),
            order: None,
        };
        MaskedStream::new(corpus.0.clone(), settings)
    }

    /// A network with random weights.
    ///
    /// # Errors
    /// If the shape is none.
    pub fn random(&self, shape: Shape, seed: u64) -> Result<Net> {
        let settings = config::Model {
            preset: Preset::Bert,
            hidden: shape.width,
            layers: shape.layers,
            heads: 4,
            context: CONTEXT,
            init: 0.08,
            ..config::Model::default()
        };
        let skeleton = settings.skeleton(&self.tokenizer, None)?;
        Net::random(&skeleton, Options::default(), settings.initial(), seed)
    }

    /// Finds hidden tokens of a corpus.
    ///
    /// # Errors
    /// As [`Bench::learn_at`].
    pub fn learn(&self, net: Net, corpus: &Corpus, steps: u64, seed: u64) -> Result<Model> {
        self.learn_at(TEXT_RATE, net, corpus, steps, seed)
    }

    /// The same at another rate: what is deep wants a lower one.
    ///
    /// # Errors
    /// If no text is long enough.
    pub fn learn_at(&self, rate: f64, mut net: Net, corpus: &Corpus, steps: u64, seed: u64) -> Result<Model> {
        fit(&mut net, &mut self.masked(corpus, seed)?, cosine(rate, steps))?;
        net.model()
    }

    /// Learns a teacher's predictions and streams on a corpus, with the hidden tokens themselves.
    ///
    /// # Errors
    /// If teacher and student do not fit.
    pub fn distil(
        &self,
        net: &Net,
        teacher: &Model,
        corpus: &Corpus,
        steps: u64,
        seed: u64,
    ) -> Result<Model> {
        let teacher = LiveTeacher(Net::with_frozen(teacher, Options::default(), &|_| false)?);
        let mut student = projected(&net.model()?, teacher, Box::new(ForwardKl), LESSON, None)?;
        fit(&mut student, &mut self.masked(corpus, seed)?, cosine(TEXT_RATE, steps))?;
        student.model()
    }

    /// Learns the relations between tokens in a layer of a teacher's.
    ///
    /// # Errors
    /// If teacher and student do not fit.
    pub fn relate(
        &self,
        net: &Net,
        (teacher, options): (&Model, Relations),
        corpus: &Corpus,
        steps: u64,
        seed: u64,
    ) -> Result<Model> {
        let mut student = relations(&net.model()?, teacher, options)?;
        fit(&mut student, &mut self.masked(corpus, seed)?, cosine(TEXT_RATE, steps))?;
        student.model()
    }

    /// A classifier made of an encoder, trained on what is labelled.
    ///
    /// # Errors
    /// If there is nothing to learn.
    pub fn classifier(
        &self,
        encoder: &Model,
        (task, labels): (Task, &[&str]),
        labelled: &[Example],
        steps: u64,
        seed: u64,
    ) -> Result<Net> {
        let model = with_classifier(encoder, task, &owned(labels), Init::default(), seed)?;
        let mut net = Net::from_model(&model, Options::default())?;
        let settings = LabelledSettings { examples: LABELLED, seed, shuffle: true, epochs: None };
        let mut source = LabelledStream::new(labelled.to_vec(), settings)?;
        fit(&mut net, &mut source, cosine(LABEL_RATE, steps))?;
        Ok(net)
    }
}

fn owned(labels: &[&str]) -> Vec<String> {
    labels.iter().map(|label| label.to_string()).collect()
}

/// Macro-F1 on texts of so many labels, in per cent.
///
/// # Errors
/// If a text does not fit the network.
pub fn macro_f1(net: &mut dyn Trainable, test: &[Example], labels: usize) -> Result<f64> {
    let judge = Judge::Texts { examples: test.to_vec(), labels };
    Ok(100.0 * judge.judge(net, 32)?.f1.unwrap_or(0.0))
}

/// F1 of words with another tag than the first, in per cent.
pub(super) fn tag_f1(net: &mut Net, test: &[Example], tags: usize) -> Result<f64> {
    let judge = Judge::Tokens { examples: test.to_vec(), labels: tags, outside: Some(0) };
    Ok(100.0 * judge.judge(net, 32)?.f1.unwrap_or(0.0))
}

/// Seconds that each of two classifiers takes for examples, 32 at a time, in turn; the quickest of seven each.
pub(super) fn latency(nets: [&mut Net; 2], test: &[Example]) -> Result<[f64; 2]> {
    let mut best = [f64::INFINITY; 2];
    let [first, second] = nets;
    let mut nets = [first, second];
    for _ in 0..7 {
        for (net, best) in nets.iter_mut().zip(&mut best) {
            let start = Instant::now();
            for some in test.chunks(32) {
                net.scores(&batch(some))?;
            }
            *best = best.min(start.elapsed().as_secs_f64());
        }
    }
    Ok(best)
}
