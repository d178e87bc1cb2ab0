//! What came of a grid: for people, as JSON and as a chart.

use std::path::Path;

use anyhow::bail;
use ounce_peft::grid::{Found, Outcome, Task, Teach};
use serde::Serialize;

use super::percent;
use crate::plot::{self, Chart, Series};
use crate::{output, units};

/// A way at a task.
#[derive(Debug, Serialize)]
pub(super) struct Row<'f> {
    task: &'f str,
    model: &'f str,
    way: String,
    class: Option<&'static str>,
    budget: Option<f64>,
    left_out: Option<&'f str>,
    learning_rate: f64,
    /// Losses of the runs that chose it.
    losses_by_rate: &'f [(f64, Option<f64>)],
    /// Name, mean, standard error over seeds, unit; first what counts most.
    quality: Vec<Quality>,
    trained: u64,
    /// By the method's formula.
    formula: u64,
    /// Of a new head, besides.
    head: u64,
    /// Trained numbers as a part of the model's.
    share: f64,
    predicted_bytes: u64,
    measured_bytes: Option<u64>,
    optimizer_bytes: u64,
    adapter_bytes: u64,
    step_seconds: f64,
    /// The time of a forward pass by that of the base.
    delay: Option<f64>,
    merged_error: Option<f64>,
    runs: &'f [Outcome],
}

#[derive(Debug, Serialize)]
struct Quality {
    name: String,
    mean: f64,
    error: Option<f64>,
    unit: String,
}

pub(super) fn rows(found: &[Found]) -> Vec<Row<'_>> {
    found.iter().map(row).collect()
}

fn row(found: &Found) -> Row<'_> {
    let first = found.runs.first();
    let of = |what: fn(&Outcome) -> u64| first.map_or(0, what);
    let names = first.map_or(&[][..], |run| &run.values);
    let quality = names.iter().map(|value| {
        let (mean, error) = found.mean(|run| run.value(&value.name));
        let error = Some(error).filter(|it| it.is_finite());
        Quality { name: value.name.clone(), mean, error, unit: value.unit.clone() }
    });
    Row {
        task: &found.task,
        model: &found.model,
        way: found.way.to_string(),
        class: match found.way.teach {
            Teach::Adapter(kind) => Some(kind.nature().class.name()),
            _ => None,
        },
        budget: found.budget,
        left_out: found.left_out.as_deref(),
        learning_rate: found.rate,
        losses_by_rate: &found.rates,
        quality: quality.collect(),
        trained: of(|run| run.trained),
        formula: of(|run| run.formula),
        head: of(|run| run.head),
        share: first.map_or(0.0, Outcome::share),
        predicted_bytes: of(|run| run.predicted_bytes),
        measured_bytes: first.and_then(|run| run.measured_bytes),
        optimizer_bytes: of(|run| run.optimizer_bytes),
        adapter_bytes: of(|run| run.adapter_bytes),
        step_seconds: found.mean(|run| Some(run.step_seconds)).0,
        delay: first.and_then(|run| run.delay),
        merged_error: first.and_then(|run| run.merged_error),
        runs: &found.runs,
    }
}

pub(super) fn print(found: &[Found]) -> anyhow::Result<()> {
    let rows = rows(found);
    let mut shown: Vec<(&str, &str)> = Vec::new();
    for row in &rows {
        if !shown.contains(&(row.model, row.task)) {
            shown.push((row.model, row.task));
        }
    }
    for (model, task) in shown {
        let own = || rows.iter().filter(|row| (row.model, row.task) == (model, task));
        let names: Vec<&Quality> =
            own().find(|row| !row.quality.is_empty()).map_or(Vec::new(), |row| row.quality.iter().collect());
        output::line(format!("{task} on {model}"))?;
        let mut head = vec!["way", "budget"];
        head.extend(names.iter().map(|it| it.name.as_str()));
        head.extend([
            "trained",
            "share",
            "memory",
            "predicted",
            "step",
            "forward",
            "adapter",
            "learning rate",
        ]);
        let mut table = output::table(&head);
        for row in own().filter(|row| row.left_out.is_none()) {
            let mut cells = vec![row.way.clone(), row.budget.map_or(String::new(), percent)];
            for name in &names {
                let own = row.quality.iter().find(|it| it.name == name.name);
                cells.push(own.map_or("diverged".to_owned(), said));
            }
            let trains = row.step_seconds > 0.0;
            let or = |known: bool, text: String| if known { text } else { String::new() };
            cells.extend([
                or(trains, units::count(row.trained)),
                or(trains, percent(row.share)),
                or(trains, row.measured_bytes.map_or(String::new(), units::bytes)),
                or(trains, units::bytes(row.predicted_bytes)),
                or(trains, format!("{:.1} ms", 1e3 * row.step_seconds)),
                row.delay.map_or(String::new(), |it| format!("{it:.2}×")),
                or(trains, units::bytes(row.adapter_bytes)),
                or(trains, format!("{:.1e}", row.learning_rate)),
            ]);
            table.add_row(cells);
        }
        output::print_table(&table)?;
        for row in own() {
            if let Some(why) = row.left_out {
                output::line(format!("{} left out: {why}", row.way))?;
            }
        }
        output::line("")?;
    }
    output::line(
        "memory: the model as stored and the most that was allocated above it; forward: the time of a pass by that of the base, merged \
         where that can be; ± standard error over seeds",
    )
}

fn said(quality: &Quality) -> String {
    let digits = if quality.unit == "%" { 1 } else { 3 };
    let error = quality.error.map_or(String::new(), |it| format!(" ± {it:.digits$}"));
    let unit = if quality.unit.is_empty() { String::new() } else { format!(" {}", quality.unit) };
    format!("{:.digits$}{error}{unit}", quality.mean)
}

/// Quality over trained numbers, a series a way.
pub(super) fn draw(found: &[Found], tasks: &[&dyn Task], path: &Path) -> anyhow::Result<()> {
    let mut series: Vec<Series> = Vec::new();
    for it in found.iter().filter(|it| it.way.trains() && !it.runs.is_empty()) {
        let several = tasks.len() > 1;
        let name = match several {
            true => format!("{}, {} on {}", it.way, it.task, it.model),
            false => it.way.to_string(),
        };
        let share = 100.0 * it.runs.first().map_or(0.0, Outcome::share);
        let point = (share, it.quality().0);
        match series.iter_mut().find(|it| it.name == name) {
            Some(known) => known.points.push(point),
            None => series.push(Series::dotted(name, vec![point])),
        }
    }
    for series in &mut series {
        series.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    let quality = found.iter().flat_map(|it| &it.runs).find_map(|run| run.values.first());
    let chart = Chart {
        title: "Quality against trained numbers".to_owned(),
        x_label: "trained numbers, % of the model's".to_owned(),
        y_label: quality.map_or(String::new(), |it| format!("{}, {}", it.name, it.unit)),
        series,
        log_x: true,
        log_y: false,
    };
    match path.extension().and_then(|it| it.to_str()) {
        Some("svg") => plot::write_svg(&chart, path),
        Some("png") => plot::write_png(&chart, path),
        _ => bail!("{}: charts are written as .svg or .png", path.display()),
    }
}
