//! Rows shared among threads, and sums along and across them.

use std::ops::Range;

use crate::pool::{Pool, SharedOut};
use crate::vector::dispatch;

/// Values below which waking the other threads takes longer than the work.
const ALONE: usize = 1 << 14;

/// Rows that are summed together before the sums of such blocks are added up in order. Fixed, so that what comes
/// out does not depend on the threads.
const BLOCK: usize = 64;

/// Partial sums of one row.
const LANES: usize = 32;

/// Rows of `width` in `length` values.
///
/// # Panics
/// If they are not whole rows.
pub(super) fn count(length: usize, width: usize) -> usize {
    assert!(width > 0 && length.is_multiple_of(width), "{length} values are not whole rows of {width}");
    length / width
}

/// The places of rows.
pub(super) fn values(rows: &Range<usize>, width: usize) -> Range<usize> {
    rows.start * width..rows.end * width
}

/// Calls `job` with ranges that cover `0..rows`, on one thread where there is little to do.
pub(super) fn split(pool: &Pool, rows: usize, width: usize, job: impl Fn(Range<usize>) + Sync) {
    if rows * width >= ALONE {
        pool.split(rows, 1, job);
    } else if rows > 0 {
        job(0..rows);
    }
}

/// Calls `job` with ranges that cover `0..length`, on one thread where there is little to do.
pub(crate) fn split_values(pool: &Pool, length: usize, job: impl Fn(Range<usize>) + Sync) {
    split_blocks(pool, length, LANES, job);
}

/// [`split_values`] in whole blocks.
pub(crate) fn split_blocks(pool: &Pool, length: usize, block: usize, job: impl Fn(Range<usize>) + Sync) {
    if length >= ALONE {
        pool.split(length, block, job);
    } else if length > 0 {
        job(0..length);
    }
}

/// Calls `job` with blocks of rows that cover `0..rows`, and with zeros for the block's sums over its rows: `width`
/// for each of `totals`, one after another. Then adds the blocks' sums to `totals`, in the order of the blocks.
pub(super) fn sum_blocks<const N: usize>(
    pool: &Pool,
    rows: usize,
    width: usize,
    totals: [Option<&mut [f32]>; N],
    job: impl Fn(Range<usize>, &mut [f32]) + Sync,
) {
    let size = width * totals.iter().flatten().count();
    let blocks = rows.div_ceil(BLOCK);
    let mut sums = vec![0.0; blocks * size];
    let shared = SharedOut::new(&mut sums);
    split(pool, blocks, BLOCK * width, |part| {
        for block in part {
            // SAFETY: each block is one thread's.
            let sums = unsafe { shared.part(block * size..(block + 1) * size) };
            job(block * BLOCK..((block + 1) * BLOCK).min(rows), sums);
        }
    });
    for (index, total) in totals.into_iter().flatten().enumerate() {
        assert_eq!(total.len(), width, "a gradient as wide as the rows");
        let total = SharedOut::new(total);
        let add = |columns: Range<usize>| {
            // SAFETY: threads have disjoint columns.
            let total = unsafe { total.part(columns.clone()) };
            for block in 0..blocks {
                let first = block * size + index * width;
                crate::vector::add(total, &sums[first + columns.start..first + columns.end]);
            }
        };
        if blocks * width >= ALONE { pool.split(width, LANES, add) } else { add(0..width) }
    }
}

/// `totals[j] += Σ rows[i][j]` over rows as wide as `totals`.
pub(super) fn add_rows(rows: &[f32], totals: &mut [f32]) {
    #[inline(always)]
    fn run<const FUSED: bool>(rows: &[f32], totals: &mut [f32]) {
        for row in rows.chunks_exact(totals.len()) {
            totals.iter_mut().zip(row).for_each(|(total, x)| *total += x);
        }
    }
    dispatch!(run(rows: &[f32], totals: &mut [f32]))
}

/// Goes over slices of one length side by side: `sums[lane] = add(sums[lane], values)` in lanes, whose sums are then
/// joined in f64.
#[inline(always)]
pub(super) fn lane_sum<const N: usize>(slices: [&[f32]; N], add: impl Fn(f32, [f32; N]) -> f32) -> f64 {
    let length = slices[0].len();
    let mut sums = [0.0f32; LANES];
    let mut at = 0;
    while at + LANES <= length {
        let chunks: [&[f32; LANES]; N] =
            slices.map(|slice| slice[at..at + LANES].try_into().expect("as many values as lanes"));
        for lane in 0..LANES {
            sums[lane] = add(sums[lane], chunks.map(|chunk| chunk[lane]));
        }
        at += LANES;
    }
    for lane in 0..length - at {
        sums[lane] = add(sums[lane], slices.map(|slice| slice[at + lane]));
    }
    join(sums)
}

/// The sum of partial sums, a multiple of eight, in f64.
#[inline(always)]
pub(crate) fn join<const N: usize>(sums: [f32; N]) -> f64 {
    let mut eight = [0.0f64; 8];
    for chunk in sums.as_chunks::<8>().0 {
        for lane in 0..8 {
            eight[lane] += f64::from(chunk[lane]);
        }
    }
    let four: [f64; 4] = std::array::from_fn(|lane| eight[lane] + eight[lane + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}
