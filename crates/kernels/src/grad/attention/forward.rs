//! The forward pass of one head: groups of queries over blocks of keys, with an online softmax (Milakov & Gimelshein
//! 2018).

use super::pack::{self, Head};
use super::plan::Piece;
use super::product::{Product, ROWS};
use super::{Shape, dispatch_lanes};
use crate::attention::lanes::{Arithmetic, exp, softcap};
use crate::pool::SharedOut;
use crate::vector::LANES;

/// Keys of a block: scores of a group of queries and a block stay in the first-level cache.
const BLOCK: usize = 256;

/// A call's inputs and outputs.
pub(super) struct Forward<'a> {
    pub shape: &'a Shape,
    pub tokens: usize,
    pub q: &'a [f32],
    pub k: &'a [f32],
    pub v: &'a [f32],
    pub out: &'a SharedOut<'a>,
    pub lse: &'a SharedOut<'a>,
}

/// f32 that a thread needs for sequences up to `length`.
pub(super) fn buffer_size(shape: &Shape, length: usize) -> usize {
    let (padded, stride) = (length.next_multiple_of(LANES), shape.head_dim.next_multiple_of(LANES));
    padded * (shape.head_dim + stride) + ROWS * (2 * stride + BLOCK + LANES)
}

/// A thread's buffer in parts.
struct Buffers<'a> {
    /// Keys in panels of sixteen positions.
    keys: &'a mut [f32],
    /// Values, `[position][stride]`.
    values: &'a mut [f32],
    /// A group's queries, times the scale: `[8][stride]`.
    queries: &'a mut [f32],
    /// Scores, then probabilities: `[8][BLOCK]`.
    scores: &'a mut [f32],
    /// Values mixed by the probabilities of all blocks so far: `[8][stride]`.
    mixed: &'a mut [f32],
    /// Sixteen partial sums of each query's probabilities.
    totals: &'a mut [f32],
}

/// Computes pieces.
pub(super) fn run(work: &Forward<'_>, pieces: &[Piece], buffer: &mut [f32]) {
    dispatch_lanes!(run_pieces(work: &Forward<'_>, pieces: &[Piece], buffer: &mut [f32]))
}

/// # Safety
/// The features of `S` are there.
#[inline(always)]
unsafe fn run_pieces<S: Arithmetic>(work: &Forward<'_>, pieces: &[Piece], buffer: &mut [f32]) {
    let shape = work.shape;
    let (dim, stride) = (shape.head_dim, shape.head_dim.next_multiple_of(LANES));
    let mut packed = None;
    for piece in pieces {
        let padded = piece.length.next_multiple_of(LANES);
        let (keys, rest) = buffer.split_at_mut(padded * dim);
        let (values, rest) = rest.split_at_mut(padded * stride);
        let (queries, rest) = rest.split_at_mut(ROWS * stride);
        let (mixed, rest) = rest.split_at_mut(ROWS * stride);
        let (scores, rest) = rest.split_at_mut(ROWS * BLOCK);
        let totals = &mut rest[..ROWS * LANES];
        let mut buffers = Buffers { keys, values, queries, scores, mixed, totals };

        let kv_head = piece.head / (shape.heads / shape.kv_heads);
        let head = |values, heads: usize, head: usize| Head {
            values,
            width: heads * dim,
            start: piece.start,
            length: piece.length,
            offset: head * dim,
            dim,
        };
        if packed != Some((piece.start, kv_head)) {
            pack::panels(&head(work.k, shape.kv_heads, kv_head), buffers.keys);
            pack::rows(&head(work.v, shape.kv_heads, kv_head), 0, stride, 1.0, buffers.values);
            packed = Some((piece.start, kv_head));
        }
        let queries = head(work.q, shape.heads, piece.head);
        for first in (0..piece.length).step_by(ROWS) {
            pack::rows(&queries, first, stride, shape.scale, buffers.queries);
            // SAFETY: the caller's promise.
            unsafe { run_group::<S>(work, piece, first, &mut buffers) };
        }
    }
}

/// Queries `first..first + 8` of a piece, as far as there are so many.
///
/// # Safety
/// The features of `S` are there.
#[inline(always)]
unsafe fn run_group<S: Arithmetic>(
    work: &Forward<'_>,
    piece: &Piece,
    first: usize,
    buffers: &mut Buffers<'_>,
) {
    let shape = work.shape;
    let (dim, stride) = (shape.head_dim, shape.head_dim.next_multiple_of(LANES));
    let rows = ROWS.min(piece.length - first);
    let seen = shape.seen(first..first + rows, piece.length);
    let mut greatest = [f32::NEG_INFINITY; ROWS];
    buffers.mixed.fill(0.0);
    buffers.totals.fill(0.0);
    // Rows behind the sequence's end mix values with what is left here, which nobody reads; but no NaN, which is slow
    // on some processors.
    buffers.scores[rows * BLOCK..].fill(0.0);
    let mut block = seen.start / LANES * LANES;
    while block < seen.end {
        let end = seen.end.min(block + BLOCK);
        let panels = (end - block).div_ceil(LANES);
        // SAFETY: the caller's promise; packed keys and values reach to the panel of the last position.
        unsafe {
            let scores = Product {
                inputs: buffers.queries.as_ptr(),
                input_stride: stride,
                panels: buffers.keys.as_ptr().add(block * dim),
                panel_stride: LANES * dim,
                row_stride: LANES,
                length: dim,
                out: buffers.scores.as_mut_ptr(),
                out_stride: BLOCK,
            };
            scores.run::<S, false, false>(ROWS, panels);
            for row in 0..rows {
                let visible = shape.seen(first + row..first + row + 1, piece.length);
                let visible = visible.start.clamp(block, end) - block..visible.end.clamp(block, end) - block;
                let scores = &mut buffers.scores[row * BLOCK..][..panels * LANES];
                let mixed = &mut buffers.mixed[row * stride..][..stride];
                let totals = &mut buffers.totals[row * LANES..][..LANES];
                softmax::<S>(scores, visible, shape.softcap, &mut greatest[row], totals, mixed);
            }
            let mixed = Product {
                inputs: buffers.scores.as_ptr(),
                input_stride: BLOCK,
                panels: buffers.values.as_ptr().add(block * stride),
                panel_stride: LANES,
                row_stride: stride,
                length: end - block,
                out: buffers.mixed.as_mut_ptr(),
                out_stride: stride,
            };
            mixed.run::<S, false, true>(ROWS, stride / LANES);
        }
        block = end;
    }
    for row in 0..rows {
        // SAFETY: the caller's promise; this query's results are this piece's alone.
        unsafe {
            let total = S::sum(S::load(buffers.totals[row * LANES..][..LANES].as_ptr()));
            let mixed = &mut buffers.mixed[row * stride..][..stride];
            for lanes in mixed.as_chunks_mut::<LANES>().0 {
                S::store(lanes.as_mut_ptr(), S::mul(S::load(lanes.as_ptr()), S::splat(1.0 / total)));
            }
            let token = piece.start + first + row;
            work.out.write((token * shape.heads + piece.head) * dim, &mixed[..dim]);
            work.lse.write(piece.head * work.tokens + token, &[greatest[row] + total.ln()]);
        }
    }
}

/// Turns one query's scores into exponentials relative to the greatest score so far, 0 outside `visible`; scales
/// what is known of earlier blocks when there is a greater one, and adds to the totals.
///
/// # Safety
/// The features of `S` are there; slices are whole lanes.
#[inline(always)]
unsafe fn softmax<S: Arithmetic>(
    scores: &mut [f32],
    visible: std::ops::Range<usize>,
    cap: Option<f32>,
    greatest: &mut f32,
    totals: &mut [f32],
    mixed: &mut [f32],
) {
    if visible.is_empty() {
        return scores.fill(0.0);
    }
    // SAFETY: the caller's promise.
    unsafe {
        if let Some(cap) = cap {
            for lanes in scores.as_chunks_mut::<LANES>().0 {
                S::store(lanes.as_mut_ptr(), softcap::<S>(S::load(lanes.as_ptr()), cap));
            }
        }
        scores[..visible.start].fill(f32::NEG_INFINITY);
        scores[visible.end..].fill(f32::NEG_INFINITY);
        let mut here = S::splat(f32::NEG_INFINITY);
        for lanes in scores.as_chunks::<LANES>().0 {
            here = S::max(S::load(lanes.as_ptr()), here);
        }
        let here = S::greatest(here);
        let mut total = S::load(totals.as_ptr());
        if here > *greatest {
            let shrink = exp::<S>(S::splat(*greatest - here));
            *greatest = here;
            total = S::mul(total, shrink);
            for lanes in mixed.as_chunks_mut::<LANES>().0 {
                S::store(lanes.as_mut_ptr(), S::mul(S::load(lanes.as_ptr()), shrink));
            }
        }
        for lanes in scores.as_chunks_mut::<LANES>().0 {
            let p = exp::<S>(S::sub(S::load(lanes.as_ptr()), S::splat(*greatest)));
            total = S::add(total, p);
            S::store(lanes.as_mut_ptr(), p);
        }
        S::store(totals.as_mut_ptr(), total);
    }
}
