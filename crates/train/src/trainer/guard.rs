//! The loss-spike guard (GEB, arXiv 2406.09900; restoring and skipping as in PaLM, arXiv 2204.02311, section 5.1).
//!
//! A batch whose loss, or logarithm of the gradient's norm, is above `median + k · 1.4826 · MAD` of the last accepted ones
//! is left out, and another drawn. Norms vary by factors: without the logarithm, ordinary ones would count as spikes. Several in a row mean that the weights have gone bad, not the batch: the last checkpoint is restored,
//! and training goes on behind the offending batches. Hard batches are good to learn from, so the share of batches that
//! may be left out is capped.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// The guard's settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// How many scaled median absolute deviations above the median is a spike.
    pub deviations: f64,
    /// Accepted steps that are remembered.
    pub window: usize,
    /// Steps before the guard judges.
    pub patience: usize,
    /// Spikes in a row after which the last checkpoint is restored.
    pub in_a_row: u32,
    /// The share of batches that may be left out.
    pub cap: f64,
    /// Restores after which training stops.
    pub restores: u32,
}

impl Default for Options {
    fn default() -> Options {
        Options { deviations: 8.0, window: 128, patience: 32, in_a_row: 3, cap: 0.02, restores: 3 }
    }
}

/// What the guard remembers; part of a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    losses: VecDeque<f64>,
    /// Natural logarithms.
    norms: VecDeque<f64>,
    /// Batches judged.
    pub judged: u64,
    /// Batches left out.
    pub skipped: u64,
    /// Spikes since the last accepted batch.
    pub in_a_row: u32,
    /// Checkpoints restored.
    pub restores: u32,
}

/// What to do with a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// Learn from it.
    Accept,
    /// Learn from it although it is a spike: too many were left out already.
    Capped,
    /// Leave it out and draw another.
    Skip {
        /// The value that is too large.
        value: f64,
        /// The largest that would have been accepted.
        limit: f64,
        /// Whether it is the gradient's norm rather than the loss.
        norm: bool,
    },
    /// Go back to the last checkpoint.
    Restore,
}

/// At least so many batches may be left out, whatever the share.
const ALWAYS: u64 = 10;

impl Memory {
    /// Judges a batch by its loss and its gradient's norm, and remembers what it decided.
    pub fn judge(&mut self, options: &Options, loss: f64, norm: f64) -> Verdict {
        self.judged += 1;
        let Some((value, limit, is_norm)) = self.spike(options, loss, norm) else {
            self.remember(options, loss, norm);
            return Verdict::Accept;
        };
        let allowed = ((self.judged as f64 * options.cap) as u64).max(ALWAYS);
        if self.skipped >= allowed {
            self.remember(options, loss, norm);
            return Verdict::Capped;
        }
        self.skipped += 1;
        self.in_a_row += 1;
        if self.in_a_row >= options.in_a_row {
            Verdict::Restore
        } else {
            Verdict::Skip { value, limit, norm: is_norm }
        }
    }

    /// Takes a batch that could not be left out.
    pub fn remember(&mut self, options: &Options, loss: f64, norm: f64) {
        self.in_a_row = 0;
        for (window, value) in [(&mut self.losses, loss), (&mut self.norms, logarithm(norm))] {
            window.push_back(value);
            while window.len() > options.window.max(1) {
                window.pop_front();
            }
        }
    }

    /// Keeps the counters of a memory from before a checkpoint was restored.
    pub fn count_on(&mut self, before: &Memory) {
        (self.judged, self.skipped) = (before.judged, before.skipped);
        self.restores = before.restores + 1;
        self.in_a_row = 0;
    }

    fn spike(&self, options: &Options, loss: f64, norm: f64) -> Option<(f64, f64, bool)> {
        if self.losses.len() < options.patience.max(2).min(options.window) {
            return None;
        }
        // A hundredth of the median at least, so that a flat stretch does not make everything a spike.
        let losses = limit(&self.losses, options.deviations, |median| 0.01 * median.abs());
        if loss > losses {
            return Some((loss, losses, false));
        }
        let norms = limit(&self.norms, options.deviations, |_| 0.05).exp();
        (norm > norms).then_some((norm, norms, true))
    }
}

/// Of a norm; finite for 0 too.
fn logarithm(norm: f64) -> f64 {
    norm.max(1e-30).ln()
}

/// `median + k · 1.4826 · MAD`, with a least deviation.
fn limit(values: &VecDeque<f64>, deviations: f64, least: impl Fn(f64) -> f64) -> f64 {
    let centre = median(values.iter().copied());
    let deviation = median(values.iter().map(|value| (value - centre).abs()));
    centre + deviations * (1.4826 * deviation).max(least(centre))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { 0.5 * (values[middle - 1] + values[middle]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calm(options: &Options) -> Memory {
        let mut memory = Memory::default();
        for step in 0..64 {
            let wave = 0.05 * f64::from(step % 7);
            assert_eq!(memory.judge(options, 3.0 + wave, 1.0 + wave), Verdict::Accept);
        }
        memory
    }

    #[test]
    fn spikes_of_loss_or_norm_are_left_out() {
        let options = Options::default();
        let mut memory = calm(&options);
        assert!(matches!(memory.judge(&options, 9.0, 1.0), Verdict::Skip { norm: false, .. }));
        assert_eq!(memory.judge(&options, 3.1, 1.0), Verdict::Accept);
        assert!(matches!(memory.judge(&options, 3.1, 50.0), Verdict::Skip { norm: true, .. }));
        assert_eq!((memory.skipped, memory.in_a_row), (2, 1));
        assert_eq!(memory.judge(&options, 1.0, 0.1), Verdict::Accept, "good news is no spike");
    }

    #[test]
    fn norms_that_vary_by_factors_are_no_spikes() {
        let options = Options::default();
        let mut memory = Memory::default();
        // As near the end of a run: the loss hardly moves, norms lie between 0.1 and 0.8.
        for step in 0..400u32 {
            let norm = 0.1 * f64::from(step * 37 % 100 / 33).exp2() * (1.0 + f64::from(step % 5) / 5.0);
            assert_eq!(memory.judge(&options, 0.3 + 0.001 * f64::from(step % 3), norm), Verdict::Accept);
        }
        assert!(matches!(memory.judge(&options, 0.3, 1000.0), Verdict::Skip { norm: true, .. }));
    }

    #[test]
    fn several_in_a_row_restore() {
        let options = Options::default();
        let mut memory = calm(&options);
        assert!(matches!(memory.judge(&options, 9.0, 1.0), Verdict::Skip { .. }));
        assert!(matches!(memory.judge(&options, 9.0, 1.0), Verdict::Skip { .. }));
        assert_eq!(memory.judge(&options, 9.0, 1.0), Verdict::Restore);
        let mut restored = calm(&options);
        restored.count_on(&memory);
        assert_eq!((restored.skipped, restored.restores, restored.in_a_row), (3, 1, 0));
    }

    #[test]
    fn the_number_of_batches_left_out_is_capped() {
        let options = Options { in_a_row: 1000, ..Options::default() };
        let mut memory = calm(&options);
        for _ in 0..10 {
            assert!(matches!(memory.judge(&options, 9.0, 1.0), Verdict::Skip { .. }));
        }
        assert_eq!(memory.judge(&options, 9.0, 1.0), Verdict::Capped);
    }

    #[test]
    fn nothing_is_judged_before_enough_was_seen() {
        let options = Options::default();
        let mut memory = Memory::default();
        for step in 0..options.patience {
            assert_eq!(memory.judge(&options, 10.0 * (step % 2) as f64, 1.0), Verdict::Accept);
        }
        assert_eq!(median([4.0, 1.0, 3.0, 2.0].into_iter()), 2.5);
    }
}
