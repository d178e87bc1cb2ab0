//! `ounce factorize`: two thin matrices in the place of each.

use std::path::PathBuf;

use anyhow::{Context, bail};
use ounce_compress::lowrank::{self, Amount, Factorised, linformer_crossover};
use ounce_model::Model;
use ounce_model::formats::WriteOptions;
use serde::Serialize;

use super::convert;
use super::quantize::texts::CalibrationArgs;
use crate::cli::Globals;
use crate::failure::Outcome;
use crate::interrupt::Watch;
use crate::progress::{Progress, Unit};
use crate::{output, source, units};

/// Replace matrices by products of two thin ones
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce factorize ./folder --ratio 0.5 --calibration book.txt -o ./thin        each matrix keeps half of its weights
  ounce factorize ./folder --rank 256 --only \"*.feed_forward.*\" -o ./thin
  ounce factorize ./folder --ratio 0.33 --dry-run                               ranks and break-even ranks; writes nothing
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
    /// Factorise only matrices of layers with such names; may be given again
    #[arg(long, value_name = "PATTERN")]
    only: Vec<String>,
    /// Leave matrices with such names whole; may be given again
    #[arg(long, value_name = "PATTERN")]
    skip: Vec<String>,
    /// Keep what is best for the weights themselves, whatever layers are given; needs no calibration
    #[arg(long)]
    plain: bool,
    #[command(flatten)]
    texts: CalibrationArgs,
    /// Replace what is at the target
    #[arg(long)]
    force: bool,
    /// List ranks and sizes, and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// What is printed.
#[derive(Debug, Serialize)]
pub struct Report {
    target: Option<PathBuf>,
    parameters_before: u64,
    parameters: u64,
    bytes: Option<u64>,
    /// Tokens from which on Linformer with 256 keys would save more operations than these factors.
    linformer_from_tokens: f64,
    matrices: Vec<Factorised>,
}

/// Runs the command.
///
/// # Errors
/// If the model can't be factorised as asked or the target can't be written.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    let report = make(&args)?;
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
        "from about {:.0} tokens on, attention with 256 projected keys (Linformer) would save more operations than these factors",
        report.linformer_from_tokens
    ))?;
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
    let plan = lowrank::plan(&model, amount, &chosen)?;
    let before = model.spec.parameters();
    let Some(target) = args.output.as_ref().filter(|_| !args.dry_run) else {
        let matrices = lowrank::forecast(&model, &plan);
        let saved: u64 = matrices.iter().map(Factorised::saved).sum();
        return Ok(report(&model, None, before - saved, None, matrices));
    };
    let calibration = (!args.plain).then(|| args.texts.sequences(&model)).transpose()?;
    let (thin, matrices) = {
        let watch = Watch::start();
        let mut bar = Progress::new("factorising", Unit::Items);
        lowrank::factorise(&model, &plan, calibration, &mut |done, total| {
            bar.set(done as u64, total as u64);
            Ok(watch.check()?)
        })?
    };
    let options = WriteOptions { overwrite: args.force, ..WriteOptions::default() };
    let bytes = convert::write(&thin, target, &options)?;
    Ok(report(&model, Some(target.clone()), thin.spec.parameters(), Some(bytes), matrices))
}

fn report(
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
        linformer_from_tokens: linformer_crossover(model.spec.hidden_size, share, 256),
        matrices,
    }
}

fn patterns(texts: &[String]) -> anyhow::Result<Vec<glob::Pattern>> {
    let parsed = texts.iter().map(|text| glob::Pattern::new(text));
    parsed.collect::<Result<_, _>>().context("--only and --skip take patterns such as \"*.feed_forward.*\"")
}
