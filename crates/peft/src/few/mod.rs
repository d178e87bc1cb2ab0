//! What demonstrations on few labels and on retrieval share: generated texts, and the built-in encoder, which has read tales.

pub(crate) mod facts;
pub(crate) mod traits;

use ounce_eval::method::{Fixture, Lab};
use ounce_model::Model;
use ounce_model::tokenizer::Tokenizer;
use ounce_train::data::BatchSource;
use ounce_train::data::labelled::texts::{Labelled, examples};
use ounce_train::data::labelled::{Example, LabelledSettings, LabelledStream};
use ounce_train::methods::encoders::CONTEXT;
use ounce_train::{Trainable, optim};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{Error, Result};

/// A text with the number of its label.
pub(crate) type Told = (String, usize);

/// Random choices of a generator.
pub(crate) struct Dice(pub ChaCha8Rng);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(ChaCha8Rng::seed_from_u64(seed))
    }

    pub fn of<'t, T: ?Sized>(&mut self, things: &[&'t T]) -> &'t T {
        things[self.0.random_range(0..things.len())]
    }

    pub fn below(&mut self, count: usize) -> usize {
        self.0.random_range(0..count)
    }

    pub fn chance(&mut self, share: f64) -> bool {
        self.0.random::<f64>() < share
    }

    pub fn shuffle<T>(&mut self, things: &mut [T]) {
        things.shuffle(&mut self.0);
    }
}

/// The built-in encoder, which has read tales.
pub(crate) struct Tales(pub Model);

impl Tales {
    pub fn new(lab: &dyn Lab) -> Result<Tales> {
        Ok(Tales(lab.model(Fixture::Encoder)?))
    }

    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.0.tokenizer.as_ref().ok_or_else(|| Error::Option("the built-in encoder has no tokenizer".into()))
    }

    /// Texts with the numbers of their labels.
    pub fn examples(&self, texts: &[Told], labels: &[&str]) -> Result<Vec<Example>> {
        let own: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        let one = |(text, label): &Told| Labelled {
            text: text.clone(),
            pair: None,
            label: labels.get(*label).map_or_else(String::new, |label| (*label).to_owned()),
        };
        let texts: Vec<Labelled> = texts.iter().map(one).collect();
        Ok(examples(self.tokenizer()?, &texts, &own, CONTEXT, false)?.0)
    }
}

/// As many of each label, drawn without repetition from texts that all have one of `labels`.
pub(crate) fn shots(texts: &[Told], labels: usize, each: usize, seed: u64) -> Vec<Told> {
    let mut order: Vec<usize> = (0..texts.len()).collect();
    Dice::new(seed).shuffle(&mut order);
    let mut counts = vec![0; labels];
    let wanted = order.into_iter().filter(|&at| {
        counts[texts[at].1] += 1;
        counts[texts[at].1] <= each
    });
    wanted.map(|at| texts[at].clone()).collect()
}

/// Examples in batches, in an order of their own each epoch.
pub(crate) fn stream(examples: &[Example], at_once: usize, seed: u64) -> Result<LabelledStream> {
    let settings =
        LabelledSettings { examples: at_once.min(examples.len()), seed, shuffle: true, epochs: None };
    Ok(LabelledStream::new(examples.to_vec(), settings)?)
}

/// Trains so many steps at a rate, weights whose names end so at a multiple of it.
pub(crate) fn fit(
    net: &mut dyn Trainable,
    source: &mut dyn BatchSource,
    (rate, factors): (f64, &[(String, f64)]),
    steps: u64,
) -> Result<()> {
    let options =
        optim::Options { weight_decay: 0.0, named_factors: factors.to_vec(), ..optim::Options::default() };
    crate::study::fit_with(options, net, source, rate, steps)?;
    Ok(())
}
