//! Where code outside the network sees what flows through it.

use candle_core::Tensor;

use crate::Result;

/// Is called at every layer. What comes back goes on in the place of what was given: the same tensor, to observe
/// (distillation on hidden states, statistics), or another of the same shape, made by differentiable operations.
pub trait Hook {
    /// The vectors that tokens were looked up as, before positions and types are added, `[tokens, width]`.
    ///
    /// # Errors
    /// As [`Hook::layer_input`].
    fn embedded(&mut self, x: Tensor) -> Result<Tensor> {
        Ok(x)
    }

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

    /// Keys and values, both `[tokens, kv_heads · head_dim]`, that a layer's attention attends to, keys behind norm and
    /// rotation.
    ///
    /// # Errors
    /// As [`Hook::layer_input`].
    fn attended(&mut self, _layer: usize, keys: Tensor, values: Tensor) -> Result<[Tensor; 2]> {
        Ok([keys, values])
    }

    /// What a layer's attention mixed of values for these queries, both `[tokens, heads · head_dim]`, before its output
    /// matrix.
    ///
    /// # Errors
    /// As [`Hook::layer_input`].
    fn mixed(&mut self, _layer: usize, _queries: &Tensor, mixed: Tensor) -> Result<Tensor> {
        Ok(mixed)
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
