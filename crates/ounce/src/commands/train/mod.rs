//! `ounce train`: a run from its file to a model's folder.

mod batches;
pub(super) mod labelled;
pub(super) mod setup;
pub(super) mod watcher;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use ounce_kernels::pool::Pool;
use ounce_train::Trainable;
use ounce_train::checkpoint::{self, Kept};
use ounce_train::config::{self, Config};
use ounce_train::data::BatchSource;
use ounce_train::methods::rps::SharedNet;
use ounce_train::net::Net;
use ounce_train::optim::Optimizer;
use ounce_train::trainer::{Ended, Start, Trainer, Validation, memory};
use serde::Serialize;

use self::setup::{Begun, Run};
use self::watcher::Watcher;
use crate::cli::Globals;
use crate::failure::{Interrupted, Outcome};
use crate::{output, plot, units};

/// Train a model from a run's file
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce train --init > run.toml                       a file with every key, its default and what it means
  ounce train run.toml --dry-run                      parameters, memory, time; trains nothing
  ounce train run.toml                                progress, log.jsonl, checkpoints, and the model in run/model
  ounce train run.toml --resume                       goes on where it stopped, to the same bits
  ounce train run.toml --set train.steps=2000 --set optimizer.kind=muon --output second
  ounce train run.toml --set data.objective=spans --set model.from=./albert     answers from SQuAD files; also classify, tag
  ounce train run.toml --branch run/checkpoints/step-900 --set schedule.decay=100 --steps 1000 --output decayed
Ctrl-C writes a checkpoint and leaves with exit code 130; --resume goes on. A checkpoint is a model's folder that other commands open.")]
pub struct Args {
    /// The run's file, TOML
    #[arg(required_unless_present = "init")]
    config: Option<PathBuf>,
    /// Print a file with every key, and leave
    #[arg(long)]
    init: bool,
    /// Set a key of the file, as train.steps=100; may be given again
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Short for --set train.steps=N, in place of tokens, epochs and minutes
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Short for --set optimizer.lr=RATE
    #[arg(long, value_name = "RATE")]
    lr: Option<f64>,
    /// Short for --set output.folder=FOLDER
    #[arg(long, short, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// Go on from the newest checkpoint of the output folder, if there is one
    #[arg(long, conflicts_with = "branch")]
    resume: bool,
    /// Begin with a checkpoint of another run: a decay from a stable one, or more steps
    #[arg(long, value_name = "CHECKPOINT")]
    branch: Option<PathBuf>,
    /// Tell what the run would need and take; train nothing
    #[arg(long)]
    dry_run: bool,
}

/// What a run would need.
#[derive(Debug, Serialize)]
struct Forecast {
    parameters: u64,
    trained_parameters: u64,
    steps: u64,
    tokens: u64,
    tokens_per_step: u64,
    tokens_per_epoch: u64,
    peak_learning_rate: f64,
    /// What Step Law says for these parameters and tokens.
    step_law: Suggestion,
    weight_bytes: u64,
    gradient_bytes: u64,
    optimizer_bytes: u64,
    buffer_bytes: u64,
    checkpoint_bytes: u64,
    /// Of two micro-batches that were run to see.
    seconds_per_step: f64,
    seconds: f64,
}

/// Learning rate and batch by Step Law.
#[derive(Debug, Serialize)]
struct Suggestion {
    learning_rate: f64,
    /// As the law says.
    batch_tokens: f64,
    /// In whole sequences.
    sequences: usize,
    /// Why it may not hold here.
    warnings: Vec<String>,
}

/// How a run went.
#[derive(Debug, Serialize)]
struct Report {
    ended: &'static str,
    steps: u64,
    tokens: u64,
    seconds: f64,
    /// Tokens of samples a second since the run was taken up, questions included and padding not.
    useful_tokens_per_second: f64,
    /// The part of all tokens that was padding, 0 to 1.
    padding: f64,
    loss: Option<f64>,
    validation: Option<Validation>,
    best_validation: Option<f64>,
    peak_bytes: Option<u64>,
    threads: usize,
    model: Option<PathBuf>,
    /// The loss curve.
    charts: Vec<PathBuf>,
    output: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// If the file is wrong, data or model can't be read, training diverges, the output can't be written or Ctrl-C ended it.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    if args.init {
        output::print(&config::template())?;
        return Ok(Outcome::Done);
    }
    let config = read(&args)?;
    let folder = config.output.folder.clone();
    let mut run = setup::prepare(&config, begun(&args, &folder)?)?;
    if !globals.json {
        run.notes.iter().for_each(|note| output::note(note));
    }
    if args.dry_run {
        if config.model.stored > 0 {
            bail!("--dry-run can't forecast a run with model.stored; leave one of them out");
        }
        let forecast = forecast(&config, &mut run)?;
        if globals.json {
            output::json(&forecast)?
        } else {
            if config.optimizer.lr != 0.0 {
                forecast.step_law.warnings.iter().for_each(|warning| output::note(warning));
            }
            print_forecast(&forecast)?
        }
        return Ok(Outcome::Done);
    }
    let start = match (&args.branch, args.resume) {
        (Some(checkpoint), _) => Start::Branch(checkpoint),
        (None, true) => Start::Resume,
        (None, false) => Start::Fresh,
    };
    let Run { mut net, mut train, mut validation, judge, mut optimizer, schedule, .. } = run;
    let spec = &net.skeleton().spec;
    let next = match (spec.classifier.is_some(), spec.causal) {
        (true, _) => "classify",
        (false, true) => "run",
        (false, false) => "logits",
    };
    let mut shared;
    let net: &mut dyn Trainable = match config.model.stored {
        0 => &mut net,
        stored => {
            shared = SharedNet::new(net, stored, config.train.seed)?;
            optimizer = Optimizer::new(optimizer.options().clone(), shared.params())?;
            &mut shared
        }
    };
    let options = setup::trainer_options(&config, schedule);
    // Cut to what a trait object's lifetime allows.
    let validation: Option<&mut dyn BatchSource> = match &mut validation {
        Some(source) => Some(source.as_mut()),
        None => None,
    };
    let at_once = config.train.batch;
    let mut judging = judge.map(|judge| move |net: &mut dyn Trainable| judge.judge(net, at_once));
    let mut trainer = Trainer::new(net, train.as_mut(), validation, optimizer, options, &folder, start)?;
    if let Some(judge) = &mut judging {
        trainer.judge(judge);
    }
    std::fs::write(folder.join("run.toml"), toml_of(&config)).context("run.toml can't be written")?;
    let mut watcher = Watcher::new(schedule.total, globals.json, config.validation.prompt.clone());
    let ended = trainer.run(&mut watcher);
    let ended = match ended {
        Err(error) if watcher::is_interrupt(&error) => Ended::Stopped,
        other => other?,
    };
    let model = match ended {
        Ended::Finished | Ended::OutOfData => Some(trainer.write_model()?),
        Ended::Stopped => None,
    };
    let charts = draw(&folder)?;
    let (state, (tokens, seconds)) = (trainer.state(), trainer.work());
    let report = Report {
        ended: match ended {
            Ended::Finished => "finished",
            Ended::OutOfData => "out of data",
            Ended::Stopped => "stopped",
        },
        steps: state.step,
        tokens: state.tokens,
        seconds: state.seconds,
        useful_tokens_per_second: tokens.useful as f64 / seconds.max(1e-9),
        padding: tokens.padding(),
        loss: watcher.last.map(|step| step.loss),
        validation: watcher.validations.last().copied(),
        best_validation: state.best.map(|(loss, _)| loss),
        peak_bytes: memory().1,
        threads: Pool::global().threads(),
        model,
        charts,
        output: folder.clone(),
    };
    drop(watcher);
    if globals.json {
        output::json(&report)?
    } else {
        print(&report, next)?
    }
    match ended {
        Ended::Stopped => Err(Interrupted.into()),
        Ended::Finished | Ended::OutOfData => Ok(Outcome::Done),
    }
}

/// The loss curve of the log, as SVG and PNG.
fn draw(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let chart = plot::loss_curve(&folder.join("log.jsonl"))?;
    let (svg, png) = (folder.join("loss.svg"), folder.join("loss.png"));
    plot::write_svg(&chart, &svg)?;
    plot::write_png(&chart, &png)?;
    Ok(vec![svg, png])
}

fn read(args: &Args) -> anyhow::Result<Config> {
    let path = args.config.as_deref().context("name the run's file; ounce train --init prints one")?;
    let text = std::fs::read_to_string(path).with_context(|| {
        format!("{} can't be read; ounce train --init prints a file to begin with", path.display())
    })?;
    let mut overrides = args.set.clone();
    if let Some(steps) = args.steps {
        overrides.extend([
            format!("train.steps={steps}"),
            "train.tokens=0".into(),
            "train.epochs=0.0".into(),
            "train.minutes=0.0".into(),
        ]);
    }
    overrides.extend(args.lr.map(|rate| format!("optimizer.lr={rate:?}")));
    let mut config = config::parse(&text, path, &overrides)?;
    if let Some(output) = &args.output {
        config.output.folder.clone_from(output);
    }
    if config.output.folder.as_os_str().is_empty() {
        bail!("output.folder is empty; name a folder for the run");
    }
    Ok(config)
}

/// The run's file as it was understood.
fn toml_of(config: &Config) -> String {
    toml::to_string(config).unwrap_or_default()
}

/// Where a run that is not new begins.
fn begun(args: &Args, output: &Path) -> anyhow::Result<Option<Begun>> {
    if let Some(folder) = &args.branch {
        return Ok(Some(Begun { step: checkpoint::read_state(folder)?.step, total: None }));
    }
    let Some(kept) = Kept::latest(output).filter(|_| args.resume) else { return Ok(None) };
    let state = checkpoint::read_state(&kept.folder)?;
    Ok(Some(Begun { step: state.step, total: Some(state.schedule.total) }))
}

fn forecast(config: &Config, run: &mut Run) -> anyhow::Result<Forecast> {
    let seconds_per_step =
        setup::seconds_per_step(&mut run.net, run.train.as_mut(), config.train.accumulation)?;
    let net: &Net = &run.net;
    let trained: u64 = net.params().iter().map(|param| param.grad.len() as u64).sum();
    let parameters = net.skeleton().spec.parameters();
    let optimizer_bytes = run.optimizer.bytes() as u64;
    let total = run.schedule.total;
    Ok(Forecast {
        parameters,
        trained_parameters: trained,
        steps: total,
        tokens: total * run.tokens_per_step,
        tokens_per_step: run.tokens_per_step,
        tokens_per_epoch: run.train.tokens_per_epoch(),
        peak_learning_rate: run.schedule.peak,
        step_law: suggestion(run),
        weight_bytes: net.params().iter().map(|param| 4 * param.value.len() as u64).sum(),
        gradient_bytes: 4 * trained,
        optimizer_bytes,
        buffer_bytes: net.workspace_bytes(run.tokens_per_step as usize / config.train.accumulation) as u64,
        checkpoint_bytes: 4 * parameters + optimizer_bytes,
        seconds_per_step,
        seconds: seconds_per_step * total as f64,
    })
}

fn suggestion(run: &Run) -> Suggestion {
    let advice = &run.advice;
    Suggestion {
        learning_rate: advice.rate,
        batch_tokens: advice.batch_tokens,
        sequences: advice.round_batch(run.context) / run.context,
        warnings: advice.warnings.clone(),
    }
}

fn print_forecast(forecast: &Forecast) -> anyhow::Result<()> {
    let Forecast { weight_bytes, gradient_bytes, optimizer_bytes, buffer_bytes, .. } = *forecast;
    let total = weight_bytes + gradient_bytes + optimizer_bytes + buffer_bytes;
    let bytes = units::bytes;
    let law = &forecast.step_law;
    let lines = [
        (
            "parameters",
            format!(
                "{}, {} trained",
                units::count(forecast.parameters),
                units::count(forecast.trained_parameters)
            ),
        ),
        (
            "run",
            format!(
                "{} steps of {} tokens: {} tokens, {:.2} epochs",
                forecast.steps,
                forecast.tokens_per_step,
                units::count(forecast.tokens),
                forecast.tokens as f64 / forecast.tokens_per_epoch as f64
            ),
        ),
        ("learning rate", format!("{:.2e} at most", forecast.peak_learning_rate)),
        (
            "Step Law",
            format!(
                "learning rate {:.2e}, {:.0} tokens a step ({} sequences){}",
                law.learning_rate,
                law.batch_tokens,
                law.sequences,
                if law.warnings.is_empty() { "" } else { "; outside of the range it was fitted on" }
            ),
        ),
        (
            "memory",
            format!(
                "{}: weights {}, gradients {}, optimizer {}, buffers {}",
                bytes(total),
                bytes(weight_bytes),
                bytes(gradient_bytes),
                bytes(optimizer_bytes),
                bytes(buffer_bytes)
            ),
        ),
        ("checkpoint", bytes(forecast.checkpoint_bytes)),
        (
            "time",
            format!(
                "{} ({:.0} tokens/s, measured on two micro-batches)",
                units::seconds(std::time::Duration::from_secs_f64(forecast.seconds)),
                forecast.tokens_per_step as f64 / forecast.seconds_per_step
            ),
        ),
    ];
    lines.iter().try_for_each(|(name, value)| output::line(format!("{name:<14} {value}")))
}

fn print(report: &Report, next: &str) -> anyhow::Result<()> {
    let time = units::seconds(std::time::Duration::from_secs_f64(report.seconds));
    let preferences = report.validation.and_then(|validation| validation.preferences);
    let unit = if preferences.is_some() { "choices" } else { "tokens" };
    let padding = match report.padding {
        0.0 => String::new(),
        share => format!(", {:.1} % of all rows padding", 100.0 * share),
    };
    output::line(format!(
        "{}: {} steps, {} {unit} in {time} ({:.0} useful tokens/s{padding})",
        report.ended,
        report.steps,
        units::count(report.tokens),
        report.useful_tokens_per_second,
    ))?;
    if let Some(validation) = &report.validation {
        output::line(format!("validation {}", watcher::said(validation)))?;
    }
    if let Some(peak) = report.peak_bytes {
        output::line(format!("at most {} of memory", units::bytes(peak)))?;
    }
    if let Some(chart) = report.charts.first() {
        output::line(format!("loss curve in {}", chart.display()))?;
    }
    match &report.model {
        Some(model) => {
            output::line(format!("model in {}; try ounce {next} {}", model.display(), quoted(model)))
        }
        None => output::line(format!(
            "checkpoint in {}; --resume goes on",
            report.output.join("checkpoints").display()
        )),
    }
}

fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    if text.contains(' ') { format!("\"{text}\"") } else { text }
}
