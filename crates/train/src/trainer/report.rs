//! What a run tells while it goes, and whom.

use std::path::PathBuf;

use serde::Serialize;

use super::guard::Verdict;
use crate::data::labelled::judge::Metrics;
use crate::schedule::Stage;
use crate::{Result, Trainable};

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Step {
    /// Steps done.
    pub step: u64,
    /// Targets learned from so far.
    pub tokens: u64,
    /// Nats a target.
    pub loss: f64,
    /// The gradient's norm before clipping.
    pub norm: f64,
    /// The learning rate.
    pub rate: f64,
    /// The part of the schedule.
    pub stage: Stage,
    /// How often all data was gone through.
    pub epoch: u64,
    /// Seconds this step took, drawing the batches included.
    pub seconds: f64,
    /// Targets a second in this step.
    pub tokens_per_second: f64,
    /// Seconds spent training, earlier sessions included.
    pub elapsed: f64,
    /// Resident memory, where the system tells.
    pub memory: Option<u64>,
}

/// A validation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Validation {
    /// Steps done.
    pub step: u64,
    /// Nats a target.
    pub loss: f64,
    /// `e` to that.
    pub perplexity: f64,
    /// Targets.
    pub tokens: usize,
    /// Whether it is the best so far.
    pub best: bool,
    /// Seconds it took.
    pub seconds: f64,
    /// How right a classifier is.
    #[serde(flatten)]
    pub metrics: Metrics,
}

/// What the guard did.
#[derive(Debug, Clone, PartialEq)]
pub struct Guarded {
    /// The step it happened in.
    pub step: u64,
    /// Loss of the batch.
    pub loss: f64,
    /// Its gradient's norm.
    pub norm: f64,
    /// What was decided.
    pub verdict: Verdict,
    /// The step that training went back to.
    pub restored: Option<u64>,
}

/// Whom a run tells. All methods do nothing unless written.
pub trait Observer {
    /// Whether the run should save a checkpoint and leave; asked before each step.
    fn wants_to_stop(&mut self) -> bool {
        false
    }

    /// A step is done.
    ///
    /// # Errors
    /// Ends the run.
    fn step(&mut self, _step: &Step) -> Result<()> {
        Ok(())
    }

    /// A validation is done.
    ///
    /// # Errors
    /// Ends the run.
    fn validation(&mut self, _validation: &Validation) -> Result<()> {
        Ok(())
    }

    /// It is time to show what the network can do.
    ///
    /// # Errors
    /// Ends the run.
    fn sample(&mut self, _step: u64, _net: &mut dyn Trainable) -> Result<()> {
        Ok(())
    }

    /// A checkpoint is written.
    fn checkpoint(&mut self, _step: u64, _folder: &PathBuf) {}

    /// The guard did something.
    fn guarded(&mut self, _what: &Guarded) {}
}

/// Nobody.
impl Observer for () {}

/// Resident bytes of this process now and at most, where the system tells.
pub fn memory() -> (Option<u64>, Option<u64>) {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
    };
    (field("VmRSS:"), field("VmHWM:"))
}
