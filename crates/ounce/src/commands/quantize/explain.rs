//! What `--explain` tells: for each matrix the option of each axis of a quantizer that suits it, and the error it causes.

use anyhow::Context;
use ounce_compress::quantize::Unit;
use ounce_compress::quantize::axes::explain::{Explained, explain};
use ounce_model::Model;
use serde::Serialize;

use crate::cli::Globals;
use crate::failure::Outcome;
use crate::interrupt::Watch;
use crate::output;
use crate::progress::{Progress, Unit as Counted};

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Report<'a> {
    model: &'a str,
    bits: u32,
    matrices: Vec<Matrix>,
}

#[derive(Debug, Serialize)]
struct Matrix {
    name: String,
    shape: [usize; 2],
    #[serde(flatten)]
    explained: Explained,
}

/// Prints the table.
///
/// # Errors
/// If a weight can't be read, or the user stops the work.
pub fn print(
    name: &str,
    model: &Model,
    units: &[Unit],
    bits: u32,
    globals: &Globals,
) -> anyhow::Result<Outcome> {
    let watch = Watch::start();
    let mut bar = Progress::new("trying options", Counted::Items);
    let mut matrices = Vec::with_capacity(units.len());
    for (index, unit) in units.iter().enumerate() {
        bar.set(index as u64, units.len() as u64);
        watch.check()?;
        // Experts of one tensor are of one kind; the first speaks for all.
        let Some(first) = unit.matrices.first() else { continue };
        let tensor = model.weights.get(first)?;
        let values = tensor.to_f32().with_context(|| unit.name.clone())?;
        let explained = explain(&values, unit.columns, bits).with_context(|| unit.name.clone())?;
        matrices.push(Matrix { name: unit.name.clone(), shape: [unit.rows, unit.columns], explained });
    }
    drop(bar);
    let report = Report { model: name, bits, matrices };
    if globals.json {
        output::json(&report)?;
        return Ok(Outcome::Done);
    }
    let mut table = output::table(&[
        "matrix",
        "shape",
        "granularity",
        "symmetry",
        "range",
        "mapping",
        "bits a weight",
        "error",
        "usual error",
    ]);
    for matrix in &report.matrices {
        let Explained { axes, usual, error, bits, .. } = &matrix.explained;
        let mut row = vec![matrix.name.clone(), format!("{}×{}", matrix.shape[0], matrix.shape[1])];
        row.extend(axes.iter().map(|axis| axis.chosen.option.to_owned()));
        row.extend([format!("{bits:.2}"), percent(*error), percent(*usual)]);
        table.add_row(row);
    }
    output::print_table(&table)?;
    output::line(
        "Errors are squares, in percent of the squares of the weights; the usual choice is a symmetric grid from the least to the \
         largest value of each row. An option that takes more bits is chosen only where it divides the error by more than \
         those bits would otherwise: by 4 a bit. --json tells of every option that was tried.",
    )?;
    Ok(Outcome::Done)
}

fn percent(share: f64) -> String {
    format!("{:.3} %", share * 100.0)
}
