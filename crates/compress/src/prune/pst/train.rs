//! Fine-tuning while masks grow.

use ounce_model::Model;
use ounce_train::data::BatchSource;
use ounce_train::graph::{GraphNet, Slot};
use ounce_train::methods::workbench::cosine;
use ounce_train::net::Options as NetOptions;
use ounce_train::optim::{self, Optimizer};
use ounce_train::{Param, Trainable};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::slot::{PrunedSlot, Share};
use crate::prune::gradual::Schedule;
use crate::prune::learning::{accumulate, check_share, descend, is_head};
use crate::{Error, Result};

/// What learns, and what decides on weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Small matrices for the change and for the importance.
    Pst {
        /// `r₁`, of the change.
        rank: usize,
        /// `r₂`, of the importance.
        score_rank: usize,
    },
    /// A change of low rank; sizes decide, again at every step.
    Gradual {
        /// Of the change.
        rank: usize,
    },
    /// A change of low rank; sizes at first decide, once.
    AtOnce {
        /// Of the change.
        rank: usize,
    },
    /// All weights of the layers, and a score for each.
    Movement,
}

/// How a model is pruned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// What learns.
    pub way: Way,
    /// The share of each of the layers' matrices that becomes zero, from 0 to below 1.
    pub sparsity: f64,
    /// Steps.
    pub steps: u64,
    /// The parts of the steps before the share rises and after it has risen.
    pub still: [f64; 2],
    /// The highest learning rate; it falls along half a cosine.
    pub rate: f64,
    /// Seed of what is drawn.
    pub seed: u64,
}

/// What became of a model.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The model with zeros, everything else folded in.
    pub model: Model,
    /// Numbers that learned in the layers.
    pub trained: usize,
    /// Bytes of what the optimizer remembered of them.
    pub state_bytes: usize,
}

/// Fine-tunes and prunes. The matrices of layers get zeros; what is behind the layers learns as it is, embeddings stay. `progress` is told
/// the steps done and in all.
///
/// # Errors
/// If an option is out of its range, the data ends or doesn't fit, the loss is no number, or `progress` stops the work.
pub fn prune(
    model: &Model,
    source: &mut dyn BatchSource,
    options: &Options,
    progress: &mut dyn FnMut(u64, u64) -> Result<()>,
) -> Result<Outcome> {
    check_share(options.sparsity)?;
    let [before, after] = options.still.map(|part| (part * options.steps as f64) as u64);
    let Some(times) = options.steps.checked_sub(before + after).filter(|it| *it > 0) else {
        let what = format!("{} steps leave none for the share to rise in; give more", options.steps);
        return Err(Error::Option(what));
    };
    let schedule = match options.way {
        Way::AtOnce { .. } => Schedule::at_once(options.sparsity, 0),
        _ => Schedule { last: options.sparsity, start: before, every: 1, times: times - 1 },
    };
    let share = Share::default();
    let mut net = network(model, options, &share)?;
    let mut optimizer =
        Optimizer::new(optim::Options { weight_decay: 0.0, ..Default::default() }, net.params())?;
    let rates = cosine(options.rate, options.steps);
    for step in 0..options.steps {
        progress(step, options.steps)?;
        if let Some(now) = schedule.at(step) {
            share.set(now);
        }
        let Some(batch) = source.next()? else {
            return Err(Error::Option(format!("the data ends after {step} of {} steps", options.steps)));
        };
        accumulate(&mut net, &batch)?;
        descend(&mut net, &mut optimizer, rates.rate(step));
    }
    progress(options.steps, options.steps)?;
    let learns = |param: &&Param| param.is_trainable() && param.name.starts_with("layers.");
    let trained: usize = net.params().iter().filter(learns).map(|param| param.value.len()).sum();
    // Two moments of four bytes each.
    Ok(Outcome { model: net.model()?, trained, state_bytes: 8 * trained })
}

/// The network with masked layers.
pub(super) fn network(model: &Model, options: &Options, share: &Share) -> Result<GraphNet> {
    let mut random = ChaCha8Rng::seed_from_u64(options.seed);
    let all = options.way == Way::Movement;
    let trains = |name: &str| is_head(name) || (all && name.starts_with("layers."));
    Ok(GraphNet::with_frozen(model, NetOptions::default(), &trains, &mut |name, linear| {
        Ok(match name.starts_with("layers.") {
            true => {
                let slot = PrunedSlot::new(name, linear, options.way, share.clone(), &mut random)?;
                Box::new(slot) as Box<dyn Slot>
            }
            false => Box::new(linear),
        })
    })?)
}
