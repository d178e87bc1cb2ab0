//! Doing the runs of a sweep.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ounce_kernels::pool::Pool;
use serde::Deserialize;

use super::{Cell, Outcome, Results};
use crate::checkpoint::Kept;
use crate::data::BatchSource;
use crate::optim::Optimizer;
use crate::trainer::{self, Ended, Observer, Start, Step, Trainer, Validation};
use crate::{Error, Result, Trainable};

/// The part of a run, at its end, whose training losses are averaged.
const SMOOTHED: f64 = 0.1;

/// A run, ready to begin.
pub struct Job {
    /// What is trained.
    pub net: Box<dyn Trainable>,
    /// On what.
    pub data: Box<dyn BatchSource>,
    /// What it is judged by, if not by training losses alone.
    pub validation: Option<Box<dyn BatchSource>>,
    /// From gradients to weights.
    pub optimizer: Optimizer,
    /// How the run goes. Every step is logged, whatever they say.
    pub options: trainer::Options,
    /// Parameters without embeddings and head.
    pub params: u64,
}

/// Whom a sweep tells; called from several threads. All methods do nothing unless written.
pub trait Watch: Sync {
    /// Whether the sweep should leave; runs are left at a checkpoint.
    fn wants_to_stop(&self) -> bool {
        false
    }

    /// A step of a run is done.
    fn step(&self, _cell: &Cell, _step: &Step) {}

    /// A run has ended.
    fn ended(&self, _outcome: &Outcome) {}
}

/// Nobody.
impl Watch for () {}

/// Does those of the runs that have no result yet, `workers` at a time. A single worker computes on all threads, several
/// on one each; results are the same. A run that was interrupted goes on from its checkpoint. Gives whether all are
/// done.
///
/// # Errors
/// If a run can't be prepared or done, other than by diverging, which is a result. Results so far stand.
pub fn run<E: From<Error> + Send>(
    results: &mut Results,
    cells: &[Cell],
    workers: usize,
    prepare: &(dyn Fn(&Cell, &'static Pool) -> Result<Job, E> + Sync),
    watch: &dyn Watch,
) -> Result<bool, E> {
    let missing: Vec<Cell> = cells.iter().copied().filter(|cell| results.of(cell).is_none()).collect();
    let folder = results.folder().join("cells");
    // Left by a process that was killed between writing a result and clearing up.
    for done in cells.iter().filter(|cell| results.of(cell).is_some()) {
        clear(&folder.join(done.name()))?;
    }
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let shared = Mutex::new((results, None));
    let work = |pool: &'static Pool| {
        while !stop.load(Ordering::Relaxed) && !watch.wants_to_stop() {
            let Some(cell) = missing.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
            let place = folder.join(cell.name());
            let done =
                prepare(cell, pool).and_then(|job| Ok(one(cell, job, &place, &Told { watch, stop: &stop })?));
            let mut shared = shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let kept = match done {
                Ok(None) => break,
                Ok(Some(outcome)) => {
                    let added = shared.0.add(outcome).and_then(|()| clear(&place));
                    added.map(|()| watch.ended(&outcome)).map_err(E::from)
                }
                Err(error) => Err(error),
            };
            if let Err(error) = kept {
                stop.store(true, Ordering::Relaxed);
                shared.1.get_or_insert(error);
            }
        }
    };
    match workers {
        0 | 1 => work(Pool::global()),
        _ => std::thread::scope(|scope| {
            for _ in 0..workers.min(missing.len()) {
                scope.spawn(|| work(Pool::single()));
            }
        }),
    }
    let (results, error) = shared.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    match error {
        Some(error) => Err(error),
        None => Ok(cells.iter().all(|cell| results.of(cell).is_some())),
    }
}

/// Removes a run's folder: the result is what remains of it.
fn clear(folder: &Path) -> Result<()> {
    if folder.exists() { fs::remove_dir_all(folder).map_err(Error::io(folder)) } else { Ok(()) }
}

/// Passes on what a trainer tells.
struct Told<'w> {
    watch: &'w dyn Watch,
    stop: &'w AtomicBool,
}

struct Listener<'w> {
    told: &'w Told<'w>,
    cell: &'w Cell,
    validation: Option<f64>,
}

impl Observer for Listener<'_> {
    fn wants_to_stop(&mut self) -> bool {
        self.told.stop.load(Ordering::Relaxed) || self.told.watch.wants_to_stop()
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        self.told.watch.step(self.cell, step);
        Ok(())
    }

    fn validation(&mut self, validation: &Validation) -> Result<()> {
        self.validation = Some(validation.loss);
        Ok(())
    }
}

/// One run; none if it was stopped.
fn one(cell: &Cell, mut job: Job, folder: &Path, told: &Told<'_>) -> Result<Option<Outcome>> {
    fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let options = trainer::Options { log_every: 1, ..job.options };
    let start = if Kept::latest(folder).is_some() { Start::Resume } else { Start::Fresh };
    let mut listener = Listener { told, cell, validation: None };
    let mut trainer = Trainer::new(
        job.net.as_mut(),
        job.data.as_mut(),
        // Cut to what a trait object's lifetime allows.
        match &mut job.validation {
            Some(source) => Some(source.as_mut()),
            None => None,
        },
        job.optimizer,
        options,
        folder,
        start,
    )?;
    let total = trainer.schedule().total;
    let ended = trainer.run(&mut listener);
    let state = trainer.state();
    let outcome = Outcome {
        cell: *cell,
        params: job.params,
        steps: state.step,
        targets: state.tokens,
        loss: None,
        // Not told of again when a finished run is resumed.
        validation: listener.validation.or(state.validation),
        seconds: state.seconds,
    };
    drop(trainer);
    match ended {
        Ok(Ended::Stopped) => Ok(None),
        Ok(Ended::Finished) => {
            Ok(Some(Outcome { loss: final_loss(&folder.join("log.jsonl"), total)?, ..outcome }))
        }
        Ok(Ended::OutOfData) => {
            Err(Error::Settings(format!("the data came to its end before the run {}", cell.name())))
        }
        Err(Error::Diverged(_)) => Ok(Some(Outcome { validation: None, ..outcome })),
        Err(error) => Err(error),
    }
}

/// What is read of a line of the log.
#[derive(Deserialize)]
struct Line {
    event: String,
    #[serde(default)]
    step: u64,
    #[serde(default)]
    tokens: u64,
    loss: Option<f64>,
}

/// The mean of the last part's training losses, weighted by targets.
fn final_loss(log: &Path, total: u64) -> Result<Option<f64>> {
    let first = total - ((total as f64 * SMOOTHED).ceil() as u64).clamp(1, total);
    let (mut sum, mut count, mut before) = (0.0, 0, 0);
    for line in BufReader::new(fs::File::open(log).map_err(Error::io(log))?).lines() {
        let line: Line = serde_json::from_str(&line.map_err(Error::io(log))?)
            .map_err(|error| Error::file(log, format!("a line of the log is damaged ({error})")))?;
        if line.event != "step" {
            continue;
        }
        if let Some(loss) = line.loss.filter(|_| line.step > first) {
            sum += loss * (line.tokens - before) as f64;
            count += line.tokens - before;
        }
        before = line.tokens;
    }
    Ok((count > 0).then(|| sum / count as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_final_loss_is_the_mean_over_the_last_tenth() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("log.jsonl");
        let line = |step: u64, tokens: u64, loss: f64| {
            format!("{{\"event\":\"step\",\"step\":{step},\"tokens\":{tokens},\"loss\":{loss}}}\n")
        };
        let mut text: String = (1..=18).map(|step| line(step, 10 * step, 9.0)).collect();
        text += "{\"event\":\"validation\",\"step\":18,\"loss\":7.0}\n";
        text += &(line(19, 190, 2.0) + &line(20, 220, 4.0));
        fs::write(&path, text).expect("written");
        // The last of them has three times the targets.
        assert_eq!(final_loss(&path, 20).expect("read"), Some(3.5));
    }
}
