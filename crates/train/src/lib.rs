//! Trains and adapts models on the processor.
//!
//! - [`batch`]: the tokens of one step and what should come out.
//! - [`param`]: a weight with its gradient.
//! - [`trainable`]: what the training loop asks of a network.
//! - [`schedule`]: the learning rate of each step; Step Law.
//! - [`laws`]: scaling laws fitted to small runs.

pub mod batch;
mod error;
pub mod laws;
pub mod param;
pub mod schedule;
pub mod trainable;

pub use batch::{Batch, IGNORE};
pub use error::{Error, Result};
pub use param::{Param, ParamKind};
pub use trainable::{Loss, Trainable};
