//! What one thread does: the pieces of its share, and the end of a tile that it shared with others if it is the last
//! to be done.

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::cache::with_element;
use super::fold::{Partial, partial_len};
use super::hadamard;
use super::lanes::{Element, Lanes};
use super::plan::{Piece, Share, Tile, Tiles};
use super::tile::{Buffers, compute};
use crate::isa::Isa;
use crate::vector::LANES;

/// Where a sequence's results go.
#[derive(Clone, Copy)]
pub(super) struct Output {
    pub pointer: *mut f32,
    pub length: usize,
}

/// One call's work, seen by all threads.
pub(super) struct Work<'a> {
    pub tiles: Tiles<'a>,
    pub shares: &'a [Share],
    /// One a sequence.
    pub outputs: &'a [Output],
    /// Threads that are done with their part of the tile that is cut at the end of a thread's share.
    pub arrived: &'a [AtomicUsize],
    /// What the shares keep for each other.
    pub kept: *mut f32,
}

// SAFETY: threads write to disjoint parts of the outputs (each query is one tile's, each tile finished by one
// thread) and of what is kept; what another thread has kept is read only after its arrival was seen.
unsafe impl Sync for Work<'_> {}

thread_local! {
    /// Kept, so that a step allocates nothing.
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// Runs a thread's share on an instruction set that the processor has.
pub(super) fn run(isa: Isa, work: &Work<'_>, thread: usize) {
    BUFFERS.with_borrow_mut(|buffers| match isa.vectors() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the path is chosen only where the processor has its features.
        Isa::Avx512 => unsafe { super::lanes::Avx512::run(work, thread, buffers) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { super::lanes::Avx2::run(work, thread, buffers) },
        // Every AArch64 processor fuses; elsewhere a fused operation without the instruction is a slow call.
        // SAFETY: plain code needs no features.
        _ => unsafe { super::lanes::Plain::<{ cfg!(target_arch = "aarch64") }>::run(work, thread, buffers) },
    });
}

/// The pieces of a thread's share.
///
/// # Safety
/// The features of `S` are there; `work` was planned for its tasks, and each thread number is run once.
#[inline(always)]
pub(super) unsafe fn run_share<S: Lanes>(work: &Work<'_>, thread: usize, buffers: &mut Buffers) {
    for piece in work.tiles.pieces(&work.shares[thread]) {
        // SAFETY: the caller's promise.
        unsafe {
            let kv_type = work.tiles.tasks[piece.tile.task].cache.kv_type();
            with_element!(kv_type, E => run_piece::<S, E>(work, thread, &piece, buffers));
        }
    }
}

/// One piece; the whole tile's end too where no other thread has to be waited for.
///
/// # Safety
/// As for [`run_share`]; `E` is the element of the tile's cache.
#[inline(always)]
unsafe fn run_piece<S: Lanes, E: Element>(
    work: &Work<'_>,
    thread: usize,
    piece: &Piece,
    buffers: &mut Buffers,
) {
    let (tile, tiles, share) = (&piece.tile, &work.tiles, &work.shares[thread]);
    let (rows, padded_dim) = (tile.members.len(), tiles.tasks[tile.task].cache.padded_dim());
    let size = partial_len(rows, padded_dim);
    buffers.prepare(tiles, tile);
    // SAFETY: the caller's promise; the plan gave every part of a cut tile its own place in `kept`, which is this
    // thread's until it has arrived, and the last one's to arrive from then on.
    unsafe {
        let kept = |at: usize| std::slice::from_raw_parts_mut(work.kept.add(at), size);
        let owner = if piece.begins_tile() {
            compute::<S, E>(tiles, tile, piece.blocks.clone(), buffers, None);
            if piece.ends_tile() {
                return finish::<S>(work, tile, buffers.folded(rows, padded_dim));
            }
            Partial::of(kept(share.folded), rows).copy(
                0,
                &buffers.folded(rows, padded_dim),
                rows,
                padded_dim,
            );
            thread
        } else {
            compute::<S, E>(tiles, tile, piece.blocks.clone(), buffers, Some(work.kept.add(share.blocks)));
            share.owner
        };
        let first = &work.shares[owner];
        if work.arrived[owner].fetch_add(1, Ordering::AcqRel) + 1 < first.sharers {
            return;
        }
        let mut folded = Partial::of(kept(first.folded), rows);
        for other in work.shares[owner + 1..].iter().take_while(|other| other.owner == owner) {
            for number in 0..tiles.first_blocks(other, tile).len() {
                let block = Partial::of(kept(other.blocks + number * size), rows);
                folded.fold::<S>(0, &block, rows, padded_dim);
            }
        }
        finish::<S>(work, tile, folded);
    }
}

/// Divides by the sums and writes the results of a tile.
///
/// # Safety
/// As for [`run_share`]; no other thread finishes this tile.
#[inline(always)]
unsafe fn finish<S: Lanes>(work: &Work<'_>, tile: &Tile, folded: Partial<'_>) {
    let cache = work.tiles.tasks[tile.task].cache;
    let (dim, padded_dim) = (cache.head_dim(), cache.padded_dim());
    let output = &work.outputs[tile.task];
    for (row, member) in tile.members.clone().enumerate() {
        let mixed = &mut folded.mixed[row * padded_dim..(row + 1) * padded_dim];
        let at = work.tiles.query_place(tile, member);
        assert!(at + dim <= output.length, "inside the output");
        // SAFETY: the features are there; rows are a multiple of sixteen long; the place in the output is this
        // query's alone, and inside it.
        unsafe {
            let factor = S::splat(1.0 / folded.total[row]);
            for lanes in mixed.as_chunks_mut::<LANES>().0 {
                S::store(lanes.as_mut_ptr(), S::mul(S::load(lanes.as_ptr()), factor));
            }
            if cache.kv_type().is_scaled() {
                hadamard::transform(&mut mixed[..dim], dim);
            }
            std::ptr::copy_nonoverlapping(mixed.as_ptr(), output.pointer.add(at), dim);
        }
    }
}
