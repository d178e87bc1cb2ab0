//! Rotary position embedding.

use std::sync::Arc;

use candle_core::Tensor;
use ounce_kernels::grad::rope;

use super::{Kernels, check_last, node, read, tensor};
use crate::net::Rotation;
use crate::{Error, Result};

/// Rotates the heads of `x` (`[tokens, heads · head_dim]`) by their tokens' angles; the gradient is rotated back.
///
/// # Errors
/// If the shapes do not fit each other.
pub fn rotate(on: Kernels, x: &Tensor, heads: usize, head_dim: usize, by: &Arc<Rotation>) -> Result<Tensor> {
    check_last("rotate", x, heads * head_dim)?;
    let tokens = x.elem_count() / (heads * head_dim);
    let half = by.cos.len() / tokens.max(1);
    if half * tokens != by.cos.len() || by.sin.len() != by.cos.len() || 2 * half > head_dim {
        return Err(Error::Unsupported(format!(
            "rotate: {} angles for {tokens} tokens with heads of {head_dim}",
            by.cos.len()
        )));
    }
    let x = x.contiguous()?;
    let mut out = read([&x], |[x]| x.to_vec())?;
    rope::rotate(on.pool, &mut out, heads, head_dim, &by.cos, &by.sin, false);
    let by = by.clone();
    Ok(node("rotate", &[&x], out, x.shape(), move |behind| {
        let mut dx = read([&behind.gradient], |[dy]| dy.to_vec())?;
        rope::rotate(on.pool, &mut dx, heads, head_dim, &by.cos, &by.sin, true);
        Ok(vec![Some(tensor(dx, behind.result.shape())?)])
    })?)
}
