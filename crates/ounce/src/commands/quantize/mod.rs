//! `ounce quantize`: fewer bits a weight at the least loss.

mod closing;
mod formats;
mod texts;
mod training;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use ounce_compress::Error as CompressError;
use ounce_compress::quantize::efficient_qat::block_ap::Trained;
use ounce_compress::quantize::gptq::{self, Order};
use ounce_compress::quantize::{Finished, Method, Plan, Quantizer, Store, Unit, units};
use ounce_kernels::DType;
use ounce_model::Model;
use ounce_model::formats::{Forecast, WriteOptions, gguf_model, hf};
use serde::Serialize;
use serde_json::json;

use crate::cli::Globals;
use crate::failure::Outcome;
use crate::interrupt::Watch;
use crate::progress::{Progress, Unit as Counted};
use crate::{output, source, units as sizes};

/// Quantize a model: fewer bits a weight, at the least loss
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce quantize builtin -o tales.gguf --type q4_0
  ounce quantize ./folder -o model.gguf --bits 4 --calibration wiki.txt
  ounce quantize ./folder -o model.gguf --type q3_k --keep 'blk.*.attn_v.weight=q5_k' --keep output.weight=q8_0
  ounce quantize ./folder -o model.gguf --type q4_k --dry-run       formats and the exact size, without work
  ounce quantize ./folder -o model.gguf --method round              what llama-quantize would write
  ounce quantize ./folder -o small --bits 2 --group 64 --train both
Each matrix is rounded column by column, later columns answering the errors of earlier ones on calibration text
(GPTQ), and then mended code by code. Layers are done one behind the other, each on what the quantized ones before
it give. A run that is stopped goes on where it stopped when the same command is given again. The table at the end
compares with the original on text that calibration did not see.")]
pub struct Args {
    #[arg(help = source::MODEL_HELP)]
    model: String,
    /// The file ending in .gguf, or the folder, to be made
    #[arg(short, long, value_name = "TARGET")]
    output: PathBuf,
    #[command(flatten)]
    formats: formats::FormatArgs,
    /// How values become codes
    #[arg(long, value_enum, value_name = "METHOD", default_value = "gptq")]
    method: MethodName,
    /// Share of the mean of the inputs' second moments that is added to their diagonal
    #[arg(long, value_name = "SHARE", default_value_t = 0.01)]
    damping: f32,
    /// Round columns with large inputs first
    #[arg(long)]
    act_order: bool,
    /// Rounds of mending codes after GPTQ; 0 leaves what GPTQ gave
    #[arg(long, value_name = "N", default_value_t = 4)]
    descent: usize,
    #[command(flatten)]
    training: training::TrainingArgs,
    #[command(flatten)]
    texts: texts::TextArgs,
    /// Replace what is at the target
    #[arg(long)]
    force: bool,
    /// List formats and the size of the file, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// How values become codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MethodName {
    /// To the nearest, as llama-quantize without an importance matrix
    Round,
    /// To the nearest, with scales that fit best where inputs are large
    Weighted,
    /// Column by column with error feedback, then mended code by code
    Gptq,
}

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Report<'a> {
    model: String,
    target: &'a Path,
    method: MethodName,
    calibration_tokens: usize,
    matrices: Vec<Finished>,
    #[serde(flatten)]
    training: training::Report,
    seconds: f64,
    #[serde(flatten)]
    closing: closing::Closing,
}

pub(super) fn is_gguf(target: &Path) -> bool {
    target.extension().is_some_and(|it| it.eq_ignore_ascii_case("gguf"))
}

/// Runs the command.
///
/// # Errors
/// If the target exists, a format does not fit, calibration is impossible, or reading or writing fails.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    let model = source::open(&args.model)?;
    let units = units(&model)?;
    let plan = args.formats.plan(&model, &units, &args.output)?;
    let options = WriteOptions { overwrite: args.force, ..WriteOptions::default() };
    let forecast = forecast(&plan.placeholder(&model)?, &args.output, &options)?;
    if args.dry_run {
        return print_plan(&model, &units, &plan, &forecast, &args.output, globals);
    }
    let method = args.method()?;
    args.training.check(&plan)?;
    let calibration = match args.method {
        MethodName::Round if !args.training.is_asked() => Vec::new(),
        _ => args.texts.calibration(&model)?,
    };
    let calibration_tokens = calibration.iter().map(Vec::len).sum();
    let start = Instant::now();
    let (store, folder) = open_store(&args, &model, &plan, &calibration)?;
    let explained = |error| match matches!(error, CompressError::Model(ounce_model::Error::Interrupted)) {
        true => anyhow::Error::from(crate::failure::Interrupted)
            .context(format!("the same command goes on from what is in {}", folder.display())),
        false => error.into(),
    };
    let mut training = training::Report::default();
    let sequences = if args.training.scales() { calibration.clone() } else { Vec::new() };
    let work = Work { plan: &plan, method, store: &store, training: &args.training };
    let (weights, matrices) = work.quantize(&model, calibration, &mut training.layers).map_err(explained)?;
    let mut quantized = Model { weights, ..model.clone() };
    if args.training.scales() {
        let tuned = args.training.tune(&quantized, &sequences).map_err(explained)?;
        (quantized.weights, training.step_sizes) = (tuned.0, Some(tuned.1));
    }
    let bytes = write(&quantized, &args.output, &options)?;
    if bytes != forecast.bytes {
        bail!(
            "{} has {bytes} bytes where {} were forecast; please report this",
            args.output.display(),
            forecast.bytes
        );
    }
    let seconds = start.elapsed().as_secs_f64();
    let closing = closing::compare(&model, &quantized, &args.texts, bytes)?;
    drop(quantized);
    store.remove()?;
    let report = Report {
        model: args.model.clone(),
        target: &args.output,
        method: args.method,
        calibration_tokens,
        matrices,
        training,
        seconds,
        closing,
    };
    if globals.json {
        output::json(&report)?;
    } else {
        report.training.print()?;
        report.closing.print()?;
        output::line(format!("{}: {} in {seconds:.0} s", args.output.display(), sizes::bytes(bytes)))?;
    }
    Ok(Outcome::Done)
}

impl Args {
    fn method(&self) -> anyhow::Result<Method> {
        if !(self.damping > 0.0 && self.damping <= 10.0) {
            bail!("--damping should be above 0 and at most 10, found {}", self.damping);
        }
        let order = if self.act_order { Order::Activity } else { Order::Stored };
        Ok(match self.method {
            MethodName::Round => Method::Round,
            MethodName::Weighted => Method::Weighted,
            MethodName::Gptq => {
                Method::Gptq(gptq::Options { damping: self.damping, order, descent: self.descent })
            }
        })
    }
}

/// The folder of finished matrices beside the target, and all that they depend on.
fn open_store(
    args: &Args,
    model: &Model,
    plan: &Plan,
    calibration: &[Vec<u32>],
) -> anyhow::Result<(Store, PathBuf)> {
    let name = args.output.file_name().with_context(|| format!("{} names no file", args.output.display()))?;
    let folder = args.output.with_file_name(format!(".{}.partial", name.to_string_lossy()));
    // A sum over all ids that depends on their order.
    let text = calibration.iter().flatten().fold(0xcbf2_9ce4_8422_2325u64, |hash, &id| {
        (hash ^ u64::from(id)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let settings = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "model": model.origin.path,
        "bytes": model.weight_bytes(),
        "formats": plan.formats,
        "method": args.method,
        "damping": args.damping,
        "act_order": args.act_order,
        "descent": args.descent,
        "training": args.training.settings(),
        "calibration": format!("{text:016x}"),
    });
    Ok((Store::open(&folder, &settings)?, folder))
}

/// How a model is quantized.
struct Work<'w> {
    plan: &'w Plan,
    method: Method,
    store: &'w Store,
    training: &'w training::TrainingArgs,
}

impl Work<'_> {
    /// Quantizes with a bar, and a line for each matrix and trained layer with its error.
    fn quantize(
        &self,
        model: &Model,
        calibration: Vec<Vec<u32>>,
        layers: &mut Vec<Trained>,
    ) -> ounce_compress::Result<(ounce_model::Weights, Vec<Finished>)> {
        let watch = Watch::start();
        let mut bar = Progress::new("quantizing", Counted::Share);
        let mut matrices = Vec::new();
        let mut observer = |finished: Option<&Finished>, done: u64, total: u64| {
            bar.set(done, total);
            if let Some(finished) = finished {
                let error =
                    finished.error.map(|it| format!(", error {:.3} %", it * 100.0)).unwrap_or_default();
                tracing::info!("{}: {}{error}, {:.1} s", finished.matrix, finished.dtype, finished.seconds);
                bar.say(&format!("{}{error}", finished.matrix));
                matrices.push(finished.clone());
            }
            Ok(watch.check()?)
        };
        let mut on_layer = |trained: &Trained| {
            tracing::info!("{}, {:.1} s", training::line(trained), trained.seconds);
            layers.push(*trained);
        };
        let mut quantizer = Quantizer::new(model, self.plan, self.method, self.store, &mut observer);
        if let Some(options) = self.training.blocks() {
            quantizer = quantizer.with_training(options, &mut on_layer);
        }
        let weights = quantizer.run(calibration)?;
        Ok((weights, matrices))
    }
}

fn forecast(model: &Model, target: &Path, options: &WriteOptions) -> anyhow::Result<Forecast> {
    Ok(match is_gguf(target) {
        true => gguf_model::forecast(model, target, options)?,
        false => hf::forecast(model, target, options)?,
    })
}

fn write(model: &Model, target: &Path, options: &WriteOptions) -> anyhow::Result<u64> {
    let watch = Watch::start();
    let mut bar = Progress::new("writing", Counted::Bytes);
    let mut progress = |done: u64, total: u64| {
        bar.set(done, total);
        watch.check()
    };
    Ok(match is_gguf(target) {
        true => gguf_model::write_model(model, target, options, &mut progress)?,
        false => hf::write_model(model, target, options, &mut progress)?,
    })
}

/// What `--dry-run` prints with `--json`.
#[derive(Debug, Serialize)]
struct Planned<'a> {
    target: &'a Path,
    bytes: u64,
    bits_per_weight: f64,
    units: Vec<PlannedUnit<'a>>,
}

#[derive(Debug, Serialize)]
struct PlannedUnit<'a> {
    name: &'a str,
    shape: [usize; 2],
    from: &'static str,
    to: &'static str,
    bytes: usize,
}

fn print_plan(
    model: &Model,
    units: &[Unit],
    plan: &Plan,
    forecast: &Forecast,
    target: &Path,
    globals: &Globals,
) -> anyhow::Result<Outcome> {
    let planned = units.iter().map(|unit| {
        let from = unit.matrices.first().and_then(|it| model.weights.info(it)).map_or(DType::F32, |it| it.0);
        let to = unit.matrices.first().and_then(|it| plan.dtype(it)).unwrap_or(from);
        PlannedUnit {
            name: &unit.name,
            shape: [unit.rows, unit.columns],
            from: from.name(),
            to: to.name(),
            bytes: unit.bytes(to).unwrap_or(0),
        }
    });
    let bits_per_weight = closing::bits_per_weight(forecast);
    let planned = Planned { target, bytes: forecast.bytes, bits_per_weight, units: planned.collect() };
    if globals.json {
        output::json(&planned)?;
        return Ok(Outcome::Done);
    }
    let mut table = output::table(&["matrix", "shape", "from", "to", "bytes"]);
    for unit in &planned.units {
        let shape = format!("{}×{}", unit.shape[0], unit.shape[1]);
        table.add_row([unit.name, &shape, unit.from, unit.to, &unit.bytes.to_string()]);
    }
    output::print_table(&table)?;
    let size = sizes::bytes(forecast.bytes);
    output::line(format!(
        "{}: {size} would be written, {bits_per_weight:.2} bits a weight",
        target.display()
    ))?;
    Ok(Outcome::Done)
}
