//! Rotary position embedding of one head, half-split layout.

use crate::vector::dispatch;

/// Rotates the first `2 · cos.len()` dimensions of `head`: dimension `j` with dimension `j + cos.len()`, by
/// the angle whose cosine and sine are given.
pub fn rotate_half(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    rotate_heads(head, head.len(), cos, sin);
}

/// [`rotate_half`] of every consecutive `head_dim` values by the same angles.
pub fn rotate_heads(heads: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32]) {
    #[inline(always)]
    fn run<const FUSED: bool>(heads: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32]) {
        let half = cos.len();
        for head in heads.chunks_exact_mut(head_dim) {
            let (first, rest) = head.split_at_mut(half);
            for (((a, b), cos), sin) in first.iter_mut().zip(rest).zip(cos).zip(sin) {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }
    dispatch!(run(heads: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_turn_swaps_the_halves_and_leaves_the_rest() {
        let mut head = [1.0f32, 2.0, 3.0, 4.0, 9.0];
        rotate_half(&mut head, &[0.0, 0.0], &[1.0, 1.0]);
        assert_eq!(head, [-3.0, -4.0, 1.0, 2.0, 9.0]);
    }
}
