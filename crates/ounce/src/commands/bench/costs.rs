//! `ounce bench costs`: what running a model costs as budgets count it: memory at most, time to the first token, time a token.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};
use ounce_engine::{Engine, Mode};
use ounce_eval::speed::scattered_ids;
use ounce_kernels::attention::KvType;
use ounce_model::account::Formats;
use ounce_model::machine::{EnergyCounters, host};
use ounce_plan::calibrate::kv_name;
use serde::{Deserialize, Serialize};

use crate::cli::Globals;
use crate::failure::Outcome;
use crate::interrupt::Watch;
use crate::{compute, output, source, units};

/// Measure what running a model costs: memory at most, time to the first token, time a token at a context
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce bench costs ./model.gguf
  ounce bench costs ./model.gguf --prompt 512 --context 4096 --kv q8_0 --json
Memory is this process's own at most, tokenizer and cache included. The best of the rounds counts.")]
pub struct Args {
    #[arg(help = source::MODEL_HELP)]
    model: String,
    /// Tokens of the prompt
    #[arg(long, value_name = "N", default_value_t = 128)]
    prompt: usize,
    /// Positions of the cache; tokens are timed at its end
    #[arg(long, value_name = "N", default_value_t = 1024)]
    context: usize,
    /// How keys and values are cached: f32, f16, bf16, q8_0 or q4_0
    #[arg(long, value_name = "TYPE", value_parser = compute::kv_type)]
    kv: Option<KvType>,
    /// How often all is run
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// Open the model, and print the resident bytes before anything is loaded
    #[arg(long, hide = true)]
    opened: bool,
}

/// What was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measured {
    /// Resident bytes at most.
    pub memory: u64,
    /// Seconds to the first token, the best of the rounds.
    pub first_token: f64,
    /// Seconds for a token at the context's end, the median of the best round.
    pub per_token: f64,
    /// Joules for each token, where the system has a counter.
    pub energy_per_token: Option<f64>,
}

/// Tokens that are timed in a round.
const STEPS: usize = 32;

/// Runs the command.
///
/// # Errors
/// If the model can't be run, or the context is more than it has.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    let model = source::open(&args.model)?;
    if args.opened {
        return output::json(&host::resident_bytes().0.unwrap_or(0)).map(|()| Outcome::Done);
    }
    let most = model.spec.context_length;
    if !model.spec.causal {
        bail!("{}: this model generates nothing", args.model);
    }
    if args.context > most || args.prompt == 0 || args.prompt >= args.context || args.rounds == 0 {
        bail!(
            "--prompt should be 1 or more and less than --context, which is at most {most} here, and --rounds 1 or more; found {}, {} and {}",
            args.prompt,
            args.context,
            args.rounds
        );
    }
    let mut engine = Engine::load(&model, Mode::fast())?;
    let usual = compute::usual_kv_type(&Formats::of(&model.weights), Mode::fast());
    engine.set_kv_type(args.kv.unwrap_or(usual));
    let ids = scattered_ids(engine.spec().vocab_size, 0..args.context);
    let steps = STEPS.min(args.context - args.prompt);
    let filled = args.context - steps;
    let mut session = engine.session();
    let (mut first_token, mut per_token) = (f64::INFINITY, f64::INFINITY);
    let mut energy: Option<f64> = None;
    for _ in 0..args.rounds {
        session.truncate(0);
        let start = Instant::now();
        let logits = session.feed(&ids[..args.prompt], |_| {})?;
        session.reuse(logits);
        first_token = first_token.min(start.elapsed().as_secs_f64());
        if filled > args.prompt {
            let logits = session.feed(&ids[args.prompt..filled], |_| {})?;
            session.reuse(logits);
        }
        let counters = EnergyCounters::open().ok();
        let before = counters.as_ref().and_then(|it| it.read().ok());
        let mut times = Vec::with_capacity(steps);
        for id in ids[filled..].chunks(1) {
            let start = Instant::now();
            let logits = session.feed(id, |_| {})?;
            session.reuse(logits);
            times.push(start.elapsed().as_secs_f64());
        }
        let after = counters.as_ref().and_then(|it| it.read().ok());
        if let (Some(counters), Some(before), Some(after)) = (&counters, before, after) {
            let each = counters.joules(&before, &after) / steps as f64;
            energy = Some(energy.map_or(each, |it| it.min(each)));
        }
        times.sort_by(f64::total_cmp);
        per_token = per_token.min(times[times.len() / 2]);
    }
    let memory = host::resident_bytes().1.context("peak memory is known on Linux only")?;
    let measured = Measured { memory, first_token, per_token, energy_per_token: energy };
    if globals.json {
        output::json(&measured)?;
        return Ok(Outcome::Done);
    }
    let fact = |name: &str, value: String| output::line(format!("{name:<12} {value}"));
    let time = units::time;
    fact("memory", units::bytes(memory))?;
    fact("first token", format!("{} after a prompt of {}", time(first_token), args.prompt))?;
    fact("a token", format!("{} at {} positions", time(per_token), args.context))?;
    if let Some(joules) = energy {
        fact("energy", format!("{joules:.3} J a token"))?;
    }
    Ok(Outcome::Done)
}

/// Measures a model in a process of its own, so that its memory is its own.
///
/// # Errors
/// If ounce can't start itself, or the measurement fails.
pub fn apart(
    model: &str,
    (prompt, context): (usize, usize),
    kv: Option<KvType>,
    threads: usize,
) -> anyhow::Result<Measured> {
    let mut flags: Vec<String> = ["--prompt", "--context"].map(String::from).to_vec();
    flags.insert(1, prompt.to_string());
    flags.push(context.to_string());
    flags.extend(kv.into_iter().flat_map(|kv| ["--kv".to_owned(), kv_name(kv).to_owned()]));
    child(model, &flags, threads)
}

/// Resident bytes of a program that has opened a model and loaded nothing: its own, and mostly the tokenizer's.
///
/// # Errors
/// As [`apart`].
pub fn opened(model: &str) -> anyhow::Result<u64> {
    child(model, &["--opened".to_owned()], 1)
}

fn child<T: serde::de::DeserializeOwned>(model: &str, flags: &[String], threads: usize) -> anyhow::Result<T> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bench", "costs", "--json", "--threads", &threads.to_string()]).args(flags);
    let watch = Watch::start();
    let ran = command.arg("--").arg(model).output().context("ounce can't start itself")?;
    // Ctrl-C reaches both.
    watch.check()?;
    if !ran.status.success() {
        let said = String::from_utf8_lossy(&ran.stderr);
        bail!("{model} could not be measured: {}", said.lines().last().unwrap_or("it said nothing"));
    }
    serde_json::from_slice(&ran.stdout).context("a measurement printed no JSON")
}
