//! `ounce convert`: a model in another format, whole or not at all.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::bail;
use ounce_kernels::{DType, quant};
use ounce_model::Model;
use ounce_model::formats::{Forecast, Packing, WriteOptions, gguf_model, hf};
use serde::Serialize;

use crate::cli::Globals;
use crate::failure::Outcome;
use crate::interrupt::Watch;
use crate::progress::{Progress, Unit};
use crate::{output, source, units};

/// Write a model in another format
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce convert ./folder model.gguf --dtype q8_0
  ounce convert model.gguf ./folder                       back to a Hugging Face folder
  ounce convert org/name ./half --dtype bf16 --shard-size 2G
  ounce convert ./folder model.gguf --dtype q4_k --dry-run
  ounce convert ./folder ./packed --dtype g4_64           4 bits in groups of 64, as compressed-tensors
  ounce convert ./folder ./eight --dtype f8_e4m3          8-bit floats with a scale for each row, the same
  ounce convert ./folder ./four --dtype mxfp4             4-bit floats by blocks, the same
  ounce convert ./folder ./four --packing nf4             4 bits as bitsandbytes has them
A target that ends in .gguf becomes a GGUF file, any other a Hugging Face folder. Without --dtype each tensor
keeps its format where the target has it. Formats by blocks (q8_0, q4_k …) exist in GGUF only, groups (g4_64 …)
and 8-bit floats in folders only, mxfp4 in both.")]
pub struct Args {
    #[arg(help = source::MODEL_HELP)]
    model: String,
    /// The file ending in .gguf, or the folder, to be made
    target: PathBuf,
    /// Format of the matrices: f32, f16, bf16, q8_0, q4_0, q4_k, q6_k …; vectors stay in F32 or as they are
    #[arg(long, value_name = "FORMAT", value_parser = parse_dtype)]
    dtype: Option<DType>,
    /// Largest weight file before it is split: bytes, or with K, M, G, T (powers of 1024). Folders only
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    shard_size: Option<u64>,
    /// How linear layers in groups (g4_64 …) or 8-bit floats are stored in a folder, compressed-tensors unless said otherwise;
    /// nf4 is a format of its own
    #[arg(long, value_name = "FORMAT")]
    packing: Option<PackingArg>,
    /// Replace what is at the target
    #[arg(long)]
    force: bool,
    /// List what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// What `--packing` takes.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum PackingArg {
    /// compressed-tensors: pack-quantized, float-quantized for f8_e4m3, mxfp4-pack-quantized for mxfp4
    CompressedTensors,
    /// compressed-tensors: float-quantized with one scale for each matrix, for f8_e4m3
    MatrixFloats,
    /// GPTQ
    Gptq,
    /// bitsandbytes: NF4 in blocks of 64; needs no --dtype
    Nf4,
}

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
pub struct Report {
    model: String,
    target: PathBuf,
    format: &'static str,
    bytes_before: u64,
    bytes: u64,
    seconds: f64,
}

/// A format that ounce writes, by its name.
///
/// # Errors
/// In one sentence, if there is none.
pub fn parse_dtype(text: &str) -> Result<DType, String> {
    DType::parse(text).filter(|dtype| quant::can_encode(*dtype)).ok_or_else(|| {
        let known: Vec<String> =
            DType::all().filter(|it| quant::can_encode(*it)).map(|it| it.name().to_lowercase()).collect();
        format!("{text:?} is no format that ounce writes; it writes {}", known.join(", "))
    })
}

/// Whether a target is to become a GGUF file.
pub fn is_gguf(target: &Path) -> bool {
    target.extension().is_some_and(|it| it.eq_ignore_ascii_case("gguf"))
}

/// What writing a model to a target would give.
///
/// # Errors
/// As [`write()`], before it writes.
pub fn forecast(model: &Model, target: &Path, options: &WriteOptions) -> anyhow::Result<Forecast> {
    Ok(match is_gguf(target) {
        true => gguf_model::forecast(model, target, options)?,
        false => hf::forecast(model, target, options)?,
    })
}

/// Writes a model to a target with a bar; gives the bytes written.
///
/// # Errors
/// If the target exists and may not be replaced, its format has no place for the model, writing fails, or the user stops
/// it.
pub fn write(model: &Model, target: &Path, options: &WriteOptions) -> anyhow::Result<u64> {
    let watch = Watch::start();
    let mut bar = Progress::new("writing", Unit::Bytes);
    let mut progress = |done: u64, total: u64| {
        bar.set(done, total);
        watch.check()
    };
    Ok(match is_gguf(target) {
        true => gguf_model::write_model(model, target, options, &mut progress)?,
        false => hf::write_model(model, target, options, &mut progress)?,
    })
}

/// As [`write()`], and checks that it takes the bytes that were forecast.
///
/// # Errors
/// As [`write()`], and if there are more or fewer.
pub fn write_as_forecast(
    model: &Model,
    target: &Path,
    options: &WriteOptions,
    forecast: &Forecast,
) -> anyhow::Result<u64> {
    let bytes = write(model, target, options)?;
    if bytes != forecast.bytes {
        bail!(
            "{} has {bytes} bytes where {} were forecast; please report this",
            target.display(),
            forecast.bytes
        );
    }
    Ok(bytes)
}

/// Runs the command.
///
/// # Errors
/// If the target exists, its format has no place for the model, or reading or writing fails.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    let Some(report) = make(&args, globals)? else { return Ok(Outcome::Done) };
    if globals.json {
        output::json(&report)?;
    } else {
        let (before, after) = (units::bytes(report.bytes_before), units::bytes(report.bytes));
        let target = report.target.display();
        output::line(format!("{target}: {after} ({before} before), {:.1} s", report.seconds))?;
    }
    Ok(Outcome::Done)
}

/// Converts, or prints what would be written and gives nothing.
///
/// # Errors
/// As [`run`].
pub fn make(args: &Args, globals: &Globals) -> anyhow::Result<Option<Report>> {
    let target = &args.target;
    if let Some(ending) =
        target.extension().filter(|it| ["bin", "safetensors", "json"].iter().any(|end| it == end))
    {
        bail!("{}: ounce writes folders and .gguf files, no .{} file", target.display(), ending.display());
    }
    let model = source::open(&args.model)?;
    let packing = args.packing.map(|packing| match packing {
        PackingArg::CompressedTensors => Packing::CompressedTensors,
        PackingArg::MatrixFloats => Packing::MatrixFloats,
        PackingArg::Gptq => Packing::Gptq,
        PackingArg::Nf4 => Packing::Nf4,
    });
    if packing.is_some() && is_gguf(target) {
        bail!("{}: --packing is for folders; GGUF files have formats of their own", target.display());
    }
    // Without scales most weights would be too small for 8-bit floats.
    let scaled = args.dtype == Some(DType::F8E4M3) && !is_gguf(target);
    let packing = packing.or(scaled.then_some(Packing::CompressedTensors));
    let options =
        WriteOptions { dtype: args.dtype, shard_bytes: args.shard_size, overwrite: args.force, packing };
    if args.dry_run {
        print_forecast(&forecast(&model, target, &options)?, target, globals)?;
        return Ok(None);
    }
    let start = Instant::now();
    let bytes = write(&model, target, &options)?;
    Ok(Some(Report {
        model: model.origin.path.display().to_string(),
        target: target.clone(),
        format: if is_gguf(target) { "GGUF" } else { "Hugging Face folder" },
        bytes_before: model.weight_bytes(),
        bytes,
        seconds: start.elapsed().as_secs_f64(),
    }))
}

/// What `--dry-run` prints with `--json`.
#[derive(Debug, Serialize)]
struct Plan<'a> {
    target: &'a Path,
    bytes: u64,
    tensors: Vec<PlanTensor<'a>>,
}

#[derive(Debug, Serialize)]
struct PlanTensor<'a> {
    name: &'a str,
    dtype: &'static str,
    shape: &'a [usize],
    bytes: u64,
}

/// Prints what would be written.
///
/// # Errors
/// If nothing can be printed.
pub fn print_forecast(forecast: &Forecast, target: &Path, globals: &Globals) -> anyhow::Result<Outcome> {
    let tensors = forecast.tensors.iter().map(|tensor| PlanTensor {
        name: &tensor.name,
        dtype: tensor.dtype.name(),
        shape: &tensor.shape,
        bytes: tensor.bytes,
    });
    let plan = Plan { target, bytes: forecast.bytes, tensors: tensors.collect() };
    if globals.json {
        output::json(&plan)?;
        return Ok(Outcome::Done);
    }
    let mut table = output::table(&["name", "format", "shape", "bytes"]);
    for PlanTensor { name, dtype, shape, bytes } in &plan.tensors {
        table.add_row([*name, *dtype, &format!("{shape:?}"), &bytes.to_string()]);
    }
    output::print_table(&table)?;
    output::line(format!("{}: {} would be written", target.display(), units::bytes(plan.bytes)))?;
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_known_by_any_spelling_and_others_listed() {
        assert_eq!(parse_dtype("q4_k"), Ok(DType::Q4K));
        assert_eq!(parse_dtype("BF16"), Ok(DType::BF16));
        assert!(parse_dtype("int4").unwrap_err().contains("q8_0"));
    }
}
