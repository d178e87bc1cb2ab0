//! The best learning rate of several widths, with the factors and without.

use ounce_eval::method::{Evidence, Lab, Row};
use ounce_kernels::pool::Pool;

use super::super::tiny::{Letters, workers};
use super::wsd;
use crate::config::Preset;
use crate::sweep::fit::{Settings, Size, fit};
use crate::sweep::{Cell, Grid, Job, Results, run};
use crate::{Error, Result};

/// What is swept.
pub(super) struct Plan {
    /// Widths, smallest first.
    pub widths: Vec<usize>,
    /// Learning rates with the factors.
    pub scaled: Vec<f64>,
    /// Learning rates without.
    pub plain: Vec<f64>,
    /// Tokens of a run.
    pub tokens: u64,
    /// Tokens of a step.
    pub batch: u64,
}

impl Plan {
    pub fn full() -> Plan {
        Plan {
            widths: vec![32, 64, 128],
            scaled: (0..6).map(|i| 0.0003125 * 2f64.powi(i)).collect(),
            plain: (0..6).map(|i| 0.00025 * 2f64.powi(i)).collect(),
            tokens: 64_000,
            batch: 256,
        }
    }

    /// Letters that a run sees.
    pub fn letters(&self) -> usize {
        (self.tokens + 2 * self.batch) as usize
    }
}

/// One way to set up models.
struct Way<'p> {
    name: &'static str,
    preset: Preset,
    rates: &'p [f64],
}

pub(super) fn measure(lab: &dyn Lab, letters: &Letters, plan: &Plan, evidence: &mut Evidence) -> Result<()> {
    let ways = [
        Way { name: "with the factors", preset: Preset::Minicpm, rates: &plan.scaled },
        Way { name: "without", preset: Preset::Llama, rates: &plan.plain },
    ];
    let mut best = Vec::new();
    for (at, way) in ways.iter().enumerate() {
        let sizes = sweep(letters, plan, way, &|width, share| {
            lab.progress(&format!("width {width}, {}", way.name), 0.25 + 0.2 * (at as f64 + share));
        })?;
        let index = |size: &Size| way.rates.iter().position(|&rate| rate == size.best.rate).unwrap_or(0);
        for size in &sizes {
            let mut row = Row::new(format!("width {}, {}", size.hidden, way.name));
            row = row.with("parameters", size.params, "").with("best rate", size.best.rate, "");
            row = row.with("its index", index(size) as f64, "");
            row = row.with("best rate, fitted", size.optimum().rate, "");
            row = row.with("minimum on the grid's edge", size.edges.len() as f64, "");
            let mut runs = size.runs.clone();
            runs.sort_by(|a, b| a.rate.total_cmp(&b.rate));
            for run in runs {
                row = row.with(format!("loss at {:.2e}", run.rate), run.loss, "nats");
            }
            evidence.rows.push(row);
        }
        let indices: Vec<usize> = sizes.iter().map(index).collect();
        let fitted: Vec<f64> = sizes.iter().map(|size| size.optimum().rate).collect();
        best.push((indices, fitted));
    }
    let [(scaled, with), (plain, without)] = &best[..] else { return Ok(()) };
    let list = |rates: &[f64]| rates.iter().map(|rate| format!("{rate:.4}")).collect::<Vec<_>>().join(", ");
    evidence.expect(
        format!("with the factors, widths {:?} have the same best learning rate of the grid", plan.widths),
        format!("indices {scaled:?}; fitted {}", list(with)),
        scaled.iter().all(|index| *index == scaled[0]),
    );
    let shift = plain.iter().max().zip(plain.iter().min()).map_or(0, |(most, least)| most - least);
    evidence.expect(
        "without them it shifts by a factor of 2 or more",
        format!("indices {plain:?}, a factor of {}; fitted {}", 1 << shift, list(without)),
        shift >= 1,
    );
    Ok(())
}

/// The best rates of all widths.
fn sweep(letters: &Letters, plan: &Plan, way: &Way<'_>, told: &dyn Fn(usize, f64)) -> Result<Vec<Size>> {
    let folder = tempfile::tempdir().map_err(Error::io(std::env::temp_dir()))?;
    let mut results = Results::open(folder.path(), &serde_json::Value::Null)?;
    let prepare = |cell: &Cell, pool: &'static Pool| -> Result<Job> {
        let total = cell.steps();
        let schedule = wsd(cell.lr, total, total / 10, total / 10 + 1);
        let job =
            letters.job(&letters.shape(way.preset, cell.hidden), plan.batch as usize, schedule, pool)?;
        Ok(Job { validation: None, ..job })
    };
    for (at, &width) in plan.widths.iter().enumerate() {
        told(width, at as f64 / plan.widths.len() as f64);
        let grid = Grid {
            lr: way.rates.to_vec(),
            batch_tokens: vec![plan.batch],
            hidden: vec![width],
            tokens: vec![plan.tokens],
        };
        run(&mut results, &grid.cells()?, workers(), &prepare, &())?;
    }
    Ok(fit(results.all(), &Settings { samples: 0, ..Settings::default() }).sizes)
}
