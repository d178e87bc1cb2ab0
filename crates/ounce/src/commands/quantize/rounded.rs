//! 8-bit floats and NF4, which leave nothing to choose: the writer of folders rounds to the nearest.

use std::path::Path;
use std::time::Instant;

use anyhow::bail;
use ounce_compress::quantize::{Plan, Preparation};
use ounce_model::Model;
use ounce_model::formats::WriteOptions;

use super::super::convert::{forecast, print_forecast, write_as_forecast};
use super::{Args, MethodName, Report, closing, open_store, prepare, training};
use crate::cli::Globals;

/// Writes `shaped`, the model made ready for its preparations, and compares what was written with `original`. Gives nothing if
/// only a forecast was asked for.
///
/// # Errors
/// If a flag asks for choices that the format does not leave, and as [`super::make`].
pub fn make(
    args: &Args,
    globals: &Globals,
    original: &Model,
    shaped: Model,
    steps: &[Preparation],
    target: &Path,
    options: &WriteOptions,
) -> anyhow::Result<Option<Report>> {
    if args.method.is_some_and(|method| method != MethodName::Round) {
        bail!(
            "8-bit floats and NF4 are rounded to the nearest; leave out --method, or choose groups (g4_64, g8_128)"
        );
    }
    if args.training.is_asked() {
        bail!("--train needs matrices in blocks with scales, such as q2_k or g2_64; choose such a --type");
    }
    if args.imatrix.is_some() || args.save_imatrix.is_some() {
        bail!("8-bit floats and NF4 take no importance matrix; leave out --imatrix and --save-imatrix");
    }
    if args.dry_run {
        print_forecast(&forecast(&shaped, target, options)?, target, globals)?;
        return Ok(None);
    }
    // Before a text is read: a target that can't be made should not cost the time.
    let planned = forecast(&shaped, target, options)?;
    let calibration = match steps.iter().any(Preparation::needs_calibration) {
        true => args.texts.calibration.sequences(original)?,
        false => Vec::new(),
    };
    let start = Instant::now();
    let plan = Plan::default();
    let (store, _) = open_store(args, target, steps, original, &plan, &calibration)?;
    let prepared = prepare::apply(steps, shaped, &plan, &calibration, &store)?;
    let planned = if steps.is_empty() { planned } else { forecast(&prepared, target, options)? };
    let bytes = write_as_forecast(&prepared, target, options, &planned);
    // What rounding took is not worth keeping for another run; what preparing took is.
    if steps.is_empty() || bytes.is_ok() {
        store.remove()?;
    }
    let bytes = bytes?;
    let seconds = start.elapsed().as_secs_f64();
    let written = Model::open(target)?;
    Ok(Some(Report {
        model: args.model.clone(),
        target: target.to_owned(),
        method: MethodName::Round,
        prepare: steps.iter().map(Preparation::name).collect(),
        calibration_tokens: calibration.iter().map(Vec::len).sum(),
        matrices: Vec::new(),
        training: training::Report::default(),
        seconds,
        closing: closing::compare(original, &written, &args.texts.test, bytes)?,
    }))
}
