//! One training run for many shapes, which are cut out later.

use anyhow::bail;
use ounce_compress::prune::amoeba;
use ounce_model::Model;
use serde::Serialize;

use super::super::convert::is_gguf;
use super::Args;
use crate::cli::Globals;
use crate::failure::Outcome;
use crate::interrupt::Watch;
use crate::progress::{Progress, Unit};
use crate::{output, source, units};

/// A shape that can be cut out of a model now.
#[derive(Debug, Clone, Copy, Serialize)]
struct AnyShape {
    /// Layers that stay.
    layers: usize,
    /// Share of heads and channels that stays.
    width: f64,
    /// Parameters of the shape, embedding and head included.
    parameters: u64,
    /// Nats a token on calibration text.
    loss: f64,
}

/// Trains adapters for many shapes and writes their file.
///
/// # Errors
/// If no share or no such target was named, the model can't be trained or cut, the file can't be written, or the user stops the work.
pub fn train(args: &Args, globals: &Globals) -> anyhow::Result<Outcome> {
    args.check()?;
    let Some(share) = args.target.ratio else {
        bail!(
            "--train amoeba trains shapes down to a smallest one; say which share of the layers' weights that loses, with --ratio"
        );
    };
    if is_gguf(&args.output) || args.output.is_dir() {
        bail!(
            "--train amoeba writes a file of shapes, from which prune --shapes cuts models; name it so, such as -o any.shapes"
        );
    }
    if args.output.exists() && !args.force {
        bail!("{} exists; name another target, or replace it with --force", args.output.display());
    }
    let model = source::open(&args.model)?;
    let calibration = args.training.ordered(args.texts.calibration.sequences(&model)?);
    let shapes = trained(args, &model, &calibration, share)?;
    if globals.json {
        output::json(&serde_json::json!({"target": args.output, "shapes": shapes}))?;
        return Ok(Outcome::Done);
    }
    let mut table = output::table(&["layers", "width", "parameters", "loss on calibration text"]);
    for shape in &shapes {
        table.add_row([
            shape.layers.to_string(),
            shape.width.to_string(),
            units::count(shape.parameters),
            format!("{:.4}", shape.loss),
        ]);
    }
    output::print_table(&table)?;
    output::line(format!("{}: {} shapes; cut one out with --shapes", args.output.display(), shapes.len()))?;
    Ok(Outcome::Done)
}

/// Trains adapters for all shapes down to one that loses this share of the layers' weights, with a bar, and writes their file. Gives the
/// shapes, their parameters and losses.
///
/// # Errors
/// If the model can't be trained or cut, the file can't be written, or the user stops the work.
fn trained(args: &Args, model: &Model, text: &[Vec<u32>], share: f64) -> anyhow::Result<Vec<AnyShape>> {
    /// Tokens by which layers, heads and channels are chosen, and shapes compared.
    const LOOKED_AT: usize = 16_384;
    let settings =
        amoeba::file::settings(model, share, args.multiple as usize, args.training.widths(args.uniform))?;
    let (steps, rate) = args.training.course();
    let mut seen = 0;
    let shown = text.iter().take_while(|ids| {
        seen += ids.len();
        seen <= LOOKED_AT.max(ids.len())
    });
    let shown: Vec<Vec<u32>> = shown.cloned().collect();
    let watch = Watch::start();
    let mut bar = Progress::new("looking at layers", Unit::Share);
    let elastic = amoeba::Elastic::find(model, &settings, &shown, &mut |done| {
        bar.set((done * 1000.0) as u64, 1000);
        Ok(watch.check()?)
    })?;
    drop(bar);
    let usual = amoeba::Options::default();
    let options = amoeba::Options {
        steps,
        rate: rate.unwrap_or(usual.rate),
        seed: usual.seed + args.training.seed(),
        ..usual
    };
    let mut bar = Progress::new("training", Unit::Items);
    let trained = amoeba::train(elastic, text, &options, &mut |done, total| {
        bar.set(done, total);
        Ok(watch.check()?)
    })?;
    drop(bar);
    let losses = trained.losses(&shown)?;
    amoeba::file::write(&trained, &losses, &args.output)?;
    let widths = &trained.elastic.settings.widths;
    let shapes = trained.elastic.shapes().into_iter().zip(losses);
    shapes
        .map(|(shape, loss)| {
            Ok(AnyShape {
                layers: model.spec.layers.len() - shape.removed,
                width: widths[shape.width],
                parameters: trained.elastic.parameters(shape)?,
                loss,
            })
        })
        .collect()
}
