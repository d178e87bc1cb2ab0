//! From gradients to new weights.
//!
//! - [`Options`]: which rule, with which numbers, on which weights.
//! - [`Optimizer`]: the rule with its memory of earlier gradients, which checkpoints keep.
//! - `projected`: moments of a few directions of a matrix's gradient.
//! - [`norm`]: the gradients' global norm, for clipping.

mod moments;
pub mod norm;
mod options;
mod projected;
mod state;

pub use options::{Kind, LowRank, Options, Projection};
pub use state::{Slot, SlotMut, SlotType};

use ounce_kernels::optimizer::muon;
use ounce_kernels::pool::Pool;

use options::Group;
use state::State;

use crate::{Param, Result};

/// A rule with one memory a weight.
#[derive(Clone)]
pub struct Optimizer {
    options: Options,
    groups: Vec<Group>,
    states: Vec<State>,
    steps: u64,
    pool: &'static Pool,
    scratch: Scratch,
}

/// What Muon computes in; a copy of an optimizer has its own.
#[derive(Default)]
struct Scratch(muon::Workspace);

impl Clone for Scratch {
    fn clone(&self) -> Scratch {
        Scratch::default()
    }
}

impl std::fmt::Debug for Optimizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Optimizer({:?}, step {})", self.options.kind, self.steps)
    }
}

impl Optimizer {
    /// An optimizer for these weights. Frozen ones take no memory.
    ///
    /// # Errors
    /// If a number is out of its range.
    pub fn new(options: Options, params: &[Param]) -> Result<Optimizer> {
        options.check()?;
        let groups: Vec<Group> = params.iter().map(|param| options.group(param)).collect();
        let states =
            params.iter().zip(&groups).map(|(param, group)| State::new(&options, group, param)).collect();
        let (pool, scratch) = (Pool::global(), Scratch::default());
        Ok(Optimizer { options, groups, states, steps: 0, pool, scratch })
    }

    /// The rule and its numbers.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The threads to compute on, in place of the whole program's.
    pub fn set_pool(&mut self, pool: &'static Pool) {
        self.pool = pool;
    }

    /// The threads it computes on.
    pub fn pool(&self) -> &'static Pool {
        self.pool
    }

    /// Steps done.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Says how many steps were done; for resuming.
    pub fn set_steps(&mut self, steps: u64) {
        self.steps = steps;
    }

    /// Bytes of its memory.
    pub fn bytes(&self) -> usize {
        self.states.iter().map(State::bytes).sum()
    }

    /// Moves the weights at learning rate `rate`. Gradients are multiplied by `scale` (clipping) as they are read.
    ///
    /// # Panics
    /// If these are other weights than it was made for.
    pub fn step(&mut self, params: &mut [Param], rate: f64, scale: f32) {
        assert_eq!(params.len(), self.states.len(), "the weights the optimizer was made for");
        self.steps += 1;
        for ((param, state), group) in params.iter_mut().zip(&mut self.states).zip(&self.groups) {
            if param.is_trainable() {
                let rate = rate * group.rate_factor;
                let scratch = &mut self.scratch.0;
                state.step(self.pool, &self.options, group, param, rate, scale, self.steps, scratch);
            }
        }
    }

    /// Its memory as named tensors, for saving.
    pub fn slots<'s>(&'s self, params: &'s [Param]) -> Vec<Slot<'s>> {
        self.states.iter().zip(params).flat_map(|(state, param)| state.slots(param)).collect()
    }

    /// Its memory as named tensors, to be loaded into.
    pub fn slots_mut(&mut self, params: &[Param]) -> Vec<SlotMut<'_>> {
        self.states.iter_mut().zip(params).flat_map(|(state, param)| state.slots_mut(param)).collect()
    }
}

#[cfg(test)]
mod tests;
