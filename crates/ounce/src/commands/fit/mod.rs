//! `ounce fit`: plans, compresses, measures and reports: a model that meets a budget, with the proof.

mod html;
mod picture;
mod quality;
mod report;
mod samples;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use ounce_compress::quantize::Finished;
use ounce_model::Model;
use ounce_plan::budget::{Costs, Limit};
use ounce_plan::recipe::Recipe;
use ounce_plan::search::Candidate;
use toml::Value;

use super::bench::costs::{self, Measured};
use super::compress;
use super::plan::budget::{Asked, BudgetArgs};
use super::plan::{self, SearchArgs, table};
use super::quantize::texts::TextArgs;
use crate::cli::Globals;
use crate::failure::Outcome;
use crate::{compute, output, source};
use report::Report;

/// Fit a model into a budget: plan, compress, measure, and write a report
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce fit builtin --memory 20M -o small.gguf
  ounce fit ./folder --memory 300M --per-token 20ms --quality 'kl<0.05' -o small.gguf --calibration wiki.txt
  ounce fit ./folder --disk 90M -o ./small                      a folder that transformers reads
Plans as `ounce plan`, compresses as `ounce compress`, and measures the result: memory and times in a process of its
own, quality on text that calibration did not see. Where quality is missed, what was quantized to few bits is trained
a little and measured again, unless --no-heal. TARGET.report/ gets report.html, report.json and recipe.toml. Exit code
0: the budget is met as measured. 1: it is not, and the nearest is told. A run that is stopped goes on where it stopped
when the same command is given again.")]
pub struct Args {
    #[arg(help = source::MODEL_HELP)]
    model: String,
    /// The file ending in .gguf, or the folder, to be made
    #[arg(short, long, value_name = "TARGET")]
    output: PathBuf,
    #[command(flatten)]
    budget: BudgetArgs,
    #[command(flatten)]
    search: SearchArgs,
    #[command(flatten)]
    texts: TextArgs,
    /// Train nothing where quality is missed
    #[arg(long)]
    no_heal: bool,
    /// Folder of the report [default: TARGET.report]
    #[arg(long, value_name = "FOLDER")]
    report: Option<PathBuf>,
    /// Replace what is at the target
    #[arg(long)]
    force: bool,
}

/// What was made, and what it does.
struct Made {
    recipe: Recipe,
    matrices: Vec<Finished>,
    costs: Costs,
    divergence: ounce_eval::divergence::Report,
}

/// Runs the command.
///
/// # Errors
/// If the model can't be read or generates nothing, the target exists, or a step fails.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    let start = Instant::now();
    if args.output.symlink_metadata().is_ok() && !args.force {
        bail!("{}: exists already; choose another name or add --force", args.output.display());
    }
    if !args.texts.compares() {
        bail!("a fit is measured on a test text; leave out --no-test");
    }
    let model = source::open(&args.model)?;
    let asked = args.budget.asked(&model, globals)?;
    let found = plan::search(&args.model, &model, &asked, args.output.clone(), &args.search, &args.texts)?;
    if !globals.json {
        table::print(&found, &asked)?;
    }
    let Some(choice) = found.choice() else {
        if globals.json {
            output::json(&serde_json::json!({ "met": false, "asked": asked, "plan": found }))?;
        }
        return Ok(Outcome::No);
    };
    let (before, made) = make(&args, &model, &asked, choice, globals)?;
    let report = Report::new(&args, &model, &asked, &found, choice, before, made, start.elapsed())?;
    let folder = args.report.clone().unwrap_or_else(|| folder(&args.output));
    report.write(&folder, &plan::comments(&args.model, &asked, choice))?;
    if globals.json {
        output::json(&report)?;
    } else {
        report.print()?;
        output::line(format!("report: {}", folder.join("report.html").display()))?;
    }
    Ok(if report.met { Outcome::Done } else { Outcome::No })
}

/// Where the report of a target goes.
fn folder(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!("{}.report", name.trim_end_matches(".gguf")))
}

/// Does the recipe, measures, and heals where quality is missed; with what was measured of the original.
fn make(
    args: &Args,
    model: &Model,
    asked: &Asked,
    choice: &Candidate,
    globals: &Globals,
) -> anyhow::Result<(Measured, Made)> {
    let kv = choice
        .recipe
        .run
        .kv
        .as_deref()
        .map(|it| compute::kv_type(it).map_err(anyhow::Error::msg))
        .transpose()?;
    let at = (asked.prompt, asked.context);
    let measure = |reference: &str, kv| costs::apart(reference, at, kv, asked.threads);
    let target = args.output.to_str().context("the target's name is no text")?;
    let attempt = |recipe: Recipe, force: bool| -> anyhow::Result<Made> {
        let matrices = compress::execute(&args.model, &recipe, &args.output, force, globals)?;
        let found = measure(target, kv)?;
        let costs = Costs {
            memory: found.memory,
            disk: compress::size(&args.output)?,
            first_token: found.first_token,
            per_token: found.per_token,
            energy_per_token: found.energy_per_token,
        };
        let small = source::open(target)?;
        let divergence = quality::compare(model, &small, kv, asked, &args.texts)?;
        Ok(Made { recipe, matrices, costs, divergence })
    };
    let before = measure(&args.model, asked.kv)?;
    let made = attempt(choice.recipe.clone(), args.force)?;
    let missed = asked.budget.misses_quality(&quality::of(&made.divergence));
    let Some(healed) = missed.filter(|_| !args.no_heal).and_then(|_| heal(&made.recipe)) else {
        return Ok((before, made));
    };
    output::note("the quality is missed; what was quantized is trained a little");
    let again = attempt(healed, true)?;
    let better = quality::of(&again.divergence).kl < quality::of(&made.divergence).kl;
    if better {
        return Ok((before, again));
    }
    output::note("training did not help; the first result is made again");
    Ok((before, attempt(made.recipe, true)?))
}

/// The same recipe with training behind its last quantization; none if it has that already, or quantizes nothing.
fn heal(recipe: &Recipe) -> Option<Recipe> {
    let mut healed = recipe.clone();
    let step = healed.steps.iter_mut().rev().find(|it| it.command == "quantize")?;
    if step.flags.contains_key("train") {
        return None;
    }
    step.flags.insert("train".to_owned(), Value::String("both".to_owned()));
    Some(healed)
}

/// The limits of a report, in the order in which people read them.
const LIMITS: [Limit; 5] =
    [Limit::Memory, Limit::Disk, Limit::FirstToken, Limit::PerToken, Limit::EnergyPerToken];

#[cfg(test)]
mod tests {
    use super::*;
    use ounce_plan::recipe::Step;

    #[test]
    fn healing_trains_behind_the_last_quantization_once() {
        let step = |name: &'static str| Step::new(name, []);
        let recipe = Recipe { steps: vec![step("quantize"), step("convert")], ..Recipe::default() };
        let healed = heal(&recipe).unwrap();
        assert_eq!(healed.steps[0].flags["train"].as_str(), Some("both"));
        assert!(heal(&healed).is_none());
        assert!(heal(&Recipe { steps: vec![step("convert")], ..Recipe::default() }).is_none());
        assert_eq!(folder(Path::new("a/b.gguf")), Path::new("a/b.report"));
    }
}
