//! `ounce bench sparsity`: how many weights of each part of a model can be zero before its quality falls.

use ounce_compress::prune::components::language::Language;
use ounce_compress::prune::components::{Bench, CRITERIA, Criterion, Subject};
use serde::Serialize;

use super::super::quantize::texts::CalibrationArgs;
use crate::cli::Globals;
use crate::failure::Outcome;
use crate::interrupt::Watch;
use crate::progress::{Progress, Unit};
use crate::{output, source};

/// Steps around cliffs in which sparsities of the parts together are looked for.
const STEPS: [f64; 5] = [-0.15, -0.1, -0.05, 0.0, 0.05];

/// Parts that are combined; more make too many combinations.
const MOST_COMBINED: usize = 3;

/// Find how many weights of each part of a model can be zero before its quality falls
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce bench sparsity builtin
  ounce bench sparsity ./folder --part 'early=layers.0.*' --part 'rest=*' --loss 0.1 --calibration wiki.txt
A part is all matrices whose name (layers.3.attention.query) has a pattern, * standing for anything; a matrix is of the first
part that it fits. Nothing is trained. Quality is one over the perplexity on half of the calibration sequences; the other half shows inputs
and gradients. A cliff is the largest sparsity at which no more than --loss of it is lost, by bisection, with the
interval in which it lies in 95 of 100 resamplings of the sequences.")]
pub struct Args {
    #[arg(help = source::MODEL_HELP)]
    model: String,
    /// A part of the model and the pattern of its matrices' names; several are allowed
    #[arg(long = "part", value_name = "NAME=PATTERN", value_parser = parse_part,
          default_values = ["attention=*.attention.*", "feed-forward=*.feed_forward.*"])]
    parts: Vec<(String, String)>,
    /// Share of quality that may be lost
    #[arg(long, value_name = "SHARE", default_value_t = 0.05)]
    loss: f64,
    /// How close bisection comes
    #[arg(long, value_name = "SPARSITY", default_value_t = 0.02)]
    tolerance: f64,
    #[command(flatten)]
    calibration: CalibrationArgs,
}

/// A part's cliff by a criterion.
#[derive(Debug, Serialize)]
struct Found {
    part: String,
    criterion: &'static str,
    cliff: f64,
    interval: [f64; 2],
}

/// Sparsities of all parts together.
#[derive(Debug, Serialize)]
struct Split {
    criterion: &'static str,
    sparsities: Vec<f64>,
    total: f64,
    lost: f64,
}

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    weights: Vec<u64>,
    allowed: f64,
    cliffs: Vec<Found>,
    one_rate: f64,
    split: Option<Split>,
    evaluations: usize,
}

fn parse_part(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, pattern)) if !name.is_empty() && !pattern.is_empty() => Ok((name.into(), pattern.into())),
        _ => {
            Err(format!("{text:?} is no part; write a name and a pattern, such as 'attention=*.attention.*'"))
        }
    }
}

/// Runs the command.
///
/// # Errors
/// If the model can't be read or trained, no matrix fits a part, or the user stops the work.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    let report = measure(&args)?;
    if globals.json {
        output::json(&report)?;
        return Ok(Outcome::Done);
    }
    let mut table = output::table(&["part", "criterion", "cliff", "interval"]);
    for found in &report.cliffs {
        table.add_row([
            found.part.clone(),
            found.criterion.to_string(),
            format!("{:.1} %", found.cliff * 100.0),
            format!("{:.1} to {:.1} %", found.interval[0] * 100.0, found.interval[1] * 100.0),
        ]);
    }
    output::print_table(&table)?;
    output::line(format!("all parts at one rate, magnitude: {:.1} %", report.one_rate * 100.0))?;
    if let Some(split) = &report.split {
        let each = args.parts.iter().zip(&split.sparsities);
        let each: Vec<String> =
            each.map(|(part, sparsity)| format!("{} {:.1} %", part.0, sparsity * 100.0)).collect();
        output::line(format!(
            "together, by {}: {}, {:.1} % in all, which loses {:.1} % of the quality",
            split.criterion,
            each.join(", "),
            split.total * 100.0,
            split.lost * 100.0
        ))?;
    }
    Ok(Outcome::Done)
}

fn measure(args: &Args) -> anyhow::Result<Report> {
    let model = source::open(&args.model)?;
    let sequences = args.calibration.sequences(&model)?;
    let (shown, judged): (Vec<_>, Vec<_>) =
        sequences.into_iter().enumerate().partition(|(at, _)| at % 2 == 0);
    let [shown, judged] =
        [shown, judged].map(|own| own.into_iter().map(|it| it.1).collect::<Vec<Vec<u32>>>());
    let watch = Watch::start();
    let mut bar = Progress::new("looking at inputs and gradients", Unit::Share);
    let mut subject = Language::new(&model, &args.parts, &shown, judged, &mut |done| {
        bar.set((done * 1000.0) as u64, 1000);
        Ok(watch.check()?)
    })?;
    drop(bar);
    let parts: Vec<usize> = (0..args.parts.len()).collect();
    let weights = parts.iter().map(|&part| subject.weights(part)).collect();
    let mut bench = Bench::new(&mut subject, args.loss, args.tolerance, 0)?;
    let total = (CRITERIA.len() * parts.len() + 2) as u64;
    let mut bar = Progress::new("looking for cliffs", Unit::Items);
    let mut done = 0;
    let mut step = || -> anyhow::Result<()> {
        bar.set(done, total);
        done += 1;
        Ok(watch.check()?)
    };
    let mut cliffs = Vec::new();
    // Weights that a criterion's cliffs zero in all, and the cliff of each part.
    type Best<'c> = (f64, &'c dyn Criterion, Vec<(usize, f64)>);
    let mut best: Option<Best<'_>> = None;
    for criterion in CRITERIA {
        let mut own = Vec::new();
        for &part in &parts {
            step()?;
            let cliff = bench.cliff(criterion, &[part])?;
            own.push((part, cliff.sparsity));
            let name = args.parts[part].0.clone();
            cliffs.push(Found {
                part: name,
                criterion: criterion.name(),
                cliff: cliff.sparsity,
                interval: cliff.interval,
            });
        }
        let sum: f64 = own.iter().map(|it| it.1 * bench.subject().weights(it.0) as f64).sum();
        if best.as_ref().is_none_or(|(most, ..)| sum > *most) {
            best = Some((sum, criterion, own));
        }
    }
    step()?;
    let one_rate = bench.cliff(CRITERIA[0], &parts)?.sparsity;
    step()?;
    let split = match best.filter(|it| (2..=MOST_COMBINED).contains(&it.2.len())) {
        None => None,
        Some((_, criterion, own)) => bench.best_split(criterion, &own, &STEPS)?.map(|pair| Split {
            criterion: criterion.name(),
            sparsities: pair.sparsities,
            total: pair.total,
            lost: pair.lost,
        }),
    };
    step()?;
    drop(bar);
    let evaluations = bench.evaluations();
    Ok(Report {
        model: args.model.clone(),
        weights,
        allowed: args.loss,
        cliffs,
        one_rate,
        split,
        evaluations,
    })
}
