//! Trains and adapts models on the processor.
//!
//! - [`net`]: the network of any model with its backward pass; [`loss`]: losses on logits.
//! - [`batch`]: the tokens of one step and what should come out.
//! - [`data`]: from files to batches.
//! - [`param`]: a weight with its gradient.
//! - [`trainable`]: what the training loop asks of a network.

pub mod batch;
pub mod data;
mod error;
pub mod loss;
pub mod net;
pub mod param;
pub mod trainable;

pub use batch::{Batch, IGNORE};
pub use error::{Error, Result};
pub use param::{Param, ParamKind};
pub use trainable::{Loss, Trainable};
