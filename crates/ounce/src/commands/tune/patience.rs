//! Stops a run that has ceased to get better.

use std::path::PathBuf;

use ounce_train::Trainable;
use ounce_train::trainer::{Guarded, Observer, Step, Validation};

use crate::commands::train::watcher::Watcher;

/// A watcher that loses patience.
pub(super) struct Patient {
    pub watcher: Watcher,
    /// Validations without a better one that are borne; 0 for all.
    pub patience: usize,
    /// Validations since the best.
    since: usize,
}

impl Patient {
    pub fn new(watcher: Watcher, patience: usize) -> Patient {
        Patient { watcher, patience, since: 0 }
    }

    /// Whether it was patience that ended the run, not a person.
    pub fn lost(&self) -> bool {
        self.patience > 0 && self.since >= self.patience
    }
}

impl Observer for Patient {
    fn wants_to_stop(&mut self) -> bool {
        self.lost() || self.watcher.wants_to_stop()
    }

    fn step(&mut self, step: &Step) -> ounce_train::Result<()> {
        self.watcher.step(step)
    }

    fn validation(&mut self, validation: &Validation) -> ounce_train::Result<()> {
        self.since = if validation.best { 0 } else { self.since + 1 };
        self.watcher.validation(validation)
    }

    fn sample(&mut self, step: u64, net: &mut dyn Trainable) -> ounce_train::Result<()> {
        self.watcher.sample(step, net)
    }

    fn checkpoint(&mut self, step: u64, folder: &PathBuf) {
        self.watcher.checkpoint(step, folder);
    }

    fn guarded(&mut self, what: &Guarded) {
        self.watcher.guarded(what);
    }
}
