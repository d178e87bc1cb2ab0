//! Where code outside the network sees what flows through it.

use candle_core::Tensor;

use crate::Result;

/// Is called at every layer. What comes back goes on in the place of what was given: the same tensor, to observe
/// (distillation on hidden states, statistics), or another of the same shape, made by differentiable operations.
pub trait Hook {
    /// The stream before a layer, `[tokens, hidden]`.
    ///
    /// # Errors
    /// Whatever the hook finds wrong; ends the pass.
    fn layer_input(&mut self, _layer: usize, x: Tensor) -> Result<Tensor> {
        Ok(x)
    }

    /// What a layer's attention sees: the stream behind the norm in front, if there is one, `[tokens, hidden]`.
    ///
    /// # Errors
    /// As [`Hook::layer_input`].
    fn attention_input(&mut self, _layer: usize, x: Tensor) -> Result<Tensor> {
        Ok(x)
    }

    /// The stream behind a layer, `[tokens, hidden]`.
    ///
    /// # Errors
    /// As [`Hook::layer_input`].
    fn layer_output(&mut self, _layer: usize, x: Tensor) -> Result<Tensor> {
        Ok(x)
    }
}

/// Leaves everything as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHook;

impl Hook for NoHook {}
