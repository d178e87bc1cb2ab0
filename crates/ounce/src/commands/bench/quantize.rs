//! `ounce bench quantize`: how long quantizing takes, and how much memory.

use std::time::Instant;

use anyhow::bail;
use ounce_compress::quantize::{Method, Plan, Quantizer, Store, gptq, units};
use ounce_eval::speed::scattered_ids;
use ounce_kernels::DType;
use ounce_kernels::isa::Isa;
use ounce_kernels::pool::Pool;
use ounce_train::trainer::memory;
use serde::Serialize;
use serde_json::json;

use super::super::convert::parse_dtype;
use super::speed;
use crate::cli::Globals;
use crate::failure::Outcome;
use crate::interrupt::Watch;
use crate::progress::{Progress, Unit};
use crate::{output, source, units as sizes};

/// Tokens of a calibration sequence.
const SEQUENCE: usize = 512;

/// Measure how long quantizing takes: seconds for a billion weights, and the most memory
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce bench quantize ./folder
  ounce bench quantize --shape llama-3.2-1b --type q4_k           random weights of a published shape
  ounce bench quantize --shape smollm2-135m --methods gptq --tokens 65536
  ounce bench quantize --shape llama-3.2-1b --layers 2 --methods gptq-plain
Calibration tokens are any: the time does not depend on what they say. Finished matrices go to the folder for
temporary files and are removed.")]
pub struct Args {
    #[arg(help = source::MODEL_HELP, required_unless_present = "shape", conflicts_with = "shape")]
    model: Option<String>,
    /// A bf16 model of this published shape with random weights: smollm2-135m, qwen2.5-0.5b, llama-3.2-1b, qwen3-4b,
    /// mixtral-mini
    #[arg(long, value_name = "NAME")]
    shape: Option<String>,
    /// Format of the layers' matrices
    #[arg(long = "type", value_name = "FORMAT", default_value = "q4_k", value_parser = parse_dtype)]
    dtype: DType,
    /// Methods, in turn: gptq-plain is GPTQ without the coordinate descent behind it
    #[arg(
        long,
        value_enum,
        value_name = "METHOD,…",
        value_delimiter = ',',
        default_value = "round,weighted,gptq-plain,gptq"
    )]
    methods: Vec<Name>,
    /// Calibration tokens
    #[arg(long, value_name = "N", default_value_t = 16_384)]
    tokens: usize,
    /// Only so many layers, the first: a share of the work, whose seconds a billion weights are those of the whole
    #[arg(long, value_name = "N")]
    layers: Option<usize>,
}

/// A way to quantize.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Name {
    Round,
    Weighted,
    GptqPlain,
    Gptq,
}

impl Name {
    fn method(self) -> Method {
        match self {
            Name::Round => Method::Round,
            Name::Weighted => Method::Weighted,
            Name::GptqPlain => Method::Gptq(gptq::Options { descent: 0, ..gptq::Options::default() }),
            Name::Gptq => Method::Gptq(gptq::Options::default()),
        }
    }

    fn words(self) -> &'static str {
        match self {
            Name::Round => "round",
            Name::Weighted => "weighted",
            Name::GptqPlain => "GPTQ",
            Name::Gptq => "GPTQ and descent",
        }
    }
}

#[derive(Debug, Serialize)]
struct Report {
    model: String,
    format: &'static str,
    /// Layers that are quantized, and those of the model.
    layers: [usize; 2],
    /// Weights that are quantized.
    weights: u64,
    calibration_tokens: usize,
    threads: usize,
    instruction_set: &'static str,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    method: Name,
    seconds: f64,
    seconds_per_billion_weights: f64,
    /// The most that the process has held so far, the model's mapped or generated weights included.
    peak_bytes: Option<u64>,
}

/// Runs the command.
///
/// # Errors
/// If the model can't be read, or nothing in it can be quantized.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    if args.tokens < SEQUENCE {
        bail!("--tokens should be {SEQUENCE} at least, one sequence; found {}", args.tokens);
    }
    let mut model = speed::open(args.shape.as_deref(), args.model.as_deref(), DType::BF16, 0.0)?;
    let whole = model.spec.layers.len();
    if let Some(layers) = args.layers {
        if layers == 0 || layers > whole {
            bail!("--layers should be from 1 to {whole}, what the model has; found {layers}");
        }
        model.spec.layers.truncate(layers);
    }
    let units = units(&model)?;
    // Token vectors and head follow rules of their own; the layers are what takes the time.
    let plan = Plan::new(units.iter().map(|unit| (unit, (!unit.is_outer()).then_some(args.dtype))))?;
    let weights: u64 = units.iter().filter(|unit| !unit.is_outer()).map(|unit| unit.values() as u64).sum();
    if weights == 0 {
        bail!("this model has no matrices that could be quantized");
    }
    let (length, vocab) = (model.spec.context_length.clamp(2, SEQUENCE), model.spec.vocab_size);
    let sequence = |index: usize| scattered_ids(vocab, index * length..(index + 1) * length);
    let calibration: Vec<Vec<u32>> = (0..args.tokens / length).map(sequence).collect();
    let watch = Watch::start();
    let mut rows = Vec::new();
    for name in args.methods {
        let folder = tempfile::tempdir()?;
        let store = Store::open(&folder.path().join("parts"), &json!({}))?;
        let mut bar = Progress::new(name.words(), Unit::Share);
        let mut observer = |_: Option<&_>, done: u64, total: u64| {
            bar.set(done, total);
            Ok(watch.check()?)
        };
        let start = Instant::now();
        Quantizer::new(&model, &plan, name.method(), &store, &mut observer).run(calibration.clone())?;
        let seconds = start.elapsed().as_secs_f64();
        drop(bar);
        rows.push(Row {
            method: name,
            seconds,
            seconds_per_billion_weights: seconds / weights as f64 * 1e9,
            peak_bytes: memory().1,
        });
        store.remove()?;
    }
    let report = Report {
        model: model.origin.path.display().to_string(),
        format: args.dtype.name(),
        layers: [model.spec.layers.len(), whole],
        weights,
        calibration_tokens: calibration.iter().map(Vec::len).sum(),
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

fn print(report: &Report) -> anyhow::Result<()> {
    let [layers, whole] = report.layers;
    let part = if layers < whole { format!(", {layers} of {whole} layers") } else { String::new() };
    output::line(format!(
        "{}{part}: {:.3} billion weights to {}, {} calibration tokens, {} threads, {}",
        report.model,
        report.weights as f64 / 1e9,
        report.format,
        report.calibration_tokens,
        report.threads,
        report.instruction_set
    ))?;
    let mut table = output::table(&["method", "seconds", "s a billion weights", "most memory so far"]);
    for row in &report.rows {
        table.add_row([
            row.method.words(),
            &format!("{:.1}", row.seconds),
            &format!("{:.0}", row.seconds_per_billion_weights),
            &row.peak_bytes.map_or("unknown".into(), sizes::bytes),
        ]);
    }
    output::print_table(&table)
}
