//! `ounce show`: what a model is, from its headers; with `--check`, whether its numbers are sound.

use std::time::Instant;

use ounce_engine::Engine;
use ounce_model::account::sizes::GroupSize;
use ounce_model::{Model, Tensor};
use rayon::prelude::*;
use serde::Serialize;

use crate::cli::Globals;
use crate::failure::Outcome;
use crate::inspect::{self, CacheSize, TensorFact, TokenizerFacts};
use crate::interrupt::Watch;
use crate::progress::{Progress, Unit};
use crate::{output, source, units};

/// Show what a model is: architecture, sizes, tokenizer, peculiarities
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce show builtin
  ounce show ./model.gguf --tensors      every tensor with format, shape and bytes
  ounce show org/name --check            read all weights and look for NaN and infinities
  ounce show ./folder --json | jq .spec  the architecture as data
Only headers are read, so this is quick for files of any size; --check reads everything.
--check exits with 1 if a weight is not finite.")]
pub struct Args {
    #[arg(help = source::MODEL_HELP)]
    model: String,
    /// List every tensor
    #[arg(long)]
    tensors: bool,
    /// Read all weights and report those with NaN or infinite values
    #[arg(long)]
    check: bool,
}

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Report<'a> {
    model: String,
    format: &'static str,
    family: &'a str,
    layers: usize,
    parameters: u64,
    weight_bytes: u64,
    /// Bytes of the repacked copies that the fast mode makes at load.
    packed_bytes: usize,
    context_length: usize,
    vocab_size: usize,
    groups: Vec<GroupSize>,
    kv_cache: Option<CacheSize>,
    tokenizer: Option<TokenizerFacts>,
    chat_template: bool,
    peculiarities: Vec<String>,
    unused_tensors: &'a [String],
    spec: &'a ounce_model::Spec,
    #[serde(skip_serializing_if = "Option::is_none")]
    tensors: Option<Vec<TensorFact>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<Check>,
}

/// What reading all weights found.
#[derive(Debug, Serialize)]
struct Check {
    tensors: usize,
    bytes: u64,
    seconds: f64,
    /// Tensors with values that are not finite.
    unsound: Vec<Unsound>,
}

#[derive(Debug, Serialize)]
struct Unsound {
    name: String,
    file_name: String,
    nan: usize,
    infinite: usize,
}

/// Runs the command.
///
/// # Errors
/// If the model can't be opened, or a tensor can't be read.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    let model = source::open(&args.model)?;
    let spec = &model.spec;
    let report = Report {
        model: model.origin.path.display().to_string(),
        format: model.origin.format.name(),
        family: &spec.family,
        layers: spec.layers.len(),
        parameters: spec.parameters(),
        weight_bytes: model.weight_bytes(),
        packed_bytes: Engine::packed_size(&model, None)?,
        context_length: spec.context_length,
        vocab_size: spec.vocab_size,
        groups: inspect::groups(&model),
        kv_cache: inspect::cache(&model),
        tokenizer: model.tokenizer.as_ref().map(inspect::tokenizer),
        chat_template: model.chat.is_some(),
        peculiarities: inspect::peculiarities(&model),
        unused_tensors: model.weights.unused(),
        spec,
        tensors: args.tensors.then(|| inspect::tensors(&model)),
        check: if args.check { Some(check(&model)?) } else { None },
    };
    if globals.json {
        output::json(&report)?;
    } else {
        print(&report)?;
    }
    let sound = report.check.is_none_or(|check| check.unsound.is_empty());
    Ok(if sound { Outcome::Done } else { Outcome::No })
}

fn print(report: &Report<'_>) -> anyhow::Result<()> {
    let fact = |name: &str, value: String| output::line(format!("{name:<15} {value}"));
    let spec = report.spec;
    fact("model", format!("{} ({})", report.model, report.format))?;
    let kind = if spec.causal { "decoder" } else { "encoder" };
    fact(
        "family",
        format!("{}, {kind} of {} layers, width {}", report.family, report.layers, spec.hidden_size),
    )?;
    fact("parameters", format!("{} ({})", units::count(report.parameters), report.parameters))?;
    let bits = report.weight_bytes as f64 * 8.0 / report.parameters.max(1) as f64;
    fact("weights", format!("{}, {bits:.2} bits a parameter", units::bytes(report.weight_bytes)))?;
    for size in &report.groups {
        let GroupSize { group, dtype, tensors, .. } = size;
        let (bytes, noun) = (units::bytes(size.bytes), if *tensors == 1 { "tensor" } else { "tensors" });
        output::line(format!("  {:<13} {bytes:>11}  {dtype:<7} {tensors} {noun}", group.name()))?;
    }
    let packed = units::bytes(report.packed_bytes as u64);
    fact("fast mode", format!("{packed} repacked at load; what was repacked leaves the file's mapping"))?;
    fact("context", format!("{} tokens", report.context_length))?;
    if let Some(cache) = &report.kv_cache {
        let full = cache
            .bytes_full_context
            .map_or("more than can be counted".to_string(), |it| units::bytes(it as u64));
        fact(
            "KV cache",
            format!("{} a token, {full} at full context (f32)", units::bytes(cache.bytes_per_token as u64)),
        )?;
    }
    if let Some(pooling) = spec.pooling {
        let normed = if pooling.normalise { ", scaled to length one" } else { "" };
        fact("pooling", format!("{:?}{normed}", pooling.mode).to_lowercase())?;
    }
    match &report.tokenizer {
        None => fact("tokenizer", "none".to_string())?,
        Some(tokenizer) => {
            let TokenizerFacts { tokens, before, after, .. } = tokenizer;
            let frame = match (before.concat(), after.concat()) {
                (before, after) if before.is_empty() && after.is_empty() => String::new(),
                (before, after) => format!(", encodes a text as {before}text{after}"),
            };
            fact("tokenizer", format!("{tokens} tokens{frame}"))?;
            for (role, tokens) in &tokenizer.special {
                let tokens: Vec<String> =
                    tokens.iter().map(|(id, piece)| format!("{id} {piece:?}")).collect();
                output::line(format!("  {role:<13} {}", tokens.join(", ")))?;
            }
        }
    }
    fact("chat template", if report.chat_template { "yes" } else { "no" }.to_string())?;
    for (index, what) in report.peculiarities.iter().enumerate() {
        fact(if index == 0 { "unusual" } else { "" }, what.clone())?;
    }
    if let Some(tensors) = &report.tensors {
        print_tensors(tensors)?;
    }
    if let Some(check) = &report.check {
        print_check(check)?;
    }
    Ok(())
}

fn print_tensors(tensors: &[TensorFact]) -> anyhow::Result<()> {
    let mut table = output::table(&["name", "in the file", "format", "shape", "bytes"]);
    for tensor in tensors {
        let TensorFact { name, file_name, dtype, .. } = tensor;
        table.add_row([name, file_name, *dtype, &format!("{:?}", tensor.shape), &tensor.bytes.to_string()]);
    }
    output::line("")?;
    output::print_table(&table)
}

fn print_check(check: &Check) -> anyhow::Result<()> {
    let Check { tensors, bytes, seconds, unsound } = check;
    if unsound.is_empty() {
        let bytes = units::bytes(*bytes);
        return output::line(format!(
            "check           all values of {tensors} tensors are finite ({bytes} in {seconds:.1} s)"
        ));
    }
    for Unsound { name, file_name, nan, infinite } in unsound {
        output::line(format!("check           {name} ({file_name}): {nan} NaN, {infinite} infinite values"))?;
    }
    Ok(())
}

fn check(model: &Model) -> anyhow::Result<Check> {
    let watch = Watch::start();
    let start = Instant::now();
    let mut bar = Progress::new("reading", Unit::Bytes);
    let total = model.weight_bytes();
    let mut check = Check { tensors: 0, bytes: 0, seconds: 0.0, unsound: Vec::new() };
    for name in model.weights.names() {
        watch.check()?;
        let tensor = model.weights.get(name)?;
        let (nan, infinite) = not_finite(&tensor)
            .map_err(|error| ounce_model::Error::tensor(model.weights.path(), name, error.to_string()))?;
        if nan + infinite > 0 {
            let file_name = model.weights.file_name(name).unwrap_or(name).to_string();
            check.unsound.push(Unsound { name: name.to_string(), file_name, nan, infinite });
        }
        check.tensors += 1;
        check.bytes += tensor.data.len() as u64;
        bar.set(check.bytes, total);
    }
    check.seconds = start.elapsed().as_secs_f64();
    Ok(check)
}

/// How many values are NaN and how many infinite; rows are decoded one by one.
fn not_finite(tensor: &Tensor) -> Result<(usize, usize), ounce_kernels::quant::QuantError> {
    let row = |index: usize| {
        let mut values = vec![0.0; tensor.row_len()];
        tensor.decode_row(index, &mut values)?;
        let nan = values.iter().filter(|value| value.is_nan()).count();
        let infinite = values.iter().filter(|value| value.is_infinite()).count();
        Ok((nan, infinite))
    };
    (0..tensor.rows()).into_par_iter().map(row).try_reduce(|| (0, 0), |a, b| Ok((a.0 + b.0, a.1 + b.1)))
}
