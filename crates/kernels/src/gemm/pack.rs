//! Both factors in the order in which tiles read them.
//!
//! A block of A is its rows, [`DEPTH`] values apart. A block of B is panels as wide as a tile, one behind the other; a
//! panel holds a row for each step of the depth. Columns that a last panel lacks are zeros.

use std::ops::Range;

use super::operand::Operand;
use super::tile::LANES;
use super::transpose::{LINES, transpose};
use super::{DEPTH, WIDTH};
use crate::isa::Isa;
use crate::pool::SharedOut;

/// Values of the longest block of a format, and those that a line may need decoded beside its own.
const BESIDE: usize = 2 * 256;

/// Values of a thread's scratch: sixteen pieces of a line, or one as wide as a block of B.
pub(super) const SCRATCH: usize = {
    let (pieces, line) = (LINES * (DEPTH + BESIDE), WIDTH + BESIDE);
    if pieces > line { pieces } else { line }
};

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
    // A piece of scratch holds `DEPTH` values of a line.
    for first in rows.clone().step_by(DEPTH) {
        let part = first..rows.end.min(first + DEPTH);
        let out = &mut out[(first - rows.start) * DEPTH..];
        for step in depth.clone().step_by(LINES) {
            let lines = read(a, step..depth.end.min(step + LINES), part.clone(), scratch);
            transpose(isa, &lines, part.len(), &mut out[step - depth.start..], DEPTH);
        }
    }
}

/// The columns of B that are packed, and how: panels of `width` columns, the last one as wide as its vectors.
#[derive(Clone, Copy)]
pub(super) struct Panels {
    pub first: usize,
    pub columns: usize,
    pub width: usize,
}

impl Panels {
    /// Panels.
    pub(super) fn count(self) -> usize {
        self.columns.div_ceil(self.width)
    }

    /// Columns of a panel that there are.
    pub(super) fn columns_of(self, panel: usize) -> usize {
        self.width.min(self.columns - panel * self.width)
    }

    /// Where a panel begins.
    pub(super) fn start(self, panel: usize) -> usize {
        panel * self.width * DEPTH
    }

    /// Values of a panel's row.
    pub(super) fn row(self, panel: usize) -> usize {
        self.columns_of(panel).next_multiple_of(LANES)
    }
}

/// Packs a part of a block of B that lies in columns: some of its panels, whole.
pub(super) fn pack_panels(
    isa: Isa,
    b: &Operand<'_>,
    panels: Panels,
    part: Range<usize>,
    depth: Range<usize>,
    scratch: &mut [f32],
    out: &SharedOut<'_>,
) {
    for panel in part {
        let (start, row) = (panels.start(panel), panels.row(panel));
        // SAFETY: each panel is one thread's.
        let out = unsafe { out.part(start..start + row * depth.len()) };
        let first = panels.first + panel * panels.width;
        let end = first + panels.columns_of(panel);
        for lane in (0..row).step_by(LANES) {
            let lines = read(b, first + lane..end.min(first + lane + LINES), depth.clone(), scratch);
            transpose(isa, &lines, depth.len(), &mut out[lane..], row);
        }
    }
}

/// Packs a part of a block of B that lies in rows: steps `part` of `depth`, in all panels.
pub(super) fn pack_steps(
    b: &Operand<'_>,
    panels: Panels,
    part: Range<usize>,
    depth: Range<usize>,
    scratch: &mut [f32],
    out: &SharedOut<'_>,
) {
    for step in part {
        let line = b.line(depth.start + step, panels.first..panels.first + panels.columns, scratch);
        for (panel, values) in line.chunks(panels.width).enumerate() {
            let (start, row) = (panels.start(panel), panels.row(panel));
            // SAFETY: each step is one thread's.
            let out = unsafe { out.part(start + step * row..start + (step + 1) * row) };
            out[..values.len()].copy_from_slice(values);
            out[values.len()..].fill(0.0);
        }
    }
}
