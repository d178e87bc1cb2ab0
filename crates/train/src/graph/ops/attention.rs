//! Attention over sequences that lie one behind another, in memory linear in their lengths: kept are queries, keys,
//! values, the result and one log-sum-exp a query and head; probabilities are computed again on the way back.

use std::sync::Arc;

use candle_core::Tensor;
use ounce_kernels::grad::attention::{self as kernel, Shape, attention_backward};

use super::{Kernels, check_last, node, read, tensor};
use crate::{Error, Result};

/// What each query sees, mixed: `q` and the result are `[tokens, heads · head_dim]`, `k` and `v` `[tokens, kv_heads ·
/// head_dim]`, for sequences of the given lengths.
///
/// # Errors
/// If the shapes do not fit each other.
pub fn attention(
    on: Kernels,
    shape: Shape,
    lengths: &Arc<[usize]>,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
) -> Result<Tensor> {
    let tokens: usize = lengths.iter().sum();
    for (what, x, heads) in
        [("queries", q, shape.heads), ("keys", k, shape.kv_heads), ("values", v, shape.kv_heads)]
    {
        check_last(what, x, heads * shape.head_dim)?;
        if x.elem_count() != tokens * heads * shape.head_dim {
            return Err(Error::Unsupported(format!(
                "attention: {what} of shape {:?} for {tokens} tokens",
                x.dims()
            )));
        }
    }
    if !shape.heads.is_multiple_of(shape.kv_heads) {
        return Err(Error::Unsupported(format!(
            "attention: {} query heads can't share {} key/value heads evenly",
            shape.heads, shape.kv_heads
        )));
    }
    let (q, k, v) = (q.contiguous()?, k.contiguous()?, v.contiguous()?);
    let mut out = vec![0.0; q.elem_count()];
    let mut lse = vec![0.0; tokens * shape.heads];
    read([&q, &k, &v], |[q, k, v]| {
        kernel::attention(on.pool, &shape, lengths, q, k, v, &mut out, &mut lse);
    })?;
    let kept = [q.clone(), k.clone(), v.clone()];
    let lengths = lengths.clone();
    Ok(node("attention", &[&q, &k, &v], out, q.shape(), move |behind| {
        let [q, k, v] = &kept;
        let [mut dq, mut dk, mut dv] = [q, k, v].map(|x| vec![0.0; x.elem_count()]);
        read([q, k, v, behind.result, &behind.gradient], |[q, k, v, out, dout]| {
            let mut panels = Vec::new();
            attention_backward(
                on.pool,
                &shape,
                &lengths,
                q,
                k,
                v,
                out,
                &lse,
                dout,
                &mut dq,
                &mut dk,
                &mut dv,
                &mut panels,
            );
        })?;
        Ok(vec![Some(tensor(dq, q.shape())?), Some(tensor(dk, k.shape())?), Some(tensor(dv, v.shape())?)])
    })?)
}
