//! `ounce bench speed`: tokens a second of prompts and of generation, alone or beside llama-bench in one interleaved run.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use ounce_engine::{Cost, Mode, Operator, Profile};
use ounce_eval::speed::{Speed, SpeedOptions, run_once};
use ounce_kernels::DType;
use ounce_kernels::isa::Isa;
use ounce_kernels::pool::Pool;
use ounce_lab::shapes;
use ounce_model::Model;
use ounce_model::machine::{Alongside, Machine, OpKind};
use serde::Serialize;

use super::super::profile::known;
use super::peer::Peer;
use crate::cli::Globals;
use crate::compute::ComputeArgs;
use crate::failure::Outcome;
use crate::interrupt::Watch;
use crate::progress::{Progress, Unit};
use crate::{output, source, units};

/// How long memory is read before a run that it is compared with.
const READ_TIME: Duration = Duration::from_millis(60);

/// Measure tokens a second: prompts (pp) and generation (tg)
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce bench speed ./model.gguf                              pp512 and tg128
  ounce bench speed ./folder --quant q4_0 -p 64,512 -n 32
  ounce bench speed --shape smollm2-135m --type q8_0          random weights of a published shape
  ounce bench speed --shape llama-3.2-1b --type bf16 --zeros 0.5
  ounce bench speed ./model.gguf --against ./llama-bench      both in turn, with the ratio
  ounce bench speed ./model.gguf --sequences 8 --drafts 2,4,8  eight sequences at once; checks of drafted tokens
  ounce bench speed ./model.gguf --profile                    where the time goes
  ounce bench speed ./model.gguf --bandwidth                  what of memory's rate generation reaches
Every piece of work is run once to warm up and then --repetitions times; with --against the two tools take turns.")]
pub struct Args {
    #[arg(help = source::MODEL_HELP, required_unless_present = "shape", conflicts_with = "shape")]
    model: Option<String>,
    /// A model of this published shape with random weights: smollm2-135m, qwen2.5-0.5b, llama-3.2-1b, qwen3-4b,
    /// mixtral-mini
    #[arg(long, value_name = "NAME")]
    shape: Option<String>,
    /// Stored format of the random weights
    #[arg(long = "type", value_name = "TYPE", default_value = "q8_0", requires = "shape", value_parser = dtype)]
    dtype: DType,
    /// Share of the random weights that are zero, as in a pruned model
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, requires = "shape")]
    zeros: f64,
    /// Prompt lengths
    #[arg(short = 'p', long, value_name = "N,…", value_delimiter = ',', default_value = "512")]
    prompts: Vec<usize>,
    /// Numbers of generated tokens
    #[arg(short = 'n', long, value_name = "N,…", value_delimiter = ',', default_value = "128")]
    generations: Vec<usize>,
    /// Numbers of sequences that generate at once
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    sequences: Vec<usize>,
    /// Numbers of drafted tokens that one step checks, as speculative decoding does
    #[arg(long, value_name = "N,…", value_delimiter = ',', conflicts_with = "against")]
    drafts: Vec<usize>,
    /// Show where the time of each piece of work goes: seconds, bytes and operations by kind of work
    #[arg(long)]
    profile: bool,
    /// Read memory with a plain loop before every timed run of generation, and show what generation reads of that
    #[arg(long)]
    bandwidth: bool,
    /// Tokens that lie in the cache before generation begins
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "against")]
    depth: usize,
    /// Timed runs of each piece of work
    #[arg(short = 'r', long, value_name = "N", default_value_t = 5)]
    repetitions: usize,
    /// A llama-bench program (or one that takes its -m -p -n -r -t -o json) to run in turn on the same model
    #[arg(long, value_name = "PATH")]
    against: Option<PathBuf>,
    #[command(flatten)]
    compute: ComputeArgs,
}

fn dtype(name: &str) -> Result<DType, String> {
    DType::parse(name)
        .ok_or_else(|| format!("{name} is no stored format; take q8_0, q4_0, q4_k, q6_k, bf16, f16 or f32"))
}

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    parameters: u64,
    weight_bytes: u64,
    packed_bytes: usize,
    /// What most of the products compute in.
    products: OpKind,
    threads: usize,
    instruction_set: &'static str,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    #[serde(flatten)]
    speed: Speed,
    mean: f64,
    deviation: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<Speed>,
    /// Ours over the peer's, of the medians of the turns.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
    /// The least and the greatest ratio of two runs that followed each other.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio_range: Option<(f64, f64)>,
    /// Time of a step in milliseconds.
    step_ms: f64,
    /// How a step reads, and how a plain loop did in between.
    #[serde(skip_serializing_if = "Option::is_none")]
    bandwidth: Option<Bandwidth>,
    /// Where the time of one run went.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    profile: Vec<Line>,
}

/// Reading of memory: medians of the runs.
#[derive(Debug, Serialize)]
struct Bandwidth {
    /// Weights, keys and values that a step reads.
    bytes_per_step: u64,
    bytes_per_second: f64,
    plain_loop_bytes_per_second: f64,
    /// Of pairs of a plain loop and the run that followed.
    share: f64,
}

/// One kind of work in a profile.
#[derive(Debug, Serialize)]
struct Line {
    operator: Operator,
    #[serde(flatten)]
    cost: Cost,
}

/// Runs the command.
///
/// # Errors
/// If the model can't be run, or the peer fails.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    let numbers = [&args.prompts, &args.generations, &args.sequences, &args.drafts];
    if args.repetitions == 0 || numbers.into_iter().flatten().any(|&number| number == 0) {
        bail!("lengths and numbers of repetitions, sequences and drafts should be 1 or more");
    }
    let watch = Watch::start();
    if !(0.0..1.0).contains(&args.zeros) {
        bail!("--zeros is a share of all weights, 0 or more and less than 1; found {}", args.zeros);
    }
    let model = open(args.shape.as_deref(), args.model.as_deref(), args.dtype, args.zeros)?;
    let engine = args.compute.load(&model, Mode::fast())?;
    let options = SpeedOptions {
        prompts: args.prompts.clone(),
        generations: args.generations.clone(),
        sequences: args.sequences.clone(),
        drafts: args.drafts.clone(),
        depth: args.depth,
        repetitions: args.repetitions,
    };
    let peer = args.against.as_deref().map(|program| Peer::new(program, &model)).transpose()?;
    let pool = Pool::global();
    let alongside = args.bandwidth.then(|| Alongside::new(pool)).transpose()?;
    let mut rows = Vec::new();
    let mut bar = Progress::new("timing", Unit::Items);
    let works = options.works();
    let total = (works.len() * (options.repetitions + 1)) as u64;
    for (index, &work) in works.iter().enumerate() {
        let (mut ours, mut theirs, mut reads) = (Vec::new(), Vec::new(), Vec::new());
        let alongside = alongside.as_ref().filter(|_| work.steps() > 1);
        // The run that warms up is also the one that is looked into: looking takes time.
        let warm = run_once(&engine, work, options.depth, args.profile || alongside.is_some())?;
        for repetition in 0..options.repetitions {
            watch.check()?;
            bar.set((index * (options.repetitions + 1) + repetition + 1) as u64, total);
            reads.extend(alongside.map(|it| it.read(pool, READ_TIME)));
            ours.push(run_once(&engine, work, options.depth, false)?.tokens_per_second);
            if let Some(peer) = &peer {
                theirs.push(peer.run_once(work)?);
            }
        }
        let peer = peer.is_some().then_some(Speed { work, samples: theirs });
        let mut row = Row::new(Speed { work, samples: ours }, peer, warm.profile.as_ref());
        row.bandwidth = Bandwidth::new(&row, &reads);
        if !args.profile {
            row.profile.clear();
        }
        rows.push(row);
    }
    drop(bar);
    let report = Report {
        model: model.origin.path.display().to_string(),
        parameters: model.spec.parameters(),
        weight_bytes: model.weight_bytes(),
        packed_bytes: engine.packed_bytes(),
        products: products(&model),
        threads: Pool::global().threads(),
        instruction_set: Isa::current().name(),
        rows,
    };
    if globals.json {
        output::json(&report)?
    } else {
        print(&report)?
    }
    Ok(Outcome::Done)
}

/// The model that was named, or one of a published shape with random weights in `dtype`.
///
/// # Errors
/// If it can't be read, or there is no such shape.
pub(super) fn open(
    shape: Option<&str>,
    model: Option<&str>,
    dtype: DType,
    zeros: f64,
) -> anyhow::Result<Model> {
    match (shape, model) {
        (Some(name), _) => {
            let bar = std::cell::RefCell::new(Progress::new("making weights", Unit::Items));
            let share = |done: f64| bar.borrow_mut().set((done * 1000.0) as u64, 1000);
            Ok(shapes::by_name(name)?.sparse_model(dtype, zeros, 1, &share)?)
        }
        (None, Some(reference)) => source::open(reference),
        (None, None) => bail!("name a model or a --shape"),
    }
}

impl Bandwidth {
    /// Of a row that was looked into, if memory was read before each of its runs.
    fn new(row: &Row, reads: &[f64]) -> Option<Bandwidth> {
        if reads.is_empty() {
            return None;
        }
        let work = row.speed.work;
        let bytes: u64 = row.profile.iter().map(|line| line.cost.bytes).sum();
        let bytes_per_token = bytes as f64 / work.tokens() as f64;
        let shares: Vec<f64> = row
            .speed
            .samples
            .iter()
            .zip(reads)
            .map(|(tokens, read)| tokens * bytes_per_token / read)
            .collect();
        Some(Bandwidth {
            bytes_per_step: bytes / work.steps() as u64,
            bytes_per_second: median(&row.speed.samples) * bytes_per_token,
            plain_loop_bytes_per_second: median(reads),
            share: median(&shares),
        })
    }
}

impl Row {
    fn new(speed: Speed, peer: Option<Speed>, profile: Option<&Profile>) -> Row {
        let ratio = peer.as_ref().map(|peer| median(&speed.samples) / median(&peer.samples));
        let ratio_range = peer.as_ref().map(|peer| {
            let ratios = speed.samples.iter().zip(&peer.samples).map(|(ours, theirs)| ours / theirs);
            ratios.fold((f64::INFINITY, 0.0f64), |(least, greatest), it| (least.min(it), greatest.max(it)))
        });
        let work = speed.work;
        let lines = profile.into_iter().flat_map(Profile::costs);
        Row {
            name: work.name(),
            mean: speed.mean(),
            deviation: speed.deviation(),
            step_ms: 1e3 * work.tokens() as f64 / work.steps() as f64 / median(&speed.samples),
            bandwidth: None,
            profile: lines.map(|(operator, cost)| Line { operator, cost }).collect(),
            speed,
            peer,
            ratio,
            ratio_range,
        }
    }
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

fn print(report: &Report) -> anyhow::Result<()> {
    output::line(format!(
        "{}: {} parameters, {} of weights, {} packed; {} threads, {}",
        report.model,
        units::count(report.parameters),
        units::bytes(report.weight_bytes),
        units::bytes(report.packed_bytes as u64),
        report.threads,
        report.instruction_set
    ))?;
    let profiled = report.rows.iter().any(|row| !row.profile.is_empty());
    let machine = profiled.then(|| known(report.threads)).flatten();
    if profiled && machine.is_none() {
        output::note(
            "this machine's limits are not known; ounce profile measures them, for shares beside the rates",
        );
    }
    for row in &report.rows {
        let mut line = format!("{:<8} {:>9.1} ± {:.1} tokens/s", row.name, row.mean, row.deviation);
        if let (Some(peer), Some(ratio), Some((least, greatest))) = (&row.peer, row.ratio, row.ratio_range) {
            let (mean, deviation) = (peer.mean(), peer.deviation());
            line +=
                &format!("   peer {mean:.1} ± {deviation:.1}   ratio {ratio:.2} ({least:.2}–{greatest:.2})");
        }
        if row.speed.work.steps() > 1 {
            line += &format!("   {:.2} ms a step", row.step_ms);
        }
        if let Some(it) = &row.bandwidth {
            let (read, plain) = (it.bytes_per_second / 1e9, it.plain_loop_bytes_per_second / 1e9);
            line += &format!(", {read:.1} GB/s: {:.0} % of a plain loop's {plain:.1}", 100.0 * it.share);
        }
        output::line(line)?;
        print_profile(&row.profile, report, machine.as_ref())?;
    }
    Ok(())
}

/// A line for each kind of work: its share of the time, the rates at which it read and computed, and what they are of the
/// machine's limits, if those are known.
fn print_profile(lines: &[Line], report: &Report, machine: Option<&Machine>) -> anyhow::Result<()> {
    let total: f64 = lines.iter().map(|line| line.cost.seconds).sum();
    for Line { operator, cost } in lines {
        let rate = |amount: u64| amount as f64 / cost.seconds.max(1e-12);
        let mut line = format!(
            "  {:<18} {:>5.1} %  {:>9.3} ms  {:>6} calls",
            operator.name(),
            100.0 * cost.seconds / total,
            1e3 * cost.seconds,
            cost.calls
        );
        if cost.bytes > 0 {
            let (read, computed) = (rate(cost.bytes), rate(cost.operations));
            line += &format!("  {:>7.1} GB/s  {:>7.1} GOP/s", read / 1e9, computed / 1e9);
            let kind = if *operator == Operator::Attention { OpKind::F32 } else { report.products };
            let limits =
                machine.map(|it| (it.read_bandwidth(report.threads), it.peak_ops(kind, report.threads)));
            if let Some((bandwidth, Some(peak))) = limits.filter(|(bandwidth, _)| *bandwidth > 0.0) {
                let (read, computed) = (100.0 * read / bandwidth, 100.0 * computed / peak);
                line += &format!("  {read:>4.0} % of memory, {computed:>3.0} % of arithmetic");
            }
        }
        output::line(line)?;
    }
    Ok(())
}

/// What the products of a model's largest matrix compute in.
fn products(model: &Model) -> OpKind {
    let sizes = model.weights.names().filter_map(|name| model.weights.info(name));
    let largest = sizes.max_by_key(|(_, shape)| shape.iter().product::<usize>());
    match largest {
        Some((dtype, _)) if dtype.is_block() => OpKind::Int8,
        Some((DType::BF16 | DType::F8E4M3 | DType::F8E5M2, _)) if Isa::current() == Isa::Amx => {
            OpKind::MatrixBf16
        }
        Some((DType::BF16 | DType::F8E4M3 | DType::F8E5M2, _)) => OpKind::Bf16,
        _ => OpKind::F32,
    }
}
