//! The loops around a tile: which part of the product is packed and multiplied when, and by which thread.

use std::ops::Range;

use super::operand::Operand;
use super::pack::{self, Panels, SCRATCH};
use super::tile::{self, Job, Kernel, Shape};
use super::{ALONE, DEPTH, ROWS, WIDTH, Workspace, bf16};
use crate::isa::Isa;
use crate::pool::{Pool, SharedOut, part};

/// What packed values are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Values {
    /// f32.
    Single,
    /// f32, rounded to bf16.
    Rounded,
    /// Two bf16 in the place of each second f32.
    Pairs,
}

/// The kernels in use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    pub isa: Isa,
    pub values: Values,
    pub shape: Shape,
}

/// A packed part of B, and what its product with A is.
#[derive(Clone, Copy)]
struct Part<'w> {
    panels: Panels,
    /// Steps of the depth: from here, and how many.
    start: usize,
    steps: usize,
    packed: &'w [f32],
    /// Whether the first block is added to what is there.
    add: bool,
    out_stride: usize,
}

impl Part<'_> {
    /// The depth of a block.
    fn depth(&self, block: usize) -> Range<usize> {
        let start = self.start + block * DEPTH;
        start..(start + DEPTH).min(self.start + self.steps)
    }
}

impl Path {
    /// See [`super::gemm`].
    pub(super) fn multiply(
        self,
        pool: &Pool,
        (m, n, k): (usize, usize, usize),
        a: Operand<'_>,
        b: Operand<'_>,
        accumulate: bool,
        out: &mut [f32],
        out_stride: usize,
        workspace: &mut Workspace,
    ) {
        if m == 0 || n == 0 {
            return;
        }
        let needed = (m - 1).checked_mul(out_stride).and_then(|start| start.checked_add(n));
        assert!(m == 1 || out_stride >= n, "out: a stride of {out_stride} for {n} values");
        assert!(
            needed.is_some_and(|needed| needed <= out.len()),
            "out: {m} x {n} values with stride {out_stride} in a slice of {}",
            out.len()
        );
        if k == 0 {
            if !accumulate {
                out.chunks_mut(out_stride.max(n)).take(m).for_each(|row| row[..n].fill(0.0));
            }
            return;
        }
        a.check("A", m, k);
        b.check("B", k, n);

        let small = m.saturating_mul(n).saturating_mul(k) < ALONE;
        let pool = if small { Pool::single() } else { pool };
        let threads = pool.threads();
        // As much of the depth at once as the narrower matrix leaves room for.
        let columns = n.min(WIDTH).next_multiple_of(self.shape.columns());
        let steps = ((ROOM / columns / DEPTH).max(1) * DEPTH).min(k.next_multiple_of(DEPTH));
        let rows = ROWS.min(m.next_multiple_of(self.shape.rows));
        let (b_room, a_room) = (columns * steps, rows * DEPTH);
        let (b_packed, own) = workspace.room(b_room + threads * (a_room + SCRATCH)).split_at_mut(b_room);
        let own = SharedOut::new(own);
        let out = SharedOut::new(out);
        // A thread's own room: for a block of A, and for what is decoded.
        // SAFETY: each thread has its part, and none is asked for twice in one piece of work.
        let room = |thread: usize| unsafe {
            let start = thread * (a_room + SCRATCH);
            (own.part(start..start + a_room), own.part(start + a_room..start + a_room + SCRATCH))
        };

        for first in (0..n).step_by(WIDTH) {
            let panels = Panels { first, columns: WIDTH.min(n - first), width: self.shape.columns() };
            // Rows are shared out, or columns where that comes out more even.
            let share = |items: usize| items.div_ceil(threads) as f64 / items as f64;
            let by_rows = share(m.div_ceil(self.shape.rows)) <= share(panels.count());
            for start in (0..k).step_by(steps) {
                let steps = steps.min(k - start);
                self.pack_b(pool, &b, panels, start..start + steps, b_packed, |thread| room(thread).1);
                let add = accumulate || start > 0;
                let whole = Part { panels, start, steps, packed: b_packed, add, out_stride };
                pool.run(&|thread| {
                    let (rows, panels) = if by_rows {
                        (part(m, self.shape.rows, thread, threads), 0..panels.count())
                    } else {
                        (0..m, part(panels.count(), 1, thread, threads))
                    };
                    let (packed_a, scratch) = room(thread);
                    self.multiply_part(&a, whole, rows, panels, packed_a, scratch, &out);
                });
            }
        }
    }

    /// Packs a part of B, on all threads.
    fn pack_b<'w>(
        self,
        pool: &Pool,
        b: &Operand<'_>,
        panels: Panels,
        depth: Range<usize>,
        packed: &mut [f32],
        scratch: impl Fn(usize) -> &'w mut [f32] + Sync,
    ) {
        let packed = SharedOut::new(packed);
        let threads = pool.threads();
        let blocks = depth.len().div_ceil(DEPTH);
        pool.run(&|thread| {
            if b.by_rows() {
                let steps = part(depth.len(), pack::LINES, thread, threads);
                pack::pack_steps(b, panels, steps, depth.clone(), scratch(thread), &packed);
            } else {
                let own = part(panels.count() * blocks, 1, thread, threads);
                pack::pack_panels(self.isa, b, panels, own, depth.clone(), scratch(thread), &packed);
            }
        });
        if self.values == Values::Single {
            return;
        }
        pool.split(panels.count() * blocks, 1, |own| {
            for item in own {
                let (block, panel) = (item / panels.count(), item % panels.count());
                let steps = DEPTH.min(depth.len() - block * DEPTH);
                let (start, row) = (panels.start(block, steps, panel), panels.row(panel));
                // SAFETY: each panel is one thread's.
                let panel = unsafe { packed.part(start..start + row * steps) };
                match self.values {
                    Values::Pairs => bf16::pair(panel, steps, row),
                    _ => bf16::round(panel),
                }
            }
        });
    }

    /// Multiplies a thread's rows with its panels.
    fn multiply_part(
        self,
        a: &Operand<'_>,
        part: Part<'_>,
        rows: Range<usize>,
        panels: Range<usize>,
        packed_a: &mut [f32],
        scratch: &mut [f32],
        out: &SharedOut<'_>,
    ) {
        if rows.is_empty() || panels.is_empty() {
            return;
        }
        let blocks = part.steps.div_ceil(DEPTH);
        // Rows whose sums stay in the second-level cache from one block to the next, or whose values, if they are packed.
        let most = match blocks {
            1 if self.in_place(a) => rows.len(),
            1 => ROWS,
            _ => (OUT / (panels.len() * part.panels.width)).clamp(4 * self.shape.rows, ROWS),
        };
        // Of about the same height, whole tiles each.
        let height = rows.len().div_ceil(rows.len().div_ceil(most)).next_multiple_of(self.shape.rows);
        for first in rows.clone().step_by(height) {
            let rows = first..rows.end.min(first + height);
            for block in 0..blocks {
                self.multiply_block(a, part, block, rows.clone(), panels.clone(), packed_a, scratch, out);
            }
        }
    }

    /// Multiplies a block of A with panels of a block of B.
    fn multiply_block(
        self,
        a: &Operand<'_>,
        part: Part<'_>,
        block: usize,
        rows: Range<usize>,
        panels: Range<usize>,
        packed_a: &mut [f32],
        scratch: &mut [f32],
        out: &SharedOut<'_>,
    ) {
        let depth = part.depth(block);
        let in_place = self.in_place(a);
        if !in_place {
            let packed_a = &mut packed_a[..rows.len() * DEPTH];
            pack::pack_a(self.isa, a, rows.clone(), depth.clone(), scratch, packed_a);
            for row in packed_a.chunks_exact_mut(DEPTH) {
                match self.values {
                    Values::Single => break,
                    Values::Rounded => bf16::round(&mut row[..depth.len()]),
                    Values::Pairs => bf16::pair(row, depth.len(), 1),
                }
            }
        }
        // As many panels at a time as stay in the cache, shared out evenly.
        let most = (self.shape.chunk / (part.panels.width * depth.len())).max(1);
        let chunk = panels.len().div_ceil(panels.len().div_ceil(most));
        for start in panels.clone().step_by(chunk) {
            let chunk = start..panels.end.min(start + chunk);
            for first in rows.clone().step_by(self.shape.rows) {
                let tile = first..rows.end.min(first + self.shape.rows);
                let (values, stride) = match in_place {
                    true => a.in_place(tile.clone(), depth.clone()).expect("f32 in memory"),
                    false => (&packed_a[(first - rows.start) * DEPTH..][..tile.len() * DEPTH], DEPTH),
                };
                let wide = chunk.end.min(part.panels.wide()).max(chunk.start);
                if chunk.start < wide {
                    self.multiply_tiles(part, block, tile.clone(), values, stride, chunk.start..wide, out);
                }
                for panel in wide..chunk.end {
                    self.multiply_tiles(part, block, tile.clone(), values, stride, panel..panel + 1, out);
                }
            }
        }
    }

    /// Multiplies the rows of a tile, `a_stride` values apart, with panels that are whole, or with one.
    fn multiply_tiles(
        self,
        part: Part<'_>,
        block: usize,
        rows: Range<usize>,
        a: &[f32],
        a_stride: usize,
        panels: Range<usize>,
        out: &SharedOut<'_>,
    ) {
        let steps = part.depth(block).len();
        let depth = if self.values == Values::Pairs { steps.div_ceil(2) } else { steps };
        let (count, first) = (panels.len(), panels.start);
        let [start, last] = [first, panels.end - 1].map(|panel| part.panels.start(block, steps, panel));
        let row = part.panels.row(first);
        let b = &part.packed[start..last + row * depth];
        let at = rows.start * part.out_stride + part.panels.first + part.panels.column(first);
        let width = part.panels.column(panels.end) - part.panels.column(first);
        let job = Job {
            depth,
            a: a[..(rows.len() - 1) * a_stride + depth].as_ptr(),
            a_stride,
            b: b.as_ptr(),
            b_stride: part.panels.width * steps,
            panels: count,
            out: out.tile(at, rows.len(), width, part.out_stride),
            stride: part.out_stride,
            columns: width / count,
            add: part.add || block > 0,
        };
        // SAFETY: the path is available; the slices hold what the job says, the tiles lie in the output, and rows
        // and panels are this thread's alone.
        unsafe { self.kernel(rows.len(), row / tile::LANES)(job) };
    }

    /// Whether tiles read A where it lies.
    fn in_place(self, a: &Operand<'_>) -> bool {
        matches!(a, Operand::Rows { .. }) && self.values == Values::Single
    }

    fn kernel(self, rows: usize, vectors: usize) -> Kernel {
        #[cfg(target_arch = "x86_64")]
        if self.values == Values::Pairs {
            return super::pairs::kernel(rows, vectors);
        }
        tile::kernel(self.isa, rows, vectors)
    }
}

/// Values of the output that stay in the second-level cache beside blocks of both factors.
const OUT: usize = 1 << 18;

/// Values of B that are packed at once, if a block of the depth is not more.
const ROOM: usize = 1 << 18;
