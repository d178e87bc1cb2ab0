//! Rows of a table by number, and the gradient of the table.

use std::ops::Range;

use super::rows::{count, split, values};
use crate::pool::{Pool, SharedOut};
use crate::vector::{dispatch, fused};

/// `out[i] = scale · table[ids[i]]`; rows are `width` wide.
///
/// # Panics
/// If the table has no such row, or the lengths do not fit.
pub fn gather(pool: &Pool, table: &[f32], width: usize, ids: &[u32], scale: f32, out: &mut [f32]) {
    check(table.len(), width, ids);
    assert_eq!(out.len(), ids.len() * width, "a row for every id");
    let out = SharedOut::new(out);
    split(pool, ids.len(), width, |part| {
        // SAFETY: threads have disjoint rows.
        let out = unsafe { out.part(values(&part, width)) };
        for (out, &id) in out.chunks_exact_mut(width).zip(&ids[part]) {
            let row = &table[id as usize * width..][..width];
            out.iter_mut().zip(row).for_each(|(out, x)| *out = scale * x);
        }
    });
}

/// Gradient of [`gather`]: `dtable[ids[i]] += scale · dout[i]`, in the order of `i` where an id occurs again. Each
/// thread has some columns of all rows, so that none waits for another and the order is always the same.
///
/// # Panics
/// If the table has no such row, or the lengths do not fit.
pub fn scatter_add(pool: &Pool, ids: &[u32], width: usize, scale: f32, dout: &[f32], dtable: &mut [f32]) {
    /// Columns of one cache line.
    const LINE: usize = 16;
    check(dtable.len(), width, ids);
    assert_eq!(dout.len(), ids.len() * width, "a row for every id");
    let table = SharedOut::new(dtable);
    let work = |columns: Range<usize>| {
        for (row, &id) in dout.chunks_exact(width).zip(ids) {
            let at = id as usize * width;
            // SAFETY: threads have disjoint columns.
            let sums = unsafe { table.part(at + columns.start..at + columns.end) };
            add_scaled(sums, &row[columns.clone()], scale);
        }
    };
    if dout.len() >= 1 << 14 { pool.split(width, LINE, work) } else { work(0..width) }
}

/// `sums += scale · x`.
fn add_scaled(sums: &mut [f32], x: &[f32], scale: f32) {
    #[inline(always)]
    fn run<const FUSED: bool>(sums: &mut [f32], x: &[f32], scale: f32) {
        sums.iter_mut().zip(x).for_each(|(sum, x)| *sum = fused::<FUSED>(scale, *x, *sum));
    }
    dispatch!(run(sums: &mut [f32], x: &[f32], scale: f32))
}

/// Panics if an id is not in a table of so many values.
fn check(table: usize, width: usize, ids: &[u32]) {
    let rows = count(table, width);
    if let Some(id) = ids.iter().find(|&&id| id as usize >= rows) {
        panic!("row {id} of a table of {rows} rows");
    }
}
