//! `ounce sweep`: many small runs over learning rate, batch, width and tokens, and the laws that they follow.

mod laws;
mod watcher;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use ounce_kernels::pool::Pool;
use ounce_train::config::{self, Config};
use ounce_train::schedule::step_law::FINAL_RATE;
use ounce_train::sweep::{self, Cell, Grid, Job, Outcome, Results};
use serde::Serialize;
use serde_json::{Value, json};

use self::watcher::Watcher;
use super::train::setup::{self, Run};
use crate::cli::Globals;
use crate::failure::{Interrupted, Outcome as Done};
use crate::{output, units};

/// Find the best learning rate and batch by many small runs, and the laws by which they grow
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce sweep run.toml --lr 1e-3,2e-3,4e-3 --batch-tokens 1024,2048,4096 --dry-run     runs and time; trains nothing
  ounce sweep run.toml --lr 1e-3,2e-3,4e-3 --batch-tokens 1024,2048,4096               the best of one size
  ounce sweep run.toml --lr 1e-3,2e-3,4e-3,8e-3 --batch-tokens 1024,2048,4096 --hidden 64,96,128 \\
      --tokens 200000,400000,800000 --workers 2                                        laws, from nine sizes
  ounce sweep --fit sweep                                                              the laws, beside the published
The run's file is that of ounce train. Every run ends at the same learning rate, --final-lr. Ctrl-C leaves a checkpoint and
exits with 130; the same command goes on. A larger grid in the same folder does only the runs that are new.")]
pub struct Args {
    /// The run's file, TOML; what is not swept is as it says
    #[arg(required_unless_present = "fit")]
    config: Option<PathBuf>,
    /// Highest learning rates, separated by commas
    #[arg(long, value_name = "RATES", value_delimiter = ',', required_unless_present = "fit")]
    lr: Vec<f64>,
    /// Tokens of a step, multiples of the context [default: the file's]
    #[arg(long, value_name = "TOKENS", value_delimiter = ',')]
    batch_tokens: Vec<u64>,
    /// Widths; heads keep their size [default: the file's]
    #[arg(long, value_name = "WIDTHS", value_delimiter = ',')]
    hidden: Vec<usize>,
    /// Tokens of a run [default: the file's]
    #[arg(long, value_name = "TOKENS", value_delimiter = ',')]
    tokens: Vec<u64>,
    /// The learning rate at the end of every run
    #[arg(long, value_name = "RATE", default_value_t = FINAL_RATE)]
    final_lr: f64,
    /// Set a key of the file, as model.layers=2; may be given again
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The sweep's folder
    #[arg(long, short, value_name = "FOLDER", default_value = "sweep")]
    output: PathBuf,
    /// Runs at a time, each on one thread; 1 runs one on all threads
    #[arg(long, value_name = "N", default_value_t = 1)]
    workers: usize,
    /// Tell the runs, and the time they would take; train nothing
    #[arg(long)]
    dry_run: bool,
    /// Fit laws to the results in this folder, and draw them
    #[arg(
        long,
        value_name = "FOLDER",
        conflicts_with_all = ["config", "lr", "batch_tokens", "hidden", "tokens", "set", "dry_run"]
    )]
    fit: Option<PathBuf>,
    /// Losses so close to the least, as a part of it, are fitted by a quadratic
    #[arg(long, value_name = "PART", default_value_t = 0.05)]
    near: f64,
    /// The part of the least loss that settings on the plateau may cost
    #[arg(long, value_name = "PART", default_value_t = 0.005)]
    tolerance: f64,
}

/// What a sweep would take.
#[derive(Debug, Serialize)]
struct Forecast {
    runs: usize,
    done: usize,
    tokens: u64,
    /// Of the data.
    tokens_per_epoch: u64,
    seconds: f64,
    sizes: Vec<SizeForecast>,
}

/// Runs of one width.
#[derive(Debug, Serialize)]
struct SizeForecast {
    hidden: usize,
    /// Without embeddings and head.
    parameters: u64,
    runs: usize,
    tokens: u64,
    seconds: f64,
}

/// How a sweep went.
#[derive(Debug, Serialize)]
struct Report<'r> {
    finished: bool,
    runs: usize,
    output: &'r Path,
    results: &'r [Outcome],
}

/// Runs the command.
///
/// # Errors
/// If the file or the grid is wrong, the folder holds another sweep, a run fails, or Ctrl-C ended it.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Done> {
    if let Some(folder) = &args.fit {
        return laws::run(folder, args.near, args.tolerance, globals);
    }
    ensure!(args.workers > 0, "a sweep needs one worker at least");
    let base = read(&args)?;
    ensure!(base.model.stored == 0, "a sweep can't share weights; leave model.stored out");
    let context = context(&base)?;
    let cells = grid(&args, &base, context)?.cells()?;
    if let Some(cell) = cells.iter().find(|cell| cell.batch_tokens % context as u64 != 0) {
        bail!(
            "a batch of {} tokens is no multiple of the context of {context}; every step should have whole sequences",
            cell.batch_tokens
        );
    }
    if let Some(cell) = cells.iter().find(|cell| cell.lr < args.final_lr) {
        bail!(
            "a learning rate of {:e} is below the final one of {:e}; --final-lr sets another",
            cell.lr,
            args.final_lr
        );
    }
    let configs: Vec<Config> = cells.iter().map(|cell| configured(&base, cell, context, &args)).collect();
    let prepare = |cell: &Cell, pool: &'static Pool| -> anyhow::Result<Job> {
        let at = cells.iter().position(|it| it == cell).context("the run is not of this grid")?;
        job(&configs[at], pool)
    };
    if args.dry_run {
        let forecast = forecast(&args, &cells, &configs)?;
        if globals.json {
            output::json(&forecast)?;
        } else {
            if forecast.done < forecast.runs {
                warn(&cells, forecast.tokens_per_epoch);
            }
            print_forecast(&forecast)?;
        }
        return Ok(Done::Done);
    }
    let mut results = Results::open(&args.output, &identity(&base, &args))?;
    // Made once here, not by several workers at the same time.
    let first = setup::prepare(&configs[0], None)?;
    if !globals.json {
        warn(&cells, first.train.tokens_per_epoch());
    }
    drop(first);
    let watcher = Watcher::new(&cells, &results, globals.json);
    let finished = sweep::run(&mut results, &cells, args.workers, &prepare, &watcher)?;
    drop(watcher);
    let runs = cells.iter().filter(|cell| results.of(cell).is_some()).count();
    if globals.json {
        output::json(&Report { finished, runs, output: &args.output, results: results.all() })?;
    } else {
        output::line(format!("{runs} of {} runs are done, in {}", cells.len(), args.output.display()))?;
        if finished {
            laws::print_best(&laws::fitted(results.all(), args.near, args.tolerance))?;
            output::line(format!("the laws: ounce sweep --fit {}", args.output.display()))?;
        }
    }
    if finished { Ok(Done::Done) } else { Err(Interrupted.into()) }
}

fn read(args: &Args) -> anyhow::Result<Config> {
    let path = args.config.as_deref().context("name the run's file; ounce train --init prints one")?;
    let text = std::fs::read_to_string(path).with_context(|| {
        format!("{} can't be read; ounce train --init prints a file to begin with", path.display())
    })?;
    let mut config = config::parse(&text, path, &args.set)?;
    // Tokens are made once for all runs.
    if config.data.cache.as_os_str().is_empty() {
        config.data.cache = args.output.join("tokens.bin");
    }
    Ok(config)
}

/// Tokens of a sequence.
fn context(config: &Config) -> anyhow::Result<usize> {
    match (config.data.context, config.model.from.is_empty()) {
        (0, true) => Ok(config.model.context.max(1)),
        (0, false) => bail!("a sweep of model.from needs data.context; --set data.context=512"),
        (context, _) => Ok(context),
    }
}

fn grid(args: &Args, config: &Config, context: usize) -> anyhow::Result<Grid> {
    let or = |given: &[u64], usual: u64| if given.is_empty() { vec![usual] } else { given.to_vec() };
    let train = &config.train;
    let batch = (train.batch * train.accumulation * context) as u64;
    let tokens = match (args.tokens.is_empty(), train.tokens, train.steps) {
        (false, ..) => 0,
        (true, 0, 0) => bail!("a sweep needs a length: --tokens 1000000, or train.tokens in the file"),
        (true, 0, steps) => steps * batch,
        (true, tokens, _) => tokens,
    };
    if args.hidden.len() > 1 && !config.model.from.is_empty() {
        bail!("model.from has a width of its own; --hidden is for new weights");
    }
    Ok(Grid {
        lr: args.lr.clone(),
        batch_tokens: or(&args.batch_tokens, batch),
        hidden: if args.hidden.is_empty() { vec![config.model.hidden] } else { args.hidden.clone() },
        tokens: or(&args.tokens, tokens),
    })
}

/// The run's file of a cell.
fn configured(base: &Config, cell: &Cell, context: usize, args: &Args) -> Config {
    let mut config = base.clone();
    let heads = base.model.heads.max(1);
    let kv_groups = heads.checked_div(base.model.kv_heads).unwrap_or(0);
    if cell.hidden != base.model.hidden {
        config.model.heads = (cell.hidden * heads / base.model.hidden.max(1)).max(1);
        config.model.kv_heads = config.model.heads.checked_div(kv_groups).unwrap_or(0);
        config.model.feed_forward = base.model.feed_forward * cell.hidden / base.model.hidden.max(1);
    }
    config.model.hidden = cell.hidden;
    let sequences = (cell.batch_tokens as usize / context).max(1);
    // As few micro-batches as there may be of at most the file's size, all alike.
    let least = sequences.div_ceil(base.train.batch.max(1)).max(1);
    config.train.accumulation =
        (least..=sequences).find(|it| sequences.is_multiple_of(*it)).unwrap_or(sequences);
    config.train.batch = sequences / config.train.accumulation;
    (config.train.steps, config.train.tokens) = (cell.steps(), 0);
    (config.train.epochs, config.train.minutes) = (0.0, 0.0);
    config.optimizer.lr = cell.lr;
    config.schedule.last = args.final_lr / cell.lr;
    (config.validation.every, config.validation.sample_every) = (0, 0);
    config
}

/// What all runs have in common.
fn identity(base: &Config, args: &Args) -> Value {
    let Config { model, tokenizer, data, train, optimizer, schedule, guard, .. } = base;
    let mut data = json!(data);
    let mut optimizer = json!(optimizer);
    let mut schedule = json!(schedule);
    // What cells set.
    for (section, key) in [(&mut data, "cache"), (&mut optimizer, "lr"), (&mut schedule, "last")] {
        if let Value::Object(section) = section {
            section.remove(key);
        }
    }
    json!({
        "model": model, "tokenizer": tokenizer, "data": data, "optimizer": optimizer, "schedule": schedule,
        "guard": guard, "train": {"seed": train.seed, "precision": train.precision}, "final_lr": args.final_lr,
    })
}

/// Everything that a run needs, on these threads.
fn job(config: &Config, pool: &'static Pool) -> anyhow::Result<Job> {
    let Run { mut net, train, validation, mut optimizer, schedule, .. } = setup::prepare(config, None)?;
    net.set_pool(pool);
    optimizer.set_pool(pool);
    let params = net.inner_parameters();
    let options = setup::trainer_options(config, schedule);
    Ok(Job { net: Box::new(net), data: train, validation, optimizer, options, params })
}

/// Says what makes results worth less.
fn warn(cells: &[Cell], epoch: u64) {
    if let Some(most) = cells.iter().map(|cell| cell.tokens).max().filter(|&tokens| tokens > epoch) {
        output::note(&format!(
            "the data has {} tokens, and runs of {} see them more than once: their training losses are too good",
            units::count(epoch),
            units::count(most)
        ));
    }
    let few = cells.iter().filter(|cell| cell.steps() < 100).count();
    if few > 0 {
        output::note(&format!("{few} of {} runs have fewer than 100 steps, mostly warm-up", cells.len()));
    }
}

/// Measures a step of every width and batch. What is tokenized for it stays in a folder of its own.
fn forecast(args: &Args, cells: &[Cell], configs: &[Config]) -> anyhow::Result<Forecast> {
    let done: Vec<Outcome> = if args.output.exists() { Results::read(&args.output)? } else { Vec::new() };
    let folder = tempfile::tempdir()?;
    let mut known: Vec<((usize, u64), (f64, u64))> = Vec::new();
    let mut sizes: Vec<SizeForecast> = Vec::new();
    let (mut missing, mut epoch) = (0, 0);
    for (cell, config) in cells.iter().zip(configs) {
        if done.iter().any(|outcome| outcome.cell == *cell) {
            continue;
        }
        missing += 1;
        let key = (cell.hidden, cell.batch_tokens);
        let found = known.iter().find(|(it, _)| *it == key).map(|(_, found)| *found);
        let (step, params) = match found {
            Some(found) => found,
            None => {
                let mut config = config.clone();
                if config.data.cache.starts_with(&args.output) && !config.data.cache.exists() {
                    config.data.cache = folder.path().join("tokens.bin");
                }
                let mut run = setup::prepare(&config, None)?;
                epoch = run.train.tokens_per_epoch();
                let step =
                    setup::seconds_per_step(&mut run.net, run.train.as_mut(), config.train.accumulation)?;
                let found = (step, run.net.inner_parameters());
                known.push((key, found));
                found
            }
        };
        let (tokens, seconds) = (cell.steps() * cell.batch_tokens, step * cell.steps() as f64);
        match sizes.iter_mut().find(|size| size.hidden == cell.hidden) {
            Some(size) => {
                size.runs += 1;
                size.tokens += tokens;
                size.seconds += seconds;
            }
            None => {
                sizes.push(SizeForecast {
                    hidden: cell.hidden,
                    parameters: params,
                    runs: 1,
                    tokens,
                    seconds,
                });
            }
        }
    }
    Ok(Forecast {
        runs: cells.len(),
        done: cells.len() - missing,
        tokens: sizes.iter().map(|size| size.tokens).sum(),
        tokens_per_epoch: epoch,
        seconds: sizes.iter().map(|size| size.seconds).sum(),
        sizes,
    })
}

fn print_forecast(forecast: &Forecast) -> anyhow::Result<()> {
    let time = |seconds: f64| units::seconds(std::time::Duration::from_secs_f64(seconds));
    let mut table = output::table(&["width", "parameters", "runs", "tokens", "time"]);
    for size in &forecast.sizes {
        table.add_row([
            size.hidden.to_string(),
            units::count(size.parameters),
            size.runs.to_string(),
            units::count(size.tokens),
            time(size.seconds),
        ]);
    }
    output::print_table(&table)?;
    output::line(format!(
        "{} runs, {} of them done; {} tokens in about {} one after the other (measured on two micro-batches each)",
        forecast.runs,
        forecast.done,
        units::count(forecast.tokens),
        time(forecast.seconds)
    ))
}
