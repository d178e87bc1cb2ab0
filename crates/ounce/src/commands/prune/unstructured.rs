//! Single weights become zero; shapes stay.

use ounce_compress::prune::{self, Criterion, Sparsity, sparsegpt};
use ounce_model::Model;

use super::{Args, MethodName, Removed};
use crate::interrupt::Watch;
use crate::progress::{Progress, Unit};

/// The model with zeros, and how many.
///
/// # Errors
/// If a matrix is stored in blocks or can't be read, or the user stops the work.
pub fn prune(args: &Args, model: &Model, calibration: Vec<Vec<u32>>) -> anyhow::Result<(Model, Removed)> {
    let names = prune::matrices(model)?;
    if args.training.is_sparse() {
        let trained = args.training.sparse(model, &calibration, args.target.ratio.unwrap_or(0.0))?;
        let removed = zeros(&trained, &names)?;
        return Ok((trained, removed));
    }
    let sparsity = args.target.pattern.unwrap_or(Sparsity::Share(args.target.ratio.unwrap_or(0.0)));
    let criterion = match args.method {
        MethodName::Wanda => Criterion::Wanda,
        MethodName::Sparsegpt => Criterion::SparseGpt(sparsegpt::Options::default()),
        _ => Criterion::Magnitude,
    };
    let watch = Watch::start();
    let mut bar = Progress::new("pruning", Unit::Share);
    let weights = prune::prune(model, &names, criterion, sparsity, calibration, &mut |done, total| {
        bar.set(done as u64, total as u64);
        Ok(watch.check()?)
    })?;
    let pruned = Model { weights, ..model.clone() };
    let removed = zeros(&pruned, &names)?;
    Ok((pruned, removed))
}

/// How many of these matrices' weights are zero.
fn zeros(model: &Model, names: &[String]) -> anyhow::Result<Removed> {
    let (mut zeros, mut all) = (0u64, 0u64);
    for name in names {
        let values = model.weights.f32(name)?;
        zeros += values.iter().filter(|value| **value == 0.0).count() as u64;
        all += values.len() as u64;
    }
    Ok(Removed {
        parameters: [model.spec.parameters(); 2],
        share: zeros as f64 / all.max(1) as f64,
        layers: Vec::new(),
        stream: [model.spec.hidden_size; 2],
    })
}
