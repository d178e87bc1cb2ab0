//! The law of losses from branches of one stable run a size.

use ounce_eval::method::{Evidence, Lab, Row};
use ounce_kernels::pool::Pool;

use super::super::tiny::{Letters, train};
use super::wsd;
use crate::config::Preset;
use crate::laws::scaling::{Run, ScalingLaw};
use crate::sweep::Job;
use crate::trainer::{Options, Start};
use crate::{Error, Result};

/// Relative error that the prediction may have.
const WITHIN: f64 = 0.03;
/// Where decays branch off, in units of steps; the last is the stable run's own.
const POINTS: [u64; 4] = [1, 2, 4, 8];

/// How long and how large.
pub(super) struct Plan {
    /// Widths, smallest first.
    pub widths: Vec<usize>,
    /// Steps until the first branch; a multiple of 10.
    pub unit: u64,
    /// Tokens of a step.
    pub batch: usize,
    /// Highest learning rate, of all widths.
    pub rate: f64,
}

impl Plan {
    pub fn full() -> Plan {
        Plan { widths: vec![32, 64, 96], unit: 100, batch: 512, rate: 0.0025 }
    }

    /// Letters that the longest run sees.
    pub fn letters(&self) -> usize {
        (self.unit as usize * 9 + 2) * self.batch
    }
}

pub(super) fn measure(lab: &dyn Lab, letters: &Letters, plan: &Plan, evidence: &mut Evidence) -> Result<()> {
    let folder = tempfile::tempdir().map_err(Error::io(std::env::temp_dir()))?;
    let Plan { unit, batch, rate, .. } = *plan;
    let warmup = unit / 5;
    let mut runs = Vec::new();
    let mut steps = 0;
    let work: f64 = plan.widths.iter().map(|width| width.pow(2) as f64).sum();
    let mut done = 0.0;
    for &width in &plan.widths {
        lab.progress(&format!("law: width {width}"), 0.65 + 0.35 * done / work);
        done += width.pow(2) as f64;
        let shape = letters.shape(Preset::Minicpm, width);
        let stable = folder.path().join(format!("{width}"));
        // The longest first: the others branch off its checkpoints.
        for &point in POINTS.iter().rev() {
            let (begin, decay) = (unit * point, unit * point / 10);
            let schedule = wsd(rate, begin + decay, decay, warmup);
            let job = letters.job(&shape, batch, schedule, Pool::global())?;
            let longest = Some(&point) == POINTS.last();
            let permanent_every = if longest { unit } else { 0 };
            let job = Job { options: Options { permanent_every, ..job.options }, ..job };
            let checkpoint = stable.join(format!("checkpoints/step-{begin}"));
            let own = folder.path().join(format!("{width}-{point}"));
            let trained = match longest {
                true => train(job, &stable, Start::Fresh, None)?,
                false => train(job, &own, Start::Branch(&checkpoint), None)?,
            };
            steps += if longest { begin + decay } else { decay };
            let tokens = (begin + decay) as f64 * batch as f64;
            let loss = trained.losses.last().map_or(f64::NAN, |(_, loss)| *loss);
            runs.push(Run { params: trained.params as f64, tokens, loss });
        }
    }
    let size = |run: &Run| run.params * run.tokens;
    runs.sort_by(|a, b| {
        (a.params, a.tokens).partial_cmp(&(b.params, b.tokens)).unwrap_or(std::cmp::Ordering::Equal)
    });
    let held = runs.iter().copied().max_by(|a, b| size(a).total_cmp(&size(b)));
    let Some(held) = held else { return Ok(()) };
    let others: Vec<Run> = runs.iter().copied().filter(|run| *run != held).collect();
    let law = ScalingLaw::fit(&others)?;
    for run in &runs {
        let fitted = law.at(run.params, run.tokens);
        let row = Row::new(format!("{} parameters, {} tokens", run.params, run.tokens));
        let row = row.with("held-out loss", run.loss, "nats").with("the law's", fitted, "nats");
        evidence.rows.push(row.with("error", (fitted / run.loss - 1.0) * 100.0, "%"));
    }
    let row = Row::new("law of the losses, without the largest run")
        .with("E", law.irreducible, "nats")
        .with("A", law.params_scale, "")
        .with("α", law.params_exponent, "")
        .with("B", law.tokens_scale, "")
        .with("β", law.tokens_exponent, "");
    let row = match law.best_split(6.0 * size(&held)) {
        Some(split) => row.with("best tokens a parameter", split.tokens / split.params, ""),
        None => row,
    };
    evidence.rows.push(row);
    let single: u64 = POINTS.iter().map(|point| unit * point + unit * point / 10).sum::<u64>();
    let alone = single * plan.widths.len() as u64;
    evidence.rows.push(
        Row::new("steps of all runs of the law").with("with branches", steps as f64, "").with(
            "each alone",
            alone as f64,
            "",
        ),
    );
    let predicted = law.at(held.params, held.tokens);
    let error = predicted / held.loss - 1.0;
    evidence.expect(
        format!("the law predicts the largest run, which it did not see, within {:.0} %", WITHIN * 100.0),
        format!("{predicted:.4} against {:.4} nats, {:+.2} %", held.loss, error * 100.0),
        error.abs() <= WITHIN,
    );
    Ok(())
}
