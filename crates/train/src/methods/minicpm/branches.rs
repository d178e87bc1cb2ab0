//! Cosine, warm-up–stable–decay, and a decay that branches off halfway.

use ounce_eval::method::{Evidence, Lab, Row};
use ounce_kernels::pool::Pool;

use super::super::tiny::{Letters, Trained, train};
use super::wsd;
use crate::config::Preset;
use crate::schedule::{Schedule, Shape};
use crate::sweep::Job;
use crate::trainer::{Options, Start};
use crate::{Error, Result};

/// The row that the others are compared with.
pub(super) const BASELINE: &str = "cosine";
/// Nats that a schedule may lose against its cosine.
const TOLERANCE: f64 = 0.02;

/// How long and how large.
pub(super) struct Plan {
    /// Steps of the long runs; a multiple of 20.
    pub steps: u64,
    /// Tokens of a step.
    pub batch: usize,
    /// Width of the model.
    pub width: usize,
    /// Highest learning rate.
    pub rate: f64,
}

impl Plan {
    pub fn full() -> Plan {
        Plan { steps: 1000, batch: 512, width: 64, rate: 0.0025 }
    }

    /// Letters that the longest run sees.
    pub fn letters(&self) -> usize {
        (self.steps as usize + 2) * self.batch
    }
}

pub(super) fn measure(lab: &dyn Lab, letters: &Letters, plan: &Plan, evidence: &mut Evidence) -> Result<()> {
    let Plan { steps, rate, batch, width, .. } = *plan;
    let (half, warmup) = (steps / 2, steps / 50 + 1);
    // The branch decays a tenth of the half, to the same share of its steps as the long run.
    let (tail, branched) = (half / 10, half + half / 10);
    let folder = tempfile::tempdir().map_err(Error::io(std::env::temp_dir()))?;
    let shape = letters.shape(Preset::Minicpm, width);
    let job = |schedule: Schedule, validate_every: u64, permanent_every: u64| -> Result<Job> {
        let job = letters.job(&shape, batch, schedule, Pool::global())?;
        Ok(Job { options: Options { validate_every, permanent_every, ..job.options }, ..job })
    };
    let cosine = |total| Schedule { peak: rate, warmup, total, shape: Shape::Cosine { floor: 0.01 * rate } };
    let at = |name: &str| folder.path().join(name);

    lab.progress("schedules: cosine", 0.0);
    let long = train(job(cosine(steps), branched, 0)?, &at("cosine"), Start::Fresh, None)?;
    lab.progress("schedules: warm-up, stable, decay", 0.08);
    let schedule = wsd(rate, steps, steps / 10, warmup);
    let stable = train(job(schedule, half, half)?, &at("wsd"), Start::Fresh, None)?;
    lab.progress("schedules: a branch, and the half alone", 0.16);
    let checkpoint = at(&format!("wsd/checkpoints/step-{half}"));
    let decayed = wsd(rate, branched, tail, warmup);
    let branch = train(job(decayed, 0, 0)?, &at("branch"), Start::Branch(&checkpoint), None)?;
    let short = train(job(cosine(half), 0, 0)?, &at("short"), Start::Fresh, None)?;
    lab.progress("schedules: resuming", 0.2);
    let resumed = train(job(schedule, 0, 0)?, &at("resumed"), Start::Branch(&checkpoint), None)?;

    let seen = |run: &Trained, step: u64| {
        run.losses.iter().find(|(at, _)| *at == step).map_or(f64::NAN, |(_, loss)| *loss)
    };
    let rows = [
        (BASELINE.to_string(), steps, seen(&long, steps)),
        ("warm-up, stable, decay".to_string(), steps, seen(&stable, steps)),
        ("the stable part, halfway".to_string(), half, seen(&stable, half)),
        ("decay branched off halfway".to_string(), branched, seen(&branch, branched)),
        ("cosine of half the steps".to_string(), half, seen(&short, half)),
        ("cosine, seen where the branch ends".to_string(), branched, seen(&long, branched)),
    ];
    let [long, full, stable_loss, branch, short, middle] = rows.clone().map(|row| row.2);
    for (label, steps, loss) in rows {
        evidence.rows.push(Row::new(label).with("steps", steps as f64, "").with(
            "held-out loss",
            loss,
            "nats",
        ));
    }
    evidence.expect(
        format!("warm-up, stable, decay is at most {TOLERANCE} nats above a cosine of as many steps"),
        format!("{full:.4} against {long:.4}, {:+.4}", full - long),
        full <= long + TOLERANCE,
    );
    evidence.expect(
        format!("a decay branched off halfway is at most {TOLERANCE} nats above a cosine of that length"),
        format!("{branch:.4} against {short:.4}, {:+.4}", branch - short),
        branch <= short + TOLERANCE,
    );
    evidence.expect(
        "it is better than the long cosine at the same step",
        format!("{branch:.4} against {middle:.4}"),
        branch < middle,
    );
    evidence.expect(
        "the decay lowers the loss of the stable part",
        format!("{stable_loss:.4} to {branch:.4} in {tail} steps"),
        branch < stable_loss,
    );
    let same = resumed.weights == stable.weights;
    evidence.expect(
        "a run resumed from the stable checkpoint ends with the same bits as the one that was not interrupted",
        if same { "all weights are equal" } else { "weights differ" },
        same,
    );
    Ok(())
}
