//! The backward pass of one head: blocks of keys, and for each the blocks of queries that see it.

use std::ops::Range;

use super::pack::{self, Head};
use super::plan::Piece;
use super::product::{Product, ROWS};
use super::{Shape, dispatch_lanes};
use crate::attention::lanes::{Arithmetic, exp, softcap};
use crate::pool::SharedOut;
use crate::vector::LANES;

/// Queries and keys of a block: a block's probabilities, their gradients and its rows stay in the caches nearby.
const BLOCK: usize = 64;

/// A call's inputs and outputs.
pub(super) struct Backward<'a> {
    pub shape: &'a Shape,
    pub tokens: usize,
    pub q: &'a [f32],
    pub k: &'a [f32],
    pub v: &'a [f32],
    pub out: &'a [f32],
    pub lse: &'a [f32],
    pub dout: &'a [f32],
    pub gradients: Gradients<'a>,
}

/// Gradients of queries, keys and values; those of keys and values have the queries' layout where several query heads
/// share a head of theirs.
pub(super) struct Gradients<'a> {
    pub dq: &'a SharedOut<'a>,
    pub dk: &'a SharedOut<'a>,
    pub dv: &'a SharedOut<'a>,
}

/// f32 that a thread needs for sequences up to `length`.
pub(super) fn buffer_size(shape: &Shape, length: usize) -> usize {
    let (padded, stride) = (length.next_multiple_of(LANES), shape.head_dim.next_multiple_of(LANES));
    padded * (4 * stride + 2 * shape.head_dim + 1) + 2 * BLOCK * (stride + BLOCK)
}

/// A thread's buffer in parts. Rows are `stride` apart.
struct Buffers<'a> {
    /// Queries times the scale, the results' gradients, keys, and the queries' gradients: rows of all positions.
    q: &'a mut [f32],
    dout: &'a mut [f32],
    k: &'a mut [f32],
    dq: &'a mut [f32],
    /// Keys and values in panels of sixteen positions.
    key_panels: &'a mut [f32],
    value_panels: &'a mut [f32],
    /// `Σ dout · out` of each position.
    delta: &'a mut [f32],
    /// Probabilities and the scores' gradients: `[BLOCK][BLOCK]`, queries by keys.
    p: &'a mut [f32],
    ds: &'a mut [f32],
    /// Gradients of a block of keys and values.
    dk: &'a mut [f32],
    dv: &'a mut [f32],
}

/// Takes the first `count` values off a buffer.
fn take<'a>(rest: &mut &'a mut [f32], count: usize) -> &'a mut [f32] {
    rest.split_off_mut(..count).expect("the buffer has the size that was asked for")
}

/// Computes pieces.
pub(super) fn run(work: &Backward<'_>, pieces: &[Piece], buffer: &mut [f32]) {
    dispatch_lanes!(run_pieces(work: &Backward<'_>, pieces: &[Piece], buffer: &mut [f32]))
}

/// # Safety
/// The features of `S` are there.
#[inline(always)]
unsafe fn run_pieces<S: Arithmetic>(work: &Backward<'_>, pieces: &[Piece], buffer: &mut [f32]) {
    let stride = work.shape.head_dim.next_multiple_of(LANES);
    for piece in pieces {
        let padded = piece.length.next_multiple_of(LANES);
        let mut rest = &mut *buffer;
        let mut buffers = Buffers {
            q: take(&mut rest, padded * stride),
            dout: take(&mut rest, padded * stride),
            k: take(&mut rest, padded * stride),
            dq: take(&mut rest, padded * stride),
            key_panels: take(&mut rest, padded * work.shape.head_dim),
            value_panels: take(&mut rest, padded * work.shape.head_dim),
            delta: take(&mut rest, padded),
            p: take(&mut rest, BLOCK * BLOCK),
            ds: take(&mut rest, BLOCK * BLOCK),
            dk: take(&mut rest, BLOCK * stride),
            dv: take(&mut rest, BLOCK * stride),
        };
        // SAFETY: the caller's promise.
        unsafe { run_piece::<S>(work, piece, &mut buffers) };
    }
}

/// # Safety
/// The features of `S` are there.
#[inline(always)]
unsafe fn run_piece<S: Arithmetic>(work: &Backward<'_>, piece: &Piece, buffers: &mut Buffers<'_>) {
    let shape = work.shape;
    let (dim, stride) = (shape.head_dim, shape.head_dim.next_multiple_of(LANES));
    let group = shape.heads / shape.kv_heads;
    load(work, piece, buffers);
    for first in (0..piece.length).step_by(BLOCK) {
        let keys = first..(first + BLOCK).min(piece.length);
        // Whole groups of queries; those that see nothing of the block get zeros.
        let queries = shape.seeing(keys.clone(), piece.length);
        let queries = queries.start / ROWS * ROWS..queries.end.next_multiple_of(ROWS).min(piece.length);
        buffers.dk.fill(0.0);
        buffers.dv.fill(0.0);
        for first in queries.clone().step_by(BLOCK) {
            let queries = first..(first + BLOCK).min(queries.end);
            // SAFETY: the caller's promise.
            unsafe { run_block::<S>(work, piece, keys.clone(), queries, buffers) };
        }
        // Each query head's own place where heads are shared; else the key/value head's.
        let (heads, head) = if group > 1 { (shape.heads, piece.head) } else { (shape.kv_heads, piece.head) };
        for position in keys.clone() {
            let at = ((piece.start + position) * heads + head) * dim;
            let row = (position - keys.start) * stride;
            // SAFETY: these heads of these tokens are this piece's alone.
            unsafe {
                work.gradients.dk.write(at, &buffers.dk[row..row + dim]);
                work.gradients.dv.write(at, &buffers.dv[row..row + dim]);
            }
        }
    }
    for position in 0..piece.length {
        let row = &mut buffers.dq[position * stride..][..dim];
        row.iter_mut().for_each(|x| *x *= shape.scale);
        // SAFETY: this head of this token is this piece's alone.
        unsafe { work.gradients.dq.write(((piece.start + position) * shape.heads + piece.head) * dim, row) };
    }
}

/// Copies a piece's rows out of the tokens.
#[inline(always)]
fn load(work: &Backward<'_>, piece: &Piece, buffers: &mut Buffers<'_>) {
    let shape = work.shape;
    let (dim, stride) = (shape.head_dim, shape.head_dim.next_multiple_of(LANES));
    let kv_head = piece.head / (shape.heads / shape.kv_heads);
    let head = |values, heads: usize, head: usize| Head {
        values,
        width: heads * dim,
        start: piece.start,
        length: piece.length,
        offset: head * dim,
        dim,
    };
    let keys = head(work.k, shape.kv_heads, kv_head);
    let (out, dout) = (head(work.out, shape.heads, piece.head), head(work.dout, shape.heads, piece.head));
    pack::rows(&head(work.q, shape.heads, piece.head), 0, stride, shape.scale, buffers.q);
    pack::rows(&dout, 0, stride, 1.0, buffers.dout);
    pack::rows(&keys, 0, stride, 1.0, buffers.k);
    pack::panels(&keys, buffers.key_panels);
    pack::panels(&head(work.v, shape.kv_heads, kv_head), buffers.value_panels);
    buffers.dq.fill(0.0);
    for position in 0..piece.length {
        buffers.delta[position] =
            super::super::rows::lane_sum([dout.row(position), out.row(position)], |sum, [a, b]| a * b + sum)
                as f32;
    }
}

/// One block of keys and one of queries, both ranges of positions; the queries' begins at a group's first.
///
/// # Safety
/// The features of `S` are there.
#[inline(always)]
unsafe fn run_block<S: Arithmetic>(
    work: &Backward<'_>,
    piece: &Piece,
    keys: Range<usize>,
    queries: Range<usize>,
    buffers: &mut Buffers<'_>,
) {
    let shape = work.shape;
    let (dim, stride) = (shape.head_dim, shape.head_dim.next_multiple_of(LANES));
    let lse = &work.lse[piece.head * work.tokens + piece.start..][..piece.length];
    for first in queries.clone().step_by(ROWS) {
        let rows = first..(first + ROWS).min(queries.end);
        let seen = within(shape.seen(rows.clone(), piece.length), &keys);
        if seen.is_empty() {
            continue;
        }
        let from = seen.start / LANES * LANES;
        let panels = (seen.end - from).div_ceil(LANES);
        let place = (first - queries.start) * BLOCK + from;
        // SAFETY: the caller's promise; packed rows reach to the end of the last position's group and panel.
        unsafe {
            let scores = Product {
                inputs: buffers.q.as_ptr().add(first * stride),
                input_stride: stride,
                panels: buffers.key_panels.as_ptr().add((keys.start + from) * dim),
                panel_stride: LANES * dim,
                row_stride: LANES,
                length: dim,
                out: buffers.p.as_mut_ptr().add(place),
                out_stride: BLOCK,
            };
            scores.run::<S, false, false>(ROWS, panels);
            let gradients = Product {
                inputs: buffers.dout.as_ptr().add(first * stride),
                panels: buffers.value_panels.as_ptr().add((keys.start + from) * dim),
                out: buffers.ds.as_mut_ptr().add(place),
                ..scores
            };
            gradients.run::<S, false, false>(ROWS, panels);
            for row in rows {
                let visible = within(shape.seen(row..row + 1, piece.length), &keys);
                let place = (row - queries.start) * BLOCK + from;
                let p = &mut buffers.p[place..place + panels * LANES];
                let ds = &mut buffers.ds[place..place + panels * LANES];
                let visible = visible.start - from..visible.end - from;
                probabilities::<S>(p, ds, visible, shape.softcap, lse[row], buffers.delta[row]);
            }
            let dq = Product {
                inputs: buffers.ds.as_ptr().add(place),
                input_stride: BLOCK,
                panels: buffers.k.as_ptr().add((keys.start + from) * stride),
                panel_stride: LANES,
                row_stride: stride,
                length: seen.end - from,
                out: buffers.dq.as_mut_ptr().add(first * stride),
                out_stride: stride,
            };
            dq.run::<S, false, true>(ROWS, stride / LANES);
        }
    }
    for first in keys.clone().step_by(ROWS) {
        let group = first..(first + ROWS).min(keys.end);
        let seeing = shape.seeing(group, piece.length);
        let seeing = seeing.start.max(queries.start)..seeing.end.min(queries.end);
        if seeing.is_empty() {
            continue;
        }
        let (row, key) = (seeing.start - queries.start, first - keys.start);
        // SAFETY: the caller's promise; each of these queries sees a key of the group, so that the group's panel was
        // computed for it.
        unsafe {
            let dv = Product {
                inputs: buffers.p.as_ptr().add(row * BLOCK + key),
                input_stride: BLOCK,
                panels: buffers.dout.as_ptr().add(seeing.start * stride),
                panel_stride: LANES,
                row_stride: stride,
                length: seeing.len(),
                out: buffers.dv.as_mut_ptr().add(key * stride),
                out_stride: stride,
            };
            dv.run::<S, true, true>(ROWS, stride / LANES);
            let dk = Product {
                inputs: buffers.ds.as_ptr().add(row * BLOCK + key),
                panels: buffers.q.as_ptr().add(seeing.start * stride),
                out: buffers.dk.as_mut_ptr().add(key * stride),
                ..dv
            };
            dk.run::<S, true, true>(ROWS, stride / LANES);
        }
    }
}

/// Positions that lie in a block, counted from its first.
fn within(positions: Range<usize>, block: &Range<usize>) -> Range<usize> {
    let inside = |position: usize| position.clamp(block.start, block.end) - block.start;
    inside(positions.start)..inside(positions.end)
}

/// Turns one query's scores into probabilities, and the probabilities' gradients into the scores'; both are 0 outside
/// `visible`.
///
/// # Safety
/// The features of `S` are there; slices are whole lanes.
#[inline(always)]
unsafe fn probabilities<S: Arithmetic>(
    p: &mut [f32],
    ds: &mut [f32],
    visible: Range<usize>,
    cap: Option<f32>,
    lse: f32,
    delta: f32,
) {
    for (p, ds) in p.as_chunks_mut::<LANES>().0.iter_mut().zip(ds.as_chunks_mut::<LANES>().0) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut score = S::load(p.as_ptr());
            let mut slope = S::splat(1.0);
            if let Some(cap) = cap {
                score = softcap::<S>(score, cap);
                let bent = S::mul(score, S::splat(1.0 / cap));
                slope = S::sub(slope, S::mul(bent, bent));
            }
            let probability = exp::<S>(S::sub(score, S::splat(lse)));
            let mut gradient = S::mul(probability, S::sub(S::load(ds.as_ptr()), S::splat(delta)));
            if cap.is_some() {
                gradient = S::mul(gradient, slope);
            }
            S::store(p.as_mut_ptr(), probability);
            S::store(ds.as_mut_ptr(), gradient);
        }
    }
    for values in [p, ds] {
        values[..visible.start].fill(0.0);
        values[visible.end..].fill(0.0);
    }
}
