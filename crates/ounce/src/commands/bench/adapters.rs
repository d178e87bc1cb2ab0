//! `ounce bench adapters`: answers with different adapters in one batch, beside one after another and beside none.

use std::sync::Arc;
use std::time::Instant;

use ounce_engine::{Adapter, Engine, LowRank, Mode, Session, Turn, Want};
use ounce_eval::stats::quantile;
use ounce_kernels::DType;
use ounce_model::Model;
use ounce_train::net::normal;
use serde::Serialize;

use crate::cli::Globals;
use crate::compute::ComputeArgs;
use crate::failure::Outcome;
use crate::interrupt::Watch;
use crate::progress::{Progress, Unit};
use crate::{output, source};

/// Measure how fast sequences with different adapters are answered together, one after another, and without adapters
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce bench adapters builtin
  ounce bench adapters --shape smollm2-135m --quant q8_0 --adapters 8 --rank 16
Every sequence has a LoRA of its own with random numbers on all matrices of the layers. Three ways take turns: all sequences in one batch, each
with its adapter; one after another, as a program does that changes adapters between requests (what the change itself takes is not
counted); and one batch without adapters. Tokens a second, best of the turns, and the median of the ratios of each turn.")]
pub struct Args {
    #[arg(help = source::MODEL_HELP, required_unless_present = "shape", conflicts_with = "shape")]
    model: Option<String>,
    /// A published shape with random weights in place of a model, as `ounce forecast` lists them
    #[arg(long, value_name = "NAME")]
    shape: Option<String>,
    /// Sequences, each with its own adapter
    #[arg(long, value_name = "N", default_value_t = 8)]
    adapters: usize,
    /// Rank of the adapters
    #[arg(long, value_name = "N", default_value_t = 8)]
    rank: usize,
    /// Tokens that each sequence goes on with
    #[arg(short = 'n', long, value_name = "N", default_value_t = 32)]
    tokens: usize,
    /// Turns
    #[arg(long, value_name = "N", default_value_t = 5)]
    turns: usize,
    #[command(flatten)]
    compute: ComputeArgs,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    adapters: usize,
    rank: usize,
    /// Bytes of one adapter.
    adapter_bytes: usize,
    /// Tokens a second.
    together: f64,
    one_by_one: f64,
    without: f64,
    /// Medians of turns: how many times as fast as one after another, and what share of the speed without adapters.
    times_one_by_one: f64,
    of_without: f64,
}

/// Runs the command.
///
/// # Errors
/// If the model can't be run, or a number makes no sense.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    let Args { adapters, rank, tokens, turns, .. } = args;
    if [adapters, rank, tokens, turns].contains(&0) {
        anyhow::bail!("--adapters, --rank, --tokens and --turns should be 1 or more");
    }
    let model = super::speed::open(args.shape.as_deref(), args.model.as_deref(), DType::BF16, 0.0)?;
    let engine = args.compute.load(&model, Mode::fast())?;
    let made: Vec<Arc<Adapter>> =
        (0..adapters).map(|n| engine.adapter(random(&model, rank, n as u64))).collect::<Result<_, _>>()?;
    let with: Vec<Option<Arc<Adapter>>> = made.iter().cloned().map(Some).collect();
    let none = vec![None; adapters];
    let alone: Vec<&[Option<Arc<Adapter>>]> = with.chunks(1).collect();
    let ways: [Vec<&[Option<Arc<Adapter>>]>; 3] = [vec![&with], alone, vec![&none]];
    let watch = Watch::start();
    let mut bar = Progress::new("answering", Unit::Items);
    let mut speeds: [Vec<f64>; 3] = Default::default();
    // The first turn warms up.
    for turn in 0..=turns {
        for (way, speeds) in ways.iter().zip(&mut speeds) {
            watch.check()?;
            let start = Instant::now();
            way.iter().try_for_each(|group| answer(&engine, group, tokens))?;
            if turn > 0 {
                speeds.push((adapters * tokens) as f64 / start.elapsed().as_secs_f64());
            }
        }
        bar.set(turn as u64, turns as u64);
    }
    drop(bar);
    let best = |way: usize| speeds[way].iter().copied().fold(0.0, f64::max);
    let ratio = |to: usize| {
        let all: Vec<f64> = speeds[0].iter().zip(&speeds[to]).map(|(own, other)| own / other).collect();
        quantile(&all, 0.5)
    };
    let report = Report {
        adapters,
        rank,
        adapter_bytes: made[0].bytes(),
        together: best(0),
        one_by_one: best(1),
        without: best(2),
        times_one_by_one: ratio(1),
        of_without: ratio(2),
    };
    if globals.json {
        output::json(&report)?;
        return Ok(Outcome::Done);
    }
    let mut table = output::table(&["", "tokens/s", "together is"]);
    table.add_row([
        format!("{adapters} adapters in one batch"),
        format!("{:.1}", report.together),
        String::new(),
    ]);
    let one = [
        "one after another".into(),
        format!("{:.1}", report.one_by_one),
        format!("{:.2}×", report.times_one_by_one),
    ];
    table.add_row(one);
    let none = [
        "one batch without adapters".into(),
        format!("{:.1}", report.without),
        format!("{:.2}×", report.of_without),
    ];
    table.add_row(none);
    output::print_table(&table)?;
    Ok(Outcome::Done)
}

/// Sequences that go on from one token in one batch.
fn answer(engine: &Engine, adapters: &[Option<Arc<Adapter>>], tokens: usize) -> anyhow::Result<()> {
    let mut sessions: Vec<Session<'_>> =
        adapters.iter().map(|it| engine.session().with_adapter(it.clone())).collect::<Result<_, _>>()?;
    let mut batch = engine.batch();
    for at in 0..tokens {
        // What is written does not matter for time.
        let ids = [(at * 7 + 1) as u32 % engine.spec().vocab_size as u32];
        let mut turns: Vec<Turn<'_, '_>> =
            sessions.iter_mut().map(|session| Turn { session, ids: &ids, want: Want::Last }).collect();
        std::hint::black_box(batch.step(&mut turns)?);
    }
    Ok(())
}

/// A LoRA of random numbers on all matrices of the layers that can have one.
fn random(model: &Model, rank: usize, seed: u64) -> Vec<LowRank> {
    let tensors = model.spec.tensors().into_iter();
    let outside =
        |name: &str| !name.starts_with("layers.") || name.contains(".experts.") || name.contains(".router");
    let layers = tensors.filter(|it| it.shape.len() == 2 && !outside(&it.name));
    let linear = |name: &str| name.strip_suffix(".weight").map(str::to_owned);
    layers
        .filter_map(|it| {
            let name = linear(&it.name)?;
            let (output, input) = (it.shape[0], it.shape[1]);
            Some(LowRank {
                rank,
                reduce: normal(0.02, rank * input, seed, &format!("{name}.a")),
                expand: normal(0.02, output * rank, seed, &format!("{name}.b")),
                scale: 1.0,
                name,
            })
        })
        .collect()
}
