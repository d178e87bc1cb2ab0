//! The training loop.
//!
//! A step draws micro-batches, adds up their gradients, judges them, clips them and moves the weights. Everything a step
//! depends on is in the checkpoint: a run that is interrupted and resumed ends with the same bits as one that is not.

pub mod guard;
mod log;
mod report;
mod run;

pub use log::Log;
pub use ounce_model::machine::host::resident_bytes as memory;
pub use report::{Guarded, Observer, Preferences, Step, Validation};

use std::path::{Path, PathBuf};

use crate::checkpoint::{self, Keep, State, Store};
use crate::data::labelled::judge::Metrics;
use crate::data::{BatchSource, PackingStats};
use crate::optim::Optimizer;
use crate::schedule::Schedule;
use crate::{Error, Result, Trainable};

/// How a run goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Learning rates and number of steps.
    pub schedule: Schedule,
    /// Micro-batches in a step.
    pub accumulation: usize,
    /// The norm that gradients are clipped to.
    pub clip: Option<f64>,
    /// The spike guard, if it should watch.
    pub guard: Option<guard::Options>,
    /// Steps between validations; 0 for one at the end.
    pub validate_every: u64,
    /// Micro-batches of a validation, at most; 0 for all.
    pub validation_batches: usize,
    /// Steps between samples; 0 for none.
    pub sample_every: u64,
    /// Steps between lines of the log.
    pub log_every: u64,
    /// Steps between checkpoints; 0 for one at the end.
    pub checkpoint_every: u64,
    /// Steps between checkpoints that are never removed; 0 for none but the end of the stable part.
    pub permanent_every: u64,
    /// Which checkpoints stay.
    pub keep: Keep,
    /// What must be the same to continue a checkpoint.
    pub identity: String,
}

impl Options {
    /// A plain run: every step is logged, nothing is validated, sampled or guarded, the last checkpoint is written at the end.
    pub fn plain(schedule: Schedule, identity: String) -> Options {
        Options {
            schedule,
            accumulation: 1,
            clip: Some(1.0),
            guard: None,
            validate_every: 0,
            validation_batches: 0,
            sample_every: 0,
            log_every: 1,
            checkpoint_every: 0,
            permanent_every: 0,
            keep: Keep { last: 1, best: false },
            identity,
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All steps are done.
    Finished,
    /// The data came to its end first.
    OutOfData,
    /// Someone asked to stop; a checkpoint stands where it stopped.
    Stopped,
}

/// A run.
pub struct Trainer<'r> {
    net: &'r mut dyn Trainable,
    data: &'r mut dyn BatchSource,
    validation: Option<&'r mut dyn BatchSource>,
    optimizer: Optimizer,
    options: Options,
    output: PathBuf,
    store: Store,
    log: Log,
    state: State,
    saved: Option<u64>,
    /// Tokens of all steps since the run was taken up, and the seconds they took.
    work: (PackingStats, f64),
    judge: Option<Judge<'r>>,
}

/// Judges a network at each validation, besides its loss.
pub type Judge<'r> = &'r mut dyn FnMut(&mut dyn Trainable) -> Result<Metrics>;

/// What a run begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start<'p> {
    /// The network as it is.
    Fresh,
    /// The newest complete checkpoint of the output folder; the network as it is if there is none.
    Resume,
    /// A checkpoint of this or another run, from which a run of its own goes on: a decay from a stable checkpoint, more
    /// steps, another learning rate.
    Branch(&'p Path),
}

impl<'r> Trainer<'r> {
    /// Prepares a run that writes into `output`. Training data and network must be made as they were when a checkpoint
    /// is to be continued.
    ///
    /// # Errors
    /// If settings make no sense, a fresh run would write over another's checkpoints, or the checkpoint does not belong
    /// to this configuration.
    pub fn new(
        net: &'r mut dyn Trainable,
        data: &'r mut dyn BatchSource,
        validation: Option<&'r mut dyn BatchSource>,
        optimizer: Optimizer,
        options: Options,
        output: &Path,
        start: Start<'_>,
    ) -> Result<Trainer<'r>> {
        options.schedule.check()?;
        if options.accumulation == 0 {
            return Err(Error::Settings("a step should have at least one micro-batch".to_string()));
        }
        let store = Store::open(output, options.keep)?;
        let newest = store.all().pop();
        if let (Some(kept), Start::Fresh | Start::Branch(_)) = (&newest, start) {
            return Err(Error::checkpoint(
                output,
                format!(
                    "holds a run that stands at step {}; continue it with --resume, or choose another folder",
                    kept.step
                ),
            ));
        }
        let state = State {
            step: 0,
            tokens: 0,
            seconds: 0.0,
            data: data.position(),
            schedule: options.schedule,
            stage: None,
            permanent: false,
            config: options.identity.clone(),
            validation: None,
            best: None,
            guard: guard::Memory::default(),
            log_bytes: 0,
            memory: serde_json::Value::Null,
        };
        // One that is to go on is not cut yet: the checkpoint may turn out not to fit.
        let keeps = newest.is_some() && start == Start::Resume;
        let log = Log::open(&output.join("log.jsonl"), if keeps { u64::MAX } else { 0 })?;
        let mut trainer = Trainer {
            net,
            data,
            validation,
            optimizer,
            options,
            output: output.to_path_buf(),
            store,
            log,
            state,
            saved: None,
            work: Default::default(),
            judge: None,
        };
        match start {
            Start::Fresh => {}
            Start::Resume => {
                if let Some(kept) = newest {
                    trainer.take_up(&kept.folder)?;
                    trainer.saved = Some(trainer.state.step);
                    trainer.log = Log::open(&output.join("log.jsonl"), trainer.state.log_bytes)?;
                }
            }
            Start::Branch(folder) => {
                trainer.take_up(folder)?;
                trainer.state.best = None;
                trainer.state.log_bytes = 0;
            }
        }
        Ok(trainer)
    }

    /// Judges the network at each validation, besides its loss.
    pub fn judge(&mut self, judge: Judge<'r>) {
        self.judge = Some(judge);
    }

    /// Where the run stands.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The learning rates it follows.
    pub fn schedule(&self) -> Schedule {
        self.options.schedule
    }

    /// Tokens of all steps since the run was taken up, padding apart, and the seconds that they took.
    pub fn work(&self) -> (PackingStats, f64) {
        self.work
    }

    /// The network.
    pub fn net(&mut self) -> &mut dyn Trainable {
        self.net
    }

    /// Loads a checkpoint to go on from it.
    fn take_up(&mut self, folder: &Path) -> Result<()> {
        let state = checkpoint::read_state(folder)?;
        if state.config != self.options.identity {
            return Err(Error::checkpoint(
                folder,
                "was made with another model, data, optimizer or batch; give the settings it was made with",
            ));
        }
        let schedule = self.options.schedule;
        schedule.check_continues(state.step, state.stage)?;
        if state.step > schedule.total {
            return Err(Error::Settings(format!(
                "the checkpoint stands at step {}, behind the run's end at {}; raise the number of steps",
                state.step, schedule.total
            )));
        }
        self.state = checkpoint::load(folder, self.net, &mut self.optimizer)?;
        self.state.schedule = schedule;
        self.state.permanent = false;
        self.data.seek(&self.state.data)
    }
}
