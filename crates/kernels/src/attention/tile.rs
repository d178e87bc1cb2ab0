//! The queries of one tile over some blocks of positions.

use std::ops::Range;

use super::cache::{BLOCK, HeadBlock};
use super::fold::{Partial, partial_len};
use super::hadamard;
use super::kernel::{PanelSums, Softmax, register_rows, sum_panels, widen};
use super::lanes::{Element, Lanes};
use super::memory::Lines;
use super::plan::{Tile, Tiles};
use crate::vector::LANES;

/// Most queries that any instruction set's register tile holds.
const MOST_ROWS: usize = 8;

/// What a thread needs to compute tiles.
#[derive(Default)]
pub(super) struct Buffers {
    /// `[queries][head_dim]`, scaled, and as many rows of zeros as a register tile may read beyond.
    queries: Lines,
    /// A block's keys and values as f32, in the cache's layout.
    keys: Lines,
    values: Lines,
    /// Scores, then probabilities, of a register tile and a block: `[8][BLOCK]`.
    scores: Lines,
    /// A [`Partial`] of a register tile and a block.
    block: Lines,
    /// A [`Partial`] of the tile and all blocks so far.
    folded: Lines,
}

impl Buffers {
    /// Makes room for a tile, loads its queries, and forgets what was folded.
    pub(super) fn prepare(&mut self, tiles: &Tiles<'_>, tile: &Tile) {
        let task = &tiles.tasks[tile.task];
        let (dim, padded_dim) = (task.cache.head_dim(), task.cache.padded_dim());
        let rows = tile.members.len();
        self.queries.grow((rows + MOST_ROWS) * dim);
        self.scores.grow(MOST_ROWS * BLOCK);
        self.block.grow(partial_len(MOST_ROWS, padded_dim));
        self.folded.grow(partial_len(rows, padded_dim));
        self.folded(rows, padded_dim).clear();

        let queries = &mut self.queries.as_mut_slice()[..(rows + MOST_ROWS) * dim];
        for (row, member) in queries.chunks_exact_mut(dim).zip(tile.members.clone()) {
            let at = tiles.query_place(tile, member);
            for (scaled, query) in row.iter_mut().zip(&task.queries[at..at + dim]) {
                *scaled = query * tiles.shape.scale;
            }
        }
        queries[rows * dim..].fill(0.0);
        if task.cache.kv_type().is_scaled() {
            hadamard::transform(&mut queries[..rows * dim], dim);
        }
    }

    /// What is known of the tile's queries.
    pub(super) fn folded(&mut self, rows: usize, padded_dim: usize) -> Partial<'_> {
        Partial::of(&mut self.folded.as_mut_slice()[..partial_len(rows, padded_dim)], rows)
    }
}

/// Computes blocks of a tile that [`Buffers::prepare`] has loaded. Each is folded into what is known of the tile,
/// or, with `kept`, its [`Partial`] is kept there, one after another.
///
/// # Safety
/// The features of `S` are there; `E` is the element of the tile's cache; `kept` has room for the blocks' partials.
#[inline(always)]
pub(super) unsafe fn compute<S: Lanes, E: Element>(
    tiles: &Tiles<'_>,
    tile: &Tile,
    blocks: Range<usize>,
    buffers: &mut Buffers,
    kept: Option<*mut f32>,
) {
    let (cache, keys) = (tiles.tasks[tile.task].cache, tiles.tasks[tile.task].keys);
    let (rows, padded_dim) = (tile.members.len(), cache.padded_dim());
    let size = partial_len(rows, padded_dim);
    // With one register tile nothing is gained by widening first.
    let widens = size_of::<E>() < size_of::<[f32; LANES]>() && rows > S::ROWS;
    if widens {
        buffers.keys.grow(BLOCK * cache.head_dim());
        buffers.values.grow(BLOCK * padded_dim);
    }
    for (index, block) in blocks.enumerate() {
        let from = keys.head_block(block, tile.kv_head);
        let own = cache.head_block(block, tile.kv_head);
        let head = HeadBlock { keys: from.keys, key_scales: from.key_scales, ..own };
        // SAFETY: the caller's promise; a head's block has elements of this type for all its capacity.
        unsafe {
            let kept = kept.map(|kept| std::slice::from_raw_parts_mut(kept.add(index * size), size));
            let mut kept = kept.map(|kept| Partial::of(kept, rows));
            if let Some(kept) = &mut kept {
                kept.clear();
            }
            if widens {
                let seen = visible_part(tiles, tile, 0..rows, block);
                let (keys, values) = widen_block::<S, E>(&head, seen, cache.head_dim(), buffers);
                compute_block::<S, [f32; LANES]>(tiles, tile, block, &head, keys, values, buffers, kept);
            } else {
                let (keys, values) = (head.keys.as_ptr().cast::<E>(), head.values.as_ptr().cast::<E>());
                compute_block::<S, E>(tiles, tile, block, &head, keys, values, buffers, kept);
            }
        }
    }
}

/// The part of a block that any of the tile's queries `rows` sees, in positions of the block.
fn visible_part(tiles: &Tiles<'_>, tile: &Tile, rows: Range<usize>, block: usize) -> Range<usize> {
    let visible = |row: usize| tiles.visible(tile.task, tile.members.start + row);
    within(visible(rows.start).start..visible(rows.end - 1).end, block)
}

/// Positions that lie in a block, counted from its first.
fn within(positions: Range<usize>, block: usize) -> Range<usize> {
    let inside = |position: usize| position.clamp(block * BLOCK, (block + 1) * BLOCK) - block * BLOCK;
    inside(positions.start)..inside(positions.end)
}

/// A block's keys and values as f32, as far as positions `seen` need them; values' panels are as far apart as before.
///
/// # Safety
/// As for [`compute`].
#[inline(always)]
unsafe fn widen_block<S: Lanes, E: Element>(
    head: &HeadBlock<'_>,
    seen: Range<usize>,
    dim: usize,
    buffers: &mut Buffers,
) -> (*const [f32; LANES], *const [f32; LANES]) {
    let panels = seen.start / LANES..seen.end.div_ceil(LANES);
    let (keys, values) = (buffers.keys.as_mut_slice::<f32>(), buffers.values.as_mut_slice::<f32>());
    let (from_keys, from_values) = (head.keys.as_ptr().cast::<E>(), head.values.as_ptr().cast::<E>());
    // SAFETY: the caller's promise; both buffers have room for a full block.
    unsafe {
        let first = panels.start * dim;
        widen::<S, E>(from_keys.add(first), keys.as_mut_ptr().add(first * LANES), panels.len() * dim);
        for panel in 0..dim.div_ceil(LANES) {
            let first = panel * head.capacity + panels.start * LANES;
            let count = panels.len() * LANES;
            widen::<S, E>(from_values.add(first), values.as_mut_ptr().add(first * LANES), count);
        }
    }
    (keys.as_ptr().cast(), values.as_ptr().cast())
}

/// One block, register tile after register tile.
///
/// # Safety
/// As for [`compute`]; `keys` and `values` have the head's layout.
#[inline(always)]
unsafe fn compute_block<S: Lanes, E: Element>(
    tiles: &Tiles<'_>,
    tile: &Tile,
    block: usize,
    head: &HeadBlock<'_>,
    keys: *const E,
    values: *const E,
    buffers: &mut Buffers,
    mut kept: Option<Partial<'_>>,
) {
    let cache = tiles.tasks[tile.task].cache;
    let (dim, padded_dim) = (cache.head_dim(), cache.padded_dim());
    let pointer = |scales: &[f32]| if scales.is_empty() { std::ptr::null() } else { scales.as_ptr() };
    let softmax = Softmax {
        softcap: tiles.shape.softcap,
        key_scales: pointer(head.key_scales),
        value_scales: pointer(head.value_scales),
    };
    let scores = buffers.scores.as_mut_slice::<f32>().as_mut_ptr();
    let queries = buffers.queries.as_slice::<f32>().as_ptr();
    let all_rows = tile.members.len();
    let mut folded =
        Partial::of(&mut buffers.folded.as_mut_slice()[..partial_len(all_rows, padded_dim)], all_rows);
    let part =
        Partial::of(&mut buffers.block.as_mut_slice()[..partial_len(MOST_ROWS, padded_dim)], MOST_ROWS);

    let next_keys = if (block + 1) * BLOCK < cache.len() {
        tiles.tasks[tile.task].keys.head_block(block + 1, tile.kv_head).keys.as_ptr()
    } else {
        std::ptr::null()
    };

    for first in (0..all_rows).step_by(S::ROWS) {
        let rows = first..(first + S::ROWS).min(all_rows);
        let seen = visible_part(tiles, tile, rows.clone(), block);
        if seen.is_empty() {
            continue;
        }
        let panels = seen.start / LANES..seen.end.div_ceil(LANES);
        let from = panels.start * LANES;
        // SAFETY: the caller's promise; positions seen lie within the head's capacity, and the buffers have room
        // for a full register tile and block.
        unsafe {
            let sums = PanelSums {
                panels: keys.add(panels.start * dim),
                panel_stride: dim,
                length: dim,
                inputs: queries.add(first * dim),
                input_stride: dim,
                out: scores.add(from),
                out_stride: BLOCK,
                ahead: values.add(from).cast(),
            };
            sum_panels::<S, E>(rows.len(), panels.len(), sums);
            for row in 0..register_rows(rows.len()) {
                let visible = match rows.clone().nth(row) {
                    Some(row) => within(tiles.visible(tile.task, tile.members.start + row), block),
                    None => 0..0,
                };
                (part.greatest[row], part.total[row]) =
                    softmax.run::<S>(scores.add(row * BLOCK), panels.clone(), visible);
            }
            let sums = PanelSums {
                panels: values.add(from),
                panel_stride: head.capacity,
                length: seen.end - from,
                inputs: scores.add(from),
                input_stride: BLOCK,
                out: part.mixed.as_mut_ptr(),
                out_stride: padded_dim,
                ahead: next_keys,
            };
            sum_panels::<S, E>(rows.len(), padded_dim / LANES, sums);
            match &mut kept {
                Some(kept) => kept.copy(first, &part, rows.len(), padded_dim),
                None => folded.fold::<S>(first, &part, rows.len(), padded_dim),
            }
        }
    }
}
