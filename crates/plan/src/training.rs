//! Training of the small networks that demonstrations here stand on, batches made by a function.

use ounce_kernels::pool::Pool;
use ounce_train::config::{self, Preset};
use ounce_train::loss::{Distillation, Predictions};
use ounce_train::net::{Net, Options};
use ounce_train::optim::norm::{clip_factor, global_norm};
use ounce_train::optim::{self, Optimizer};
use ounce_train::schedule::Schedule;
use ounce_train::{Batch, Result, Trainable};

/// A network of two layers with heads of 8.
///
/// # Errors
/// If the width is no multiple of 8.
pub(crate) fn network(width: usize, vocabulary: usize, context: usize, seed: u64) -> Result<Net> {
    let shape = config::Model {
        preset: Preset::Llama,
        hidden: width,
        layers: 2,
        heads: width / 8,
        context,
        ..config::Model::default()
    };
    Net::random(&shape.bare(vocabulary)?, Options::default(), shape.initial(), seed)
}

/// Is shown the network, and the share of steps that are done.
pub(crate) type Behind<'g> = dyn FnMut(&mut Net, f64) + 'g;

/// What a training is led by besides its batches.
#[derive(Default)]
pub(crate) struct Guidance<'g> {
    /// Its predictions are to be learned in the place of the targets.
    pub teacher: Option<&'g mut Net>,
    /// Is called behind every step.
    pub behind: Option<&'g mut Behind<'g>>,
}

/// Trains any network on the batches' own targets, as [`train`] does.
///
/// # Errors
/// If a batch doesn't fit the network.
pub(crate) fn train_any(
    net: &mut dyn Trainable,
    schedule: Schedule,
    batch: &mut dyn FnMut() -> Batch,
) -> Result<()> {
    let mut optimizer = Optimizer::new(optim::Options::default(), net.params())?;
    for step in 0..schedule.total {
        let batch = batch();
        net.params_mut().iter_mut().for_each(|param| param.grad.fill(0.0));
        net.accumulate(&batch, 1.0 / batch.counted().max(1) as f32)?;
        let clip = clip_factor(global_norm(Pool::global(), net.params()), Some(1.0));
        optimizer.step(net.params_mut(), schedule.rate(step), clip);
    }
    Ok(())
}

/// Trains with AdamW, gradients clipped to 1.
///
/// # Errors
/// If a batch doesn't fit the network.
pub(crate) fn train(
    net: &mut Net,
    schedule: Schedule,
    batch: &mut dyn FnMut() -> Batch,
    mut guidance: Guidance<'_>,
) -> Result<()> {
    let mut optimizer = Optimizer::new(optim::Options::default(), net.params())?;
    for step in 0..schedule.total {
        let batch = batch();
        net.params_mut().iter_mut().for_each(|param| param.grad.fill(0.0));
        let scale = 1.0 / batch.counted().max(1) as f32;
        match &mut guidance.teacher {
            None => net.accumulate(&batch, scale)?,
            Some(teacher) => {
                let mut predictions = Predictions::default();
                teacher.run(&batch, None, &mut predictions)?;
                net.run(&batch, Some(scale), &mut Distillation::new(&predictions))?
            }
        };
        let clip = clip_factor(global_norm(Pool::global(), net.params()), Some(1.0));
        optimizer.step(net.params_mut(), schedule.rate(step), clip);
        if let Some(behind) = &mut guidance.behind {
            behind(net, (step + 1) as f64 / schedule.total as f64);
        }
    }
    Ok(())
}
