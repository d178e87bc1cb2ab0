//! Pattern-exploiting training: patterns label unlabelled texts, and a classifier learns that.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use ounce_peft::methods::cloze::{Asked, Cloze};
use ounce_peft::methods::patterns::Exploit;
use ounce_peft::{Adapted, Kind};
use ounce_train::Trainable;
use ounce_train::data::labelled::judge::{Judge, Metrics};
use ounce_train::data::labelled::texts::{self, Labelled};
use ounce_train::data::labelled::{read, split};
use ounce_train::data::readers::{Content, ReadOptions, Records};
use serde::Serialize;

use super::Args;
use crate::cli::Globals;
use crate::failure::Outcome;
use crate::interrupt::Watch;
use crate::progress::{Progress, Unit};
use crate::{output, source, units};

/// Flags of patterns.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Patterns that label unlabelled texts (masked language models)")]
pub(super) struct PatternArgs {
    /// A template a line; each is trained on the labelled texts, and together they label the unlabelled ones
    #[arg(long, value_name = "FILE", conflicts_with_all = ["template", "soft_template", "soft_verbalizer", "descriptions"], requires_all = ["verbalizer", "unlabelled"])]
    pub patterns: Option<PathBuf>,
    /// Texts without labels: .txt a text a line, or records with text
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "patterns")]
    unlabelled: Vec<PathBuf>,
    /// Labelled texts of a neighbouring task with the same labels, learned first
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "patterns")]
    near: Vec<PathBuf>,
    /// Runs of each pattern
    #[arg(long, value_name = "N", default_value_t = 1)]
    runs: usize,
    /// Generations: from the second on patterns learn from what the others are surest of
    #[arg(long, value_name = "N", default_value_t = 1)]
    generations: usize,
    /// The part of hidden tokens of the unlabelled texts in the loss of patterns
    #[arg(long, value_name = "PART", default_value_t = 1e-4)]
    hidden: f64,
}

/// Steps of a pattern where --steps says nothing; the classifier has twice as many.
const STEPS: u64 = 60;

/// How a run went.
#[derive(Debug, Serialize)]
struct Report {
    method: &'static str,
    patterns: usize,
    runs: usize,
    trained_parameters: u64,
    labels: Vec<String>,
    /// Labelled texts, held-out ones, unlabelled ones.
    texts: [usize; 3],
    /// What each pattern and run got right of labelled texts before anything was learned: its weight.
    weights: Vec<f64>,
    /// Krippendorff's alpha between patterns and runs, on the unlabelled texts; none where each said the same or there is one only.
    agreement: Option<f64>,
    /// Of the classifier on held-out texts.
    validation: Option<Metrics>,
    seconds_spent: f64,
    adapter: PathBuf,
    adapter_bytes: u64,
}

/// Texts without labels.
fn unlabelled(paths: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    let mut all = Vec::new();
    for path in paths {
        if path.extension().is_some_and(|it| it == "txt") {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))?;
            all.extend(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned));
            continue;
        }
        for record in Records::open(std::slice::from_ref(path), &ReadOptions::default())? {
            let record = record?;
            let text = match &record.content {
                Content::Text(text) => Some(text.clone()),
                Content::Fields(fields) => fields.get("text").and_then(|it| it.as_str()).map(str::to_owned),
            };
            let text = text.with_context(|| format!("{}: has no text in a column text", record.place))?;
            if !text.trim().is_empty() {
                all.push(text);
            }
        }
    }
    Ok(all)
}

/// Texts with the numbers of their labels.
fn numbered(texts: &[Labelled], pattern: &Cloze) -> anyhow::Result<Vec<(String, usize)>> {
    let one = |it: &Labelled| {
        let text = it.pair.as_ref().map_or_else(|| it.text.clone(), |pair| format!("{} {pair}", it.text));
        Ok((text, pattern.label(&it.label)?))
    };
    texts.iter().map(one).collect()
}

/// Trains patterns and classifier and writes the classifier's folder.
pub(super) fn run(args: &Args, path: &Path, globals: &Globals) -> anyhow::Result<Outcome> {
    let start = std::time::Instant::now();
    let (settings, below) = args.method.settings(Kind::Bottleneck, args.run.seed)?;
    if !below.is_empty() {
        bail!("patterns lie on no other adapters; leave --below out");
    }
    let model = source::open(&args.model)?;
    let tokenizer = source::tokenizer(&model)?;
    let words = args.cloze.words()?;
    let text = std::fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))?;
    let patterns = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let patterns: Vec<Cloze> = patterns
        .map(|template| {
            Ok(Cloze::new(tokenizer, &Asked { template, verbalizer: &words, ..Asked::default() })?.0)
        })
        .collect::<anyhow::Result<_>>()?;
    let Some(first) = patterns.first() else {
        bail!("{} has no patterns; write a template a line", path.display())
    };
    let whole = read::texts(&args.data)?;
    let (few, held) = match (args.run.validation.is_empty(), args.run.held_out) {
        (false, _) => (whole, read::texts(&args.run.validation)?),
        (true, 0.0) => (whole, Vec::new()),
        (true, part) => split(whole, part, args.run.seed, |it: &Labelled| it.text.clone())?,
    };
    let near = if args.patterns.near.is_empty() { Vec::new() } else { read::texts(&args.patterns.near)? };
    let few = numbered(&few, first)?;
    numbered(&held, first)?;
    let near = numbered(&near, first)?;
    let pool = unlabelled(&args.patterns.unlabelled)?;
    let names = first.names();
    let steps = args.run.steps.unwrap_or(STEPS);
    let exploit = Exploit {
        rate: args.run.lr.unwrap_or(settings.method.usual_rate(&model.spec)),
        settings,
        words: args.patterns.hidden,
        temperature: 2.0,
        runs: args.patterns.runs,
        generations: args.patterns.generations,
        steps: [steps, 2 * steps],
        at_once: args.run.batch,
        limit: args.run.context.unwrap_or(512).min(model.spec.context_length),
        seed: args.run.seed,
        patterns,
    };
    if args.dry_run {
        let beneath =
            ounce_peft::Settings { cloze: Some(exploit.patterns[0].clone()), ..exploit.settings.clone() };
        let trained = Adapted::new(&model, &beneath, ounce_train::net::Options::default())?.trained();
        output::note(&format!(
            "{} patterns of {} trained numbers each, {} times {} steps; then a classifier of {} steps on {} texts",
            exploit.patterns.len(),
            units::count(trained),
            exploit.runs * exploit.generations,
            steps,
            2 * steps,
            few.len() + pool.len()
        ));
        return Ok(Outcome::Done);
    }
    let (watch, mut bar) = (Watch::start(), Progress::new("patterns", Unit::Items));
    let mut found = exploit.run(&model, &near, &few, &pool, &mut |_, done| {
        bar.set((done * 1000.0) as u64, 1000);
        Ok(watch.check()?)
    })?;
    drop(bar);
    let validation = match held.is_empty() {
        true => None,
        false => {
            let types = model.spec.embedding.token_types > 1;
            let (examples, _) = texts::examples(tokenizer, &held, &names, exploit.limit, types)?;
            Some(Judge::Texts { examples, labels: names.len() }.judge(&mut found.net, 32)?)
        }
    };
    found.net.save(&args.output)?;
    let report = Report {
        method: exploit.settings.method.name(),
        patterns: exploit.patterns.len(),
        runs: exploit.runs,
        trained_parameters: found.net.trained(),
        labels: names,
        texts: [few.len(), held.len(), pool.len()],
        weights: found.weights.clone(),
        agreement: Some(found.agreement).filter(|it| it.is_finite()),
        validation,
        seconds_spent: start.elapsed().as_secs_f64(),
        adapter: args.output.clone(),
        adapter_bytes: std::fs::metadata(args.output.join("adapter_model.safetensors"))
            .map_or(0, |it| it.len()),
    };
    if globals.json {
        output::json(&report)?;
        return Ok(Outcome::Done);
    }
    let share = |weight: &f64| format!("{:.1} %", 100.0 * weight);
    output::line(format!(
        "patterns before: {}",
        report.weights.iter().map(share).collect::<Vec<_>>().join(", ")
    ))?;
    if let Some(agreement) = report.agreement {
        output::line(format!(
            "patterns and runs agree with Krippendorff's alpha {agreement:.3} on {} texts",
            pool.len()
        ))?;
    }
    if let Some(validation) = &report.validation {
        output::line(format!("held-out texts: {validation}"))?;
    }
    output::line(format!(
        "{}: {}; next: ounce classify {} --adapter {} TEXT",
        report.adapter.display(),
        units::bytes(report.adapter_bytes),
        args.model,
        report.adapter.display()
    ))?;
    Ok(Outcome::Done)
}
