//! `ounce advise`: which techniques spare what is short, in which order, and what stands behind each claim.

use std::path::PathBuf;

use anyhow::{bail, ensure};
use ounce_eval::method::Evidence;
use ounce_lab::store::Store;
use ounce_plan::advisor::inference::{self, Limits};
use ounce_plan::advisor::{
    Claim, Class, NUMBERS, Query, Resource, Stage, Technique, pipeline, technique, training,
};
use serde::{Deserialize, Serialize};

use crate::cli::Globals;
use crate::failure::Outcome;
use crate::{evidence, output, source, units};

/// Advise which techniques spare memory, time, energy or data, how to switch them on, and what was measured of them
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce advise                                                  all techniques, those that are here first
  ounce advise --limit memory --stage inference                 what spares memory between training and answer
  ounce advise --limit energy --tuning-free --calibration 0     without training and without text
  ounce advise --class pruning                                  one class, also what is not here yet
  ounce advise builtin --memory 3M --context 512                formats of weights and cache that fit, least risk first
  ounce advise builtin --stage training --memory 40M            settings of ounce train that fit
  ounce advise ./folder --memory 2G --disk 1.5G --json
Stages: architecture, pretraining, fine-tuning, compression, decoding, serving; training is the first three, inference the
others. Evidence: figures that ounce bench method 3 measured, beside the same of the baseline; else expectations that hold of a method
about it; else `paper only`, or `not built yet`. Exits with 1 if nothing is found, or no plan keeps the limits: the nearest is told then.")]
pub struct Args {
    #[arg(help = source::MODEL_HELP)]
    model: Option<String>,
    /// What is short: memory, compute, latency, energy, money, network, disk or data; any of several
    #[arg(long, value_name = "RESOURCE,…", value_delimiter = ',', value_parser = named::<Resource>)]
    limit: Vec<Resource>,
    /// Where in the model's life: a stage, `training` or `inference`; any of several
    #[arg(long, value_name = "STAGE,…", value_delimiter = ',', value_parser = stages)]
    stage: Vec<StageArg>,
    /// Only this class: quantization, pruning, distillation, low-rank, compact-architecture, dynamic-network, framework, peft
    /// or training
    #[arg(long, value_name = "CLASS", value_parser = named::<Class>)]
    class: Option<Class>,
    /// Only techniques that train nothing
    #[arg(long)]
    tuning_free: bool,
    /// Only techniques that look at so many tokens of text at most; 0 for none
    #[arg(long, value_name = "TOKENS")]
    calibration: Option<usize>,
    /// Only techniques that are here
    #[arg(long)]
    built: bool,
    /// Bytes of memory that the model, or its training step, may take: a plan that keeps it is searched
    #[arg(long, value_name = "SIZE", requires = "model", value_parser = units::parse_size)]
    memory: Option<u64>,
    /// Bytes that its file may take
    #[arg(long, value_name = "SIZE", requires = "model", value_parser = units::parse_size)]
    disk: Option<u64>,
    /// Tokens that the cache is to hold, or that a training sequence has [default: the model's context, 2048 at most]
    #[arg(long, value_name = "TOKENS", requires = "model")]
    context: Option<usize>,
    /// Sequences of a training step
    #[arg(long, value_name = "N", default_value_t = 8)]
    batch: usize,
    /// Folder of evidence [default: docs/evidence where there is one, else the user's data folder]
    #[arg(long, value_name = "DIR")]
    evidence: Option<PathBuf>,
}

/// One stage, or several under one name.
#[derive(Debug, Clone, PartialEq)]
struct StageArg(Vec<Stage>);

/// A variant by the name it has in JSON.
fn named<T: for<'a> Deserialize<'a>>(text: &str) -> Result<T, String> {
    serde_json::from_value(serde_json::Value::String(text.to_lowercase())).map_err(|error| error.to_string())
}

fn stages(text: &str) -> Result<StageArg, String> {
    Ok(StageArg(match text {
        "training" => vec![Stage::Architecture, Stage::Pretraining, Stage::FineTuning],
        "inference" => vec![Stage::Compression, Stage::Decoding, Stage::Serving],
        other => vec![named(other).map_err(|error| format!("{error}, `training` or `inference`"))?],
    }))
}

/// A technique with what stands behind it.
#[derive(Debug, Serialize)]
struct Advice {
    #[serde(flatten)]
    technique: &'static Technique,
    evidence: Claim,
    evidence_text: String,
}

/// A step of the pipeline.
#[derive(Debug, Serialize)]
struct Step {
    id: &'static str,
    name: &'static str,
    command: String,
    /// What stands behind it; empty for settings of a training run.
    evidence: String,
}

impl Step {
    fn new(it: &'static Technique, model: &str, stored: &[Evidence]) -> Step {
        Step { id: it.id, name: it.name, command: filled(it, model), evidence: Claim::of(it, stored).text() }
    }
}

/// A plan that keeps limits, or the nearest.
#[derive(Debug, Serialize)]
struct Planned {
    fits: bool,
    what: String,
    bytes: u64,
    steps: Vec<Step>,
}

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Report {
    techniques: Vec<Advice>,
    pipeline: Vec<Step>,
    plans: Vec<Planned>,
}

/// Plans that are told at most.
const PLANS: usize = 4;

/// Runs the command.
///
/// # Errors
/// If evidence is damaged, or the model can't be opened.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    ensure!(args.batch > 0, "a step needs one sequence at least; --batch 1");
    let query = Query {
        limits: args.limit.clone(),
        stages: args.stage.iter().flat_map(|it| it.0.iter().copied()).collect(),
        class: args.class,
        tuning_free: args.tuning_free,
        calibration: args.calibration,
        built: args.built,
    };
    let chosen = query.choose();
    let stored = stored(&evidence::store(args.evidence.clone()), &chosen)?;
    let advice: Vec<Advice> = chosen
        .iter()
        .map(|technique| {
            let evidence = Claim::of(technique, &stored);
            Advice { technique, evidence_text: evidence.text(), evidence }
        })
        .collect();
    let model = args.model.as_deref().unwrap_or("MODEL");
    let pipeline: Vec<Step> = pipeline(&chosen).into_iter().map(|it| Step::new(it, model, &stored)).collect();
    let plans = match args.memory.is_some() || args.disk.is_some() {
        true => plans(&args, &query, &stored)?,
        false => Vec::new(),
    };
    // Who gives limits and no filter but the stage wants a plan, not the whole registry.
    let listed = plans.is_empty() || query != Query { stages: query.stages.clone(), ..Query::default() };
    let nothing = advice.is_empty() || plans.first().is_some_and(|plan| !plan.fits);
    let report = Report { techniques: advice, pipeline, plans };
    if globals.json {
        output::json(&report)?;
    } else {
        print(&report, listed)?;
    }
    if report.techniques.is_empty() {
        output::note("no technique fits; ask for fewer things at once");
    }
    Ok(if nothing { Outcome::No } else { Outcome::Done })
}

/// The evidence of the surveys and of methods about these techniques.
fn stored(store: &Store, techniques: &[&Technique]) -> anyhow::Result<Vec<Evidence>> {
    let mut numbers: Vec<u16> =
        techniques.iter().flat_map(|it| it.numbers.iter().copied()).chain(NUMBERS).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut found = Vec::new();
    for number in numbers {
        found.extend(store.read(number)?);
    }
    Ok(found)
}

/// A technique's command with the model's name.
fn filled(technique: &Technique, model: &str) -> String {
    let command = technique.command.unwrap_or("not here yet");
    command.split(' ').map(|word| word.replace("MODEL", model)).collect::<Vec<_>>().join(" ")
}

fn plans(args: &Args, query: &Query, stored: &[Evidence]) -> anyhow::Result<Vec<Planned>> {
    let Some(reference) = &args.model else { bail!("name the model that is to keep the limits") };
    let model = source::open(reference)?;
    let context = args.context.unwrap_or(model.spec.context_length.min(2048)).max(1);
    let trains = |stage: &Stage| *stage <= Stage::FineTuning;
    if !query.stages.is_empty() && query.stages.iter().all(trains) {
        ensure!(args.disk.is_none(), "--disk is about the model's file; a training step has only --memory");
        let all = training::choices(&model.spec, args.batch, context, args.memory);
        return Ok(all.iter().take(PLANS).map(|choice| trained(choice, args.batch)).collect());
    }
    let limits = Limits { memory: args.memory, disk: args.disk, context };
    let text = args.calibration.is_none_or(|tokens| tokens > 0);
    let all = inference::choices(&model, &limits, text)?;
    Ok(all.iter().take(PLANS).map(|choice| run_as(choice, reference, stored)).collect())
}

fn trained(choice: &training::Choice, sequences: usize) -> Planned {
    let flags = choice.settings.flags(sequences);
    let name = choice.settings.name();
    let what = format!("{name}: {}, {:.2} times the operations", units::bytes(choice.bytes), choice.work);
    let steps = vec![Step {
        id: "train",
        name: "train so",
        command: format!("ounce train run.toml{flags}"),
        evidence: String::new(),
    }];
    Planned { fits: choice.fits, what, bytes: choice.bytes, steps }
}

fn run_as(choice: &inference::Choice, model: &str, stored: &[Evidence]) -> Planned {
    let weights = choice.weights.as_deref().unwrap_or("weights as they are");
    let what = format!(
        "{weights}: {} of file, {} of cache, {} together; risk {}",
        units::bytes(choice.disk),
        units::bytes(choice.cache),
        units::bytes(choice.memory),
        choice.risk.name()
    );
    let known = choice.techniques.iter().filter_map(|id| technique(id));
    let steps = known.map(|it| Step::new(it, model, stored)).collect();
    Planned { fits: choice.fits, what, bytes: choice.memory, steps }
}

fn print(report: &Report, listed: bool) -> anyhow::Result<()> {
    let mut table =
        output::table(&["technique", "stage", "class", "spares", "needs", "risk", "switch on", "evidence"]);
    for Advice { technique: it, evidence_text, .. } in &report.techniques {
        let name = |resource: &Resource| format!("{resource:?}").to_lowercase();
        let needs = match (it.needs_training, it.calibration) {
            (true, _) => "training".to_string(),
            (false, 0) => "-".to_string(),
            (false, tokens) => format!("{tokens} tokens"),
        };
        table.add_row([
            it.name,
            it.stage.name(),
            &format!("{}, {}", it.class.name(), it.branch),
            &it.saves.iter().map(name).collect::<Vec<_>>().join(", "),
            &needs,
            it.risk.name(),
            it.command.unwrap_or("-"),
            evidence_text,
        ]);
    }
    if listed && !report.techniques.is_empty() {
        output::print_table(&table)?;
        output::line("")?;
    }
    if report.plans.is_empty() && report.pipeline.len() > 1 {
        output::line("In this order, one of each kind:")?;
        print_steps(&report.pipeline)?;
    }
    if let Some(first) = report.plans.first() {
        output::line(if first.fits {
            "Plans that keep the limits:"
        } else {
            "No plan keeps the limits; the nearest:"
        })?;
        for (number, plan) in report.plans.iter().filter(|plan| plan.fits == first.fits).enumerate() {
            output::line(format!("{}. {}", number + 1, plan.what))?;
            print_steps(&plan.steps)?;
        }
    }
    Ok(())
}

fn print_steps(steps: &[Step]) -> anyhow::Result<()> {
    for step in steps {
        output::line(format!("   {}: {}", step.name, step.command))?;
        if !step.evidence.is_empty() {
            output::line(format!("      {}", step.evidence))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use ounce_plan::advisor::techniques;
    use std::path::Path;

    /// What the shell would make of a command.
    fn words(command: &str) -> Vec<String> {
        command.split(' ').map(|word| word.trim_matches('\'').to_string()).collect()
    }

    #[test]
    fn every_command_of_the_registry_is_one() {
        for it in techniques() {
            let Some(command) = it.command else { continue };
            if let Err(error) = crate::cli::Cli::try_parse_from(words(command)) {
                panic!("{}: {command}: {error}", it.id);
            }
        }
    }

    #[test]
    fn every_key_that_the_registry_sets_is_one_of_a_run_s_file() {
        for it in
            techniques().filter(|it| it.command.is_some_and(|command| command.starts_with("ounce train")))
        {
            let all = words(it.command.unwrap_or_default());
            let sets: Vec<String> =
                all.windows(2).filter(|pair| pair[0] == "--set").map(|pair| pair[1].clone()).collect();
            let template = ounce_train::config::template();
            if let Err(error) = ounce_train::config::parse(&template, Path::new("run.toml"), &sets) {
                panic!("{}: {sets:?}: {error}", it.id);
            }
        }
    }

    #[test]
    fn stages_have_names_for_several() {
        assert_eq!(stages("training").unwrap().0.len(), 3);
        assert_eq!(stages("fine-tuning").unwrap().0, [Stage::FineTuning]);
        assert!(stages("cooking").unwrap_err().contains("`training`"));
    }
}
