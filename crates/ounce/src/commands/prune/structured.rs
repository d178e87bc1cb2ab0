//! Whole parts leave.

use ounce_compress::prune::amoeba;
use ounce_compress::prune::structured::choose::{choose_stream, keep_layers};
use ounce_compress::prune::structured::{
    Cut, Limits, Scores, choose, choose_layers, compensate, groups, influence, saliency,
};
use ounce_model::{Model, Spec};

use super::{Args, MethodName, Removed, ScoreName, Shape};
use crate::interrupt::Watch;
use crate::progress::{Progress, Unit};

/// The model that is left, and what is not.
///
/// # Errors
/// If nothing as small can be cut, a weight can't be read, or the user stops the work.
pub fn prune(args: &Args, model: &Model, calibration: Vec<Vec<u32>>) -> anyhow::Result<(Model, Removed)> {
    if let Some(file) = &args.shapes {
        let (trained, losses) = amoeba::file::read(model, file)?;
        let most = model.spec.parameters().saturating_sub(args.wanted().weights_to_remove(&model.spec)?);
        let shape = amoeba::file::within(&trained, &losses, most)?;
        let cut = trained.elastic.cut(shape);
        let removed = removed(&model.spec, &cut.spec(&model.spec, false)?, &cut.kept_layers());
        return Ok((trained.extract(shape)?, removed));
    }
    if let Some(copies) = args.target.copies {
        let small = args.training.echo(model, &calibration, copies as usize)?;
        let all: Vec<usize> = (0..model.spec.layers.len()).collect();
        let removed = removed(&model.spec, &small.spec, &all);
        return Ok((small, removed));
    }
    if args.training.is_asked() {
        let most = model.spec.parameters().saturating_sub(args.wanted().weights_to_remove(&model.spec)?);
        let small = args.training.shrink(model, &calibration, most, args.multiple as usize)?;
        let all: Vec<usize> = (0..model.spec.layers.len()).collect();
        let removed = removed(&model.spec, &small.spec, &all);
        return Ok((small, removed));
    }
    let cut = chosen(args, model, &calibration)?;
    let answers =
        !args.no_answer && !args.dry_run && cut.stream.is_none() && args.method != MethodName::Layers;
    let pruned = if answers {
        let weights = with_bar("fitting what stays", |progress| {
            compensate::compensate(model, &cut, calibration, progress)
        })?;
        cut.apply(&Model { weights, ..model.clone() })?
    } else {
        cut.apply(model)?
    };
    let removed = removed(&model.spec, &cut.spec(&model.spec, false)?, &cut.kept_layers());
    Ok((pruned, removed))
}

/// Which parts stay.
fn chosen(args: &Args, model: &Model, calibration: &[Vec<u32>]) -> anyhow::Result<Cut> {
    let spec = &model.spec;
    if args.method == MethodName::Layers {
        let found = with_bar("looking at layers", |progress| {
            influence::influence(model, calibration.to_vec(), progress)
        })?;
        return Ok(match args.target.layers {
            Some(kept) => keep_layers(spec, &found, kept)?,
            None => choose_layers(spec, &found, args.wanted())?,
        });
    }
    let stream = args.method == MethodName::Stream;
    possible(args, spec)?;
    let scores: Scores = match args.score {
        ScoreName::Taylor => with_bar("looking at gradients", |progress| {
            saliency::taylor(model, calibration, stream, progress)
        })?,
        ScoreName::Activation => with_bar("looking at activations", |progress| {
            saliency::activation(model, calibration.to_vec(), progress)
        })?,
        ScoreName::Magnitude => saliency::magnitude(model, stream)?,
    };
    let multiple = args.multiple as usize;
    if stream {
        return Ok(choose_stream(spec, &scores.stream, args.wanted(), multiple)?);
    }
    Ok(choose(spec, &scores, args.wanted(), &limits(args))?)
}

fn limits(args: &Args) -> Limits {
    Limits {
        heads: args.method != MethodName::Channels,
        channels: args.method != MethodName::Heads,
        multiple: args.multiple as usize,
        uniform: args.uniform,
        ..Limits::default()
    }
}

/// Refuses what can't be cut before anything is looked at: any scores show that as well as true ones.
fn possible(args: &Args, spec: &Spec) -> anyhow::Result<()> {
    if args.method == MethodName::Stream {
        groups::check(spec, groups::Unit::Stream { channel: 0 })?;
        return Ok(choose_stream(spec, &vec![0.0; spec.hidden_size], args.wanted(), args.multiple as usize)
            .map(drop)?);
    }
    Ok(choose(spec, &Scores::zeros(spec, true), args.wanted(), &limits(args)).map(drop)?)
}

/// Does work that tells its steps with a bar.
///
/// # Errors
/// Those of the work.
pub fn with_bar<T>(
    what: &str,
    work: impl FnOnce(&mut dyn FnMut(usize, usize) -> ounce_compress::Result<()>) -> ounce_compress::Result<T>,
) -> anyhow::Result<T> {
    let watch = Watch::start();
    let mut bar = Progress::new(what, Unit::Share);
    Ok(work(&mut |done, total| {
        bar.set(done as u64, total as u64);
        Ok(watch.check()?)
    })?)
}

/// What a spec lost to another; `kept` are the numbers that the layers of the second have in the first.
fn removed(whole: &Spec, left: &Spec, kept: &[usize]) -> Removed {
    let of_layers = |spec: &Spec| -> u64 {
        let own = spec.tensors().into_iter().filter(|tensor| tensor.name.starts_with("layers."));
        own.map(|tensor| tensor.shape.iter().product::<usize>() as u64).sum()
    };
    let counts = |spec: &Spec, layer: usize| {
        let heads = groups::attention(spec, layer).map_or((0, 0), |it| (it.heads, it.kv_heads));
        (heads.0, heads.1, groups::mlp(spec, layer).map_or(0, |it| it.width))
    };
    let layers = (0..whole.layers.len()).map(|layer| {
        let place = kept.iter().position(|&it| it == layer);
        let before = counts(whole, layer);
        let after = place.map_or((0, 0, 0), |place| counts(left, place));
        Shape {
            layer,
            stays: place.is_some(),
            heads: [before.0, after.0],
            kv_heads: [before.1, after.1],
            channels: [before.2, after.2],
        }
    });
    Removed {
        parameters: [whole.parameters(), left.parameters()],
        share: 1.0 - of_layers(left) as f64 / of_layers(whole).max(1) as f64,
        layers: layers.collect(),
        stream: [whole.hidden_size, left.hidden_size],
    }
}
