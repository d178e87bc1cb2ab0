//! Studies of the literature that compare ways to adapt, done again in small by [`crate::grid`]: one file each.

pub mod codegen;
pub mod review;
pub mod survey;
pub mod unit_tests;

use ounce_eval::method::{Evidence, Lab, Row};
use ounce_model::Model;

use crate::Result;
use crate::grid::tasks::base::{Size, trained};
use crate::grid::{Found, Grid, Outcome, Results, Task, Way, grid};

/// Learning rates that are tried on models of programs, as multiples of a way's usual one: few numbers want high ones.
const RATES: [f64; 4] = [1.0, 3.0, 10.0, 30.0];

/// Runs a grid and tells the lab how far it is, from one share of the whole to another.
fn run(lab: &dyn Lab, tasks: &[&dyn Task], plan: &Grid, [from, to]: [f64; 2]) -> Result<Vec<Found>> {
    let mut watch = |at: crate::grid::run::At<'_>| {
        lab.progress(at.what, from + (to - from) * at.done / at.of.max(1) as f64);
        Ok(())
    };
    grid(tasks, plan, &mut Results::default(), &mut watch)
}

/// A model of the language of programs, and the lab is told how far it is, from one share of the whole to another.
fn base(lab: &dyn Lab, size: Size, steps: u64, [from, to]: [f64; 2]) -> Result<Model> {
    let what = format!("a base that knows programs, {}", size.name());
    let mut watch = |step: u64| {
        lab.progress(&what, from + (to - from) * step as f64 / steps.max(1) as f64);
        Ok(())
    };
    trained(size, steps, lab.seed(), &mut watch)
}

/// What came of a way at a task, if it was run.
fn of<'f>(found: &'f [Found], model: &str, task: &str, way: Way, budget: Option<f64>) -> Option<&'f Found> {
    found
        .iter()
        .find(|it| it.model == model && it.task == task && it.way == way && it.budget == budget)
        .filter(|it| !it.runs.is_empty())
}

/// Its mean quality, NaN if it was not run.
fn quality(found: &[Found], model: &str, task: &str, way: Way, budget: Option<f64>) -> f64 {
    of(found, model, task, way, budget).map_or(f64::NAN, |it| it.quality().0)
}

/// A row with what a way costs.
fn costs(mut row: Row, found: &Found) -> Row {
    let Some(first) = found.runs.first() else { return row };
    row = row
        .with("numbers trained", first.trained as f64, "")
        .with("share of the model's", 100.0 * first.share(), "%")
        .with("optimizer", first.optimizer_bytes as f64 / 1024.0, "KiB")
        .with("adapter", first.adapter_bytes as f64 / 1024.0, "KiB");
    if let Some(held) = first.measured_bytes {
        row = row.with("memory", held as f64 / 1024.0, "KiB");
    }
    row = row.with("memory, forecast", first.predicted_bytes as f64 / 1024.0, "KiB");
    if first.step_seconds > 0.0 {
        let steps: Vec<f64> = found.runs.iter().map(|run| 1e3 * run.step_seconds).collect();
        row = row.with("step", ounce_eval::stats::quantile(&steps, 0.5), "ms");
    }
    if found.rate > 0.0 {
        row = row.with("learning rate", found.rate, "");
    }
    row
}

/// Means of all values of a way's runs, with the standard error of the first.
fn values(mut row: Row, found: &Found, task: &str) -> Row {
    let Some(first) = found.runs.first() else { return row };
    let prefix = if task.is_empty() { String::new() } else { format!("{task}: ") };
    for (at, value) in first.values.iter().enumerate() {
        let (mean, error) = found.mean(|run| run.value(&value.name));
        if mean.is_finite() {
            row = row.with(format!("{prefix}{}", value.name), mean, value.unit.clone());
        }
        if at == 0 && error.is_finite() {
            row = row.with(format!("{prefix}its standard error"), error, value.unit.clone());
        }
    }
    row
}

/// Notes of what was left out, and why.
fn left_out(evidence: &mut Evidence, found: &[Found]) {
    for it in found.iter().filter(|it| it.left_out.is_some()) {
        let budget = it.budget.map_or(String::new(), |share| format!(" at {:.1} %", 100.0 * share));
        let why = it.left_out.as_deref().unwrap_or_default();
        evidence.notes.push(format!("{} for {}{budget}: left out, {why}.", it.way, it.task));
    }
}

/// Whether the numbers that were trained are those of the formula in every run of a method.
fn formulas(found: &[Found]) -> (usize, Vec<String>) {
    let runs: Vec<&Outcome> = found
        .iter()
        .filter(|it| matches!(it.way.teach, crate::grid::Teach::Adapter(_)))
        .flat_map(|it| &it.runs)
        .collect();
    let wrong = runs.iter().filter(|run| run.trained != run.formula);
    let wrong = wrong.map(|run| format!("{} {} for {}", run.cell.way, run.trained, run.formula)).collect();
    (runs.len(), wrong)
}
