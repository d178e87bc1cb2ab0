//! One head of one sequence, copied out of the tokens.

use crate::vector::LANES;

/// Rows of one head among those of all heads.
#[derive(Clone, Copy)]
pub(super) struct Head<'a> {
    /// `[tokens, width]`.
    pub values: &'a [f32],
    /// Values of a token.
    pub width: usize,
    /// First token, and their number.
    pub start: usize,
    pub length: usize,
    /// Where the head begins in a token, and its dimensions.
    pub offset: usize,
    pub dim: usize,
}

impl<'a> Head<'a> {
    /// The head of a token of the sequence.
    pub(super) fn row(&self, position: usize) -> &'a [f32] {
        &self.values[(self.start + position) * self.width + self.offset..][..self.dim]
    }
}

/// Rows `from..from + out.len() / stride` of a head, times `scale`, `stride` apart; zeros behind a row's dimensions
/// and behind the sequence's end.
#[inline(always)]
pub(super) fn rows(head: &Head<'_>, from: usize, stride: usize, scale: f32, out: &mut [f32]) {
    for (index, out) in out.chunks_exact_mut(stride).enumerate() {
        let filled = if from + index < head.length {
            let row = head.row(from + index);
            out.iter_mut().zip(row).for_each(|(out, x)| *out = x * scale);
            row.len()
        } else {
            0
        };
        out[filled..].fill(0.0);
    }
}

/// A head in panels of sixteen positions, `[panel][dim][16]`; zeros behind the sequence's end.
#[inline(always)]
pub(super) fn panels(head: &Head<'_>, out: &mut [f32]) {
    for (panel, out) in out.chunks_exact_mut(head.dim * LANES).enumerate() {
        for lane in 0..LANES {
            let position = panel * LANES + lane;
            if position < head.length {
                let row = head.row(position);
                for (dim, x) in row.iter().enumerate() {
                    out[dim * LANES + lane] = *x;
                }
            } else {
                out.iter_mut().skip(lane).step_by(LANES).for_each(|out| *out = 0.0);
            }
        }
    }
}
