//! `ounce plan`: what a model can become to meet a budget, and the recipe of the best.

pub(super) mod budget;
pub(super) mod candidates;
mod sizes;
pub(super) mod table;
mod trial;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::bail;
use ounce_model::Model;
use ounce_plan::search::{self, Candidate};
use serde::Serialize;

use super::quantize::texts::TextArgs;
use crate::cli::Globals;
use crate::failure::Outcome;
use crate::{output, source};
use budget::{Asked, BudgetArgs};
use candidates::{OriginalRun, Subject};

/// Plan how a model meets a budget: what is possible, what it costs, what it loses, and the recipe of the best
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce plan builtin --memory 20M
  ounce plan ./folder --memory 300M --per-token 20ms --context 4096 --quality 'kl<0.05' -o recipe.toml
  ounce plan ./model.gguf --disk 500M --json | jq '.candidates[] | select(.on_front)'
  ounce compress ./folder --recipe recipe.toml -o small.gguf       do it
Costs are forecast for this machine (ounce forecast tells how), losses are measured: each matrix is tried alone in a
coarse format, then the promising candidates as a whole on calibration text, for as long as --time lets. Memory is what
the running program takes, its cache at --context included. Exit code 1: no candidate meets the budget.")]
pub struct Args {
    #[arg(help = source::MODEL_HELP)]
    model: String,
    #[command(flatten)]
    budget: BudgetArgs,
    #[command(flatten)]
    search: SearchArgs,
    #[command(flatten)]
    texts: TextArgs,
    /// Write the recipe to this file; without it the recipe is printed
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Plan a folder in place of a .gguf file
    #[arg(long)]
    folder: bool,
    /// Replace the recipe's file
    #[arg(long)]
    force: bool,
}

/// Flags of the search.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Search")]
pub struct SearchArgs {
    /// Try candidates for so long
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = budget::parse_time)]
    time: Duration,
}

/// What a plan found.
#[derive(Debug, Serialize)]
pub struct Found {
    /// Every candidate, the largest first.
    pub candidates: Vec<Candidate>,
    /// The place of the one that was chosen.
    pub chosen: Option<usize>,
    /// The place of the one that misses by least, where none was chosen.
    pub nearest: Option<usize>,
    /// How the original ran; forecasts are corrected by it.
    pub original: OriginalRun,
    /// Tokens on which candidates were tried.
    pub trial_tokens: usize,
    /// Seconds that planning took.
    pub seconds: f64,
}

impl Found {
    /// The one that was chosen.
    pub fn choice(&self) -> Option<&Candidate> {
        self.chosen.map(|it| &self.candidates[it])
    }
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    model: &'a str,
    asked: &'a Asked,
    #[serde(flatten)]
    found: &'a Found,
}

/// Runs the command.
///
/// # Errors
/// If the model can't be read or generates nothing, flags contradict each other, or a text is too short.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    if let Some(path) = args.output.as_ref().filter(|path| !args.force && path.exists()) {
        bail!("{}: exists already; choose another name or add --force", path.display());
    }
    let target = PathBuf::from(if args.folder { "planned" } else { "planned.gguf" });
    let model = source::open(&args.model)?;
    let asked = args.budget.asked(&model, globals)?;
    let found = search(&args.model, &model, &asked, target, &args.search, &args.texts)?;
    if globals.json {
        output::json(&Report { model: &args.model, asked: &asked, found: &found })?;
    } else {
        table::print(&found, &asked)?;
    }
    let Some(choice) = found.choice() else { return Ok(Outcome::No) };
    let comments = comments(&args.model, &asked, choice);
    match &args.output {
        Some(path) => {
            choice.recipe.write(path, &comments)?;
            output::note(&format!(
                "{}: written; ounce compress MODEL --recipe … -o … does it",
                path.display()
            ));
        }
        None if !globals.json => output::line(format!("\n{}", choice.recipe.to_text(&comments)?.trim_end()))?,
        None => {}
    }
    Ok(Outcome::Done)
}

/// What stands above a recipe.
pub fn comments(model: &str, asked: &Asked, choice: &Candidate) -> Vec<String> {
    let mut lines =
        vec![format!("{}, planned by ounce {} for {model}.", choice.name, env!("CARGO_PKG_VERSION"))];
    lines.push(format!("Asked for: {}.", asked.told()));
    lines.push(format!("Expected: {}.", table::expected(choice)));
    lines
}

/// Lists candidates, forecasts and tries them.
///
/// # Errors
/// As [`run`].
pub fn search(
    reference: &str,
    model: &Model,
    asked: &Asked,
    target: PathBuf,
    options: &SearchArgs,
    texts: &TextArgs,
) -> anyhow::Result<Found> {
    let start = Instant::now();
    let subject = Subject::new(reference, model, asked, target, texts)?;
    let mut all = subject.uniform()?;
    all.iter_mut().for_each(|it| it.candidate.judge(&asked.budget));
    // The smallest of these is the smallest that exists, so that hopeless budgets end here.
    let hopeless = all.iter().all(|it| !it.candidate.fits());
    let mut trial_tokens = 0;
    if !hopeless {
        let calibration = texts.calibration(model)?;
        let trials = trial::Trials::new(&subject, &calibration)?;
        trial_tokens = trials.tokens();
        sizes::add(&subject, &trials, asked, &mut all)?;
        trials.run(&subject, &mut all, asked, Instant::now() + options.time)?;
    }
    let mut candidates: Vec<Candidate> = all.into_iter().map(|it| it.candidate).collect();
    candidates.sort_by(|a, b| {
        b.costs.disk.cmp(&a.costs.disk).then(b.costs.memory.cmp(&a.costs.memory)).then(a.name.cmp(&b.name))
    });
    search::mark_front(&mut candidates);
    let chosen = search::choose(&candidates);
    let nearest = if chosen.is_none() { search::nearest(&candidates) } else { None };
    let original = subject.run;
    Ok(Found { candidates, chosen, nearest, original, trial_tokens, seconds: start.elapsed().as_secs_f64() })
}
