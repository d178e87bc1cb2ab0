//! What demonstrations have in common: the tiny built-in model, which has learned tales, and tales that are told in another way for it to
//! be adapted to: in the present, and without articles. A training run of so many steps; the loss on tales that were held out.

use std::sync::Arc;

use ounce_eval::method::{Fixture, Lab, Text};
use ounce_kernels::pool::Pool;
use ounce_model::Model;
use ounce_train::data::{BatchSource, Pieces};
use ounce_train::methods::workbench::cosine;
use ounce_train::net::Options as NetOptions;
use ounce_train::optim::norm::{clip_factor, global_norm};
use ounce_train::optim::{self, Optimizer};
use ounce_train::{Batch, Loss, Trainable};

use crate::{Adapted, Error, Result, Settings};

/// Tokens of a sequence at most.
const CONTEXT: usize = 64;
/// Sequences of a step.
const SEQUENCES: usize = 8;
/// The share of the held-out tales that rates are chosen by.
const CHOSEN: f64 = 0.33;

/// A model and texts that it does not know yet.
pub(crate) struct Study<'l> {
    pub lab: &'l dyn Lab,
    pub model: Model,
    pub learn: Arc<[Vec<u32>]>,
    choose: Vec<Vec<u32>>,
    test: Vec<Vec<u32>>,
}

/// How a run goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Course {
    pub steps: u64,
    pub rate: f64,
    pub seed: u64,
}

impl<'l> Study<'l> {
    /// About so many bytes of tales to learn from, and a third of that to choose and to be judged by.
    pub fn told(lab: &'l dyn Lab, bytes: usize) -> Result<Study<'l>> {
        let model = lab.model(Fixture::Tiny)?;
        let tokenizer = model
            .tokenizer
            .as_ref()
            .ok_or_else(|| Error::Option("the tiny model has no tokenizer".into()))?;
        let start = tokenizer.special().bos;
        let windows = |text: &str| -> Result<Vec<Vec<u32>>> {
            let mut all = Vec::new();
            for tale in text.split("\n\n").filter(|tale| !tale.trim().is_empty()) {
                let mut ids: Vec<u32> = start.into_iter().collect();
                ids.extend(tokenizer.encode(&retold(tale.trim()), false)?);
                all.extend(ids.chunks(CONTEXT + 1).filter(|ids| ids.len() > 8).map(<[u32]>::to_vec));
            }
            Ok(all)
        };
        let learn = windows(&lab.text(Text::Train, bytes))?;
        let mut choose = windows(&lab.text(Text::HeldOut, bytes / 3))?;
        let test = choose.split_off((CHOSEN * choose.len() as f64) as usize);
        if learn.is_empty() || choose.is_empty() {
            return Err(Error::Option("there are too few tales".into()));
        }
        Ok(Study { lab, model, learn: learn.into(), choose, test })
    }

    /// The same with the first so many pieces of tales to learn from.
    pub fn with_few(&self, documents: usize) -> Study<'l> {
        Study {
            lab: self.lab,
            model: self.model.clone(),
            learn: self.learn.iter().take(documents).cloned().collect(),
            choose: self.choose.clone(),
            test: self.test.clone(),
        }
    }

    /// A model with a new adapter.
    pub fn adapted(&self, settings: &Settings) -> Result<Adapted> {
        Adapted::new(&self.model, settings, NetOptions::default())
    }

    /// Trains on the tales; gives the mean losses of all steps.
    pub fn train(&self, net: &mut dyn Trainable, course: Course) -> Result<Vec<f64>> {
        let mut source = Pieces::new(self.learn.clone(), SEQUENCES, course.seed, None)?;
        fit(net, &mut source, course.rate, course.steps)
    }

    /// The loss on the tales that ways are judged by, nats a token.
    pub fn test(&self, net: &mut dyn Trainable) -> Result<f64> {
        mean_loss(net, &self.test)
    }

    /// The rate that does best with another seed on tales that are neither learned nor judged by.
    pub fn best_rate(
        &self,
        rates: &[f64],
        steps: u64,
        seed: u64,
        make: &mut dyn FnMut(u64) -> Result<Box<dyn Trainable>>,
    ) -> Result<f64> {
        let mut best = (f64::INFINITY, rates.first().copied().unwrap_or(1e-3));
        for &rate in rates {
            let mut net = make(seed)?;
            self.train(net.as_mut(), Course { steps, rate, seed })?;
            let found = mean_loss(net.as_mut(), &self.choose)?;
            if found < best.0 {
                best = (found, rate);
            }
        }
        Ok(best.1)
    }
}

/// A tale in the present and without articles.
pub(crate) fn retold(tale: &str) -> String {
    let mut out = String::with_capacity(tale.len());
    for word in tale.split_inclusive(char::is_whitespace) {
        let bare = word.trim_end();
        match bare.to_lowercase().as_str() {
            "the" | "a" | "an" => continue,
            "was" => out.push_str("is"),
            "were" => out.push_str("are"),
            "had" => out.push_str("has"),
            "said" => out.push_str("says"),
            "went" => out.push_str("goes"),
            "could" => out.push_str("can"),
            _ => {
                out.push_str(word);
                continue;
            }
        }
        out.push_str(&word[bare.len()..]);
    }
    out
}

/// Trains so many steps, without weight decay; gradients are clipped to a norm of 1, rates fall along half a cosine. Gives the mean
/// losses of all steps.
pub(crate) fn fit(
    net: &mut dyn Trainable,
    source: &mut dyn BatchSource,
    rate: f64,
    steps: u64,
) -> Result<Vec<f64>> {
    Ok(fit_watched(net, source, rate, steps, &mut |_| Ok(()))?.0)
}

/// [`fit`]; `watch` is told every step before it is done, and an error of its ends the run. Gives the optimizer's bytes, too.
pub(crate) fn fit_watched(
    net: &mut dyn Trainable,
    source: &mut dyn BatchSource,
    rate: f64,
    steps: u64,
    watch: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<(Vec<f64>, usize)> {
    let options = optim::Options { weight_decay: 0.0, ..optim::Options::default() };
    run(options, net, source, rate, steps, watch)
}

/// [`fit`] with another optimizer.
pub(crate) fn fit_with(
    options: optim::Options,
    net: &mut dyn Trainable,
    source: &mut dyn BatchSource,
    rate: f64,
    steps: u64,
) -> Result<Vec<f64>> {
    Ok(run(options, net, source, rate, steps, &mut |_| Ok(()))?.0)
}

fn run(
    options: optim::Options,
    net: &mut dyn Trainable,
    source: &mut dyn BatchSource,
    rate: f64,
    steps: u64,
    watch: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<(Vec<f64>, usize)> {
    let mut optimizer = Optimizer::new(options, net.params())?;
    let schedule = cosine(rate, steps);
    let mut losses = Vec::new();
    for step in 0..steps {
        watch(step)?;
        let Some(batch) = source.next()? else { break };
        net.params_mut().iter_mut().for_each(|param| param.grad.fill(0.0));
        let loss = net.accumulate(&batch, 1.0 / batch.counted().max(1) as f32)?;
        let clip = clip_factor(global_norm(Pool::global(), net.params()), Some(1.0));
        optimizer.step(net.params_mut(), schedule.rate(step), clip);
        net.stepped(loss.mean());
        losses.push(loss.mean());
    }
    Ok((losses, optimizer.bytes()))
}

fn mean_loss(net: &mut dyn Trainable, sequences: &[Vec<u32>]) -> Result<f64> {
    let mut sum = Loss::default();
    for sequences in sequences.chunks(32) {
        sum += net.loss(&Batch::next_token(sequences.iter().map(Vec::as_slice)))?;
    }
    Ok(if sum.mean().is_finite() { sum.mean() } else { f64::INFINITY })
}
