//! `ounce bench train`: the speed and memory of training steps, alone or beside PyTorch in one interleaved run.
//!
//! Every turn is a process of its own, so that its peak of memory is its own: ounce starts itself with `--turn`.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};
use ounce_kernels::gemm::Compute;
use ounce_kernels::isa::Isa;
use ounce_kernels::pool::Pool;
use ounce_model::account::training;
use ounce_model::model::{Format, Model, Origin};
use ounce_model::weights::MemorySource;
use ounce_model::{Config, Weights, families};
use ounce_train::net::{Init, Net, Options};
use ounce_train::optim::{Optimizer, Options as OptimizerOptions};
use ounce_train::schedule::{Schedule, Shape};
use ounce_train::{Batch, Trainable, trainer};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cli::Globals;
use crate::failure::Outcome;
use crate::interrupt::Watch;
use crate::progress::{Progress, Unit};
use crate::{output, source, units};

/// The peer: a plain PyTorch program with the same model, weights, data and optimizer.
const SCRIPT: &str = include_str!("../../../../../tests/compare/train_step.py");

/// Measure training steps: tokens a second, memory, losses
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce bench train                                       a decoder of 6 layers of width 256
  ounce bench train --layers 12 --hidden 512 --feed-forward 1536 --checkpointing
  ounce bench train --against python=.venv/bin/python     PyTorch in turn: same weights, same data, same optimizer
  ounce bench train --against python=python3 --precision bf16
  ounce bench train --against program=./candle-train      any program with the flags and the output of the script
  ounce bench train --data stories.txt --steps 300 --warmup 100 --against python=python3
  how losses compare on real text
The first two steps of a turn warm up and are not counted. Every turn is a process of its own.")]
pub struct Args {
    /// Layers
    #[arg(long, value_name = "N", default_value_t = 6)]
    layers: usize,
    /// Width of the residual stream
    #[arg(long, value_name = "N", default_value_t = 256)]
    hidden: usize,
    /// Attention heads
    #[arg(long, value_name = "N", default_value_t = 8)]
    heads: usize,
    /// Key/value heads; as many as heads if left away
    #[arg(long, value_name = "N")]
    kv_heads: Option<usize>,
    /// Inner width of the feed-forward halves
    #[arg(long, value_name = "N", default_value_t = 1024)]
    feed_forward: usize,
    /// Entries of the vocabulary; the head is not tied
    #[arg(long, value_name = "N", default_value_t = 4096)]
    vocab: usize,
    /// Tokens of a sequence
    #[arg(long, value_name = "N", default_value_t = 256)]
    context: usize,
    /// Sequences of a step
    #[arg(long, value_name = "N", default_value_t = 8)]
    batch: usize,
    /// Steps of a turn
    #[arg(long, value_name = "N", default_value_t = 8)]
    steps: usize,
    /// Turns of each tool
    #[arg(long, value_name = "N", default_value_t = 3)]
    turns: usize,
    /// What linear layers compute in; the peer uses autocast for bf16
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = ["f32", "bf16"])]
    precision: String,
    /// Keep only the layers' inputs and compute the rest again
    #[arg(long)]
    checkpointing: bool,
    /// A peer to run in turn: python=PATH of an interpreter that has torch, numpy and safetensors; or program=PATH
    #[arg(long, value_name = "KIND=PATH", value_parser = peer)]
    against: Option<Peer>,
    /// Text to train on, each part of it once, with the built-in model's tokenizer; random ids if left away
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Learning rate of AdamW
    #[arg(long, value_name = "RATE", default_value_t = 1e-3)]
    lr: f64,
    /// Steps in which the rate rises from zero; without them two runs that differ in rounding alone part by some percent
    #[arg(long, value_name = "N", default_value_t = 0)]
    warmup: usize,
    /// Run one turn on a folder made before, and print what was measured
    #[arg(long, value_name = "FOLDER", hide = true)]
    turn: Option<PathBuf>,
}

/// What runs in turn with ounce.
#[derive(Debug, Clone)]
enum Peer {
    /// An interpreter for the script in the program.
    Python(PathBuf),
    /// A program that takes the script's options and prints what it prints.
    Program(PathBuf),
}

fn peer(text: &str) -> Result<Peer, String> {
    match text.split_once('=') {
        Some(("python", path)) if !path.is_empty() => Ok(Peer::Python(path.into())),
        Some(("program", path)) if !path.is_empty() => Ok(Peer::Program(path.into())),
        _ => Err(format!(
            "{text} should read python=PATH, with an interpreter that has torch, or program=PATH"
        )),
    }
}

/// What one turn of either tool measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Turn {
    name: String,
    seconds: Vec<f64>,
    losses: Vec<f64>,
    peak_bytes: u64,
}

impl Turn {
    /// Steps that are not counted.
    const WARM_UP: usize = 2;

    /// Seconds of the steps that count, fastest first.
    fn counted(&self) -> Vec<f64> {
        let mut counted = self.seconds[Turn::WARM_UP..].to_vec();
        counted.sort_by(f64::total_cmp);
        counted
    }
}

/// One tool's turns.
#[derive(Debug, Serialize)]
struct Side {
    name: String,
    /// Of the fastest step.
    best_tokens_per_second: f64,
    /// Of the median step of each turn.
    tokens_per_second: Vec<f64>,
    peak_bytes: u64,
    losses: Vec<f64>,
}

impl Side {
    fn of(turns: &[Turn], tokens: usize) -> Side {
        let rate = |seconds: f64| tokens as f64 / seconds;
        let best = turns.iter().map(|turn| turn.counted()[0]).fold(f64::INFINITY, f64::min);
        let medians = turns.iter().map(Turn::counted).map(|counted| rate(counted[counted.len() / 2]));
        Side {
            name: turns[0].name.clone(),
            best_tokens_per_second: rate(best),
            tokens_per_second: medians.collect(),
            peak_bytes: turns.iter().map(|turn| turn.peak_bytes).max().unwrap_or(0),
            losses: turns[0].losses.clone(),
        }
    }
}

/// Ours beside the peer's.
#[derive(Debug, Serialize)]
struct Comparison {
    peer: Side,
    /// Ours over the peer's, of the fastest steps.
    best_ratio: f64,
    /// The same of the medians of each pair of turns.
    ratios: Vec<f64>,
    memory_ratio: f64,
    /// The greatest relative difference of the losses of a step.
    loss_difference: f64,
    /// Ours over the peer's, of the mean loss in the last tenth of the steps.
    last_loss_ratio: f64,
}

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Report {
    parameters: u64,
    tokens: usize,
    precision: String,
    checkpointing: bool,
    threads: usize,
    instruction_set: &'static str,
    operations_per_step: f64,
    ours: Side,
    #[serde(skip_serializing_if = "Option::is_none")]
    against: Option<Comparison>,
}

/// Runs the command.
///
/// # Errors
/// If the shape can't be built or the peer fails.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    if let Some(folder) = &args.turn {
        output::json(&turn(&args, folder)?)?;
        return Ok(Outcome::Done);
    }
    if !(args.lr.is_finite() && args.lr > 0.0) {
        bail!("--lr {} is no learning rate; 0.001 is usual", args.lr);
    }
    if args.steps <= Turn::WARM_UP || args.turns == 0 || args.batch == 0 || args.context == 0 {
        bail!("a turn needs {} steps or more, and batch, context and turns 1 or more", Turn::WARM_UP + 1);
    }
    let watch = Watch::start();
    let folder = tempfile::tempdir()?;
    let net = prepare(&args, folder.path())?;
    let spec = net.skeleton().spec.clone();
    drop(net);
    let tokens = args.batch * args.context;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut bar = Progress::new("training", Unit::Items);
    let works = args.turns * if args.against.is_some() { 2 } else { 1 };
    for _ in 0..args.turns {
        bar.set((ours.len() + theirs.len()) as u64, works as u64);
        watch.check()?;
        ours.push(own_turn(&args, folder.path())?);
        if let Some(peer) = &args.against {
            bar.set((ours.len() + theirs.len()) as u64, works as u64);
            watch.check()?;
            theirs.push(peer_turn(&args, peer, folder.path())?);
        }
    }
    drop(bar);
    let report = Report {
        parameters: spec.parameters(),
        tokens,
        precision: args.precision.clone(),
        checkpointing: args.checkpointing,
        threads: Pool::global().threads(),
        instruction_set: Isa::current().name(),
        operations_per_step: training::step_operations(&spec, tokens, args.context, false),
        ours: Side::of(&ours, tokens),
        against: (!theirs.is_empty()).then(|| compare(&ours, &theirs, tokens)),
    };
    if globals.json {
        output::json(&report)?
    } else {
        print(&report)?
    }
    Ok(Outcome::Done)
}

fn compare(ours: &[Turn], theirs: &[Turn], tokens: usize) -> Comparison {
    let (own, peer) = (Side::of(ours, tokens), Side::of(theirs, tokens));
    let pairs = own.tokens_per_second.iter().zip(&peer.tokens_per_second);
    let losses = own.losses.iter().zip(&peer.losses);
    Comparison {
        best_ratio: own.best_tokens_per_second / peer.best_tokens_per_second,
        ratios: pairs.map(|(own, peer)| own / peer).collect(),
        memory_ratio: own.peak_bytes as f64 / peer.peak_bytes as f64,
        loss_difference: losses.map(|(own, peer)| (own / peer - 1.0).abs()).fold(0.0, f64::max),
        last_loss_ratio: last_loss(&own.losses) / last_loss(&peer.losses),
        peer,
    }
}

/// The mean of the last tenth.
fn last_loss(losses: &[f64]) -> f64 {
    let last = &losses[losses.len() - losses.len().div_ceil(10)..];
    last.iter().sum::<f64>() / last.len() as f64
}

/// The model that both tools begin with, and its data, in a folder.
fn prepare(args: &Args, folder: &Path) -> anyhow::Result<Net> {
    let heads = args.heads.max(1);
    let config = json!({
        "model_type": "llama",
        "hidden_size": args.hidden,
        "intermediate_size": args.feed_forward,
        "num_hidden_layers": args.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": args.kv_heads.unwrap_or(heads),
        "head_dim": args.hidden / heads,
        "vocab_size": args.vocab,
        "tie_word_embeddings": false,
        "max_position_embeddings": args.context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
    });
    let serde_json::Value::Object(map) = config else { unreachable!("a configuration is an object") };
    let config = Config::new("<bench>", map);
    let (_, spec) = families::spec_of(&config)?;
    let model = Model {
        spec,
        weights: Weights::in_memory(MemorySource::new("<bench>")),
        tokenizer: None,
        chat: None,
        generation: Config::new("<bench>", serde_json::Map::new()),
        origin: Origin { path: config.path().to_path_buf(), format: Format::BuiltIn, name: None },
        config,
        extras: Vec::new(),
    };
    let net = Net::random(&model, Options::default(), Init::default(), 1)?;
    net.save(&folder.join("model"))?;
    let count = args.steps * args.batch * (args.context + 1);
    let ids = ids(args, count)?;
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    std::fs::write(folder.join("tokens.bin"), bytes)?;
    std::fs::write(folder.join("peer.py"), SCRIPT)?;
    Ok(net)
}

/// The ids that both tools train on.
fn ids(args: &Args, count: usize) -> anyhow::Result<Vec<u32>> {
    let Some(path) = &args.data else {
        let mut random = StdRng::seed_from_u64(1);
        return Ok((0..count).map(|_| random.random_range(0..args.vocab as u32)).collect());
    };
    let model = source::open(source::BUILT_IN)?;
    let tokenizer = source::tokenizer(&model)?;
    if args.vocab < tokenizer.id_limit() as usize {
        bail!("--data needs --vocab {} or more, the tokenizer's ids", tokenizer.id_limit());
    }
    // A token of the built-in vocabulary has four bytes on average; no more is read than could be needed.
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).with_context(|| format!("{} can't be read", path.display()))?;
    file.take(16 * count as u64).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut ids = tokenizer.encode(&text, false)?;
    if ids.len() < count {
        bail!(
            "{} has {} tokens, {count} are needed; ask for fewer steps or name a longer text",
            path.display(),
            ids.len()
        );
    }
    ids.truncate(count);
    Ok(ids)
}

/// One turn of ounce in this process.
fn turn(args: &Args, folder: &Path) -> anyhow::Result<Turn> {
    let model = Model::open(folder.join("model"))?;
    let compute = if args.precision == "bf16" { Compute::Bf16 } else { Compute::F32 };
    let options = Options { compute, checkpointing: args.checkpointing, ..Options::default() };
    let mut net = Net::from_model(&model, options)?;
    drop(model);
    let rule = OptimizerOptions { weight_decay: 0.0, ..OptimizerOptions::default() };
    let mut optimizer = Optimizer::new(rule, net.params())?;
    let bytes = std::fs::read(folder.join("tokens.bin"))?;
    let ids: Vec<u32> = bytes.as_chunks::<4>().0.iter().map(|it| u32::from_le_bytes(*it)).collect();
    let (mut seconds, mut losses) = (Vec::new(), Vec::new());
    let total = args.steps as u64;
    let schedule = Schedule { peak: args.lr, warmup: args.warmup as u64, total, shape: Shape::Constant };
    for (step, rows) in (0..).zip(ids.chunks_exact(args.batch * (args.context + 1))) {
        let batch = Batch::next_token(rows.chunks_exact(args.context + 1));
        let start = Instant::now();
        let loss = net.accumulate(&batch, 1.0 / batch.counted() as f32)?;
        optimizer.step(net.params_mut(), schedule.rate(step), 1.0);
        net.params_mut().iter_mut().for_each(|param| param.grad.fill(0.0));
        seconds.push(start.elapsed().as_secs_f64());
        losses.push(loss.mean());
    }
    let peak_bytes = trainer::memory().1.context("peak memory is known on Linux only")?;
    Ok(Turn { name: "ounce".to_string(), seconds, losses, peak_bytes })
}

fn own_turn(args: &Args, folder: &Path) -> anyhow::Result<Turn> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["bench", "train", "--threads", &Pool::global().threads().to_string(), "--turn"])
        .arg(folder);
    command.args(["--batch", &args.batch.to_string(), "--context", &args.context.to_string()]);
    command.args(["--precision", &args.precision]);
    command.args(["--lr", &args.lr.to_string(), "--warmup", &args.warmup.to_string()]);
    if args.checkpointing {
        command.arg("--checkpointing");
    }
    measured(&mut command, "ounce")
}

fn peer_turn(args: &Args, peer: &Peer, folder: &Path) -> anyhow::Result<Turn> {
    let (Peer::Python(path) | Peer::Program(path)) = peer;
    let mut command = Command::new(path);
    if let Peer::Python(_) = peer {
        command.arg(folder.join("peer.py"));
    }
    command.arg("--folder").arg(folder.join("model"));
    command.arg("--tokens").arg(folder.join("tokens.bin"));
    for (flag, value) in [("--batch", args.batch), ("--context", args.context), ("--steps", args.steps)] {
        command.args([flag, &value.to_string()]);
    }
    command.args(["--threads", &Pool::global().threads().to_string()]);
    command.args(["--lr", &args.lr.to_string(), "--warmup", &args.warmup.to_string()]);
    if args.precision == "bf16" {
        command.arg("--bf16");
    }
    measured(&mut command, &path.display().to_string())
}

fn measured(command: &mut Command, name: &str) -> anyhow::Result<Turn> {
    let ran = command.output().with_context(|| format!("{name} can't be started"))?;
    if !ran.status.success() {
        let said = String::from_utf8_lossy(&ran.stderr);
        bail!("{name} failed: {}", said.lines().last().unwrap_or("it said nothing"));
    }
    let turn: Turn =
        serde_json::from_slice(&ran.stdout).with_context(|| format!("{name} printed no measurement"))?;
    if turn.seconds.len() <= Turn::WARM_UP || turn.seconds.len() != turn.losses.len() {
        bail!("{name} measured {} steps, too few", turn.seconds.len());
    }
    Ok(turn)
}

fn print(report: &Report) -> anyhow::Result<()> {
    output::line(format!(
        "{} parameters, {} tokens a step, {}{}; {} threads, {}",
        units::count(report.parameters),
        report.tokens,
        report.precision,
        if report.checkpointing { ", checkpointing" } else { "" },
        report.threads,
        report.instruction_set
    ))?;
    let side = |side: &Side| {
        let mut medians = side.tokens_per_second.clone();
        medians.sort_by(f64::total_cmp);
        output::line(format!(
            "{:<24} {:>8.0} tokens/s (best {:.0})   {:>9} at most   loss {:.4} → {:.4}",
            side.name,
            medians[medians.len() / 2],
            side.best_tokens_per_second,
            units::bytes(side.peak_bytes),
            side.losses[0],
            side.losses[side.losses.len() - 1]
        ))
    };
    side(&report.ours)?;
    let rate = report.operations_per_step * report.ours.best_tokens_per_second / report.tokens as f64;
    output::line(format!("{:<24} {:>8.0} GFLOP/s in the best step", "", rate / 1e9))?;
    if let Some(against) = &report.against {
        side(&against.peer)?;
        let (least, greatest) = against
            .ratios
            .iter()
            .fold((f64::INFINITY, 0.0f64), |(least, greatest), &it| (least.min(it), greatest.max(it)));
        output::line(format!(
            "ratio {:.2} of the best steps ({least:.2}–{greatest:.2} of the turns' medians), memory {:.2}, losses differ by {:.1e} at most, by {:.2} % in the last tenth of the steps",
            against.best_ratio,
            against.memory_ratio,
            against.loss_difference,
            100.0 * (against.last_loss_ratio - 1.0)
        ))?;
    }
    Ok(())
}
