//! `ounce bench forecast`: what forecasts say against what is measured: memory, prompts, tokens.
//!
//! Every model and format is a process of its own (ounce starts itself with `--turn`), so that its peak of memory is its own.
//! Machines that share their memory with others read twice as fast in one minute as in the next. So each process runs between two
//! runs of a model with random weights in the same format, from which the forecast is renewed, several times over.

mod report;
mod turn;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use ounce_engine::Mode;
use ounce_kernels::DType;
use ounce_kernels::pool::Pool;
use ounce_model::account::Formats;
use ounce_model::formats::{WriteOptions, gguf_model};
use ounce_plan::calibrate::{Whole, run_whole};
use ounce_plan::forecast::{Forecast, KvType, Workload, forecast};
use ounce_plan::shapes;

use self::report::{Report, Row};
use self::turn::{Found, Turn};
use crate::cli::Globals;
use crate::failure::Outcome;
use crate::interrupt::Watch;
use crate::progress::{Progress, Unit};
use crate::{calibration, compute, output};

/// Measure forecasts: memory, prompts and tokens of models with random weights, told and measured
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce bench forecast                                       three shapes, four formats, three prompts
  ounce bench forecast --shapes smollm2-135m --types q8_0 --prompts 128
  ounce bench forecast --json > forecast.json
Run `ounce profile` first. Before and after each model another one with random weights is run in its format, in the place of
what the calibration knew of it (--as-kept leaves that out). The models are written to a temporary folder, one at a time: the largest takes 5 GB.")]
pub struct Args {
    /// Published shapes
    #[arg(
        long,
        value_name = "NAME,…",
        value_delimiter = ',',
        default_value = "smollm2-135m,qwen2.5-0.5b,llama-3.2-1b"
    )]
    shapes: Vec<String>,
    /// Formats of the matrices
    #[arg(long, value_name = "TYPE,…", value_delimiter = ',', default_value = "f32,bf16,q8_0,q4_0", value_parser = dtype)]
    types: Vec<DType>,
    /// Tokens of the prompts
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "128,512,2048")]
    prompts: Vec<usize>,
    /// Tokens that are generated behind each prompt
    #[arg(long, value_name = "N", default_value_t = 16)]
    steps: usize,
    /// How often each prompt is run in a turn, of which the fastest run counts
    #[arg(long, value_name = "N", default_value_t = 2)]
    rounds: usize,
    /// How often each model is forecast and measured, of which the one with the middle error counts
    #[arg(long, value_name = "N", default_value_t = 3)]
    turns: usize,
    /// Forecast by the calibration as `ounce profile` kept it, also where the machine reads faster or slower by now
    #[arg(long)]
    as_kept: bool,
    /// Folder for the models, which are removed again
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Run one model's prompts, and print what was measured
    #[arg(long, value_name = "FILE", hide = true)]
    turn: Option<PathBuf>,
}

fn dtype(name: &str) -> Result<DType, String> {
    DType::parse(name).filter(|it| it.is_weight()).ok_or_else(|| format!("{name} is no stored format"))
}

/// Runs the command.
///
/// # Errors
/// If this machine was not measured, a model can't be written, or a turn fails.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    if args.prompts.contains(&0) || args.steps == 0 || args.rounds == 0 || args.turns == 0 {
        bail!("prompts, steps, rounds and turns should be 1 or more");
    }
    if let Some(file) = &args.turn {
        output::json(&turn::run(file, &args.prompts, args.steps, args.rounds)?)?;
        return Ok(Outcome::Done);
    }
    let mut args = args;
    // Memory at most only grows, so shorter prompts come first.
    args.prompts.sort_unstable();
    args.prompts.dedup();
    let threads = Pool::global().threads();
    let (machine, mut calibration) = calibration::known(threads, None)?;
    let watch = Watch::start();
    let folder = match &args.folder {
        Some(folder) => tempfile::tempdir_in(folder),
        None => tempfile::tempdir(),
    }?;
    let mut report = Report::new(threads, &calibration);
    let mut bar = Progress::new("forecasts", Unit::Items);
    let works = args.shapes.len() * args.types.len();
    for name in &args.shapes {
        let shape = shapes::by_name(name)?;
        let spec = shape.spec()?;
        for &dtype in &args.types {
            watch.check()?;
            bar.say(&format!("{name} {dtype}"));
            bar.set(report.models as u64, works as u64);
            let file = folder.path().join("model.gguf");
            let model = shape.model(dtype, 1, &|_| {})?;
            let formats = Formats::with_zeros_of(&model.spec, &model.weights)?;
            gguf_model::write_model(
                &model,
                &file,
                &WriteOptions { overwrite: true, ..Default::default() },
                &mut |_, _| watch.check(),
            )?;
            drop(model);
            let kv = compute::usual_kv_type(&formats, Mode::fast());
            let renew = |runs: &mut Vec<Whole>| -> anyhow::Result<()> {
                if !args.as_kept {
                    runs.extend(run_whole(dtype)?);
                }
                Ok(())
            };
            // By prompt, what was told and measured in every turn.
            let mut pairs: Vec<Vec<(Forecast, Found)>> = args.prompts.iter().map(|_| Vec::new()).collect();
            for _ in 0..args.turns {
                let mut runs = Vec::new();
                renew(&mut runs)?;
                let turn = child(&args, &file)?;
                renew(&mut runs)?;
                calibration.renew(runs);
                watch.check()?;
                for (pairs, found) in pairs.iter_mut().zip(turn.prompts) {
                    let workload = workload(found.prompt, args.steps, threads, kv);
                    let told = forecast(&spec, &formats, &machine, &calibration, &workload)?;
                    report.bounds(&told, &found, dtype, &machine);
                    pairs.push((told, found));
                }
                report.cpu_shares.extend(turn.cpu_share);
            }
            report.rows.extend(pairs.iter().map(|pairs| Row::new(name, dtype, pairs)));
            report.models += 1;
        }
    }
    drop(bar);
    report.sum_up();
    if globals.json {
        output::json(&report)?;
    } else {
        report.print()?;
    }
    Ok(Outcome::Done)
}

fn workload(prompt: usize, steps: usize, threads: usize, kv: KvType) -> Workload {
    Workload { batch: 1, prompt, context: prompt + steps, threads, kv }
}

/// Runs one model in a process of its own.
fn child(args: &Args, file: &Path) -> anyhow::Result<Turn> {
    let prompts: Vec<String> = args.prompts.iter().map(usize::to_string).collect();
    let ran = Command::new(std::env::current_exe()?)
        .args(["bench", "forecast", "--threads", &Pool::global().threads().to_string()])
        .args(["--prompts", &prompts.join(","), "--steps", &args.steps.to_string()])
        .args(["--rounds", &args.rounds.to_string(), "--turn"])
        .arg(file)
        .output()
        .context("ounce can't start itself")?;
    if !ran.status.success() {
        let said = String::from_utf8_lossy(&ran.stderr);
        bail!("a measurement failed: {}", said.lines().last().unwrap_or("it said nothing"));
    }
    serde_json::from_slice(&ran.stdout).context("a measurement printed no JSON")
}
