//! `ounce forecast`: what a model will cost on this machine, before it is downloaded, made or run.

mod picture;
mod timings;
mod what_if;

use std::path::PathBuf;

use anyhow::bail;
use ounce_engine::Mode;
use ounce_kernels::DType;
use ounce_model::Spec;
use ounce_model::account::Formats;
use ounce_model::account::sizes::{GroupSize, groups};
use ounce_model::machine::{Cpu, Machine};
use ounce_plan::calibrate::{Calibration, run_whole};
use ounce_plan::forecast::{Forecast, KvType, OperatorForecast, Phase, Workload, forecast};
use ounce_plan::shapes;
use serde::Serialize;

use crate::cli::Globals;
use crate::failure::Outcome;
use crate::units::{self, time};
use crate::{calibration, compute, output, source};

/// Tell what a model will cost on this machine: memory, time to the first token, time a token, by operator
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce forecast ./model.gguf --prompt 512 --context 2048
  ounce forecast --shape llama-3.2-1b --type q4_0 --operators   nothing is downloaded or made
  ounce forecast ./folder --type q4_k                       as if its matrices were in this format
  ounce forecast --shape qwen2.5-0.5b --what-if             formats, cache, batch side by side
  ounce forecast --shape llama-3.2-1b --type bf16 --zeros 0.5   half of the weights pruned
  ounce forecast --shape smollm2-135m --plot roofline.svg
  ounce forecast ./model.gguf --now                         as fast as the machine is at this moment
  ounce forecast --shape qwen3-4b --machine other.json      on a machine whose profile was copied here
  ounce forecast builtin --timings --request 200:50         fit a few runs, tell what other requests take
It stands on what `ounce profile` measured.")]
pub struct Args {
    #[arg(help = source::MODEL_HELP, required_unless_present = "shape", conflicts_with = "shape")]
    model: Option<String>,
    /// A published shape in place of a model: smollm2-135m, qwen2.5-0.5b, llama-3.2-1b, qwen3-4b, mixtral-mini
    #[arg(long, value_name = "NAME")]
    shape: Option<String>,
    /// Tokens of the prompt
    #[arg(long, value_name = "N", default_value_t = 512)]
    prompt: usize,
    /// Positions in the cache when a token is generated [default: those of the prompt, and one]
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// Sequences that generate at once
    #[arg(long, value_name = "N", default_value_t = 1)]
    batch: usize,
    /// Format of all matrices; a model's own if left away, q8_0 of a shape
    #[arg(long = "type", value_name = "TYPE", value_parser = dtype)]
    dtype: Option<DType>,
    /// As if so many of the weights of layers were zero, as `ounce prune --method wanda --ratio` leaves them; a model's own zeros count
    /// without this
    #[arg(long, value_name = "SHARE", value_parser = share)]
    zeros: Option<f64>,
    /// How keys and values are cached: f32, f16, bf16, q8_0 or q4_0; f16 unless all weights are F32
    #[arg(long, value_name = "TYPE", value_parser = compute::kv_type)]
    kv: Option<KvType>,
    /// Show each operator: calls, operations, bytes, intensity, what binds it, time
    #[arg(long)]
    operators: bool,
    /// Show other formats, caches and batches beside it
    #[arg(long)]
    what_if: bool,
    /// Draw the roofline with every operator on it, as .svg or .png
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Run a model with random weights in these formats first, a second each: for a machine that is busier, or less busy, than when
    /// it was profiled
    #[arg(long, conflicts_with = "machine")]
    now: bool,
    /// The profile of another machine, as `ounce profile` keeps it; its kernels are estimated from its limits
    #[arg(long, value_name = "FILE")]
    machine: Option<PathBuf>,
    /// Time a few runs of the model, fit prompt and token times to them, and tell how well they fit (method 72)
    #[arg(long, conflicts_with_all = ["machine", "what_if", "plot", "operators"])]
    timings: bool,
    /// With --timings: requests to tell the time of, as prompt:answer tokens
    #[arg(long, value_name = "P:O,…", value_delimiter = ',', value_parser = timings::request, requires = "timings")]
    request: Vec<(usize, usize)>,
    /// With --timings: price of an hour of this machine, for the cost of each request
    #[arg(long, value_name = "PRICE", requires = "timings")]
    hour_price: Option<f64>,
}

fn dtype(name: &str) -> Result<DType, String> {
    DType::parse(name).filter(|it| it.is_weight()).ok_or_else(|| format!("{name} is no stored format"))
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| format!("{text} is no number"))?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("a share is between 0 and 1".to_string()) }
}

/// The formats of a model's matrices.
fn matrices(spec: &Spec, formats: &Formats) -> Vec<DType> {
    let matrices = spec.tensors().into_iter().filter(|tensor| tensor.shape.len() > 1);
    let mut found: Vec<DType> = matrices.filter_map(|tensor| formats.get(&tensor.name)).collect();
    found.sort_by_key(|dtype| dtype.name());
    found.dedup();
    found
}

/// What is forecast, and on what.
struct Question {
    spec: Spec,
    formats: Formats,
    machine: Machine,
    calibration: Calibration,
    workload: Workload,
}

impl Question {
    fn answer(&self) -> anyhow::Result<Forecast> {
        let Question { spec, formats, machine, calibration, workload } = self;
        Ok(forecast(spec, formats, machine, calibration, workload)?)
    }
}

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    parameters: u64,
    groups: Vec<GroupSize>,
    batch: usize,
    prompt: usize,
    context: usize,
    threads: usize,
    kv: &'static str,
    /// Whether the kernels were timed on this machine; else they are estimated from its limits.
    calibrated: bool,
    tokens_per_second: f64,
    forecast: Forecast,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    what_if: Vec<what_if::Row>,
}

/// Runs the command.
///
/// # Errors
/// If the model can't be opened, a number is out of its range, or this machine was not measured.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    if args.timings {
        return timings::run(&args, globals);
    }
    let threads = if globals.threads == 0 { Cpu::detect().cores } else { globals.threads };
    let (name, spec, mut formats) = model(&args)?;
    if let Some(zeros) = args.zeros {
        if args.dtype.is_some_and(|dtype| dtype.is_block()) || args.shape.is_some() && args.dtype.is_none() {
            bail!("--zeros is for F32, F16 and BF16, of which zeros can be left out; add --type bf16");
        }
        formats = formats.with_share_of_zeros(&spec, zeros);
    }
    let (machine, mut calibration) = calibration::known(threads, args.machine.as_ref())?;
    if args.now {
        for dtype in matrices(&spec, &formats) {
            calibration.renew(run_whole(dtype)?);
        }
    }
    let kv = args.kv.unwrap_or_else(|| compute::usual_kv_type(&formats, Mode::fast()));
    let context = args.context.unwrap_or(args.prompt.saturating_add(1));
    let workload = Workload { batch: args.batch, prompt: args.prompt, context, threads, kv };
    let question = Question { spec, formats, machine, calibration, workload };
    let forecast = question.answer()?;
    if let Some(path) = &args.plot {
        picture::draw(&question, &forecast, &name, path)?;
    }
    let report = Report {
        parameters: question.spec.parameters(),
        groups: groups(&question.spec, &question.formats),
        batch: args.batch,
        prompt: args.prompt,
        context,
        threads,
        kv: ounce_plan::calibrate::kv_name(kv),
        calibrated: question.calibration.measured,
        tokens_per_second: forecast.tokens_per_second(args.batch),
        what_if: if args.what_if { what_if::rows(&question)? } else { Vec::new() },
        model: name,
        forecast,
    };
    if globals.json {
        output::json(&report)?;
    } else {
        print(&report, args.operators)?;
    }
    Ok(Outcome::Done)
}

/// The architecture and formats that were asked for.
fn model(args: &Args) -> anyhow::Result<(String, Spec, Formats)> {
    match (&args.shape, &args.model) {
        (Some(name), _) => {
            let spec = shapes::by_name(name)?.spec()?;
            let formats = Formats::uniform(&spec, args.dtype.unwrap_or(DType::Q8_0));
            Ok((name.clone(), spec, formats))
        }
        (None, Some(reference)) => {
            let model = source::open(reference)?;
            let formats = match args.dtype {
                Some(dtype) => Formats::uniform(&model.spec, dtype),
                None => Formats::with_zeros_of(&model.spec, &model.weights)?,
            };
            Ok((model.origin.path.display().to_string(), model.spec, formats))
        }
        (None, None) => bail!("name a model or a --shape"),
    }
}

fn print(report: &Report, operators: bool) -> anyhow::Result<()> {
    let fact = |name: &str, value: String| output::line(format!("{name:<15} {value}"));
    let Report { forecast, .. } = report;
    fact("model", format!("{}, {} parameters", report.model, units::count(report.parameters)))?;
    let answers = if report.batch == 1 { String::new() } else { format!(", {} at once", report.batch) };
    let (prompt, context, kv) = (report.prompt, report.context, report.kv);
    fact("workload", format!("prompt of {prompt}, context {context}, cache {kv}{answers}"))?;
    let basis =
        if report.calibrated { "timed on this machine" } else { "estimated from the machine's limits" };
    fact("kernels", format!("{basis}, {} threads", report.threads))?;
    fact("weights stored", units::bytes(forecast.file_bytes))?;
    fact(
        "memory",
        format!(
            "{}: weights {}, cache {}, buffers {}, the rest is the program",
            units::bytes(forecast.resident_bytes),
            units::bytes(forecast.weight_bytes),
            units::bytes(forecast.kv_bytes),
            units::bytes(forecast.buffer_bytes)
        ),
    )?;
    fact("first token", format!("after {}", time(forecast.first_token_seconds)))?;
    if forecast.per_token_seconds > 0.0 {
        let rate = report.tokens_per_second;
        fact("a token", format!("{}, {rate:.1} tokens/s", time(forecast.per_token_seconds)))?;
    }
    if let Some(joules) = forecast.energy_per_token_joules {
        fact("energy", format!("{joules:.3} J a token"))?;
    }
    if operators {
        output::line("")?;
        print_operators(&forecast.operators)?;
    }
    if !report.what_if.is_empty() {
        output::line("")?;
        what_if::print(&report.what_if)?;
    }
    Ok(())
}

fn print_operators(operators: &[OperatorForecast]) -> anyhow::Result<()> {
    let head = [
        "phase",
        "operator",
        "calls",
        "10⁹ operations",
        "MiB",
        "operations/byte",
        "bound by",
        "time",
        "share",
    ];
    let mut table = output::table(&head);
    for it in operators {
        let all: f64 =
            operators.iter().filter(|other| other.phase == it.phase).map(|other| other.seconds).sum();
        table.add_row([
            match it.phase {
                Phase::Prompt => "prompt",
                Phase::Token => "token",
            },
            it.operator.name(),
            &format!("{:.0}", it.calls),
            &format!("{:.4}", it.operations / 1e9),
            &format!("{:.2}", it.bytes / f64::from(1 << 20)),
            &format!("{:.1}", it.intensity),
            it.bound.name(),
            &time(it.seconds),
            &format!("{:.1} %", 100.0 * it.seconds / all.max(f64::MIN_POSITIVE)),
        ]);
    }
    output::print_table(&table)
}
