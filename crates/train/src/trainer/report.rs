//! What a run tells while it goes, and whom.

use std::path::PathBuf;

use serde::Serialize;

use super::guard::Verdict;
use crate::data::labelled::judge::Metrics;
use crate::loss::Choices;
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
    /// Tokens of samples a second in this step, questions included and padding not.
    pub useful_tokens_per_second: f64,
    /// The part of all tokens that was padding, 0 to 1.
    pub padding: f64,
    /// The part of choices of which the better answer gained more on the reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Seconds spent training, earlier sessions included.
    pub elapsed: f64,
    /// Resident memory, where the system tells.
    pub memory: Option<u64>,
}

/// How a network chooses between answers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Preferences {
    /// Choices.
    pub pairs: usize,
    /// The part of which the better answer gained more on the reference than the worse.
    pub accuracy: f64,
    /// The part of which the better answer is the likelier one.
    pub likelier: f64,
    /// How far the better answer is ahead of the worse on average, with β: what the loss is of.
    pub margin: f64,
    /// What better answers gained on the reference on average, in nats.
    pub better: f64,
    /// What worse answers gained.
    pub worse: f64,
}

impl Preferences {
    /// Means over choices; none if there were none.
    pub fn of(choices: Choices) -> Option<Preferences> {
        let Choices { pairs, right, likelier, margin, better, worse } = choices;
        let mean = |sum: f64| sum / pairs as f64;
        (pairs > 0).then(|| Preferences {
            pairs,
            accuracy: mean(right as f64),
            likelier: mean(likelier as f64),
            margin: mean(margin),
            better: mean(better),
            worse: mean(worse),
        })
    }
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
    /// Targets, or choices.
    pub tokens: usize,
    /// How it chooses between answers, where that is learned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preferences: Option<Preferences>,
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
