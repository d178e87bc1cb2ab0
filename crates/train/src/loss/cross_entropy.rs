//! Cross-entropy with the targets: `log Σ exp(logits) − logit[target]`.

use ounce_kernels::grad::cross_entropy::softmax_cross_entropy;

use super::{Chunk, LogitLoss};
use crate::IGNORE;

/// The loss of language models.
#[derive(Debug, Clone, Copy, Default)]
pub struct CrossEntropy;

impl LogitLoss for CrossEntropy {
    fn chunk(&mut self, chunk: Chunk<'_>, scale: Option<f32>) -> f64 {
        let Chunk { pool, logits, width, targets, softcap, .. } = chunk;
        let gradient = scale.is_some();
        let scale = scale.unwrap_or(1.0);
        softmax_cross_entropy(pool, logits, width, targets, IGNORE, scale, gradient, softcap)
    }
}
