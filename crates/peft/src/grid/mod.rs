//! Grids of runs: ways to teach a model a task, each at the best of as many learning rates, with several seeds, and what each costs.
//!
//! - [`way`]: what is compared: methods, all weights, examples in the text. [`size`]: settings that fit a budget of numbers.
//! - [`task`]: what is taught, and how right a model is; [`tasks`]: tasks that are part of the crate.
//! - [`cell`]: one run and what came of it. [`results`]: runs that are done, in a file.
//! - [`run`]: all runs of a grid.

pub mod cell;
pub mod results;
pub mod run;
pub mod size;
pub mod task;
pub mod tasks;
pub mod way;

pub use cell::{Cell, Outcome, Value};
pub use results::Results;
pub use run::{Found, Grid, grid};
pub use task::{Learner, Shots, Task};
pub use way::{Teach, Way};
