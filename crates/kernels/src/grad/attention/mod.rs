//! Attention over sequences that lie one behind another, forward and backward, in memory linear in their lengths.
//!
//! Forward keeps the log-sum-exp of each query's scores; backward computes the probabilities again from it, block by
//! block, and never has more of them than one block (FlashAttention, Dao et al. 2022, algorithms 1 and 4). With
//! `S = Q Kᵀ`, `P = exp(S − lse)` and `O = P V` the gradients are `dV = Pᵀ dO`, `dS = P ∘ (dO Vᵀ − Σ dO ∘ O)`,
//! `dQ = dS K` and `dK = dSᵀ Q`.
//!
//! A piece of work is one query head of one sequence, which one thread computes in an order of its own; the gradients
//! of a key/value head that several query heads share are added up afterwards, in the heads' order. So results do
//! not depend on the threads.
//!
//! - `product`: the one inner loop, sums of products in a tile of registers.
//! - `plan`: which thread has which heads; what a query sees.
//! - `pack`: heads copied out of the tokens, as the inner loop wants them.
//! - `forward`, `backward`: one head of one sequence.

mod backward;
mod forward;
mod pack;
mod plan;
mod product;
#[cfg(test)]
mod tests;

use std::cell::RefCell;

use crate::attention::memory::Lines;
use crate::pool::{Pool, SharedOut};
use crate::vector::add;
use plan::Plan;

/// What attention computes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Query heads, a multiple of the key/value heads.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Dimensions of a head.
    pub head_dim: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// `cap · tanh(score / cap)` on the scores.
    pub softcap: Option<f32>,
    /// Positions that a query reaches, its own included; without causality to both sides.
    pub window: Option<usize>,
    /// Whether a query sees only its own position and what is before it.
    pub causal: bool,
}

/// Calls `$name::<S>(arguments)`, an `#[inline(always)]` function, with the lanes of the instruction set in use and
/// compiled for it.
macro_rules! dispatch_lanes {
    ($name:ident ( $($argument:ident : $type:ty),* $(,)? )) => {{
        #[cfg(target_arch = "x86_64")]
        {
            use crate::attention::lanes::{Avx2, Avx512};
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
            fn avx512($($argument: $type),*) {
                // SAFETY: this function has the features.
                unsafe { $name::<Avx512>($($argument),*) }
            }
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2($($argument: $type),*) {
                // SAFETY: this function has the features.
                unsafe { $name::<Avx2>($($argument),*) }
            }
            match crate::isa::Isa::current().vectors() {
                // SAFETY: the path is chosen only where the processor has its features.
                crate::isa::Isa::Avx512 => return unsafe { avx512($($argument),*) },
                // SAFETY: as above.
                crate::isa::Isa::Avx2 => return unsafe { avx2($($argument),*) },
                _ => {}
            }
        }
        // SAFETY: arrays need no features. Every AArch64 processor fuses.
        unsafe {
            $name::<crate::attention::lanes::Plain<{ cfg!(target_arch = "aarch64") }>>($($argument),*)
        }
    }};
}
use dispatch_lanes;

thread_local! {
    /// A thread's packed heads, for forward passes.
    static BUFFERS: RefCell<Lines> = RefCell::default();
}

/// Attention of every query to the keys of its sequence that it sees. Sequences of the given lengths lie one behind
/// another: `q` and `out` are `[tokens, heads · head_dim]`, `k` and `v` `[tokens, kv_heads · head_dim]`. `lse`,
/// `[heads, tokens]`, takes `ln Σ exp(score)` of each query for [`attention_backward`].
///
/// # Panics
/// If the lengths do not fit, or the query heads are not a multiple of the key/value heads.
pub fn attention(
    pool: &Pool,
    shape: &Shape,
    lengths: &[usize],
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &mut [f32],
    lse: &mut [f32],
) {
    let tokens = check(shape, lengths, [q, out], [k, v]);
    assert_eq!(lse.len(), shape.heads * tokens, "a log-sum-exp for every query and head");
    let plan = Plan::new(shape, lengths, pool.threads());
    let (out, lse) = (SharedOut::new(out), SharedOut::new(lse));
    let size = forward::buffer_size(shape, plan.longest());
    plan.run(pool, |_, pieces| {
        BUFFERS.with_borrow_mut(|buffers| {
            buffers.grow(size);
            let work = forward::Forward { shape, tokens, q, k, v, out: &out, lse: &lse };
            forward::run(&work, pieces, buffers.as_mut_slice());
        });
    });
}

/// Gradient of [`attention`], from its inputs, its results and the gradient of `out`; `dq`, `dk` and `dv` are
/// overwritten. `workspace` is memory to use again in the next call; what it holds does not matter.
///
/// # Panics
/// As [`attention`].
pub fn attention_backward(
    pool: &Pool,
    shape: &Shape,
    lengths: &[usize],
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &[f32],
    lse: &[f32],
    dout: &[f32],
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
    workspace: &mut Vec<f32>,
) {
    let tokens = check(shape, lengths, [q, out], [k, v]);
    check(shape, lengths, [dout, dq], [dk, dv]);
    assert_eq!(lse.len(), shape.heads * tokens, "a log-sum-exp for every query and head");
    let plan = Plan::new(shape, lengths, pool.threads());
    let shared = shape.heads > shape.kv_heads;
    // Of each query head, where heads share keys and values; else nothing.
    let parts = if shared { tokens * shape.heads * shape.head_dim } else { 0 };
    let size = backward::buffer_size(shape, plan.longest());
    let needed = 2 * parts + pool.threads() * size + Lines::ALIGN / size_of::<f32>();
    if workspace.len() < needed {
        workspace.resize(needed, 0.0);
    }
    let aligned = workspace.as_ptr().align_offset(Lines::ALIGN).min(Lines::ALIGN / size_of::<f32>());
    let (buffers, parts_of_heads) = workspace[aligned..].split_at_mut(pool.threads() * size);
    let (dk_parts, dv_parts) = parts_of_heads[..2 * parts].split_at_mut(parts);
    {
        let buffers = SharedOut::new(buffers);
        let dq = SharedOut::new(dq);
        let (dk, dv) = if shared { (&mut *dk_parts, &mut *dv_parts) } else { (&mut *dk, &mut *dv) };
        let (dk, dv) = (SharedOut::new(dk), SharedOut::new(dv));
        plan.run(pool, |thread, pieces| {
            // SAFETY: each thread has its own buffer.
            let buffer = unsafe { buffers.part(thread * size..(thread + 1) * size) };
            let gradients = backward::Gradients { dq: &dq, dk: &dk, dv: &dv };
            let work = backward::Backward { shape, tokens, q, k, v, out, lse, dout, gradients };
            backward::run(&work, pieces, buffer);
        });
    }
    if shared {
        sum_heads(pool, shape, dk_parts, dk);
        sum_heads(pool, shape, dv_parts, dv);
    }
}

/// Adds up what the query heads of a key/value head gave it: `parts` is `[tokens, heads · head_dim]`, `total`
/// `[tokens, kv_heads · head_dim]`.
fn sum_heads(pool: &Pool, shape: &Shape, parts: &[f32], total: &mut [f32]) {
    let dim = shape.head_dim;
    let group = shape.heads / shape.kv_heads * dim;
    let heads = total.len() / dim;
    let total = SharedOut::new(total);
    super::rows::split(pool, heads, group, |heads| {
        for head in heads {
            // SAFETY: each head of a token is one thread's.
            let total = unsafe { total.part(head * dim..(head + 1) * dim) };
            let mut parts = parts[head * group..(head + 1) * group].chunks_exact(dim);
            total.copy_from_slice(parts.next().expect("a query head for every key/value head"));
            parts.for_each(|part| add(total, part));
        }
    });
}

/// The tokens of all sequences.
fn check(shape: &Shape, lengths: &[usize], queries: [&[f32]; 2], keys: [&[f32]; 2]) -> usize {
    let tokens: usize = lengths.iter().sum();
    assert!(shape.head_dim > 0 && shape.kv_heads > 0, "a shape without heads or dimensions");
    assert!(shape.heads.is_multiple_of(shape.kv_heads), "whole query heads for a key/value head");
    for (slices, heads) in [(queries, shape.heads), (keys, shape.kv_heads)] {
        for slice in slices {
            assert_eq!(slice.len(), tokens * heads * shape.head_dim, "heads of {tokens} tokens");
        }
    }
    tokens
}
