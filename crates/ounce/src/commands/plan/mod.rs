//! `ounce plan`: what a model can become to meet a budget, and the recipe of the best.

mod bases;
pub(super) mod budget;
pub(super) mod candidates;
mod factorizing;
mod pruning;
mod sizes;
pub(super) mod table;
mod trial;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::bail;
use ounce_model::Model;
use ounce_plan::search::{self, Candidate};
use serde::Serialize;

use super::quantize::texts::CalibrationArgs;
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
    texts: CalibrationArgs,
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
    /// What may be done to the model, several with commas between
    #[arg(long, value_enum, value_name = "TECHNIQUE", value_delimiter = ',', default_values_t = [Technique::Quantize, Technique::Prune])]
    techniques: Vec<Technique>,
}

/// What a plan may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Technique {
    /// Fewer bits for each weight
    Quantize,
    /// Heads and channels leave, wherever they matter least, before what stays is quantized. Layers then differ in shape: llama.cpp
    /// reads such files of Llama models, transformers none
    Prune,
    /// Matrices become products of two thin ones before they are quantized. ounce alone reads such models
    Factorize,
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
    /// The place of the one that misses nothing but quality, where none was chosen: training may bring that.
    pub trainable: Option<usize>,
    /// How the original ran; forecasts are corrected by it.
    pub original: OriginalRun,
    /// Tokens on which candidates were tried.
    pub trial_tokens: usize,
    /// Why techniques that were allowed gave no candidates.
    pub left_out: Option<String>,
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
    texts: &CalibrationArgs,
) -> anyhow::Result<Found> {
    let start = Instant::now();
    let mut subject = Subject::new(reference, model, asked, target, texts)?;
    let mut all = subject.uniform(0)?;
    let allowed =
        |it: &candidates::Way| options.techniques.contains(&Technique::Quantize) || it.plan.is_none();
    all.retain(allowed);
    all.iter_mut().for_each(|it| it.candidate.judge(&asked.budget));
    let prunes = options.techniques.contains(&Technique::Prune);
    // The smallest of these is the smallest that exists, so that hopeless budgets end here.
    let mut hopeless = all.iter().all(|it| !it.candidate.fits());
    let smallest = if hopeless && prunes { pruning::smallest(&subject, asked)? } else { None };
    hopeless &= smallest.as_ref().is_none_or(|it| !it.fits());
    let factorizes = options.techniques.contains(&Technique::Factorize);
    hopeless &= !factorizes || factorizing::is_hopeless(&all);
    let (mut trial_tokens, mut left_out) = (0, None);
    if !hopeless {
        let calibration = texts.sequences(model)?;
        let trials = trial::Trials::new(&mut subject, &calibration)?;
        trial_tokens = trials.tokens();
        let deadline = Instant::now() + options.time;
        sizes::add(&subject, &trials, asked, 0, &mut all)?;
        if prunes {
            left_out = pruning::add(&mut subject, &trials, asked, &mut all, options.time)?;
        }
        if factorizes {
            let reason = factorizing::add(&mut subject, &trials, asked, &mut all, options.time)?;
            left_out = [left_out, reason].into_iter().flatten().reduce(|a, b| format!("{a}; {b}"));
        }
        all.retain(allowed);
        trials.run(&subject, &mut all, asked, deadline)?;
    }
    let mut candidates: Vec<Candidate> = all.into_iter().map(|it| it.candidate).collect();
    // What is forecast of the smallest says how far a budget is from being possible.
    candidates.extend(smallest.filter(|_| hopeless));
    candidates.sort_by(|a, b| {
        b.costs.disk.cmp(&a.costs.disk).then(b.costs.memory.cmp(&a.costs.memory)).then(a.name.cmp(&b.name))
    });
    search::mark_front(&mut candidates);
    let chosen = search::choose(&candidates);
    let nearest = if chosen.is_none() { search::nearest(&candidates) } else { None };
    let trainable = if chosen.is_none() { search::trainable(&candidates) } else { None };
    let original = subject.run;
    let seconds = start.elapsed().as_secs_f64();
    Ok(Found { candidates, chosen, nearest, trainable, original, trial_tokens, left_out, seconds })
}
