//! Rotary position embedding of all heads of all tokens, and its gradient, which is the rotation back.

use super::rows::{count, split, values};
use crate::pool::{Pool, SharedOut};
use crate::vector::{dispatch, fused};

/// Rotates the heads of `x` (`[tokens, heads · head_dim]`) by the angles of their token, whose cosines and sines are
/// `[tokens, rotary / 2]`. In each head dimension `j` is rotated with dimension `j + rotary / 2`; what is behind the
/// first `rotary` dimensions stays. With `inverse` it rotates back, which is the gradient as well.
///
/// # Panics
/// If the lengths do not fit, or more than a head is to be rotated.
pub fn rotate(
    pool: &Pool,
    x: &mut [f32],
    heads: usize,
    head_dim: usize,
    cos: &[f32],
    sin: &[f32],
    inverse: bool,
) {
    let width = heads * head_dim;
    let tokens = count(x.len(), width);
    if tokens == 0 {
        return;
    }
    assert!(cos.len() == sin.len() && cos.len().is_multiple_of(tokens), "angles for every token");
    let half = cos.len() / tokens;
    assert!(2 * half <= head_dim, "{} of {head_dim} dimensions cannot be rotated", 2 * half);
    if half == 0 {
        return;
    }
    let x = SharedOut::new(x);
    split(pool, tokens, width, |tokens| {
        // SAFETY: threads have disjoint tokens.
        let x = unsafe { x.part(values(&tokens, width)) };
        let angles = values(&tokens, half);
        let shape = (half, head_dim, width);
        rotate_tokens(x, shape, &cos[angles.clone()], &sin[angles], if inverse { -1.0 } else { 1.0 });
    });
}

/// Some tokens; the sines are multiplied by `sign`.
fn rotate_tokens(x: &mut [f32], shape: (usize, usize, usize), cos: &[f32], sin: &[f32], sign: f32) {
    #[inline(always)]
    fn run<const FUSED: bool>(
        x: &mut [f32],
        (half, head_dim, width): (usize, usize, usize),
        cos: &[f32],
        sin: &[f32],
        sign: f32,
    ) {
        let angles = cos.chunks_exact(half).zip(sin.chunks_exact(half));
        for (token, (cos, sin)) in x.chunks_exact_mut(width).zip(angles) {
            for head in token.chunks_exact_mut(head_dim) {
                let (first, rest) = head.split_at_mut(half);
                for (((a, b), cos), sin) in first.iter_mut().zip(rest).zip(cos).zip(sin) {
                    let sin = sign * sin;
                    (*a, *b) = (fused::<FUSED>(-*b, sin, *a * cos), fused::<FUSED>(*a, sin, *b * cos));
                }
            }
        }
    }
    dispatch!(run(x: &mut [f32], shape: (usize, usize, usize), cos: &[f32], sin: &[f32], sign: f32))
}
