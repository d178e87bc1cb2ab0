//! Sweeps: many small runs over learning rate, batch, width and tokens, and the laws that their final losses follow.
//!
//! - [`Grid`] is what is tried, a [`Cell`] one run of it, an [`Outcome`] what came of it.
//! - [`Results`] keeps outcomes in a folder: one line a run in `results.jsonl`, written whole or not at all, so that a
//!   sweep goes on where it stopped.
//! - [`run`] does the runs that are missing, several at a time if wanted.
//! - [`fit`](mod@fit) finds each size's best settings and the laws between them.
//!
//! All runs of a sweep end at one **fixed** learning rate. A final rate that is a part of the highest would favour small
//! rates in long runs and large ones in short runs (Step Law, arXiv 2503.04715).

pub mod fit;
mod grid;
mod results;
mod run;

pub use grid::{Cell, Grid};
pub use results::{Outcome, Results};
pub use run::{Job, Watch, run};
