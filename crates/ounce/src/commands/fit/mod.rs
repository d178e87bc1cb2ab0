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
use ounce_plan::recipe::{Recipe, Step};
use ounce_plan::search::Candidate;
use toml::Value;

use super::bench::costs;
use super::compress;
use super::plan::budget::{Asked, BudgetArgs, quality as measures};
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
  ounce fit --memory 26M                                        the built-in model
  ounce fit ./folder --memory 300M --per-token 20ms --quality 'kl<0.05' -o small.gguf --calibration wiki.txt
  ounce fit ./folder --disk 90M -o ./small                      a folder that transformers reads
Plans as `ounce plan`, compresses as `ounce compress`, and measures the result: memory and times in a process of its
own, quality on text that calibration did not see. Where quality is missed, in trials or then, the result is trained and
measured again, unless --no-heal. TARGET.report/ gets report.html, report.json and recipe.toml. Exit code
0: the budget is met as measured. 1: it is not, and the nearest is told. A run that is stopped goes on where it stopped
when the same command is given again.")]
pub struct Args {
    #[arg(help = source::MODEL_HELP, default_value = source::BUILT_IN)]
    model: String,
    /// The file ending in .gguf, or the folder, to be made [default: the model's name with .fit.gguf, here]
    #[arg(short, long, value_name = "TARGET")]
    output: Option<PathBuf>,
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
    /// What it was before it was trained; none if it was not.
    untrained: Option<ounce_eval::divergence::Report>,
}

/// Runs the command.
///
/// # Errors
/// If the model can't be read or generates nothing, the target exists, or a step fails.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    let start = Instant::now();
    let target = args.target();
    if target.symlink_metadata().is_ok() && !args.force {
        bail!("{}: exists already; choose another name or add --force", target.display());
    }
    if !args.texts.test.compares() {
        bail!("a fit is measured on a test text; leave out --no-test");
    }
    let model = source::open(&args.model)?;
    let asked = args.budget.asked(&model, globals)?;
    let found =
        plan::search(&args.model, &model, &asked, target.clone(), &args.search, &args.texts.calibration)?;
    if !globals.json {
        table::print(&found, &asked)?;
    }
    // What misses nothing but quality is made and trained.
    let place = found.chosen.or(found.trainable.filter(|_| !args.no_heal));
    let Some(choice) = place.map(|it| &found.candidates[it]) else {
        if globals.json {
            output::json(&serde_json::json!({ "met": false, "asked": asked, "plan": found }))?;
        }
        return Ok(Outcome::No);
    };
    let made = make(&args, &model, &asked, choice, globals)?;
    let report = Report::new(&args, &model, &asked, &found, place, choice, made, start.elapsed())?;
    let folder = args.report.clone().unwrap_or_else(|| folder(&target));
    report.write(&folder, &plan::comments(&args.model, &asked, choice))?;
    if globals.json {
        output::json(&report)?;
    } else {
        report.print()?;
        output::line(format!("report: {}", folder.join("report.html").display()))?;
    }
    Ok(if report.met { Outcome::Done } else { Outcome::No })
}

impl Args {
    /// What is to be made.
    fn target(&self) -> PathBuf {
        self.output.clone().unwrap_or_else(|| {
            let name = Path::new(&self.model).file_stem().unwrap_or_default().to_string_lossy();
            PathBuf::from(format!("{name}.fit.gguf"))
        })
    }
}

/// Where the report of a target goes.
fn folder(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!("{}.report", name.trim_end_matches(".gguf")))
}

/// Does the recipe, measures, and heals where quality is missed.
fn make(
    args: &Args,
    model: &Model,
    asked: &Asked,
    choice: &Candidate,
    globals: &Globals,
) -> anyhow::Result<Made> {
    let kv = choice
        .recipe
        .run
        .kv
        .as_deref()
        .map(|it| compute::kv_type(it).map_err(anyhow::Error::msg))
        .transpose()?;
    let path = args.target();
    let target = path.to_str().context("the target's name is no text")?;
    let attempt = |recipe: Recipe, force: bool| -> anyhow::Result<Made> {
        let matrices = compress::execute(&args.model, &recipe, &path, force, globals)?;
        let found = costs::apart(target, (asked.prompt, asked.context), kv, asked.threads)?;
        let costs = Costs {
            memory: found.memory,
            disk: compress::size(&path)?,
            first_token: found.first_token,
            per_token: found.per_token,
            energy_per_token: found.energy_per_token,
        };
        let small = source::open(target)?;
        let divergence = quality::compare(model, &small, kv, asked, &args.texts.test)?;
        Ok(Made { recipe, matrices, costs, divergence, untrained: None })
    };
    let mut made = attempt(choice.recipe.clone(), args.force)?;
    while !args.no_heal && asked.budget.misses_quality(&measures(&made.divergence)).is_some() {
        let Some(healed) = heal(&made.recipe, args.texts.calibration.path()) else { break };
        let kl = measures(&made.divergence).kl;
        output::note(&format!("the quality is missed (KL {kl:.5}); the result is trained"));
        let again = attempt(healed, true)?;
        if measures(&again.divergence).kl >= kl {
            output::note("training did not help; the result before it is made again");
            return Ok(Made { untrained: made.untrained, ..attempt(made.recipe, true)? });
        }
        made = Made { untrained: made.untrained.or(Some(made.divergence)), ..again };
    }
    Ok(made)
}

/// The same recipe with more training: what was cut learns what the original predicts on this text, then what was quantized last does.
/// None if it has that already, or neither cuts nor quantizes.
fn heal(recipe: &Recipe, text: Option<&Path>) -> Option<Recipe> {
    let mut healed = recipe.clone();
    let cut = healed.steps.iter().rposition(|it| it.command == "prune");
    if let Some(cut) = cut.filter(|_| !healed.steps.iter().any(|it| it.command == "heal")) {
        let text = text.map(|it| ("text", Value::String(it.display().to_string())));
        healed.steps.insert(cut + 1, Step::new("heal", text));
        return Some(healed);
    }
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

    #[test]
    fn healing_trains_behind_the_last_quantization_once() {
        let step = |name: &'static str| Step::new(name, []);
        let recipe = Recipe { steps: vec![step("quantize"), step("convert")], ..Recipe::default() };
        let healed = heal(&recipe, None).unwrap();
        assert_eq!(healed.steps[0].flags["train"].as_str(), Some("both"));
        assert!(heal(&healed, None).is_none());
        assert!(heal(&Recipe { steps: vec![step("convert")], ..Recipe::default() }, None).is_none());
        let recipe = Recipe { steps: vec![step("prune"), step("quantize")], ..Recipe::default() };
        let healed = heal(&recipe, Some(Path::new("text.txt"))).unwrap();
        let commands = healed.steps.iter().map(|it| it.command.as_str());
        assert_eq!(commands.collect::<Vec<_>>(), ["prune", "heal", "quantize"]);
        assert_eq!(healed.steps[1].flags["text"].as_str(), Some("text.txt"));
        let again = heal(&healed, None).unwrap();
        assert_eq!(again.steps[2].flags["train"].as_str(), Some("both"));
        assert!(heal(&again, None).is_none());
        assert_eq!(folder(Path::new("a/b.gguf")), Path::new("a/b.report"));
    }
}
