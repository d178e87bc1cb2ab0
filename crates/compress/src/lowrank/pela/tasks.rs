//! Two tasks that a language model is fine-tuned on: documents of a made-up town, and sums in words.

use ounce_eval::method::{Lab, Text};
use ounce_model::Model;
use ounce_train::net::Net;
use ounce_train::{Batch, IGNORE, Trainable};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::quantize::demonstration::stories;
use crate::{Error, Result};

const WORDS: [&str; 25] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
    "twenty one",
    "twenty two",
    "twenty three",
    "twenty four",
];

/// A sequence of tokens, and where what is to be learned begins.
type Sample = (Vec<u32>, usize);

/// Samples to learn from and to be judged by.
pub(super) struct Task {
    pub train: Vec<Sample>,
    pub test: Vec<Sample>,
}

/// The tasks for a model's tokenizer.
pub(super) fn tasks(model: &Model, lab: &dyn Lab) -> Result<Vec<Task>> {
    let documents = stories(model, &lab.text(Text::Town, 60_000))?;
    let mut town: Vec<Sample> =
        documents.into_iter().filter(|ids| ids.len() > 2).map(|ids| (ids, 1)).collect();
    let test = town.split_off(town.len() - town.len() / 8);
    Ok(vec![Task { train: town, test }, sums(model, lab.seed())?])
}

/// `three and four make seven.` for all pairs up to twelve; an eighth of the pairs is never shown.
fn sums(model: &Model, seed: u64) -> Result<Task> {
    let Some(tokenizer) = &model.tokenizer else {
        return Err(Error::Option("the built-in model has no tokenizer".into()));
    };
    let mut all = Vec::new();
    for a in 0..=12 {
        for b in 0..=12 {
            let mut ids = tokenizer.encode(&format!("{} and {} make", WORDS[a], WORDS[b]), true)?;
            let begins = ids.len();
            ids.extend(tokenizer.encode(&format!(" {}.", WORDS[a + b]), false)?);
            all.push((ids, begins));
        }
    }
    all.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let test = all.split_off(all.len() - all.len() / 8);
    Ok(Task { train: all, test })
}

/// A batch of samples.
pub(super) fn batch<'s>(samples: impl IntoIterator<Item = &'s Sample>) -> Batch {
    let mut batch = Batch::default();
    for (ids, begins) in samples {
        batch.tokens.extend(&ids[..ids.len() - 1]);
        batch.targets.extend((1..ids.len()).map(|at| if at >= *begins { ids[at] } else { IGNORE }));
        batch.lengths.push(ids.len() - 1);
    }
    batch
}

impl Task {
    /// The part of what is to be learned that a network finds likeliest, on samples it has not seen.
    pub fn accuracy(&self, net: &mut Net) -> Result<f64> {
        let (mut right, mut all) = (0, 0);
        for samples in self.test.chunks(16) {
            let batch = batch(samples);
            let width = net.skeleton().spec.vocab_size;
            let logits = net.scores(&batch)?;
            let targets = batch.targets.iter().filter(|&&target| target != IGNORE);
            for (logits, &target) in logits.chunks_exact(width).zip(targets) {
                let best = (0..width).fold(0, |best, id| if logits[id] > logits[best] { id } else { best });
                right += usize::from(best as u32 == target);
                all += 1;
            }
        }
        Ok(right as f64 / all.max(1) as f64)
    }
}
