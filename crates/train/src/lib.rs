//! Trains and adapts models on the processor.
//!
//! - [`net`]: the network of any model with its backward pass; [`loss`]: losses on logits.
//! - [`graph`]: the same on candle's autograd, with a slot for every linear layer that any code can take.
//! - [`batch`]: the tokens of one step and what should come out.
//! - [`config`]: a run as a TOML file.
//! - [`data`]: from files to batches.
//! - [`distil`]: a network that learns from another one's predictions.
//! - [`diffusion`]: text-to-image models at the size of a demonstration.
//! - [`param`]: a weight with its gradient.
//! - [`tokenizer`]: training the vocabulary.
//! - [`trainable`]: what the training loop asks of a network.
//! - [`optim`]: from gradients to new weights.
//! - [`trainer`]: the loop, with its spike guard and log.
//! - [`checkpoint`]: everything an interrupted run needs to go on.
//! - [`schedule`]: the learning rate of each step; Step Law.
//! - [`laws`]: scaling laws fitted to small runs.
//! - [`sweep`]: many small runs, to which they are fitted.
//! - [`vision`]: small convolutional networks.
//! - [`methods`]: the methods of the catalogue that are ways to train, each with its demonstration.

pub mod batch;
pub mod checkpoint;
pub mod config;
pub mod data;
pub mod diffusion;
pub mod distil;
mod error;
pub mod graph;
pub mod laws;
pub mod loss;
pub mod methods;
pub mod net;
pub mod optim;
pub mod param;
pub mod schedule;
pub mod sweep;
pub mod tokenizer;
pub mod trainable;
pub mod trainer;
pub mod vision;

pub use batch::{Batch, IGNORE};
pub use error::{Error, Result};
pub use methods::METHODS;
pub use param::{Param, ParamKind};
pub use trainable::{Loss, Trainable};
