//! `ounce tune`: a few numbers beside a frozen model learn what its data shows.

mod cloze;
mod descriptions;
mod feeding;
mod forecast;
mod options;
mod patience;
mod patterns;
mod retrieve;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use ounce_kernels::DType;
use ounce_model::Model;
use ounce_model::account::Formats;
use ounce_peft::retrieval::Ranked;
use ounce_peft::{Adapted, Kind, Settings};
use ounce_train::checkpoint;
use ounce_train::config::{Config, Objective, Precision, ScheduleKind};
use ounce_train::data::BatchSource;
use ounce_train::net::Options;
use ounce_train::optim::{Kind as OptimizerKind, Optimizer};
use ounce_train::trainer::{Ended, Start, Trainer, Validation, memory};
use ounce_train::{Loss, Trainable};
use serde::Serialize;

use self::cloze::ClozeArgs;
use self::descriptions::DescriptionArgs;
use self::feeding::fed;
pub(super) use self::feeding::feed;
use self::forecast::{forecast, print_forecast};
use self::options::MethodArgs;
use self::patience::Patient;
use self::patterns::PatternArgs;
use self::retrieve::{Judged, Ranking, RetrieveArgs};
use super::train::setup::{self, Fed};
use super::train::watcher::{self, Watcher};
use crate::cli::Globals;
use crate::failure::{Interrupted, Outcome};
use crate::{output, source, units};

/// Adapt a model with a few trained numbers
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce tune ./model --data pairs.jsonl -o ./adapter            LoRA on instructions, conversations or plain text
  ounce tune ./model.gguf --data book.txt -o ./adapter          the quantized weights stay as they are (QLoRA)
  ounce tune ./bert --objective classify --data reviews.jsonl --method ia3 -o ./adapter
  ounce tune ./bert --data few.jsonl --template '<text> {It was} [MASK].' --verbalizer 'pos=great,fine;neg=poor' --soft-verbalizer -o ./adapter
  ounce classify ./bert --adapter ./adapter \"A joy.\"           labels as words that fill a gap
  ounce tune ./bert --data few.jsonl --descriptions labels.txt -o ./adapter    labels by sentences that describe them (CrossTune)
  ounce tune ./bert --data few.jsonl --patterns patterns.txt --verbalizer 'pos=great;neg=poor' --unlabelled pool.txt -o ./adapter
  ounce tune ./bert --objective retrieve --data pairs.jsonl --method aside -o ./adapter       query, passage, maybe negatives
  ounce tune ./model --data chosen-rejected.jsonl -o ./adapter  preferences, by direct preference optimization
  ounce tune ./model --data book.txt --method dylora --rank 16 -o ./adapter     then: ounce adapters slice ./adapter --rank 4 -o ./small
  ounce tune ./model --data book.txt -o ./adapter --resume      goes on where it was stopped, to the same bits
  ounce run ./model --adapter ./adapter \"Once\"                  then: ounce merge ./model ./adapter -o ./merged
The folder is one of Python's peft where that has the method. docs/peft.md has all methods and formats. Ctrl-C writes a
checkpoint and leaves with exit code 130.")]
pub struct Args {
    #[arg(help = source::MODEL_HELP)]
    model: String,
    /// Files, folders or patterns: .txt, .jsonl, .json, .csv, .parquet
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    data: Vec<PathBuf>,
    /// The adapter's folder
    #[arg(long, short, value_name = "FOLDER")]
    output: PathBuf,
    #[command(flatten)]
    method: MethodArgs,
    #[command(flatten)]
    cloze: ClozeArgs,
    #[command(flatten)]
    describe: DescriptionArgs,
    #[command(flatten)]
    retrieve: RetrieveArgs,
    #[command(flatten)]
    patterns: PatternArgs,
    #[command(flatten)]
    run: RunArgs,
    /// Go on from the newest checkpoint
    #[arg(long)]
    resume: bool,
    /// Tell what it would need and take; train nothing
    #[arg(long)]
    dry_run: bool,
}

/// Flags of the run.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Training")]
struct RunArgs {
    /// What is learned: auto, language, answers, preferences, masked, classify, tag, spans or retrieve
    #[arg(long, value_name = "WHAT", default_value = "auto")]
    objective: String,
    /// Files to validate on [default: a part of the data]
    #[arg(long, value_name = "FILE", num_args = 1..)]
    validation: Vec<PathBuf>,
    /// The part of the data that is held out for validation; 0 for none
    #[arg(long, value_name = "PART", default_value_t = 0.05)]
    held_out: f64,
    /// A line between two documents of a .txt file [default: blank lines]
    #[arg(long, value_name = "LINE", default_value = "", hide_default_value = true)]
    separator: String,
    /// Tokens of a text at most [default: the model's, 512 at most]
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// Passes over the data
    #[arg(long, value_name = "N", default_value_t = 3.0, conflicts_with = "steps")]
    epochs: f64,
    /// Steps, in place of passes
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Sequences at a time; 4, 2 or 1 if memory runs out
    #[arg(long, value_name = "N", default_value_t = 8)]
    batch: usize,
    /// Batches of a step
    #[arg(long, value_name = "N", default_value_t = 1)]
    accumulation: usize,
    /// Compute layers a second time to save memory (lora without dropout)
    #[arg(long)]
    checkpointing: bool,
    /// What products of linear layers are computed in: f32 or bf16 (weights of adapters and sums stay f32) [default: f32 for a model stored
    /// in F32 or of fewer than 50 million parameters, bf16 else]
    #[arg(long, value_name = "NAME", value_parser = precision)]
    precision: Option<Precision>,
    /// Highest learning rate [default: what suits the method; for matrices of models narrower than 768, higher in proportion]
    #[arg(long, value_name = "RATE")]
    lr: Option<f64>,
    /// adamw, adamw8bit, lion or sgd
    #[arg(long, value_name = "NAME", default_value = "adamw")]
    optimizer: String,
    /// Steps between validations and checkpoints [default: a tenth of the run]
    #[arg(long, value_name = "N")]
    validate_every: Option<u64>,
    /// Validations without a better one after which the run ends; 0 for never
    #[arg(long, value_name = "N", default_value_t = 3)]
    patience: usize,
    /// How closely preferences hold the model to what it was
    #[arg(long, value_name = "BETA", default_value_t = 0.1)]
    beta: f64,
    /// Decides what is random
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// What a run will need.
#[derive(Debug, Clone, Serialize)]
struct Forecast {
    method: &'static str,
    trained_parameters: u64,
    parameters: u64,
    steps: u64,
    tokens_per_step: u64,
    learning_rate: f64,
    /// The model as it is stored.
    model_bytes: u64,
    /// What of it is decoded: embedding and norms.
    decoded_bytes: u64,
    gradient_and_optimizer_bytes: u64,
    buffer_bytes: u64,
    memory_bytes: u64,
    /// Of two batches that were run to see.
    seconds: f64,
}

/// How a run went.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    forecast: Forecast,
    ended: &'static str,
    steps_done: u64,
    seconds_spent: f64,
    loss: Option<f64>,
    /// Of the validation data, before anything was learned, in nats a target.
    validation_before: Option<f64>,
    validation: Option<Validation>,
    /// Of held-out queries.
    ranking: Option<Ranking>,
    /// The step whose numbers were kept.
    kept_step: u64,
    peak_bytes: Option<u64>,
    adapter: Option<PathBuf>,
    adapter_bytes: u64,
    /// Whether it can become part of the model.
    merges: bool,
}

fn precision(name: &str) -> Result<Precision, String> {
    match name {
        "f32" => Ok(Precision::F32),
        "bf16" => Ok(Precision::Bf16),
        _ => Err(format!("{name} is no precision; choose f32 or bf16")),
    }
}

/// Parameters from which on bf16 is the usual precision: smaller models learn fast enough without it.
const LARGE: u64 = 50_000_000;

/// What was rounded when it was stored loses nothing that matters to bf16.
fn usual_precision(model: &Model) -> Precision {
    let exact = Formats::of(&model.weights).iter().all(|(_, dtype)| dtype == DType::F32);
    if exact || model.spec.parameters() < LARGE { Precision::F32 } else { Precision::Bf16 }
}

/// Runs the command.
///
/// # Errors
/// If the data or a setting does not suit the model, training diverges, or the folder can't be written.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    if args.output.join("adapter_config.json").is_file() && !args.resume {
        bail!("{} holds an adapter; choose another folder", args.output.display());
    }
    if let Some(path) = &args.describe.descriptions {
        if args.method.name().is_some_and(|name| name != Kind::Crosstune.name()) {
            bail!("--descriptions train a head beside a frozen encoder (crosstune); leave --method out");
        }
        return descriptions::run(&args, path, globals);
    }
    if let Some(path) = &args.patterns.patterns {
        return patterns::run(&args, path, globals);
    }
    let usual = if args.cloze.wanted() { Kind::Cloze } else { Kind::Lora };
    let (mut settings, below) = args.method.settings(usual, args.run.seed)?;
    if args.cloze.verbalizer.is_some() && !args.cloze.wanted() {
        bail!(
            "--verbalizer has the words for a gap; say where it is with --template '<text> It was [MASK].' or --patterns FILE"
        );
    }
    if settings.method == Kind::Crosstune {
        bail!("the method crosstune needs --descriptions FILE");
    }
    if settings.method == Kind::Cloze && !args.cloze.wanted() {
        bail!("the method cloze needs --template and --verbalizer");
    }
    let mut config = config(&args)?;
    let model = source::open(&args.model)?;
    config.train.precision = args.run.precision.unwrap_or_else(|| usual_precision(&model));
    let mut notes = Vec::new();
    settings.cloze = args.cloze.cloze(&model, args.run.seed, &mut notes)?;
    let (model, mut fed, judged) = fed(&args, &config, &model, &mut settings, &mut notes)?;
    settings.steps = setup::steps(&config, fed.tokens_per_step, fed.lengths)?.unwrap_or(1).max(1);
    let options = Options {
        beta: args.run.beta,
        checkpointing: args.run.checkpointing,
        compute: config.train.precision.compute(),
        ..Options::default()
    };
    let mut adapted = Adapted::fast(&model, &settings, options)?;
    adapted.lay_on(&below)?;
    let mut optimizer_options = config.optimizer.options();
    optimizer_options.named_factors =
        vec![(".lora_b".into(), settings.plus), ("cloze.template".into(), args.cloze.template_rate)];
    let optimizer = Optimizer::new(optimizer_options, adapted.params())?;
    let forecast = forecast(&args, &config, &settings, &mut adapted, &mut fed, &optimizer)?;
    if !globals.json {
        notes.iter().for_each(|note| output::note(note));
        print_forecast(&forecast);
    }
    if args.dry_run {
        if globals.json {
            output::json(&forecast)?;
        }
        return Ok(Outcome::Done);
    }
    let begun = checkpoint::Kept::latest(&config.output.folder).is_some();
    let before = match &mut fed.validation {
        Some(source) if !(args.resume && begun) => {
            Some(loss_of(&mut adapted, source.as_mut(), config.validation.batches)?.mean())
        }
        _ => None,
    };
    let ranked = match &judged {
        Some(judged) if !(args.resume && begun) => Some(judged.judge(&mut adapted)?),
        _ => None,
    };
    let ranking = judged.map(|judged| (judged, ranked));
    let report =
        train(&args, &config, &settings, adapted, fed, optimizer, forecast, (before, ranking), globals)?;
    let stopped = report.ended == "stopped";
    if globals.json {
        output::json(&report)?;
    } else {
        print(&report, &args)?;
    }
    if stopped { Err(Interrupted.into()) } else { Ok(Outcome::Done) }
}

/// The run's file that the flags stand for.
fn config(args: &Args) -> anyhow::Result<Config> {
    let run = &args.run;
    let named = |what: &str, name: &str| format!("{name:?} is no {what}; ounce tune --help lists them");
    let mut config = Config::default();
    config.model.from.clone_from(&args.model);
    config.data.train.clone_from(&args.data);
    config.data.validation.clone_from(&run.validation);
    config.data.held_out = run.held_out;
    config.data.separator.clone_from(&run.separator);
    config.data.objective = serde_json::from_value::<Objective>(run.objective.clone().into())
        .with_context(|| named("objective", &run.objective))?;
    config.data.context = run.context.unwrap_or(0);
    config.data.cache = args.output.join("training/tokens.bin");
    config.train.batch = run.batch;
    config.train.accumulation = run.accumulation;
    match run.steps {
        Some(steps) => config.train.steps = steps,
        None => config.train.epochs = run.epochs,
    }
    (config.train.seed, config.train.beta) = (run.seed, run.beta);
    config.optimizer.kind = serde_json::from_value::<OptimizerKind>(run.optimizer.clone().into())
        .with_context(|| named("optimizer", &run.optimizer))?;
    (config.optimizer.beta2, config.optimizer.weight_decay) = (0.999, 0.0);
    config.schedule.kind = ScheduleKind::Linear;
    (config.schedule.warmup, config.schedule.last) = (0.05, 0.0);
    config.output.folder = args.output.join("training");
    config.output.keep = 1;
    config.validation.sample_every = 0;
    Ok(config)
}

/// The loss of some batches, from which nothing is learned.
fn loss_of(net: &mut Adapted, source: &mut dyn BatchSource, batches: usize) -> anyhow::Result<Loss> {
    let watch = crate::interrupt::Watch::start();
    let beginning = source.position();
    let (mut loss, mut seen) = (Loss::default(), 0);
    while batches == 0 || seen < batches {
        watch.check()?;
        let Some(batch) = source.next()? else { break };
        loss += net.loss(&batch)?;
        seen += 1;
    }
    source.seek(&beginning)?;
    net.take_choices();
    Ok(loss)
}

/// Trains, keeps the best numbers and writes the adapter.
fn train(
    args: &Args,
    config: &Config,
    settings: &Settings,
    mut adapted: Adapted,
    fed: Fed,
    optimizer: Optimizer,
    forecast: Forecast,
    (before, ranking): (Option<f64>, Option<(Judged, Option<Ranked>)>),
    globals: &Globals,
) -> anyhow::Result<Report> {
    let Fed { mut train, mut validation, judge, .. } = fed;
    let schedule = config.schedule.schedule(forecast.learning_rate, settings.steps)?;
    let every = args.run.validate_every.unwrap_or((settings.steps / 10).max(1));
    let mut options = setup::trainer_options(config, schedule);
    (options.validate_every, options.checkpoint_every) =
        (if validation.is_some() { every } else { 0 }, every);
    // The number of steps may be another when a run goes on.
    let method = Settings { steps: 0, ..settings.clone() };
    options.identity = serde_json::json!({ "run": config.identity(), "method": method }).to_string();
    let start = if args.resume { Start::Resume } else { Start::Fresh };
    let folder = &config.output.folder;
    std::fs::create_dir_all(folder).with_context(|| format!("{} can't be made", folder.display()))?;
    let at_once = config.train.batch;
    let mut judging = judge.map(|judge| move |net: &mut dyn Trainable| judge.judge(net, at_once));
    let validating: Option<&mut dyn BatchSource> = match &mut validation {
        Some(source) => Some(source.as_mut()),
        None => None,
    };
    let mut trainer =
        Trainer::new(&mut adapted, train.as_mut(), validating, optimizer, options, folder, start)?;
    if let Some(judge) = &mut judging {
        trainer.judge(judge);
    }
    let watcher = Watcher::new(schedule.total, globals.json, String::new());
    let mut patient = Patient::new(watcher, args.run.patience);
    let ended = match trainer.run(&mut patient) {
        Err(error) if watcher::is_interrupt(&error) => Ended::Stopped,
        other => other?,
    };
    let early = ended == Ended::Stopped && patient.lost();
    let state = trainer.state().clone();
    drop(trainer);
    let (last, mut validation) =
        (patient.watcher.last.map(|step| step.loss), patient.watcher.validations.last().copied());
    let mut kept_step = state.step;
    if (ended != Ended::Stopped || early)
        && let Some((_, step)) = state.best.filter(|(_, step)| *step != state.step)
        && take_best(folder, step, &mut adapted)?
    {
        kept_step = step;
        validation = patient.watcher.validations.iter().find(|it| it.step == step).copied().or(validation);
    }
    drop(patient);
    let ranking = match ranking {
        Some((judged, before)) if ended != Ended::Stopped || early => {
            Some(Ranking { before, after: judged.judge(&mut adapted)? })
        }
        _ => None,
    };
    let written = match ended {
        Ended::Stopped if !early => None,
        _ => {
            adapted.save(&args.output)?;
            Some(args.output.clone())
        }
    };
    let size = std::fs::metadata(args.output.join("adapter_model.safetensors")).map_or(0, |it| it.len());
    Ok(Report {
        forecast,
        ended: match ended {
            Ended::Stopped if early => "no longer better",
            Ended::Stopped => "stopped",
            Ended::Finished => "finished",
            Ended::OutOfData => "out of data",
        },
        steps_done: state.step,
        seconds_spent: state.seconds,
        loss: last,
        validation_before: before,
        validation,
        ranking,
        kept_step,
        peak_bytes: memory().1,
        adapter: written,
        adapter_bytes: size,
        merges: settings.method.facts().merges,
    })
}

/// Takes the numbers of the best checkpoint, if it is still there.
fn take_best(folder: &Path, step: u64, adapted: &mut Adapted) -> anyhow::Result<bool> {
    let best = folder.join(format!("checkpoints/step-{step}"));
    if !best.is_dir() {
        return Ok(false);
    }
    checkpoint::load_weights(&best, adapted.params_mut())?;
    Ok(true)
}

fn print(report: &Report, args: &Args) -> anyhow::Result<()> {
    let time = units::time(report.seconds_spent);
    output::line(format!("{} after {} steps in {time}", report.ended, report.steps_done))?;
    if let Some(validation) = &report.validation {
        let before = report.validation_before.map_or(String::new(), |loss| format!(", before {loss:.4}"));
        output::line(format!(
            "validation of step {}: {}{before}",
            report.kept_step,
            watcher::said(validation)
        ))?;
    }
    if let Some(ranking) = &report.ranking {
        output::line(retrieve::said(ranking))?;
    }
    match &report.adapter {
        Some(adapter) if report.ranking.is_some() => output::line(format!(
            "{}: {}; next: ounce embed {} --adapter {} TEXT",
            adapter.display(),
            units::bytes(report.adapter_bytes),
            args.model,
            adapter.display()
        )),
        Some(adapter) => {
            let next = match (report.merges, args.cloze.wanted()) {
                (_, true) => {
                    format!("; next: ounce classify {} --adapter {} TEXT", args.model, adapter.display())
                }
                (true, false) => format!("; next: ounce run {} --adapter {}", args.model, adapter.display()),
                (false, false) => String::new(),
            };
            output::line(format!("{}: {}{next}", adapter.display(), units::bytes(report.adapter_bytes)))
        }
        None => output::line("the same command with --resume goes on"),
    }
}
