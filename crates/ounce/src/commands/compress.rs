//! `ounce compress`: does what a recipe says.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Parser;
use ounce_compress::quantize::Finished;
use ounce_model::Model;
use ounce_plan::recipe::{Recipe, Step};
use serde::Serialize;

use super::quantize::{closing, texts};
use super::{convert, factorize, heal, prune, quantize};
use crate::cli::Globals;
use crate::failure::Outcome;
use crate::{output, source, units};

/// Make a smaller model as a recipe says
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce plan ./folder --memory 300M -o recipe.toml
  ounce compress ./folder --recipe recipe.toml -o small.gguf
A recipe is a list of steps, each a command of ounce and its flags:
  [[step]]
  do = \"quantize\"
  type = \"q4_k\"
  keep = [\"output.weight=q8_0\"]
What a step gives the next one begins with. The table at the end compares with the original. A run that is stopped goes on
where it stopped when the same command is given again.")]
pub struct Args {
    #[arg(help = source::MODEL_HELP)]
    model: String,
    /// The recipe
    #[arg(long, value_name = "FILE")]
    recipe: PathBuf,
    /// The file ending in .gguf, or the folder, to be made
    #[arg(short, long, value_name = "TARGET")]
    output: PathBuf,
    #[command(flatten)]
    test: texts::TestArgs,
    /// Replace what is at the target
    #[arg(long)]
    force: bool,
}

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Report {
    target: PathBuf,
    matrices: Vec<Finished>,
    #[serde(flatten)]
    closing: closing::Closing,
}

/// The command line of a step, as its command understands it.
#[derive(Debug, Parser)]
#[command(no_binary_name = true)]
struct StepLine<A: clap::Args> {
    #[command(flatten)]
    args: A,
}

/// Runs the command.
///
/// # Errors
/// If the recipe can't be read or a step fails.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    let recipe = Recipe::open(&args.recipe)?;
    let matrices = execute(&args.model, &recipe, &args.output, args.force, globals)?;
    let (original, made) = (source::open(&args.model)?, Model::open(&args.output)?);
    let closing = closing::compare(&original, &made, &args.test, size(&args.output)?)?;
    if globals.json {
        output::json(&Report { target: args.output, matrices, closing })?;
    } else {
        closing.print("compressed")?;
        output::line(format!("{}: {}", args.output.display(), units::bytes(closing.bytes)))?;
    }
    Ok(Outcome::Done)
}

/// Does the steps of a recipe; gives the matrices that were quantized.
///
/// # Errors
/// If a step's flags are wrong, before anything is done, or a step fails.
pub fn execute(
    model: &str,
    recipe: &Recipe,
    target: &Path,
    force: bool,
    globals: &Globals,
) -> anyhow::Result<Vec<Finished>> {
    if target.symlink_metadata().is_ok() && !force {
        bail!("{}: exists already; choose another name or add --force", target.display());
    }
    let name = target.file_name().with_context(|| format!("{} names no file", target.display()))?;
    let between = target.with_file_name(format!(".{}.steps", name.to_string_lossy()));
    let last = recipe.steps.len() - 1;
    // What a step makes; finished ones are kept until all are done.
    let made = |index: usize| {
        if index == last { target.to_owned() } else { between.join(format!("{}.gguf", index + 1)) }
    };
    let given = |index: usize| match index {
        0 => model.to_owned(),
        _ => made(index - 1).display().to_string(),
    };
    let lines = |index: usize, step: &Step| line(step, model, &given(index), &made(index), force);
    for (index, step) in recipe.steps.iter().enumerate() {
        lines(index, step).with_context(|| format!("step {} ({})", index + 1, step.command))?;
    }
    if last > 0 {
        std::fs::create_dir_all(&between).with_context(|| between.display().to_string())?;
    }
    let mut matrices = Vec::new();
    for (index, step) in recipe.steps.iter().enumerate() {
        if index != last && made(index).exists() {
            output::note(&format!("step {} ({}): done before", index + 1, step.command));
            continue;
        }
        let done = match lines(index, step)? {
            Line::Quantize(args) => quantize::make(&args, globals)?.map(|it| it.matrices),
            Line::Convert(args) => convert::make(&args, globals).map(|_| None)?,
            Line::Heal(args) => heal::make(&args).map(|_| None)?,
            Line::Factorize(args) => factorize::make(&args).map(|_| None)?,
            Line::Prune(args) => prune::make(&args, globals).map(|_| None)?,
        };
        matrices.extend(done.into_iter().flatten());
    }
    if last > 0 {
        std::fs::remove_dir_all(&between).with_context(|| between.display().to_string())?;
    }
    Ok(matrices)
}

/// Bytes of a file, or of the files of a folder.
///
/// # Errors
/// If it can't be looked at.
pub fn size(path: &Path) -> anyhow::Result<u64> {
    let about = || path.display().to_string();
    let meta = std::fs::metadata(path).with_context(about)?;
    if meta.is_file() {
        return Ok(meta.len());
    }
    let mut sum = 0;
    for entry in std::fs::read_dir(path).with_context(about)? {
        let entry = entry.with_context(about)?;
        // Weights alone, as budgets and forecasts count a folder.
        if entry.path().extension().is_some_and(|it| it == "safetensors") {
            sum += entry.metadata().with_context(about)?.len();
        }
    }
    Ok(sum)
}

enum Line {
    Quantize(Box<quantize::Args>),
    Convert(Box<convert::Args>),
    Heal(Box<heal::Args>),
    Factorize(Box<factorize::Args>),
    Prune(Box<prune::Args>),
}

/// A step with its flags understood as the command line understands them; `original` is what the recipe begins with.
fn line(step: &Step, original: &str, model: &str, target: &Path, force: bool) -> anyhow::Result<Line> {
    let mut arguments = step.arguments().map_err(anyhow::Error::msg)?;
    let target = target.display().to_string();
    if force {
        arguments.push("--force".to_owned());
    }
    let command = step.command.as_str();
    if command == "heal" && !step.flags.contains_key("teacher") {
        arguments.push(format!("--teacher={original}"));
    }
    if matches!(command, "heal" | "prune" | "quantize") {
        // Compared is at the end, if at all.
        arguments.push("--no-test".to_owned());
    }
    match command {
        "convert" => arguments.extend(["--".to_owned(), model.to_owned(), target]),
        _ => arguments.extend([format!("--output={target}"), "--".to_owned(), model.to_owned()]),
    }
    Ok(match command {
        "convert" => Line::Convert(parsed(arguments)?),
        "factorize" => Line::Factorize(parsed(arguments)?),
        "heal" => Line::Heal(parsed(arguments)?),
        "prune" => Line::Prune(parsed(arguments)?),
        _ => Line::Quantize(parsed(arguments)?),
    })
}

/// Flags as a command understands them; else what is wrong, in a line.
fn parsed<A: clap::Args>(arguments: Vec<String>) -> anyhow::Result<Box<A>> {
    match StepLine::<A>::try_parse_from(arguments) {
        Ok(line) => Ok(Box::new(line.args)),
        Err(error) => {
            // The first line says what is wrong; usage and hints are for terminals.
            let text = error.to_string();
            let mut lines = text.lines();
            let mut first = lines.next().unwrap_or_default().trim_start_matches("error: ").to_owned();
            // What is missing stands in the line behind.
            if first.ends_with(':') {
                first = format!("{first} {}", lines.next().unwrap_or_default().trim());
            }
            let tip = text.lines().find_map(|line| line.trim().strip_prefix("tip: "));
            let tip = tip.map(|it| format!("; {it}"));
            Err(anyhow::anyhow!("{first}{}", tip.unwrap_or_default()))
        }
    }
}
