//! `ounce bench peft`: ways to teach models tasks, side by side: quality, numbers, memory, time.

mod files;
mod table;
mod tasks;

use std::path::PathBuf;

use anyhow::{bail, ensure};
use ounce_peft::Kind;
use ounce_peft::grid::{Grid, Results, Task, Way, grid};
use serde_json::json;

use crate::cli::Globals;
use crate::failure::{Interrupted, Outcome};
use crate::interrupt::Watch;
use crate::output;
use crate::progress::{Progress, Unit};

/// Compare ways to adapt a model: adapters, all weights, examples in the text
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce bench peft --methods full,lora,ia3,prompt --tasks retell           a task that is built in, on the model that goes with it
  ounce bench peft --methods all --tasks order --budget 0.1%,1%,5%         all methods in three sizes each
  ounce bench peft --models ./model --data pairs.jsonl --methods lora,dora,lora@q4_0 --plot peft.svg
  ounce bench peft --tasks unit-tests --methods none,full,lora,ia3,prompt  tests of functions in a small language
  ounce bench peft --tasks programs --models small,large --methods none,shots-3,nearest-3,full,lora,prefix
Ways: full (all weights), none, head (a new head alone), every method of ounce adapters methods, shots-N (examples drawn by chance
in front of the question), nearest-N (those nearest to it), copied (the nearest one's answer); behind them @q8_0 or @q4_0 for a
base in that format. Each is tried at as many learning rates, multiples of what is usual for it, and judged at the best with
several seeds. Ctrl-C keeps what is done, and the same command goes on; a larger grid in the same folder runs only what is new.")]
pub struct Args {
    /// Ways, separated by commas, or all
    #[arg(long, value_name = "WAYS", value_delimiter = ',', default_value = "full,lora,ia3,prompt")]
    methods: Vec<String>,
    /// Models [default: those that go with the task]; for unit-tests and programs also small and large
    #[arg(long, value_name = "MODELS", value_delimiter = ',')]
    models: Vec<String>,
    /// Built-in tasks: order and repeats (encoders), retell (language models), unit-tests, programs [default: order, without --data]
    #[arg(long, value_name = "TASKS", value_delimiter = ',', conflicts_with = "data")]
    tasks: Vec<String>,
    /// Files to learn from, as ounce tune takes them; needs --models
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "models")]
    data: Vec<PathBuf>,
    /// What is learned of the files: auto, language, answers, preferences, masked, classify, tag or spans
    #[arg(long, value_name = "WHAT", default_value = "auto")]
    objective: String,
    /// The part of the files that ways are judged by
    #[arg(long, value_name = "PART", default_value_t = 0.1)]
    held_out: f64,
    /// Tokens of a text at most [default: the model's, 512 at most]
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// Sequences of a step, of files
    #[arg(long, value_name = "N", default_value_t = 8)]
    batch: usize,
    /// Part of the model's numbers that methods may train at most, as 1% or 0.01 [default: each method's usual size]
    #[arg(long, value_name = "SHARES", value_delimiter = ',', value_parser = share)]
    budget: Vec<f64>,
    /// Learning rates that are tried, as multiples of each way's usual one
    #[arg(long, value_name = "MULTIPLES", value_delimiter = ',', default_value = "0.3,1,3,10")]
    rates: Vec<f64>,
    /// Steps of a run
    #[arg(long, value_name = "N", default_value_t = 100)]
    steps: u64,
    /// Steps of a run that chooses a rate [default: half of --steps]
    #[arg(long, value_name = "N")]
    choosing_steps: Option<u64>,
    /// Runs of each way, each with another seed
    #[arg(long, value_name = "N", default_value_t = 3)]
    seeds: u64,
    /// The first seed
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// The folder of results
    #[arg(long, short, value_name = "FOLDER", default_value = "peft-study")]
    output: PathBuf,
    /// Draw quality over trained numbers: .svg or .png
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

fn share(text: &str) -> Result<f64, String> {
    let (digits, factor) = text.strip_suffix('%').map_or((text, 1.0), |digits| (digits, 0.01));
    let share = digits.trim().parse::<f64>().ok().map(|it| it * factor);
    share
        .filter(|it| *it > 0.0 && *it <= 1.0)
        .ok_or_else(|| format!("{text:?} is no part of a model's numbers; give 1% or 0.01"))
}

/// A bar of so many steps shows a run.
const STEPS: f64 = 100.0;

/// Runs the command.
///
/// # Errors
/// If a name is unknown, a model does not suit its task, or Ctrl-C ended it.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    let ways = ways(&args.methods)?;
    ensure!(args.steps > 1 && args.seeds > 0, "--steps should be 2 or more, --seeds 1 or more");
    ensure!(
        !args.rates.is_empty() && args.rates.iter().all(|it| *it > 0.0 && it.is_finite()),
        "--rates should be above 0"
    );
    let plan = Grid {
        ways,
        budgets: match args.budget.is_empty() {
            true => vec![None],
            false => args.budget.iter().map(|it| Some(*it)).collect(),
        },
        multiples: args.rates.clone(),
        choosing: args.choosing_steps.unwrap_or(args.steps / 2).max(1),
        steps: args.steps,
        seeds: args.seeds,
        first_seed: 1000 * args.seed,
        ..Grid::default()
    };
    let mut results = Results::open(&args.output)?;
    let watch = Watch::start();
    let tasks = tasks::of(&args, &plan)?;
    let tasks: Vec<&dyn Task> = tasks.iter().map(Box::as_ref).collect();
    let mut bar = Progress::new("", Unit::Share);
    let found = grid(&tasks, &plan, &mut results, &mut |at| {
        bar.say(at.what);
        bar.set((at.done * STEPS) as u64, (at.of as f64 * STEPS) as u64);
        Ok(watch.check()?)
    });
    drop(bar);
    let found = match found {
        Err(_) if watch.requested() => {
            output::note(&format!(
                "what is done is in {}; the same command goes on",
                args.output.join("results.jsonl").display()
            ));
            return Err(Interrupted.into());
        }
        other => other?,
    };
    if let Some(path) = &args.plot {
        table::draw(&found, &tasks, path)?;
    }
    if globals.json {
        output::json(&json!({ "results": args.output, "rows": table::rows(&found) }))?;
    } else {
        table::print(&found)?;
    }
    Ok(Outcome::Done)
}

/// The ways by their names; `all` are those that need no examples.
fn ways(names: &[String]) -> anyhow::Result<Vec<Way>> {
    let mut ways = Vec::new();
    for name in names {
        match name.as_str() {
            "all" => {
                // Templates and descriptions are written for a task.
                let told = [Kind::Cloze, Kind::Crosstune];
                let own = Kind::ALL.into_iter().filter(|kind| !told.contains(kind));
                let own = own.map(|kind| kind.name().to_owned());
                for name in ["none", "full"].map(str::to_owned).into_iter().chain(own) {
                    ways.push(Way::parse(&name)?);
                }
            }
            name => ways.push(Way::parse(name)?),
        }
    }
    let mut once: Vec<Way> = Vec::new();
    for way in ways {
        if !once.contains(&way) {
            once.push(way);
        }
    }
    if once.is_empty() {
        bail!("--methods names no way; give full,lora or all");
    }
    Ok(once)
}

/// A share as users read it.
fn percent(part: f64) -> String {
    let percent = 100.0 * part;
    if percent >= 1.0 { format!("{percent:.1} %") } else { format!("{percent:.3} %") }
}

/// A model's name as part of a file's.
fn file_name(model: &str) -> String {
    model.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}
