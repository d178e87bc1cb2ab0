//! `ounce merge`: what an adapter learned, as part of the model.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::bail;
use ounce_kernels::DType;
use ounce_model::formats::WriteOptions;
use ounce_peft::{Folder, Merged, merge};
use serde::Serialize;

use super::convert::{self, parse_dtype};
use crate::cli::Globals;
use crate::failure::Outcome;
use crate::{output, source, units};

/// Make an adapter part of its model
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce merge ./model ./adapter -o ./merged                    matrices keep the model's formats
  ounce merge ./model ./adapter -o merged.gguf --dtype q4_k    merged first, then quantized
  ounce merge ./model.gguf ./adapter -o merged.gguf            into a quantized model; what that loses is told
ADAPTER is a folder of ounce tune or of Python's peft. Prompts and networks beside matrices can't be merged.")]
pub struct Args {
    #[arg(help = source::MODEL_HELP)]
    model: String,
    /// The adapter's folder
    adapter: PathBuf,
    /// The file ending in .gguf, or the folder, to be made
    #[arg(long, short, value_name = "TARGET")]
    output: PathBuf,
    /// Format of all matrices of the result [default: those of the model]
    #[arg(long, value_name = "FORMAT", value_parser = parse_dtype)]
    dtype: Option<DType>,
    /// Merge also if the adapter was made for another model of the same shape
    #[arg(long)]
    any_base: bool,
    /// Replace what is at the target
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    model: String,
    adapter: PathBuf,
    output: PathBuf,
    #[serde(flatten)]
    merged: Merged,
    bytes: u64,
    seconds: f64,
}

/// Runs the command.
///
/// # Errors
/// If the adapter is none of this model's, can't be merged, or the target can't be written.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    let start = Instant::now();
    if args.output.exists() && !args.force {
        bail!("{} exists; --force replaces it", args.output.display());
    }
    let model = source::open(&args.model)?;
    let folder = Folder::open(&args.adapter)?;
    // With another format to come, matrices are not rounded to the model's before.
    let whole = args.dtype.map(|_| DType::F32);
    let (made, merged) = merge(&model, &folder, whole, args.any_base)?;
    let options = WriteOptions { dtype: args.dtype, overwrite: args.force, ..WriteOptions::default() };
    let bytes = convert::write(&made, &args.output, &options)?;
    let report = Report {
        model: args.model,
        adapter: args.adapter,
        output: args.output,
        merged,
        bytes,
        seconds: start.elapsed().as_secs_f64(),
    };
    if globals.json {
        output::json(&report)?;
        return Ok(Outcome::Done);
    }
    let Merged { matrices, moved, lost } = report.merged;
    let lost = match lost {
        0.0 => String::new(),
        lost => format!("; {:.2} % of it is lost in the model's formats", 100.0 * lost),
    };
    output::line(format!("{matrices} matrices moved by {:.3} % of their size{lost}", 100.0 * moved))?;
    output::line(format!("{}: {}", report.output.display(), units::bytes(report.bytes)))?;
    Ok(Outcome::Done)
}
