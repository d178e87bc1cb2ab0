//! A task for encoders: hidden words of documents of a made-up town, by an encoder that knows tales.

use std::collections::HashSet;
use std::sync::Arc;

use ounce_eval::method::{Fixture, Lab, Text};
use ounce_model::Model;
use ounce_train::data::masked::{MaskSettings, MaskedStream};
use ounce_train::data::{BatchSource, Cache, Documents};
use ounce_train::net::{Net, Options};
use ounce_train::{Batch, IGNORE, Trainable};

use crate::{Error, Result};

/// Tokens of a sequence at most.
const CONTEXT: usize = 64;

/// Of so many documents, one is held out.
const HELD_OUT: usize = 8;

/// An encoder, and documents to learn from and to be judged by.
pub(crate) struct Town {
    /// The built-in encoder, which has learned tales.
    pub encoder: Model,
    train: Arc<Cache>,
    test: Vec<Batch>,
    hidden: usize,
    settings: MaskSettings,
}

impl Town {
    /// The built-in encoder, and about so many bytes of documents, an eighth of them to be judged by; none of those is among the others.
    pub fn new(lab: &dyn Lab, bytes: usize) -> Result<Town> {
        let encoder = lab.model(Fixture::Encoder)?;
        let Some(tokenizer) = &encoder.tokenizer else {
            return Err(Error::Option("the built-in encoder has no tokenizer".into()));
        };
        let special = tokenizer.special();
        let (Some(mask), Some(cls), Some(sep)) = (special.mask, special.cls, special.sep) else {
            return Err(Error::Option("the built-in encoder's tokenizer hides no words".into()));
        };
        let vocabulary = encoder.spec.vocab_size as u32;
        let text = lab.text(Text::Town, bytes);
        let documents: Vec<&str> = text.split("\n\n").filter(|it| !it.trim().is_empty()).collect();
        let (train, test) = documents.split_at(documents.len() - documents.len() / HELD_OUT);
        let seen: HashSet<&&str> = train.iter().collect();
        let cache = |documents: &mut dyn Iterator<Item = &&str>| -> Result<Arc<Cache>> {
            let ids: Vec<Vec<u32>> =
                documents.map(|it| tokenizer.encode(it, false)).collect::<ounce_model::Result<_>>()?;
            Ok(Arc::new(Cache::in_memory(ids.iter().map(Vec::as_slice), vocabulary)?))
        };
        let settings = MaskSettings {
            context: CONTEXT,
            sequences: 8,
            seed: 0,
            epochs: Some(1),
            rate: 0.15,
            longest_run: 2,
            mask,
            cls,
            sep,
            never: (0..vocabulary).filter(|id| tokenizer.is_special(*id)).collect(),
            order: None,
        };
        let held_out = cache(&mut test.iter().filter(|it| !seen.contains(it)))?;
        let mut judging = MaskedStream::new(Documents::all(held_out), settings.clone())?;
        let mut test = Vec::new();
        while let Some(batch) = judging.next()? {
            test.push(batch);
        }
        let hidden = test.iter().map(Batch::counted).sum();
        let train = cache(&mut train.iter())?;
        Ok(Town { encoder, train, test, hidden, settings })
    }

    /// Documents to learn from in batches of at most `sequences` · 64 tokens, in an order of the seed, for ever.
    pub fn source(&self, sequences: usize, seed: u64) -> Result<MaskedStream> {
        let settings = MaskSettings { sequences, seed, epochs: None, ..self.settings.clone() };
        Ok(MaskedStream::new(Documents::all(self.train.clone()), settings)?)
    }

    /// The part of the hidden tokens that a model finds, in documents that were not learned from.
    pub fn accuracy(&self, model: &Model) -> Result<f64> {
        let mut net = Net::with_frozen(model, Options::default(), &|_| false)?;
        let width = model.spec.vocab_size;
        let mut right = 0;
        for batch in &self.test {
            let scores = net.scores(batch)?;
            let targets = batch.targets.iter().filter(|target| **target != IGNORE);
            for (scores, target) in scores.chunks_exact(width).zip(targets) {
                let best = (0..width).fold(0, |best, id| if scores[id] > scores[best] { id } else { best });
                right += usize::from(best as u32 == *target);
            }
        }
        Ok(right as f64 / self.hidden.max(1) as f64)
    }

    /// For notes.
    pub fn said(&self) -> String {
        format!(
            "The built-in encoder, which knows tales, learns to find hidden words of documents of a made-up town: {} documents to learn from; {} \
             hidden tokens of others judge.",
            self.train.header().sequences,
            self.hidden
        )
    }
}
