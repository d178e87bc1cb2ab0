//! Training that shrinks the model: steps, and every few of them units that leave.

use std::collections::HashMap;

use ounce_model::{Model, Spec};
use ounce_train::methods::workbench;
use ounce_train::net::{Net, Options as NetOptions};
use ounce_train::optim::{self, Optimizer};
use ounce_train::{Batch, Param, Trainable};

use super::fisher::Fisher;
use crate::prune::learning::{Shuffled, accumulate, descend};
use crate::prune::structured::compensate::compensate;
use crate::prune::structured::cut::Moved;
use crate::prune::structured::{Cut, Limits, Scores, choose, saliency};
use crate::stages::not_empty;
use crate::{Error, Result};

/// Steps whose text what stays is fitted on.
const FITTED_ON: usize = 4;

/// How units are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// By `Fisher::worth_of_factors`: the Fisher information of a factor on the unit.
    Factors,
    /// By `Fisher::worth`: the diagonal of the Fisher matrix of its weights.
    Fisher,
    /// By the norm of a unit's weights, for comparison.
    Magnitude,
}

/// How a model is trained while it shrinks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Steps in all.
    pub steps: u64,
    /// Share of them, from the first on, within which units leave.
    pub pruning: f64,
    /// Steps from one time that units leave to the next.
    pub every: u64,
    /// Tokens of a step, at least; whole sequences.
    pub tokens: usize,
    /// The highest learning rate; it falls along half a cosine.
    pub rate: f64,
    /// How units are chosen.
    pub choice: Choice,
    /// Whether what stays answers for what leaves.
    pub correct: bool,
    /// Whether channels of the stream may leave, where the model allows it.
    pub stream: bool,
    /// Channels leave in blocks of this many, and stay in multiples of it.
    pub multiple: usize,
    /// What of the averages of gradients a step leaves.
    pub decay: f32,
    /// Seed of the order of sequences.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            steps: 400,
            pruning: 0.25,
            every: 10,
            tokens: 2048,
            rate: 1e-3,
            choice: Choice::Factors,
            correct: true,
            stream: true,
            multiple: 8,
            decay: 0.95,
            seed: 0,
        }
    }
}

/// A time at which units left.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Steps done before.
    pub step: u64,
    /// Parameters behind it.
    pub parameters: u64,
}

/// Parameters that may be left after `step`: down to `target` along `1 − (1 − t)³`.
pub(super) fn allowed(whole: u64, target: u64, step: u64, last: u64) -> u64 {
    let left = 1.0 - (step as f64 / last.max(1) as f64).min(1.0);
    target + ((whole - target) as f64 * left.powi(3)) as u64
}

/// Trains on token ids, one list a sequence, until at most `target` parameters are left and all steps are done. `progress` is told the steps
/// done and in all.
///
/// # Errors
/// If the target can't be reached, there is no text, the model can't be trained, the loss is no number, or `progress` stops the work.
pub fn shrink(
    model: &Model,
    sequences: &[Vec<u32>],
    target: u64,
    options: &Options,
    progress: &mut dyn FnMut(u64, u64) -> Result<()>,
) -> Result<(Model, Vec<Event>)> {
    not_empty(sequences)?;
    let whole = model.spec.parameters();
    if options.steps == 0 {
        return Err(Error::Option("a model shrinks while it trains; allow one step at least".into()));
    }
    if target >= whole {
        return Err(Error::Option(format!(
            "the model has {whole} parameters, which is no more than the {target} that are asked for"
        )));
    }
    let scores = Scores { stream: vec![0.0; model.spec.hidden_size], ..Scores::zeros(&model.spec, true) };
    cheapest(&model.spec, &scores, target, options)?;
    Run::new(model, sequences, options)?.go(Some(target), options, progress)
}

/// A training run, and what it remembers.
struct Run<'s> {
    net: Net,
    optimizer: Optimizer,
    fisher: Fisher,
    order: Shuffled<'s>,
    tokens: usize,
}

impl<'s> Run<'s> {
    fn new(model: &Model, sequences: &'s [Vec<u32>], options: &Options) -> Result<Run<'s>> {
        let net = Net::from_model(model, NetOptions::default())?;
        let optimizer = Optimizer::new(optim::Options::default(), net.params())?;
        let fisher = Fisher::new(&model.spec, net.params(), options.decay);
        let order = Shuffled::new(sequences, options.seed);
        Ok(Run { net, optimizer, fisher, order, tokens: options.tokens })
    }

    /// One step; gives its sequences.
    fn step(&mut self, rate: f64) -> Result<Vec<&'s [u32]>> {
        let Run { net, optimizer, fisher, order, tokens } = self;
        let own = order.next(*tokens);
        let batch = Batch::next_token(own.iter().copied());
        accumulate(net, &batch)?;
        fisher.see(&net.skeleton().spec, net.params(), batch.counted());
        descend(net, optimizer, rate);
        Ok(own)
    }

    /// All steps, and what leaves on the way.
    fn go(
        mut self,
        target: Option<u64>,
        options: &Options,
        progress: &mut dyn FnMut(u64, u64) -> Result<()>,
    ) -> Result<(Model, Vec<Event>)> {
        let schedule = workbench::cosine(options.rate, options.steps);
        let last = ((options.steps as f64 * options.pruning) as u64).clamp(1, options.steps.max(1));
        let whole = self.net.skeleton().spec.parameters();
        let mut events = Vec::new();
        let mut recent: Vec<Vec<&[u32]>> = Vec::new();
        for step in 0..options.steps {
            progress(step, options.steps)?;
            if recent.len() == FITTED_ON {
                recent.remove(0);
            }
            recent.push(self.step(schedule.rate(step))?);
            let done = step + 1;
            let Some(target) =
                target.filter(|_| done <= last && (done % options.every.max(1) == 0 || done == last))
            else {
                continue;
            };
            let most = allowed(whole, target, done, last);
            if self.net.skeleton().spec.parameters() > most {
                let left = leave(&self.net, &self.optimizer, &self.fisher, &recent.concat(), most, options)?;
                (self.net, self.optimizer, self.fisher) = left;
                events.push(Event { step: done, parameters: self.net.skeleton().spec.parameters() });
            }
        }
        progress(options.steps, options.steps)?;
        Ok((self.net.model()?, events))
    }
}

/// The model without all units that are to leave at once: chosen by the gradients of so many steps' text without a change of weights.
///
/// # Errors
/// As `shrink`.
pub fn leave_at_once(model: &Model, sequences: &[Vec<u32>], target: u64, options: &Options) -> Result<Model> {
    not_empty(sequences)?;
    let mut net = Net::from_model(model, NetOptions::default())?;
    let optimizer = Optimizer::new(optim::Options::default(), net.params())?;
    let mut fisher = Fisher::new(&model.spec, net.params(), options.decay);
    let mut order = Shuffled::new(sequences, options.seed);
    let mut recent = Vec::new();
    for _ in 0..options.every {
        let own = order.next(options.tokens);
        let batch = Batch::next_token(own.iter().copied());
        accumulate(&mut net, &batch)?;
        fisher.see(&model.spec, net.params(), batch.counted());
        recent.extend(own);
    }
    leave(&net, &optimizer, &fisher, &recent, target, options)?.0.model().map_err(Error::from)
}

/// Trains without a cut, on the same sequences in the same order.
///
/// # Errors
/// As `shrink`.
pub fn train(
    model: &Model,
    sequences: &[Vec<u32>],
    options: &Options,
    progress: &mut dyn FnMut(u64, u64) -> Result<()>,
) -> Result<Model> {
    not_empty(sequences)?;
    Ok(Run::new(model, sequences, options)?.go(None, options, progress)?.0)
}

/// The network without the units that are worth least, of at most so many parameters, with what training remembers of the rest.
pub(super) fn leave(
    net: &Net,
    optimizer: &Optimizer,
    fisher: &Fisher,
    recent: &[impl AsRef<[u32]>],
    most: u64,
    options: &Options,
) -> Result<(Net, Optimizer, Fisher)> {
    let model = net.model()?;
    let spec = &model.spec;
    let scores = match options.choice {
        Choice::Factors => fisher.worth_of_factors(),
        Choice::Fisher => fisher.worth(spec, net.params()),
        Choice::Magnitude => saliency::magnitude(&model, options.stream)?,
    };
    let cut = cheapest(spec, &scores, most, options)?;
    let inner = Cut { stream: None, ..cut.clone() };
    let mended = match options.correct && inner != Cut::nothing(spec) {
        true => compensate(
            &model,
            &inner,
            recent.iter().map(|ids| ids.as_ref().to_vec()).collect(),
            &mut |_, _| Ok(()),
        )?,
        false => model.weights.clone(),
    };
    let small = cut.apply(&Model { weights: mended, ..model.clone() })?;
    let next = Net::from_model(&small, NetOptions::default())?;
    let moved: HashMap<String, Moved> =
        cut.moved(spec, false)?.into_iter().map(|moved| (moved.name.clone(), moved)).collect();
    let mut memory = Optimizer::new(optim::Options::default(), next.params())?;
    memory.set_steps(optimizer.steps());
    let old: HashMap<String, &[u8]> = optimizer
        .slots(net.params())
        .into_iter()
        .map(|slot| (format!("{}.{}", slot.param, slot.part), slot.bytes))
        .collect();
    let shapes: HashMap<&str, &Param> =
        net.params().iter().map(|param| (param.name.as_str(), param)).collect();
    for slot in memory.slots_mut(next.params()) {
        let Some((name, part)) = slot.name.rsplit_once('.') else { continue };
        let Some((moved, param)) = moved.get(name).and_then(|it| Some((it, shapes.get(it.from.as_str())?)))
        else {
            continue;
        };
        if let Some(bytes) = old.get(&format!("{}.{part}", moved.from)) {
            let values: Vec<f32> =
                bytes.chunks_exact(4).map(|it| f32::from_le_bytes([it[0], it[1], it[2], it[3]])).collect();
            let taken = moved.keep.take(&values, &param.shape);
            slot.bytes
                .chunks_exact_mut(4)
                .zip(taken)
                .for_each(|(bytes, value)| bytes.copy_from_slice(&value.to_le_bytes()));
        }
    }
    let mut averages =
        Fisher { first: Vec::new(), second: Vec::new(), factors: fisher.factors_of(&cut), ..*fisher };
    for param in next.params() {
        let from = moved.get(&param.name);
        let at = from.and_then(|moved| net.params().iter().position(|old| old.name == moved.from));
        let take = |all: &[Vec<f32>]| match (from, at) {
            (Some(moved), Some(at)) if !all[at].is_empty() => {
                moved.keep.take(&all[at], &net.params()[at].shape)
            }
            _ => Vec::new(),
        };
        averages.first.push(take(&fisher.first));
        averages.second.push(take(&fisher.second));
    }
    Ok((next, memory, averages))
}

/// The cut to at most so many parameters by the blocks that are worth least for their weights, heads, channels and the stream's
/// together.
fn cheapest(spec: &Spec, scores: &Scores, most: u64, options: &Options) -> Result<Cut> {
    let limits = Limits { multiple: options.multiple, ..Limits::default() };
    let stream = if options.stream { options.multiple } else { 0 };
    let mut blocks = choose::blocks(spec, scores, &limits, stream)?.into_iter();
    let mut cut = Cut::nothing(spec);
    loop {
        let left = cut.spec(spec, false)?.parameters();
        if left <= most {
            return Ok(cut);
        }
        let Some(block) = blocks.next() else {
            return Err(Error::Option(format!(
                "{most} parameters are too few: with what must stay the model has {left}; ask for more"
            )));
        };
        block.into_iter().for_each(|unit| cut.remove(spec, unit));
    }
}
