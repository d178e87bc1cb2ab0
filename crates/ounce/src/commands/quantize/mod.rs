//! `ounce quantize`: fewer bits a weight at the least loss.

pub(super) mod allocation;
pub(super) mod closing;
mod dry_run;
mod explain;
pub(super) mod formats;
mod prepare;
mod rounded;
pub(super) mod texts;
mod training;
mod work;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use ounce_compress::Error as CompressError;
use ounce_compress::quantize::gptq::{self, Order};
use ounce_compress::quantize::{Finished, Method, Plan, Preparation, Store, hqq, imatrix, units};
use ounce_kernels::DType;
use ounce_model::Model;
use ounce_model::formats::WriteOptions;
use ounce_model::formats::imatrix::Imatrix;
use serde::Serialize;
use serde_json::json;

use super::convert::{forecast, is_gguf, write_as_forecast};
use allocation::Table;
use work::Work;

use crate::cli::Globals;
use crate::failure::Outcome;
use crate::{output, source, units as sizes};

/// Quantize a model: fewer bits a weight, at the least loss
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce quantize builtin -o tales.gguf --type q4_0
  ounce quantize ./folder -o model.gguf --bits 4 --calibration wiki.txt
  ounce quantize ./folder -o model.gguf --type q3_k --keep 'blk.*.attn_v.weight=q5_k' --keep output.weight=q8_0
  ounce quantize ./folder -o model.gguf --bytes 90M                  each matrix its own format, by sensitivity
  ounce quantize ./folder -o ./packed --bits-per-weight 3.5
  ounce quantize ./folder -o model.gguf --type q4_k --dry-run       formats and the exact size, without work
  ounce quantize ./folder --explain --bits 3                        what suits each matrix, and the error it causes
  ounce quantize ./folder -o model.gguf --method weighted --imatrix imatrix.gguf
  ounce quantize ./folder -o model.gguf --method round              what llama-quantize would write
  ounce quantize ./folder -o small --bits 4 --method hqq            groups in seconds, without any text
  ounce quantize ./folder -o eight --type fp8                       8-bit floats with a scale for each row; or fp8_tensor, nf4
  ounce quantize ./folder -o four --type mxfp4                      4-bit floats by blocks, in folders and GGUF files
  ounce quantize ./folder -o model.gguf --type q4_0 --prepare rotate --prepare awq
  ounce quantize ./folder -o small --bits 2 --group 64 --train both
  ounce quantize ./folder -o small --bits 3 --group 32 --train l4q --calibration domain.txt
Each matrix is rounded column by column, later columns answering the errors of earlier ones on calibration text
(GPTQ), and then mended code by code. Layers are done one behind the other, each on what the quantized ones before
it give. What --prepare names is done to the weights before, and folded into them: the model computes the same at the
same cost, and loses less when it is rounded. A run that is stopped goes on where it stopped when the same command is
given again. The table at the end compares with the original on text that calibration did not see.")]
pub struct Args {
    #[arg(help = source::MODEL_HELP)]
    model: String,
    /// The file ending in .gguf, or the folder, to be made
    #[arg(short, long, value_name = "TARGET", required_unless_present = "explain")]
    output: Option<PathBuf>,
    #[command(flatten)]
    formats: formats::FormatArgs,
    /// How values become codes [default: gptq; round for fp8 and nf4]
    #[arg(long, value_enum, value_name = "METHOD")]
    method: Option<MethodName>,
    #[command(flatten)]
    prepare: prepare::PrepareArgs,
    /// Share of the mean of the inputs' second moments that is added to their diagonal
    #[arg(long, value_name = "SHARE", default_value_t = 0.01)]
    damping: f32,
    /// Round columns with large inputs first
    #[arg(long)]
    act_order: bool,
    /// Rounds of mending codes after GPTQ; 0 leaves what GPTQ gave
    #[arg(long, value_name = "N", default_value_t = 4)]
    descent: usize,
    /// For --method weighted: importance from this file of llama-imatrix, in the place of calibration
    #[arg(long, value_name = "FILE")]
    imatrix: Option<PathBuf>,
    /// Write the importance that calibration found to this file, for llama-quantize
    #[arg(long, value_name = "FILE", conflicts_with = "imatrix")]
    save_imatrix: Option<PathBuf>,
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
    /// Tell which granularity, symmetry, range and mapping suit each matrix at --bits (4 where not given), and the error they
    /// cause, and do nothing
    #[arg(long, conflicts_with_all = ["output", "dry_run", "dtype", "bytes", "bits_per_weight"])]
    explain: bool,
}

/// How values become codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MethodName {
    /// To the nearest, as llama-quantize without an importance matrix
    Round,
    /// To the nearest, with scales that fit best where inputs are large
    Weighted,
    /// To the nearest, with zero points and scales for which outliers weigh less, without text; folders only
    Hqq,
    /// Column by column with error feedback, then mended code by code
    Gptq,
}

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
pub struct Report {
    model: String,
    target: PathBuf,
    method: MethodName,
    prepare: Vec<&'static str>,
    calibration_tokens: usize,
    /// The matrices that were quantized.
    pub matrices: Vec<Finished>,
    #[serde(flatten)]
    training: training::Report,
    seconds: f64,
    #[serde(flatten)]
    closing: closing::Closing,
}

/// Runs the command.
///
/// # Errors
/// If the target exists, a format does not fit, calibration is impossible, or reading or writing fails.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    let Some(report) = make(&args, globals)? else { return Ok(Outcome::Done) };
    if globals.json {
        output::json(&report)?;
    } else {
        report.training.print()?;
        report.closing.print("quantized")?;
        let Report { target, seconds, closing, .. } = &report;
        output::line(format!("{}: {} in {seconds:.0} s", target.display(), sizes::bytes(closing.bytes)))?;
    }
    Ok(Outcome::Done)
}

/// Quantizes, or prints what was asked for in its place and gives nothing.
///
/// # Errors
/// As [`run`].
pub fn make(args: &Args, globals: &Globals) -> anyhow::Result<Option<Report>> {
    let model = source::open(&args.model)?;
    let steps = args.prepare.steps()?;
    if args.imatrix.is_some() && !steps.is_empty() {
        bail!(
            "an importance matrix tells of inputs as they were, and --prepare changes them; leave out one of the two"
        );
    }
    let shaped = prepare::shaped(&steps, &model)?;
    let units = units(&shaped)?;
    if args.explain {
        let bits = args.formats.bits().unwrap_or(4);
        explain::print(&args.model, &shaped, &units, bits, globals)?;
        return Ok(None);
    }
    let Some(target) = args.output.as_deref() else {
        bail!("name what is to be made with --output");
    };
    let options = WriteOptions { overwrite: args.force, ..WriteOptions::default() };
    if let Some((dtype, packing)) = args.formats.rounded(target)? {
        let options = WriteOptions { dtype, packing: Some(packing), ..options };
        return rounded::make(args, globals, &model, shaped, &steps, target, &options);
    }
    let budget = args.formats.budget()?;
    let calibration = match args.looks(&steps) || budget.is_some() {
        true => args.texts.calibration.sequences(&model)?,
        false => Vec::new(),
    };
    let plan = match budget {
        None => args.formats.plan(&shaped, &units, target)?,
        Some(budget) => {
            let inputs = allocation::look(&shaped, &calibration)?;
            let table = Table::measure(&shaped, &units, is_gguf(target), &calibration, &inputs)?;
            table.plan(&shaped, &units, &args.formats, target, &options, budget)?
        }
    };
    let method = args.method(&plan)?;
    args.training.check(&model, &plan)?;
    let mut planned = forecast(&plan.placeholder(&shaped)?, target, &options)?;
    if args.dry_run {
        dry_run::print(&shaped, &units, &plan, &planned, target, globals)?;
        return Ok(None);
    }
    args.training.check_text(&calibration)?;
    let calibration_tokens = calibration.iter().map(Vec::len).sum();
    let importance = args.importance(&model)?;
    if let Some(path) = &args.save_imatrix {
        let found = allocation::observe(&model, &calibration)?;
        imatrix::to_file(&found, &model, args.texts.calibration.name(), &calibration)?.write(path)?;
    }
    let start = Instant::now();
    let (store, folder) = open_store(args, target, &steps, &model, &plan, &calibration)?;
    let goes_on = |error: CompressError| match is_interrupt(&error) {
        true => anyhow::Error::from(crate::failure::Interrupted)
            .context(format!("the same command goes on from what is in {}", folder.display())),
        false => error.into(),
    };
    let prepared = prepare::apply(&steps, shaped, &plan, &calibration, &store).map_err(goes_on)?;
    if !steps.is_empty() {
        // Norms that changed may no longer fit the format in which a folder stores them with the rest.
        planned = forecast(&plan.placeholder(&prepared)?, target, &options)?;
    }
    let mut training = training::Report::default();
    let adapters = args.training.adapters();
    let again = args.training.scales() || adapters.is_some();
    let sequences = if again { calibration.clone() } else { Vec::new() };
    let work = Work {
        plan: &plan,
        method,
        importance: importance.as_ref(),
        store: &store,
        training: &args.training,
    };
    let (weights, matrices) = work.quantize(&prepared, calibration, &mut training.layers).map_err(goes_on)?;
    let mut quantized = Model { weights, ..prepared.clone() };
    if args.training.scales() {
        let tuned = args.training.tune(&quantized, &prepared, &sequences).map_err(goes_on)?;
        (quantized.weights, training.step_sizes) = (tuned.0, Some(tuned.1));
    }
    if let Some(options) = &adapters {
        let adapted = args.training.adapt(&prepared, &plan, &quantized.weights, &sequences, options);
        let (weights, adapted) = adapted.map_err(goes_on)?;
        (quantized.weights, training.adapters) = (weights, Some(adapted));
    }
    drop(prepared);
    let bytes = write_as_forecast(&quantized, target, &options, &planned)?;
    let seconds = start.elapsed().as_secs_f64();
    let closing = closing::compare(&model, &quantized, &args.texts.test, bytes)?;
    drop(quantized);
    store.remove()?;
    Ok(Some(Report {
        model: args.model.clone(),
        target: target.to_owned(),
        method: args.method_name(),
        prepare: steps.iter().map(Preparation::name).collect(),
        calibration_tokens,
        matrices,
        training,
        seconds,
        closing,
    }))
}

impl Args {
    fn method_name(&self) -> MethodName {
        self.method.unwrap_or(MethodName::Gptq)
    }

    /// Whether a text is to be looked at before anything is written.
    fn looks(&self, steps: &[Preparation]) -> bool {
        let by_method = match self.method_name() {
            MethodName::Round | MethodName::Hqq => false,
            MethodName::Weighted => self.imatrix.is_none(),
            MethodName::Gptq => true,
        };
        let needed = by_method
            || self.training.is_asked()
            || self.save_imatrix.is_some()
            || steps.iter().any(Preparation::needs_calibration);
        needed && !self.dry_run
    }

    /// What `--imatrix` says.
    fn importance(&self, model: &Model) -> anyhow::Result<Option<HashMap<String, Vec<f32>>>> {
        let Some(path) = &self.imatrix else { return Ok(None) };
        if self.method_name() != MethodName::Weighted {
            bail!(
                "an importance matrix holds no products of columns, as gptq needs them; add --method weighted"
            );
        }
        let file = Imatrix::open(path)?;
        Ok(Some(imatrix::importance(&file, model).with_context(|| path.display().to_string())?))
    }

    fn method(&self, plan: &Plan) -> anyhow::Result<Method> {
        if !(self.damping > 0.0 && self.damping <= 10.0) {
            bail!("--damping should be above 0 and at most 10, found {}", self.damping);
        }
        let order = if self.act_order { Order::Activity } else { Order::Stored };
        Ok(match self.method_name() {
            MethodName::Round => Method::Round,
            MethodName::Weighted => Method::Weighted,
            MethodName::Hqq => {
                let blocks = plan.formats.iter().filter_map(|(name, it)| Some((name, DType::parse(it)?)));
                if let Some((name, other)) =
                    blocks.into_iter().find(|(_, it)| it.is_block() && !hqq::suits(*it))
                {
                    bail!(
                        "--method hqq chooses the zero points of groups, and {name} is to become {other}, which has none; \
                         name a folder as the target, or choose another method"
                    );
                }
                Method::Hqq(hqq::Options::default())
            }
            MethodName::Gptq => {
                Method::Gptq(gptq::Options { damping: self.damping, order, descent: self.descent })
            }
        })
    }
}

/// Whether the user stopped the work, in a loop of ours or of the engine's.
fn is_interrupt(error: &CompressError) -> bool {
    use ounce_model::Error::Interrupted;
    matches!(
        error,
        CompressError::Model(Interrupted) | CompressError::Engine(ounce_engine::Error::Model(Interrupted))
    )
}

/// The folder of finished matrices beside the target, and all that they depend on.
fn open_store(
    args: &Args,
    target: &Path,
    steps: &[Preparation],
    model: &Model,
    plan: &Plan,
    calibration: &[Vec<u32>],
) -> anyhow::Result<(Store, PathBuf)> {
    let name = target.file_name().with_context(|| format!("{} names no file", target.display()))?;
    let parent = target.parent().filter(|it| !it.as_os_str().is_empty());
    if let Some(parent) = parent.filter(|it| !it.is_dir()) {
        bail!("{}: there is no such folder; make it first", parent.display());
    }
    let folder = target.with_file_name(format!(".{}.partial", name.to_string_lossy()));
    // A sum over all ids that depends on their order.
    let text = calibration.iter().flatten().fold(0xcbf2_9ce4_8422_2325u64, |hash, &id| {
        (hash ^ u64::from(id)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let settings = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "model": model.origin.path,
        "bytes": model.weight_bytes(),
        "formats": plan.formats,
        "method": args.method_name(),
        "prepare": steps.iter().map(Preparation::settings).collect::<Vec<_>>(),
        "damping": args.damping,
        "act_order": args.act_order,
        "descent": args.descent,
        "training": args.training.settings(),
        "calibration": format!("{text:016x}"),
        "imatrix": args.imatrix,
    });
    Ok((Store::open(&folder, &settings)?, folder))
}
