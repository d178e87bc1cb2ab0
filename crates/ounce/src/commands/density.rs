//! `ounce density`: models rated by the size of a reference model that would equal them.

use std::path::PathBuf;

use anyhow::ensure;
use ounce_plan::density::{Effective, Options, Report, Table, rate};

use crate::cli::Globals;
use crate::failure::Outcome;
use crate::{output, units};

/// Rate models by how large a reference model would have to be to equal them (densing law)
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce density models.json
  ounce density models.json --irreducible --json
The file: {\"chance\": 0.25, \"instances\": 1000,
  \"reference\": [{\"name\": \"r1\", \"size\": 5.2e6, \"tokens\": 1e9, \"loss\": 0.91, \"score\": 0.31}, ...],
  \"models\": [{\"name\": \"m\", \"size\": 1e9, \"score\": 0.61, \"date\": \"2024-11-27\", \"bytes\": 1.1e9}, ...]}
The reference family, trained alike at several sizes, gives the law of the loss, L = a N^-alpha + b D^-beta, and with the models
that have both the way from loss to score. A model is then as good as a reference model of some size: its effective size. By its own size that
is its density; with \"bytes\", of quantized weights, half of them count as parameters, and \"active\" are the parameters a token uses.
Losses should be of the right answers, a byte where tokenizers differ. Scores at chance or at the top give bounds only.
With dates, the densest models over time show how fast density doubles.")]
pub struct Args {
    /// The table, JSON
    file: PathBuf,
    /// Let the law have a constant that no size and no token removes
    #[arg(long)]
    irreducible: bool,
    /// Bootstrap samples
    #[arg(long, value_name = "N", default_value_t = Options::default().samples)]
    samples: usize,
    /// Decides the bootstrap samples
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

/// Runs the command.
///
/// # Errors
/// If the table can't be read or the family gives no law.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    ensure!(args.samples <= 100_000, "--samples should be at most 100000, found {}", args.samples);
    let table = Table::read(&args.file)?;
    let options = Options { irreducible: args.irreducible, samples: args.samples, seed: args.seed };
    let report = rate(&table, &options)?;
    if globals.json {
        output::json(&report)?;
    } else {
        print(&report)?;
    }
    Ok(Outcome::Done)
}

fn print(report: &Report) -> anyhow::Result<()> {
    let law = &report.yardstick.law;
    let tokens = if law.tokens_scale > 0.0 {
        format!(" + {:.4} D^-{:.4}", law.tokens_scale, law.tokens_exponent)
    } else {
        String::new()
    };
    let rest = if law.irreducible > 0.0 { format!(" + {:.4}", law.irreducible) } else { String::new() };
    output::line(format!(
        "reference: L = {:.4} N^-{:.4}{tokens}{rest}, {} to {} parameters, D = {:.3e}; off by {:.2} %",
        law.size_scale,
        law.size_exponent,
        units::count(report.yardstick.smallest as u64),
        units::count(report.yardstick.largest as u64),
        report.yardstick.tokens,
        100.0 * law.residual
    ))?;
    if let Some(curve) = &report.yardstick.sigmoid {
        output::line(format!(
            "score: {:.3} / (1 + exp({:.3} (L - {:.4}))) + {:.3}; off by {:.2} points",
            curve.height,
            -curve.slope,
            curve.middle,
            curve.floor,
            100.0 * curve.residual
        ))?;
    }
    let mut table =
        output::table(&["model", "effective size", "density", "95 % of samples", "by active", "by bytes"]);
    let number = |value: Option<f64>| value.map_or("-".to_string(), |it| format!("{it:.3}"));
    for model in &report.models {
        let size = units::count(model.effective.value() as u64);
        let (bound, size) = match model.effective {
            Effective::Size(_) => ("", size),
            Effective::AtMost(_) => ("at most ", size),
            Effective::AtLeast(_) => ("at least ", size),
        };
        let beyond = if model.extrapolated { " (outside of the family)" } else { "" };
        let interval = model.interval.map_or("-".to_string(), |(low, high)| format!("{low:.3} to {high:.3}"));
        table.add_row([
            model.name.clone(),
            format!("{bound}{size}{beyond}"),
            format!("{bound}{:.3}", model.density),
            interval,
            number(model.density_active),
            number(model.density_bytes),
        ]);
    }
    if !report.models.is_empty() {
        output::line("")?;
        output::print_table(&table)?;
    }
    if let Some(trend) = &report.trend {
        let interval =
            trend.per_day_interval.map_or(String::new(), |it| format!(" ({:.5} to {:.5})", it.low, it.high));
        output::line(format!(
            "\nthe densest of their day grow by {:.5} a day{interval}: twice as dense every {:.0} days; {} models, R² {:.3}",
            trend.per_day, trend.doubling_days, trend.models, trend.r_squared
        ))?;
    }
    Ok(())
}
