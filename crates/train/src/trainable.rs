//! What the training loop asks of a network.

use std::path::Path;

use crate::loss::Choices;
use crate::{Batch, Param, Result};

/// The loss of a batch: cross-entropy over targets, or the loss of choices between answers.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Loss {
    /// Sum over all targets that count, or all choices, in nats.
    pub sum: f64,
    /// How many count.
    pub count: usize,
}

impl Loss {
    /// Nats a target; NaN if none counts.
    pub fn mean(self) -> f64 {
        self.sum / self.count as f64
    }
}

impl std::ops::AddAssign for Loss {
    fn add_assign(&mut self, other: Loss) {
        self.sum += other.sum;
        self.count += other.count;
    }
}

/// A network whose weights can be trained.
pub trait Trainable {
    /// Its weights, frozen ones included, always in the same order.
    fn params(&self) -> &[Param];

    /// Its weights, to be changed. Their number, names and shapes stay.
    fn params_mut(&mut self) -> &mut [Param];

    /// The loss of a batch, without gradients.
    ///
    /// # Errors
    /// If the batch does not fit the network.
    fn loss(&mut self, batch: &Batch) -> Result<Loss>;

    /// The loss of a batch; adds `scale` times the gradient of the loss's **sum** to the weights' gradients.
    ///
    /// # Errors
    /// If the batch does not fit the network.
    fn accumulate(&mut self, batch: &Batch, scale: f32) -> Result<Loss>;

    /// What became of the choices between answers in the batches since the last call; none if there were none.
    fn take_choices(&mut self) -> Option<Choices> {
        None
    }

    /// Told after each step, when weights have moved, what its loss was, as a mean; for losses that change as they go.
    fn stepped(&mut self, _loss: f64) {}

    /// What the loss has learnt of the steps so far, for checkpoints; null if nothing.
    fn memory(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// Takes up what [`Trainable::memory`] gave.
    ///
    /// # Errors
    /// If that is of another loss.
    fn remember(&mut self, _memory: &serde_json::Value) -> Result<()> {
        Ok(())
    }

    /// What a classifier says of a batch, one row of scores behind the other: of each text with a label, of each token with a
    /// target, or of each token as first and last of an answer.
    ///
    /// # Errors
    /// If the batch does not fit the network, or it has no scores.
    fn scores(&mut self, _batch: &Batch) -> Result<Vec<f32>> {
        Err(crate::Error::Unsupported("this network gives no scores of labels".to_string()))
    }

    /// Bytes of buffers that a step of so many tokens needs besides weights and gradients.
    fn workspace_bytes(&self, tokens: usize) -> usize;

    /// Writes the network as a Hugging Face folder, whole or not at all.
    ///
    /// # Errors
    /// If the folder can't be written.
    fn save(&self, folder: &Path) -> Result<()>;
}
