//! `ounce bench speed`: tokens a second of prompts and of generation, alone or beside llama-bench in one interleaved run.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use ounce_engine::{Engine, Mode};
use ounce_eval::speed::{Speed, SpeedOptions, Work, run_once};
use ounce_kernels::DType;
use ounce_kernels::isa::Isa;
use ounce_kernels::pool::Pool;
use ounce_lab::shapes;
use ounce_model::Model;
use ounce_model::formats::{WriteOptions, gguf_model};
use serde::Serialize;

use crate::cli::Globals;
use crate::compute::ComputeArgs;
use crate::failure::Outcome;
use crate::interrupt::Watch;
use crate::progress::{Progress, Unit};
use crate::{output, source, units};

/// Measure tokens a second: prompts (pp) and generation (tg)
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce bench speed ./model.gguf                              pp512 and tg128
  ounce bench speed ./folder --quant q4_0 -p 64,512 -n 32
  ounce bench speed --shape smollm2-135m --type q8_0          random weights of a published shape
  ounce bench speed ./model.gguf --against ./llama-bench      both in turn, with the ratio
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
    /// Prompt lengths
    #[arg(short = 'p', long, value_name = "N,…", value_delimiter = ',', default_value = "512")]
    prompts: Vec<usize>,
    /// Numbers of generated tokens
    #[arg(short = 'n', long, value_name = "N,…", value_delimiter = ',', default_value = "128")]
    generations: Vec<usize>,
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
}

/// Runs the command.
///
/// # Errors
/// If the model can't be run, or the peer fails.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    if args.repetitions == 0 || args.prompts.iter().chain(&args.generations).any(|&tokens| tokens == 0) {
        bail!("lengths and repetitions should be 1 or more");
    }
    let watch = Watch::start();
    let model = open(&args)?;
    let engine = Engine::load(&model, args.compute.mode(Mode::fast())?)?;
    let options = SpeedOptions {
        prompts: args.prompts.clone(),
        generations: args.generations.clone(),
        depth: args.depth,
        repetitions: args.repetitions,
    };
    let peer = args.against.as_deref().map(|program| Peer::new(program, &model)).transpose()?;
    let mut rows = Vec::new();
    let mut bar = Progress::new("timing", Unit::Items);
    let works = options.works();
    let total = (works.len() * (options.repetitions + 1)) as u64;
    for (index, &work) in works.iter().enumerate() {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        run_once(&engine, work, options.depth)?;
        for repetition in 0..options.repetitions {
            watch.check()?;
            bar.set((index * (options.repetitions + 1) + repetition + 1) as u64, total);
            ours.push(run_once(&engine, work, options.depth)?);
            if let Some(peer) = &peer {
                theirs.push(peer.run_once(work)?);
            }
        }
        rows.push(Row::new(
            Speed { work, samples: ours },
            peer.is_some().then_some(Speed { work, samples: theirs }),
        ));
    }
    drop(bar);
    let report = Report {
        model: model.origin.path.display().to_string(),
        parameters: model.spec.parameters(),
        weight_bytes: model.weight_bytes(),
        packed_bytes: engine.packed_bytes(),
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

fn open(args: &Args) -> anyhow::Result<Model> {
    match (&args.shape, &args.model) {
        (Some(name), _) => {
            let bar = std::cell::RefCell::new(Progress::new("making weights", Unit::Items));
            let share = |done: f64| bar.borrow_mut().set((done * 1000.0) as u64, 1000);
            Ok(shapes::by_name(name)?.model(args.dtype, 1, &share)?)
        }
        (None, Some(reference)) => source::open(reference),
        (None, None) => bail!("name a model or a --shape"),
    }
}

impl Row {
    fn new(speed: Speed, peer: Option<Speed>) -> Row {
        let ratio = peer.as_ref().map(|peer| median(&speed.samples) / median(&peer.samples));
        Row { name: speed.work.name(), mean: speed.mean(), deviation: speed.deviation(), speed, peer, ratio }
    }
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// Another program that measures the same work on the same file.
struct Peer {
    program: PathBuf,
    file: PathBuf,
    /// Keeps a file that was written for the peer until the end.
    _folder: Option<tempfile::TempDir>,
}

impl Peer {
    /// A peer for a model; one that is no GGUF file is written as one first.
    fn new(program: &Path, model: &Model) -> anyhow::Result<Peer> {
        if model.origin.path.is_file() {
            return Ok(Peer {
                program: program.to_path_buf(),
                file: model.origin.path.clone(),
                _folder: None,
            });
        }
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("model.gguf");
        gguf_model::write_model(model, &file, &WriteOptions::default(), &mut |_, _| Ok(()))?;
        Ok(Peer { program: program.to_path_buf(), file, _folder: Some(folder) })
    }

    /// Tokens a second of one timed run.
    fn run_once(&self, work: Work) -> anyhow::Result<f64> {
        let (prompt, generation) = match work {
            Work::Prompt(tokens) => (tokens, 0),
            Work::Generation(tokens) => (0, tokens),
        };
        let name = self.program.display();
        let ran = Command::new(&self.program)
            .arg("-m")
            .arg(&self.file)
            .args(["-p", &prompt.to_string(), "-n", &generation.to_string(), "-r", "1", "-o", "json"])
            .args(["-t", &Pool::global().threads().to_string()])
            .output()
            .with_context(|| format!("{name} can't be started; give the path of a llama-bench program"))?;
        if !ran.status.success() {
            let said = String::from_utf8_lossy(&ran.stderr);
            bail!("{name} failed: {}", said.lines().last().unwrap_or("it said nothing"));
        }
        let rows: serde_json::Value =
            serde_json::from_slice(&ran.stdout).with_context(|| format!("{name} printed no JSON"))?;
        rows[0]["avg_ts"].as_f64().with_context(|| format!("{name} printed no avg_ts"))
    }
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
    for row in &report.rows {
        let mut line = format!("{:<8} {:>9.1} ± {:.1} tokens/s", row.name, row.mean, row.deviation);
        if let (Some(peer), Some(ratio)) = (&row.peer, row.ratio) {
            line += &format!("   peer {:.1} ± {:.1}   ratio {ratio:.2}", peer.mean(), peer.deviation());
        }
        output::line(line)?;
    }
    Ok(())
}
