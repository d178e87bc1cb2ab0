//! `ounce factorize`: two thin matrices in the place of each.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use ounce_compress::lowrank::greenformers::{Operations, crossover};
use ounce_compress::lowrank::{self, Amount, Factorised, Solver};
use ounce_engine::Mode;
use ounce_model::Model;
use ounce_model::account::Formats;
use ounce_model::formats::WriteOptions;
use ounce_model::machine::Cpu;
use ounce_plan::forecast::{Workload, forecast};
use serde::Serialize;

use super::quantize::texts::CalibrationArgs;
use super::{convert, profile};
use crate::cli::Globals;
use crate::failure::Outcome;
use crate::interrupt::Watch;
use crate::progress::{Progress, Unit};
use crate::{calibration, compute, output, source, units};

/// Replace matrices by products of two thin ones
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce factorize ./folder --ratio 0.5 --calibration book.txt -o ./thin        each matrix keeps half of its weights
  ounce factorize ./folder --rank 256 --only \"*.feed_forward.*\" -o ./thin
  ounce factorize ./folder --ratio 0.33 --dry-run                               ranks and break-even ranks; writes nothing
  ounce factorize ./folder --ratio 0.5 --tokens 2048 --linformer-keys 128 --dry-run   factors or Linformer, at your length
  ounce factorize ./folder --ratio 0.5 --solver random -o ./design              factors by design, to be trained from nothing
  ounce heal ./thin --teacher ./folder --text book.txt --features 1 -o ./healed
Without healing a model loses much. A product with two factors is less work where the rank is below the break-even rank; how
much faster it is depends on the machine.")]
pub struct Args {
    #[arg(help = source::MODEL_HELP)]
    model: String,
    /// The folder, or file ending in .gguf, to be made
    #[arg(short, long, value_name = "TARGET", required_unless_present = "dry_run")]
    output: Option<PathBuf>,
    /// The share of each matrix's weights that its factors keep, above 0 and below 1; 0.5 and 0.33 are PELA's
    #[arg(long, value_name = "SHARE", conflicts_with = "rank", required_unless_present = "rank")]
    ratio: Option<f64>,
    /// One rank for all matrices; those that would not become smaller stay whole
    #[arg(long, value_name = "N")]
    rank: Option<usize>,
    /// Ranks in multiples of 32, so that every factor can be quantized in blocks
    #[arg(long, conflicts_with_all = ["rank", "only", "skip"])]
    blocks: bool,
    /// Factorise only matrices of layers with such names; may be given again
    #[arg(long, value_name = "PATTERN")]
    only: Vec<String>,
    /// Leave matrices with such names whole; may be given again
    #[arg(long, value_name = "PATTERN")]
    skip: Vec<String>,
    /// Keep what is best for the weights themselves, whatever layers are given; needs no calibration
    #[arg(long)]
    plain: bool,
    /// How factors are found: svd are the best, semi-nmf has no negative entries in the first factor, random is a design to be trained
    /// from nothing; only svd takes calibration
    #[arg(long, value_enum, default_value_t)]
    solver: SolverName,
    /// Seed of --solver random
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Tokens of your texts: says whether factors or attention with projected keys (Linformer) would save more there
    #[arg(long, value_name = "N")]
    tokens: Option<usize>,
    /// Projected keys of that Linformer
    #[arg(long, value_name = "N", default_value_t = 256)]
    linformer_keys: usize,
    #[command(flatten)]
    texts: CalibrationArgs,
    /// Replace what is at the target
    #[arg(long)]
    force: bool,
    /// List ranks and sizes, and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// Solvers by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum SolverName {
    #[default]
    Svd,
    SemiNmf,
    Random,
}

/// What is printed.
#[derive(Debug, Serialize)]
pub struct Report {
    target: Option<PathBuf>,
    parameters_before: u64,
    parameters: u64,
    bytes: Option<u64>,
    /// Seconds for a token behind a prompt of 512, of the whole model and of this one, by forecast; none where the machine was not profiled.
    #[serde(skip_serializing_if = "Option::is_none")]
    per_token: Option<[f64; 2]>,
    /// Projected keys of the Linformer that is compared with.
    linformer_keys: usize,
    /// Tokens from which on it would save more operations than these factors.
    linformer_from_tokens: f64,
    /// Operations of a layer at the length that was asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<At>,
    matrices: Vec<Factorised>,
}

/// What ways would take at a length.
#[derive(Debug, Serialize)]
pub struct At {
    tokens: usize,
    operations: Operations,
}

/// Runs the command.
///
/// # Errors
/// If the model can't be factorised as asked or the target can't be written.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    let mut report = make(&args)?;
    if let Some(target) = report.target.as_ref() {
        report.per_token = told(&args.model, target, globals)?;
    }
    if globals.json {
        output::json(&report)?;
        return Ok(Outcome::Done);
    }
    let mut table = output::table(&["matrix", "shape", "rank", "break-even", "lost"]);
    for it in &report.matrices {
        let lost = if report.target.is_some() { format!("{:.2} %", 100.0 * it.lost) } else { String::new() };
        table.add_row([
            it.name.clone(),
            format!("{} × {}", it.rows, it.columns),
            it.rank.to_string(),
            it.break_even.to_string(),
            lost,
        ]);
    }
    output::print_table(&table)?;
    output::line(format!(
        "{} parameters in place of {} ({:.1} % of the whole model)",
        units::count(report.parameters),
        units::count(report.parameters_before),
        100.0 * report.parameters as f64 / report.parameters_before.max(1) as f64
    ))?;
    output::line(format!(
        "from about {:.0} tokens on, attention with {} projected keys (Linformer) would save more operations than these factors",
        report.linformer_from_tokens, report.linformer_keys
    ))?;
    if let Some(At { tokens, operations }) = &report.at {
        let part = |operations_of: f64| 100.0 * operations_of / operations.dense;
        output::line(format!(
            "at {tokens} tokens a layer has with factors {:.0} % of its operations, with Linformer {:.0} %, with both {:.0} %",
            part(operations.factors),
            part(operations.linformer),
            part(operations.both)
        ))?;
    }
    if let Some([whole, thin]) = report.per_token {
        let slower = if thin > whole {
            ": slower, for products of thin matrices cost more than their bytes"
        } else {
            ""
        };
        output::line(format!(
            "a token takes {} by forecast, {} as it was{slower}",
            units::time(thin),
            units::time(whole)
        ))?;
    }
    if let (Some(target), Some(bytes)) = (&report.target, report.bytes) {
        output::line(format!("{}: {}", target.display(), units::bytes(bytes)))?;
    }
    Ok(Outcome::Done)
}

/// Factorises, or only plans.
///
/// # Errors
/// As `run`.
pub fn make(args: &Args) -> anyhow::Result<Report> {
    let there = args.output.as_ref().filter(|it| it.symlink_metadata().is_ok());
    if let Some(target) = there.filter(|_| !args.force && !args.dry_run) {
        bail!("{}: exists already; choose another name or add --force", target.display());
    }
    let model = source::open(&args.model)?;
    let amount = match (args.ratio, args.rank) {
        (Some(share), _) => Amount::Share(share),
        (None, Some(rank)) => Amount::Rank(rank),
        (None, None) => bail!("say how much is to be kept, by --ratio or --rank"),
    };
    let [only, skip] = [patterns(&args.only)?, patterns(&args.skip)?];
    let chosen = |name: &str| {
        let is_of = |patterns: &[glob::Pattern]| patterns.iter().any(|pattern| pattern.matches(name));
        (only.is_empty() || is_of(&only)) && !is_of(&skip)
    };
    if args.linformer_keys == 0 || args.tokens == Some(0) {
        bail!("--tokens and --linformer-keys should be 1 or more");
    }
    let solver = match args.solver {
        SolverName::Svd => Solver::Svd,
        SolverName::SemiNmf => Solver::SemiNmf,
        SolverName::Random => Solver::Random(args.seed),
    };
    let plan = match amount {
        Amount::Share(share) if args.blocks => lowrank::plan_in_blocks(&model, share)?,
        _ => lowrank::plan(&model, amount, &chosen)?,
    };
    let before = model.spec.parameters();
    let Some(target) = args.output.as_ref().filter(|_| !args.dry_run) else {
        let matrices = lowrank::forecast(&model, &plan);
        let saved: u64 = matrices.iter().map(Factorised::saved).sum();
        return Ok(report(args, &model, None, before - saved, None, matrices));
    };
    let calibrated = !args.plain && solver == Solver::Svd;
    let calibration = calibrated.then(|| args.texts.sequences(&model)).transpose()?;
    let (thin, matrices) = {
        let watch = Watch::start();
        let mut bar = Progress::new("factorising", Unit::Items);
        lowrank::factorise_by(solver, &model, &plan, calibration, &mut |done, total| {
            bar.set(done as u64, total as u64);
            Ok(watch.check()?)
        })?
    };
    let options = WriteOptions { overwrite: args.force, ..WriteOptions::default() };
    let bytes = convert::write(&thin, target, &options)?;
    Ok(report(args, &model, Some(target.clone()), thin.spec.parameters(), Some(bytes), matrices))
}

fn report(
    args: &Args,
    model: &Model,
    target: Option<PathBuf>,
    parameters: u64,
    bytes: Option<u64>,
    matrices: Vec<Factorised>,
) -> Report {
    let whole: usize = matrices.iter().map(|it| it.rows * it.columns).sum();
    let kept: usize = matrices.iter().map(|it| it.rank * (it.rows + it.columns)).sum();
    let share = kept as f64 / whole.max(1) as f64;
    Report {
        target,
        parameters_before: model.spec.parameters(),
        parameters,
        bytes,
        per_token: None,
        linformer_keys: args.linformer_keys,
        linformer_from_tokens: crossover(model.spec.hidden_size, share, args.linformer_keys),
        at: args.tokens.map(|tokens| {
            let operations = Operations::of(tokens, model.spec.hidden_size, share, args.linformer_keys);
            At { tokens, operations }
        }),
        matrices,
    }
}

/// Seconds for a token, of the whole model and of what was made of it, where this machine was profiled and both generate.
fn told(whole: &str, thin: &Path, globals: &Globals) -> anyhow::Result<Option<[f64; 2]>> {
    let threads = if globals.threads == 0 { Cpu::detect().cores } else { globals.threads };
    if profile::known(threads).is_none() {
        return Ok(None);
    }
    let (machine, kernels) = calibration::known(threads, None)?;
    let of = |model: Model| -> anyhow::Result<Option<f64>> {
        if !model.spec.causal {
            return Ok(None);
        }
        let formats = Formats::of(&model.weights);
        let kv = compute::usual_kv_type(&formats, Mode::fast());
        let prompt = 512.min(model.spec.context_length.saturating_sub(1)).max(1);
        let workload = Workload { batch: 1, prompt, context: prompt + 1, threads, kv };
        Ok(Some(forecast(&model.spec, &formats, &machine, &kernels, &workload)?.per_token_seconds))
    };
    let (before, after) = (of(source::open(whole)?)?, of(Model::open(thin)?)?);
    Ok(before.zip(after).map(|(before, after)| [before, after]))
}

fn patterns(texts: &[String]) -> anyhow::Result<Vec<glob::Pattern>> {
    let parsed = texts.iter().map(|text| glob::Pattern::new(text));
    parsed.collect::<Result<_, _>>().context("--only and --skip take patterns such as \"*.feed_forward.*\"")
}
