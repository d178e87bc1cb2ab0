//! Both factors in the order in which tiles read them.
//!
//! A block of A is its rows, [`DEPTH`] values apart. A block of B is panels as wide as a tile, one behind the other; a
//! panel holds a row for each step of the depth. Columns that a last panel lacks are zeros.

use std::ops::Range;

use super::DEPTH;
use super::operand::Operand;
use super::tile::LANES;
use super::transpose::transpose;
use crate::isa::Isa;
use crate::pool::SharedOut;
use crate::vector::dispatch;

pub(super) use super::transpose::LINES;

/// Values of the longest block of a format, and those that a line may need decoded beside its own.
const BESIDE: usize = 2 * 256;

/// Values of a line that are read at once: whole panels of every path, whole blocks of every format.
const PIECE: usize = 768;

/// Values of a thread's scratch: a piece of each of sixteen lines.
pub(super) const SCRATCH: usize = LINES * (PIECE + BESIDE);

/// Sixteen lines from `lines.start` on, or as many as there are, values `range` of each.
fn read<'s>(
    operand: &'s Operand<'_>,
    lines: Range<usize>,
    range: Range<usize>,
    scratch: &'s mut [f32],
) -> [&'s [f32]; LINES] {
    let mut pieces = scratch.chunks_exact_mut(SCRATCH / LINES);
    std::array::from_fn(|index| match pieces.next() {
        Some(piece) if index < lines.len() => operand.line(lines.start + index, range.clone(), piece),
        _ => &[],
    })
}

/// Packs `rows` of A over `depth`: row `i` of them at `out[i · DEPTH..]`.
pub(super) fn pack_a(
    isa: Isa,
    a: &Operand<'_>,
    rows: Range<usize>,
    depth: Range<usize>,
    scratch: &mut [f32],
    out: &mut [f32],
) {
    if a.by_rows() {
        for (row, out) in rows.zip(out.chunks_exact_mut(DEPTH)) {
            out[..depth.len()].copy_from_slice(a.line(row, depth.clone(), scratch));
        }
        return;
    }
    for first in rows.clone().step_by(PIECE) {
        let part = first..rows.end.min(first + PIECE);
        let out = &mut out[(first - rows.start) * DEPTH..];
        for step in depth.clone().step_by(LINES) {
            let lines = read(a, step..depth.end.min(step + LINES), part.clone(), scratch);
            transpose(isa, &lines, part.len(), &mut out[step - depth.start..], DEPTH);
        }
    }
}

/// The columns of B that are packed, and how: panels of `width` columns, the last one as wide as its vectors. One block
/// of the depth is packed behind the other.
#[derive(Clone, Copy)]
pub(super) struct Panels {
    pub first: usize,
    pub columns: usize,
    pub width: usize,
}

impl Panels {
    /// Panels of a block.
    pub(super) fn count(self) -> usize {
        self.columns.div_ceil(self.width)
    }

    /// The first column of a panel, or behind the last one's end.
    pub(super) fn column(self, panel: usize) -> usize {
        // Two panels of two vectors are faster than one of three and one of one.
        let short = self.width == 3 * LANES && self.columns.div_ceil(LANES) % 3 == 1 && panel > 0;
        let less = if short && panel + 1 == self.count() { LANES } else { 0 };
        (panel * self.width - less).min(self.columns)
    }

    /// Columns of a panel that there are.
    pub(super) fn columns_of(self, panel: usize) -> usize {
        self.column(panel + 1) - self.column(panel)
    }

    /// The number of panels, the first ones, that have all their columns.
    pub(super) fn wide(self) -> usize {
        let last = self.count().saturating_sub(2);
        last + (last..self.count()).take_while(|&panel| self.columns_of(panel) == self.width).count()
    }

    /// Where a panel begins in a block of so many steps; only the last block has fewer than [`DEPTH`].
    pub(super) fn start(self, block: usize, steps: usize, panel: usize) -> usize {
        (block * self.count() * DEPTH + panel * steps) * self.width
    }

    /// Values of a panel's row.
    pub(super) fn row(self, panel: usize) -> usize {
        self.columns_of(panel).next_multiple_of(LANES)
    }
}

/// Packs some panels of B, which lies in columns: `part` counts those of the first block, then of the next.
pub(super) fn pack_panels(
    isa: Isa,
    b: &Operand<'_>,
    panels: Panels,
    part: Range<usize>,
    depth: Range<usize>,
    scratch: &mut [f32],
    out: &SharedOut<'_>,
) {
    for item in part {
        let (block, panel) = (item / panels.count(), item % panels.count());
        let from = depth.start + block * DEPTH;
        let depth = from..depth.end.min(from + DEPTH);
        let (start, row) = (panels.start(block, depth.len(), panel), panels.row(panel));
        // SAFETY: each panel is one thread's.
        let out = unsafe { out.part(start..start + row * depth.len()) };
        let first = panels.first + panels.column(panel);
        let end = first + panels.columns_of(panel);
        for lane in (0..row).step_by(LANES) {
            let lines = read(b, first + lane..end.min(first + lane + LINES), depth.clone(), scratch);
            transpose(isa, &lines, depth.len(), &mut out[lane..], row);
        }
    }
}

/// Packs some steps of B, which lies in rows, in all panels: `part` counts from `depth.start` on, in sixteens.
pub(super) fn pack_steps(
    b: &Operand<'_>,
    panels: Panels,
    part: Range<usize>,
    depth: Range<usize>,
    scratch: &mut [f32],
    out: &SharedOut<'_>,
) {
    let piece = PIECE / panels.width;
    for step in part.clone().step_by(LINES) {
        let count = LINES.min(part.end - step);
        let (block, inside) = (step / DEPTH, step % DEPTH);
        let steps = DEPTH.min(depth.len() - block * DEPTH);
        let lines = depth.start + step..depth.start + step + count;
        for first in (0..panels.count()).step_by(piece) {
            let end = panels.count().min(first + piece);
            let columns = panels.first + panels.column(first)..panels.first + panels.column(end);
            let values = read(b, lines.clone(), columns, scratch);
            for panel in first..end {
                let (start, row) = (panels.start(block, steps, panel), panels.row(panel));
                // SAFETY: each step is one thread's.
                let out = unsafe { out.part(start + inside * row..start + (inside + count) * row) };
                let at = panels.column(panel) - panels.column(first);
                put_side_by_side(&values[..count], at, panels.columns_of(panel), row, out);
            }
        }
    }
}

/// Writes `columns` values of each line, from `at` on, to rows of `row` values; zeros behind them.
fn put_side_by_side(lines: &[&[f32]], at: usize, columns: usize, row: usize, out: &mut [f32]) {
    #[inline(always)]
    fn run<const FUSED: bool>(lines: &[&[f32]], at: usize, columns: usize, row: usize, out: &mut [f32]) {
        for (line, out) in lines.iter().zip(out.chunks_exact_mut(row)) {
            let values = &line[at..at + columns];
            // Of a known length it is a few moves and no call.
            match (values.as_array(), out.as_mut_array()) {
                (Some(values), Some(out)) => *out = *values as [f32; 3 * LANES],
                _ => {
                    out[..columns].copy_from_slice(values);
                    out[columns..].fill(0.0);
                }
            }
        }
    }
    dispatch!(run(lines: &[&[f32]], at: usize, columns: usize, row: usize, out: &mut [f32]))
}
