//! Training of what is left.

use ounce_model::Model;
use ounce_train::Trainable;
use ounce_train::methods::workbench;
use ounce_train::net::{Net, Options as NetOptions};
use ounce_train::optim::{self, Optimizer};

use super::lora::{Adapter, is_adapted};
use super::train::{Options, prompted};
use crate::Result;
use crate::prune::learning::{Shuffled, accumulate, descend};
use crate::quantize::training::adam::cosine;
use crate::stages::not_empty;

/// Trains adapters of a model on its own for the steps of healing: what methods that cut at once are healed with too.
///
/// # Errors
/// As `prune`.
pub fn adapt(
    model: &Model,
    sequences: &[Vec<u32>],
    options: &Options,
    progress: &mut dyn FnMut(u64, u64) -> Result<()>,
) -> Result<Model> {
    not_empty(sequences)?;
    let mut text = Shuffled::new(sequences, options.seed);
    heal(model, &mut text, options, &mut |step| progress(step, options.heal_steps))
}

pub(super) fn heal(
    model: &Model,
    text: &mut Shuffled<'_>,
    options: &Options,
    progress: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<Model> {
    let mut net = Net::with_frozen(model, NetOptions::default(), &is_adapted)?;
    let mut adapters = Adapter::all(net.params(), options.rank, options.seed);
    for step in 0..options.heal_steps {
        progress(step)?;
        accumulate(&mut net, &prompted(text, options))?;
        let rate = options.adapter_rate * cosine(step, options.heal_steps);
        for adapter in &mut adapters {
            adapter.step(net.params(), rate, 1.0, step + 1);
            adapter.write(net.params_mut());
        }
    }
    Ok(net.model()?)
}

/// Trains all weights.
pub(super) fn heal_all(
    model: &Model,
    text: &mut Shuffled<'_>,
    rate: f64,
    options: &Options,
    progress: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<Model> {
    let mut net = Net::from_model(model, NetOptions::default())?;
    let settings = optim::Options { weight_decay: 0.0, ..optim::Options::default() };
    let mut optimizer = Optimizer::new(settings, net.params())?;
    let schedule = workbench::cosine(rate, options.heal_steps);
    for step in 0..options.heal_steps {
        progress(step)?;
        accumulate(&mut net, &prompted(text, options))?;
        descend(&mut net, &mut optimizer, schedule.rate(step));
    }
    Ok(net.model()?)
}
