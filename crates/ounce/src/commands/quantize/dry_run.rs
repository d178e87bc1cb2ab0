//! What `--dry-run` tells: formats and the size of the file.

use std::path::Path;

use ounce_compress::quantize::{Plan, Unit};
use ounce_kernels::DType;
use ounce_model::Model;
use ounce_model::formats::Forecast;
use serde::Serialize;

use super::closing;
use crate::cli::Globals;
use crate::failure::Outcome;
use crate::{output, units as sizes};

/// What `--dry-run` prints with `--json`.
#[derive(Debug, Serialize)]
struct Planned<'a> {
    target: &'a Path,
    bytes: u64,
    bits_per_weight: f64,
    units: Vec<PlannedUnit<'a>>,
}

#[derive(Debug, Serialize)]
struct PlannedUnit<'a> {
    name: &'a str,
    shape: [usize; 2],
    from: &'static str,
    to: &'static str,
    bytes: usize,
}

/// Prints the plan.
///
/// # Errors
/// As [`output::print_table`].
pub fn print(
    model: &Model,
    units: &[Unit],
    plan: &Plan,
    forecast: &Forecast,
    target: &Path,
    globals: &Globals,
) -> anyhow::Result<Outcome> {
    let planned = units.iter().map(|unit| {
        let from = unit.matrices.first().and_then(|it| model.weights.info(it)).map_or(DType::F32, |it| it.0);
        let to = unit.matrices.first().and_then(|it| plan.dtype(it)).unwrap_or(from);
        PlannedUnit {
            name: &unit.name,
            shape: [unit.rows, unit.columns],
            from: from.name(),
            to: to.name(),
            bytes: unit.bytes(to).unwrap_or(0),
        }
    });
    let bits_per_weight = closing::bits_per_weight(forecast);
    let planned = Planned { target, bytes: forecast.bytes, bits_per_weight, units: planned.collect() };
    if globals.json {
        output::json(&planned)?;
        return Ok(Outcome::Done);
    }
    let mut table = output::table(&["matrix", "shape", "from", "to", "bytes"]);
    for unit in &planned.units {
        let shape = format!("{}×{}", unit.shape[0], unit.shape[1]);
        table.add_row([unit.name, &shape, unit.from, unit.to, &unit.bytes.to_string()]);
    }
    output::print_table(&table)?;
    let size = sizes::bytes(forecast.bytes);
    output::line(format!(
        "{}: {size} would be written, {bits_per_weight:.2} bits a weight",
        target.display()
    ))?;
    Ok(Outcome::Done)
}
