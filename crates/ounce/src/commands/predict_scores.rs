//! `ounce predict-scores`: a larger model's score, from item scores of small ones.

use std::path::PathBuf;

use anyhow::{bail, ensure};
use ounce_plan::cod::{Class, Forecast, MappedBy, Options, Scores, forecast};
use serde::Serialize;

use crate::cli::Globals;
use crate::failure::Outcome;
use crate::output;

/// Forecast a benchmark score of a larger model from small models' scores on each item
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce predict-scores items.jsonl --target 1e21                 the score after 1e21 operations of training
  ounce predict-scores items.jsonl --target 1e21 --chance 0.25   items with four choices
  ounce predict-scores items.jsonl --hold-out largest            forecast a model that is there, and compare
The file has one line a model: {\"model\": \"a\", \"compute\": 1.2e18, \"scores\": [0.31, 0.8, ...]}, where compute is
6 x parameters x tokens and a score the share of many sampled answers that were right, or the right answer's probability.
One answer an item (0 or 1) is noise; sample 20 at least. A line without compute is a model of another family: such
models tie the part that can be forecast to the whole score, and without any the forecast is a guess beyond the
best of your own. \"loss\" may be given for the forecast by way of the loss. A first line {\"chance\": 0.25}, or one with
a list for all items, says what guessing scores. Exits with 1 if no part of the benchmark can be forecast.")]
pub struct Args {
    /// Item scores, JSON lines
    file: PathBuf,
    /// Operations of training to forecast for
    #[arg(long, value_name = "OPERATIONS", required_unless_present = "hold_out")]
    target: Option<f64>,
    /// Forecast this model of the file from those with less compute, and say how far that is off
    #[arg(long, value_name = "MODEL", conflicts_with = "target")]
    hold_out: Option<String>,
    /// What guessing scores on every item [default: the file's, else 0]
    #[arg(long, value_name = "SHARE")]
    chance: Option<f64>,
    /// The most that pass rates of one cluster may differ from its mean, root mean square
    #[arg(long, value_name = "SHARE", default_value_t = Options::default().radius)]
    radius: f64,
    /// Items of a cluster at least [default: 2 % of all, and 5]
    #[arg(long, value_name = "N")]
    least: Option<usize>,
    /// Bootstrap samples
    #[arg(long, value_name = "N", default_value_t = Options::default().samples)]
    samples: usize,
    /// Decides the bootstrap samples
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Report<'r> {
    #[serde(flatten)]
    forecast: &'r Forecast,
    held_out: Option<&'r str>,
    measured: Option<f64>,
}

/// Runs the command.
///
/// # Errors
/// If the file can't be read, or there are too few models.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    ensure!(args.samples <= 100_000, "--samples should be at most 100000, found {}", args.samples);
    let scores = Scores::read(&args.file, args.chance)?;
    let held = args.hold_out.as_deref();
    let model = held.map(|name| find(&scores, name)).transpose()?;
    let Some(target) = args.target.or(model.and_then(|model| model.compute)) else {
        bail!(
            "{} has no compute in the file, so nothing can be forecast for it",
            held.unwrap_or("the model")
        );
    };
    let options = Options {
        radius: args.radius,
        least: args.least,
        samples: args.samples,
        seed: args.seed,
        ..Options::default()
    };
    let found = match forecast(&scores, target, &options) {
        Ok(found) => found,
        Err(ounce_train::Error::Fit(what)) if what.starts_with("no part") => {
            output::note(&what);
            return Ok(Outcome::No);
        }
        Err(error) => return Err(error.into()),
    };
    let measured = model.map(|model| model.scores.iter().sum::<f64>() / model.scores.len() as f64);
    if globals.json {
        output::json(&Report { forecast: &found, held_out: held, measured })?;
    } else {
        print(&found, measured)?;
    }
    Ok(Outcome::Done)
}

fn find<'s>(scores: &'s Scores, name: &str) -> anyhow::Result<&'s ounce_plan::cod::ModelScores> {
    let found = scores.models.iter().find(|model| model.model == name);
    found.ok_or_else(|| {
        let names = scores.models.iter().map(|model| model.model.as_str());
        let near = crate::suggest::question(&crate::suggest::close(name, names));
        anyhow::anyhow!("the file has no model {name:?}{near}")
    })
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

fn print(found: &Forecast, measured: Option<f64>) -> anyhow::Result<()> {
    let mut table =
        output::table(&["cluster", "items", "class", "smallest", "largest", "forecast", "misses by"]);
    for (number, cluster) in found.clusters.iter().enumerate() {
        let class = match cluster.class {
            Class::Extrapolatable => "can be forecast",
            Class::NotExtrapolatable => "can't be forecast",
            Class::NonEmergent => "not better than guessing yet",
        };
        let end = |rate: Option<&f64>| percent(rate.copied().unwrap_or(0.0));
        let forecast = match cluster.class {
            Class::Extrapolatable => percent(cluster.predicted),
            _ => "-".to_string(),
        };
        table.add_row([
            (number + 1).to_string(),
            cluster.items.len().to_string(),
            class.to_string(),
            end(cluster.rates.first()),
            end(cluster.rates.last()),
            forecast,
            percent(cluster.curve.residual),
        ]);
    }
    output::print_table(&table)?;
    let interval =
        found.interval.map_or("no interval: most samples could not be fitted".to_string(), |(low, high)| {
            format!("95 % of samples from {} to {}", percent(low), percent(high))
        });
    output::line(format!(
        "\nafter {:.3e} operations, {:.1} times the largest model's: {} ({interval})",
        found.target,
        found.ratio,
        percent(found.score)
    ))?;
    output::line(format!(
        "{} of the items can be forecast and would score {}; {} items are in no cluster",
        percent(found.share),
        percent(found.subset),
        found.outliers.len()
    ))?;
    let others = &found.baselines;
    let mut ways =
        vec![("without the mapping", others.without_mapping), ("all clusters", others.without_classes)];
    ways.extend(others.end_to_end.map(|it| ("one curve through the total", it)));
    ways.extend(others.by_loss.map(|it| ("by way of the loss", it)));
    let ways: Vec<String> = ways.iter().map(|(name, value)| format!("{name} {}", percent(*value))).collect();
    output::line(format!("other ways: {}", ways.join(", ")))?;
    if let Some(measured) = measured {
        output::line(format!(
            "measured: {}; the forecast is off by {:+.2} points",
            percent(measured),
            100.0 * (found.score - measured)
        ))?;
    }
    if found.mapped_by == MappedBy::SameFamily {
        output::note(
            "only your own models tie the part to the whole; models of other families (lines without compute) would",
        );
    }
    if found.beyond_mapping {
        output::note(
            "the part's forecast is above every model's score on it, so the whole score is a guess between there and 100 %",
        );
    }
    if found.ratio > 10.0 {
        output::note(
            "the target is more than 10 times beyond the largest model; such forecasts are seldom right",
        );
    }
    Ok(())
}
