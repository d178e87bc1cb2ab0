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

    /// Queries `[tokens, heads · head_dim]` and keys `[tokens, kv_heads · head_dim]` of another layer, behind norms and rotation, by which
    /// this layer's attention is to weigh its values: then its own are not computed.
    ///
    /// # Errors
    /// As [`Hook::layer_input`].
    fn shared_attention(&mut self, _layer: usize) -> Result<Option<[Tensor; 2]>> {
        Ok(None)
    }

    /// Is shown the queries and keys that a layer's attention weighs its values by, behind norms and rotation.
    ///
    /// # Errors
    /// As [`Hook::layer_input`].
    fn attends(&mut self, _layer: usize, _queries: &Tensor, _keys: &Tensor) -> Result<()> {
        Ok(())
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
