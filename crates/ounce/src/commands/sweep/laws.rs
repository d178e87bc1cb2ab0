//! The laws of a sweep, for people, as JSON and as a chart.

use std::path::{Path, PathBuf};

use anyhow::ensure;
use ounce_train::schedule::step_law::{BATCH, RATE, step_law};
use ounce_train::sweep::fit::{Edge, Law, Laws, LossLaw, Settings, Size, Variable, fit};
use ounce_train::sweep::{Outcome, Results};
use serde::Serialize;

use crate::cli::Globals;
use crate::failure::Outcome as Done;
use crate::plot::{self, Chart, Series};
use crate::{output, units};

/// Exponents of sizes and of tokens in the law of losses (Chinchilla, arXiv 2203.15556, approach 3).
const CHINCHILLA: [f64; 2] = [0.34, 0.28];

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    laws: Laws,
    published: Published,
    chart: PathBuf,
}

/// Step Law's numbers.
#[derive(Debug, Serialize)]
struct Published {
    /// Factor, exponent of parameters, exponent of tokens.
    rate: [f64; 3],
    /// Factor, exponent of tokens.
    batch: [f64; 2],
}

/// Fits what is in the folder, prints it and draws the losses.
pub(super) fn run(folder: &Path, near: f64, tolerance: f64, globals: &Globals) -> anyhow::Result<Done> {
    ensure!(near > 0.0 && tolerance > 0.0, "--near and --tolerance should be above 0");
    let outcomes = Results::read(folder)?;
    let laws = fitted(&outcomes, near, tolerance);
    ensure!(
        !laws.sizes.is_empty(),
        "no run of the sweep in {} has ended with a loss yet; ounce sweep RUN.toml goes on with it",
        folder.display()
    );
    let path = folder.join("sweep.svg");
    plot::write_svg(&chart(&laws), &path)?;
    if globals.json {
        output::json(&Report { laws, published: Published { rate: RATE, batch: BATCH }, chart: path })?;
        return Ok(Done::Done);
    }
    print_best(&laws)?;
    output::line("")?;
    print_laws(&laws)?;
    output::line(format!("losses drawn in {}", path.display()))?;
    Ok(Done::Done)
}

pub(super) fn fitted(outcomes: &[Outcome], near: f64, tolerance: f64) -> Laws {
    fit(outcomes, &Settings { near, tolerance, ..Settings::default() })
}

/// The best settings of each size, and where to extend the grid.
pub(super) fn print_best(laws: &Laws) -> anyhow::Result<()> {
    let mut table = output::table(&[
        "width",
        "parameters",
        "tokens",
        "runs",
        "best rate",
        "best batch",
        "loss",
        "fitted rate",
        "fitted batch",
        "plateau of rates",
        "Step Law's",
    ]);
    for size in &laws.sizes {
        let law = step_law(size.params, size.tokens);
        let none = || "-".to_string();
        let fitted = size.minimum;
        table.add_row([
            size.hidden.to_string(),
            units::count(size.params as u64),
            units::count(size.tokens as u64),
            size.runs.len().to_string(),
            format!("{:.2e}", size.best.rate),
            format!("{:.0}", size.best.batch),
            format!("{:.4}", size.best.loss),
            fitted.map_or_else(none, |it| format!("{:.2e}", it.rate)),
            fitted.map_or_else(none, |it| format!("{:.0}", it.batch)),
            size.plateau.map_or_else(none, |[(low, high), _]| format!("{low:.1e} to {high:.1e}")),
            format!("{:.1e}, {:.0}", law.rate, law.batch_tokens),
        ]);
    }
    output::print_table(&table)?;
    for size in &laws.sizes {
        size.edges.iter().try_for_each(|edge| output::line(extend(size, *edge)))?;
        if size.convex == Some(false) {
            output::line(format!(
                "{}: losses near the best have no minimum; add runs around it",
                name(size)
            ))?;
        }
    }
    Ok(())
}

fn name(size: &Size) -> String {
    format!("width {}, {} tokens", size.hidden, units::count(size.tokens as u64))
}

fn extend(size: &Size, edge: Edge) -> String {
    let (what, values) = match edge {
        Edge::LowestRate => ("rate is the lowest", format!("--lr {:.2e}", size.best.rate / 2.0)),
        Edge::HighestRate => ("rate is the highest", format!("--lr {:.2e}", size.best.rate * 2.0)),
        Edge::SmallestBatch => {
            ("batch is the smallest", format!("--batch-tokens {:.0}", size.best.batch / 2.0))
        }
        Edge::LargestBatch => {
            ("batch is the largest", format!("--batch-tokens {:.0}", size.best.batch * 2.0))
        }
    };
    format!("{}: minimum at the edge, the best {what}; extend the grid by {values}", name(size))
}

fn print_laws(laws: &Laws) -> anyhow::Result<()> {
    let mut table = output::table(&["law", "fitted", "interval", "published"]);
    let mut add = |law: &Law, what: &str, published: &[(Option<Variable>, f64)]| {
        for &(variable, number) in published {
            let (name, found, interval) = match variable {
                None => ("factor", Some(law.law.scale), law.intervals.as_ref().map(|all| all[0])),
                Some(Variable::Params) => {
                    ("exponent of N", law.exponent(Variable::Params), law.interval(Variable::Params))
                }
                Some(Variable::Tokens) => {
                    ("exponent of D", law.exponent(Variable::Tokens), law.interval(Variable::Tokens))
                }
            };
            let Some(found) = found else { continue };
            let interval = interval.map_or("-".into(), |it| format!("{:.3} to {:.3}", it.low, it.high));
            table.add_row([format!("{what}, {name}"), format!("{found:.3}"), interval, format!("{number}")]);
        }
    };
    let (n, d) = (Some(Variable::Params), Some(Variable::Tokens));
    if let Some(law) = &laws.rate {
        add(law, "learning rate", &[(None, RATE[0]), (n, RATE[1]), (d, RATE[2])]);
    }
    if let Some(law) = &laws.batch {
        add(law, "batch", &[(None, BATCH[0]), (d, BATCH[1])]);
    }
    if let Some(law) = &laws.batch_and_params {
        add(law, "batch, were it to hang on N too", &[(n, 0.0)]);
    }
    if let Some(LossLaw { law, intervals, .. }) = &laws.loss {
        let number = |at: usize| {
            intervals.as_ref().map_or("-".into(), |all| format!("{:.3} to {:.3}", all[at].low, all[at].high))
        };
        let rows = [
            ("loss, E", law.irreducible, 0, "-".to_string()),
            ("loss, exponent of N", law.params_exponent, 2, CHINCHILLA[0].to_string()),
            ("loss, exponent of D", law.tokens_exponent, 4, CHINCHILLA[1].to_string()),
        ];
        for (name, value, at, published) in rows {
            table.add_row([name.to_string(), format!("{value:.3}"), number(at), published]);
        }
    }
    if table.row_count() == 0 {
        return output::line(
            "no law: it takes several widths or numbers of tokens whose minimum is inside of the grid",
        );
    }
    output::print_table(&table)?;
    output::line(
        "N: parameters without embeddings, D: tokens. Published: Step Law (arXiv 2503.04715), losses Chinchilla \
         (arXiv 2203.15556). Intervals hold 95 % of bootstrap samples.",
    )?;
    if let Some(split) = laws.loss.as_ref().and_then(|loss| loss.split) {
        output::line(format!(
            "the largest run's compute is best spent on {} parameters and {} tokens: loss {:.3}",
            units::count(split.params as u64),
            units::count(split.tokens as u64),
            split.loss
        ))?;
    }
    Ok(())
}

/// Losses over learning rates, each size with its best batch.
fn chart(laws: &Laws) -> Chart {
    let series = |size: &Size| {
        let mut points: Vec<(f64, f64)> = size
            .runs
            .iter()
            .filter(|run| run.batch == size.best.batch)
            .map(|run| (run.rate, run.loss))
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Series::dotted(format!("{}, batch {:.0}", name(size), size.best.batch), points)
    };
    Chart {
        title: "Loss by learning rate, at the best batch".to_string(),
        x_label: "highest learning rate".to_string(),
        y_label: "final training loss (nats per token)".to_string(),
        series: laws.sizes.iter().map(series).collect(),
        log_x: true,
        log_y: false,
    }
}
