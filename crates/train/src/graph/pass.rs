//! One batch on its way through a network.

use std::sync::Arc;

use candle_core::Tensor;

use super::embedding::Embedding;
use super::head::Head;
use super::hook::Hook;
use super::layer::Layer;
use super::norm::{Norm, apply};
use crate::loss::{CrossEntropy, LogitLoss, SpanLoss};
use crate::net::Rotation;
use crate::{Batch, Error, Loss, Result};

/// The parts of a network.
pub(super) struct Parts {
    pub embedding: Embedding,
    /// Those that have weights.
    pub layers: Vec<Layer>,
    /// Which of them each of the model's layers is.
    pub order: Vec<usize>,
    pub final_norm: Option<Norm>,
    pub head: Option<Head>,
}

/// What layers need to know of a batch.
pub(super) struct State {
    pub lengths: Arc<[usize]>,
    pub rotations: Vec<Arc<Rotation>>,
}

/// One batch on its way through a network. Tensors that it gives must not outlive it.
pub struct Pass<'n> {
    pub(super) parts: &'n Parts,
    pub(super) state: State,
    pub(super) batch: &'n Batch,
}

impl Pass<'_> {
    /// The batch.
    pub fn batch(&self) -> &Batch {
        self.batch
    }

    /// The stream behind the last layer and its norm, `[tokens, hidden]`.
    ///
    /// # Errors
    /// If the batch does not fit the network, or a slot or hook fails.
    pub fn hidden(&self, hook: &mut dyn Hook) -> Result<Tensor> {
        let mut x = self.parts.embedding.forward(self.batch, hook)?;
        for (index, &layer) in self.parts.order.iter().enumerate() {
            x = self.parts.layers[layer].forward(index, x, &self.state, hook)?;
        }
        apply(&self.parts.final_norm, x)
    }

    fn head(&self) -> Result<&Head> {
        self.parts.head.as_ref().ok_or_else(|| {
            Error::Unsupported(
                "this model is a bare encoder without a head that could be trained".to_string(),
            )
        })
    }

    /// The logits of all tokens, `[tokens, vocabulary]`, from what [`Pass::hidden`] gave. They are large; for losses on
    /// logits there is [`Pass::loss`].
    ///
    /// # Errors
    /// If the model has no head.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.head()?.logits(hidden.clone())
    }

    /// What the head's output matrix is given for rows of what [`Pass::hidden`] gave: behind the dense layer and the norm of a
    /// masked language model's head.
    ///
    /// # Errors
    /// If the model has no head.
    pub fn transformed(&self, rows: &Tensor) -> Result<Tensor> {
        self.head()?.transformed(rows.clone())
    }

    /// A loss on the logits of the tokens that have a target, from what [`Pass::hidden`] gave: the sum over them as a
    /// scalar with its way back, and as numbers. If the head's slot is plain, logits exist a chunk of rows at a time.
    ///
    /// # Errors
    /// If the model has no head.
    pub fn loss(&self, hidden: &Tensor, loss: &mut dyn LogitLoss) -> Result<(Tensor, Loss)> {
        self.head()?.loss(hidden, self.batch, loss)
    }

    /// The loss that goes with the head: cross-entropy with the batch's targets, labels or spans.
    ///
    /// # Errors
    /// If the model has no head, or answers are chosen between.
    pub fn usual_loss(&self, hidden: &Tensor) -> Result<(Tensor, Loss)> {
        if self.head()?.is_span() {
            let (lengths, spans) = (&self.batch.lengths, &self.batch.spans);
            return self.loss(hidden, &mut SpanLoss { lengths, spans });
        }
        if !self.batch.reference.is_empty() {
            return Err(Error::Unsupported(
                "the general network does not learn from choices between answers".to_string(),
            ));
        }
        self.loss(hidden, &mut CrossEntropy)
    }
}
