//! TAID (method 037): the target moves from the student's own prediction to the teacher's, at a pace that follows the loss.
//!
//! "TAID: Temporally Adaptive Interpolated Distillation for Efficient Knowledge Transfer in Language Models", arXiv 2501.16937.
//!
//! With the student's logits `s` and the teacher's `z`, the target is `p_t = softmax((1 − t) s + t z)` (equation 3), `s` taken
//! as a constant, and the loss `−Σ p_t ln q`. After a step with loss `J` (equations 5 to 7):
//!
//! `m ← β m + (1 − β) (J₋ − J) / J₋`,  `t ← min(t_end, max(t_lin, t + α σ(m) (1 − t)))`
//!
//! where `J₋` is the loss of the step before and `t_lin` goes from `t_start` to `t_end` evenly: `t` never falls, and is never
//! behind that line.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::divergence::Divergence;
use super::log_softmax;
use crate::{Error, Result};

/// TAID's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TaidOptions {
    /// `t` of the first step.
    pub start: f64,
    /// `t` of the last step.
    pub end: f64,
    /// How fast `t` follows the loss; 0 leaves the even line.
    pub alpha: f64,
    /// How slowly the momentum of the loss changes.
    pub beta: f64,
}

impl Default for TaidOptions {
    fn default() -> TaidOptions {
        TaidOptions { start: 0.4, end: 1.0, alpha: 5e-4, beta: 0.99 }
    }
}

/// The loss, with where its target stands.
#[derive(Debug, Clone)]
pub struct Taid {
    options: TaidOptions,
    steps: u64,
    state: State,
}

/// What a checkpoint keeps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct State {
    t: f64,
    momentum: f64,
    /// The loss of the step before.
    before: Option<f64>,
    done: u64,
}

impl Taid {
    /// A run of so many steps.
    ///
    /// # Errors
    /// If a number is out of its range.
    pub fn new(options: TaidOptions, steps: u64) -> Result<Taid> {
        let TaidOptions { start, end, alpha, beta } = options;
        if !(0.0 <= start && start <= end && end <= 1.0) {
            return Err(Error::Settings(format!(
                "TAID's target goes from {start} to {end}; both should be from 0 to 1, the end not before the start"
            )));
        }
        if !(0.0..=1.0).contains(&alpha) || !(0.0..1.0).contains(&beta) {
            return Err(Error::Settings(format!(
                "TAID's alpha should be from 0 to 1 and its beta from 0 to below 1, found {alpha} and {beta}"
            )));
        }
        Ok(Taid { options, steps, state: State { t: start, momentum: 0.0, before: None, done: 0 } })
    }

    /// Where the target stands, 0 for the student's own prediction, 1 for the teacher's.
    pub fn t(&self) -> f64 {
        self.state.t
    }

    /// Logarithms of the target's probabilities. Logarithms of probabilities are logits, so they are mixed as such.
    fn target(&self, p: &[f32], q: &[f32]) -> Vec<f32> {
        let t = self.state.t as f32;
        let mut target: Vec<f32> = p.iter().zip(q).map(|(p, q)| (1.0 - t) * q + t * p).collect();
        log_softmax(&mut target, None);
        target
    }
}

impl Divergence for Taid {
    fn row(&self, p: &[f32], q: &[f32], gradient: Option<&mut [f32]>) -> f64 {
        let target = self.target(p, q);
        if let Some(gradient) = gradient {
            super::divergence::each(&target, q, gradient, |p, q| q.exp() - p.exp());
        }
        super::divergence::sum(&target, q, |p, q| -p.exp() * q)
    }

    fn stepped(&mut self, loss: f64) {
        let TaidOptions { start, end, alpha, beta } = self.options;
        let state = &mut self.state;
        state.done += 1;
        if let Some(before) = state.before {
            let change = (before - loss) / (before + 1e-15);
            state.momentum = beta * state.momentum + (1.0 - beta) * change;
            let step = alpha / (1.0 + (-state.momentum).exp()) * (1.0 - state.t);
            let line = start + (end - start) * state.done as f64 / self.steps.max(1) as f64;
            state.t = end.min(line.max(state.t + step));
        }
        state.before = Some(loss);
    }

    fn memory(&self) -> Value {
        json!(self.state)
    }

    fn remember(&mut self, memory: &Value) -> Result<()> {
        self.state = serde_json::from_value(memory.clone()).map_err(|_| {
            Error::Settings("the checkpoint was made with another loss than TAID; name that one".into())
        })?;
        Ok(())
    }

    fn share(&self) -> Option<f64> {
        Some(self.state.t)
    }
}
