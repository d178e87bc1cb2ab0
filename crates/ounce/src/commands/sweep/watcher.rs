//! What a person sees of a sweep while it goes.

use std::sync::{Mutex, MutexGuard};

use ounce_train::sweep::{Cell, Outcome, Results, Watch};
use ounce_train::trainer::Step;

use crate::interrupt;
use crate::progress::{Progress, Unit};

/// Steps of the bar.
const STEPS: f64 = 1e4;

/// Shows a bar that counts operations, and prints a line a run.
pub(super) struct Watcher {
    watch: interrupt::Watch,
    quiet: bool,
    state: Mutex<State>,
}

struct State {
    bar: Progress,
    runs: usize,
    ended: usize,
    /// Operations, about: those of linear layers grow with the square of the width.
    total: f64,
    done: f64,
}

fn cost(cell: &Cell) -> f64 {
    cell.hidden.pow(2) as f64 * (cell.steps() * cell.batch_tokens) as f64
}

impl Watcher {
    pub fn new(cells: &[Cell], results: &Results, quiet: bool) -> Watcher {
        let missing: Vec<&Cell> = cells.iter().filter(|cell| results.of(cell).is_none()).collect();
        let state = State {
            bar: Progress::new("sweeping", Unit::Share),
            runs: cells.len(),
            ended: cells.len() - missing.len(),
            total: missing.into_iter().map(cost).sum::<f64>().max(1.0),
            done: 0.0,
        };
        Watcher { watch: interrupt::Watch::start(), quiet, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Watch for Watcher {
    fn wants_to_stop(&self) -> bool {
        self.watch.requested()
    }

    fn step(&self, cell: &Cell, step: &Step) {
        let mut state = self.state();
        state.done += cost(cell) / cell.steps() as f64;
        let done = (state.done / state.total * STEPS) as u64;
        state.bar.say(&format!(
            "run {} of {} · {} · loss {:.3}",
            state.ended + 1,
            state.runs,
            cell.name(),
            step.loss
        ));
        state.bar.set(done.min(STEPS as u64), STEPS as u64);
    }

    fn ended(&self, outcome: &Outcome) {
        let mut state = self.state();
        state.ended += 1;
        if !self.quiet {
            let loss = outcome.loss.map_or("diverged".to_string(), |loss| format!("loss {loss:.4}"));
            let held = outcome.validation.map_or(String::new(), |loss| format!(", held-out loss {loss:.4}"));
            let (name, count) = (outcome.cell.name(), state.runs);
            state.bar.print(&format!("{:>4} of {count}   {name}   {loss}{held}", state.ended));
        }
    }
}
