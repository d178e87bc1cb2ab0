//! Products of matrices in f32 (and bf16) with any operands: what training needs, forward and backward.
//!
//! Both factors are packed block by block into the order in which a register tile reads them ([`pack`], [`tile`]):
//! a block of B is [`DEPTH`] steps deep and up to [`WIDTH`] columns wide, and all threads share it; a block of A is some
//! hundred rows of it, a thread's own, that stay in the second-level cache. Stored weights are decoded while they are
//! packed, so that a quantized weight is multiplied, either way round, without a dense copy of the whole.
//!
//! An element's sum is that of its blocks of [`DEPTH`] steps in rising order, each summed in rising order from zero.
//! Neither threads, nor the place in the matrix, nor the number of rows that are multiplied at once change it; nor does
//! the instruction set in f32, except the plain path, which does not fuse.
//!
//! There is no tile for AMX: `bf16` products on it would be five to seven times as fast.

mod bf16;
mod operand;
mod pack;
#[cfg(target_arch = "x86_64")]
mod pairs;
mod tile;
mod transpose;

use std::ops::Range;

use crate::isa::{self, Isa};
use crate::packed::buffer::Buffer;
use crate::pool::{Pool, SharedOut, part};

pub use operand::Operand;
use pack::{Panels, SCRATCH};
use tile::{Job, Kernel, Shape};

/// Steps of the depth in a block: a tile's panels stay in the first-level cache over them.
const DEPTH: usize = 256;

/// Columns of B in a block: whole panels of every path, and whole blocks of every stored format.
const WIDTH: usize = 3072;

/// Rows of A in a block, at most: with [`DEPTH`] steps a part of the second-level cache.
const ROWS: usize = 252;

/// Products (`m · n · k`) below which other threads are not woken.
const ALONE: usize = 1 << 18;

/// How products are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Compute {
    /// In f32.
    #[default]
    F32,
    /// Operands rounded to bf16 while packing, sums in f32.
    Bf16,
}

/// Packing buffers that are used again: they grow to what is needed and are kept.
#[derive(Default)]
pub struct Workspace {
    buffer: Option<Buffer>,
}

impl Workspace {
    /// Room for `values` values, of any content.
    fn room(&mut self, values: usize) -> &mut [f32] {
        let bytes = values * size_of::<f32>();
        let buffer = match self.buffer.take() {
            Some(buffer) if buffer.as_slice().len() >= bytes => buffer,
            _ => Buffer::zeroed(bytes).expect("memory for the packed blocks of a product"),
        };
        bytemuck::cast_slice_mut(&mut self.buffer.insert(buffer).as_mut_slice()[..bytes])
    }

    /// Bytes that are held.
    pub fn bytes(&self) -> usize {
        self.buffer.as_ref().map_or(0, |buffer| buffer.as_slice().len())
    }
}

/// `out[m, n] = (accumulate ? out : 0) + A[m, k] · B[k, n]`, with `out_stride` values between rows of `out`.
///
/// # Panics
/// If an operand or `out` is too small for its shape, or holds no weights.
pub fn gemm(
    pool: &Pool,
    compute: Compute,
    (m, n, k): (usize, usize, usize),
    a: Operand<'_>,
    b: Operand<'_>,
    accumulate: bool,
    out: &mut [f32],
    out_stride: usize,
    workspace: &mut Workspace,
) {
    let isa = Isa::current();
    gemm_with(isa, pool, compute, (m, n, k), a, b, accumulate, out, out_stride, workspace);
}

/// As [`gemm`], on a given path; for tests and benchmarks.
///
/// # Panics
/// As [`gemm`], and if this processor does not have the path.
pub fn gemm_with(
    isa: Isa,
    pool: &Pool,
    compute: Compute,
    (m, n, k): (usize, usize, usize),
    a: Operand<'_>,
    b: Operand<'_>,
    accumulate: bool,
    out: &mut [f32],
    out_stride: usize,
    workspace: &mut Workspace,
) {
    assert!(isa.is_available(), "the processor has the path");
    let values = match compute {
        Compute::F32 => Values::Single,
        Compute::Bf16 if isa.vectors() == Isa::Avx512 && isa::bf16_pays() => Values::Pairs,
        Compute::Bf16 => Values::Rounded,
    };
    let path = Path { isa, values, shape: tile::shape(isa) };
    path.multiply(pool, (m, n, k), a, b, accumulate, out, out_stride, workspace);
}

/// What packed values are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Values {
    /// f32.
    Single,
    /// f32, rounded to bf16.
    Rounded,
    /// Two bf16 in the place of each second f32.
    Pairs,
}

/// The kernels in use.
#[derive(Clone, Copy, Debug)]
struct Path {
    isa: Isa,
    values: Values,
    shape: Shape,
}

/// A block of the product: a packed block of B, and what goes with it.
#[derive(Clone, Copy)]
struct Block<'w> {
    panels: Panels,
    depth: (usize, usize),
    packed: &'w [f32],
    add: bool,
    out_stride: usize,
}

impl Path {
    fn multiply(
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
        let a_room = ROWS.min(m) * DEPTH;
        let b_room = n.min(WIDTH).next_multiple_of(self.shape.columns()) * DEPTH;
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
            for start in (0..k).step_by(DEPTH) {
                let depth = (start, k.min(start + DEPTH));
                self.pack_b(pool, &b, panels, depth.0..depth.1, b_packed, |thread| room(thread).1);
                let add = accumulate || start > 0;
                let block = Block { panels, depth, packed: b_packed, add, out_stride };
                // Rows are shared out, or columns where that comes out more even.
                let share = |items: usize| items.div_ceil(threads) as f64 / items as f64;
                let by_rows = share(m.div_ceil(self.shape.rows)) <= share(panels.count());
                pool.run(&|thread| {
                    let (rows, panels) = if by_rows {
                        (part(m, self.shape.rows, thread, threads), 0..panels.count())
                    } else {
                        (0..m, part(panels.count(), 1, thread, threads))
                    };
                    let (packed_a, scratch) = room(thread);
                    self.multiply_block(&a, block, rows, panels, packed_a, scratch, &out);
                });
            }
        }
    }

    /// Packs a block of B, on all threads.
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
        pool.run(&|thread| {
            if b.by_rows() {
                let steps = part(depth.len(), 1, thread, threads);
                pack::pack_steps(b, panels, steps, depth.clone(), scratch(thread), &packed);
            } else {
                let own = part(panels.count(), 1, thread, threads);
                pack::pack_panels(self.isa, b, panels, own, depth.clone(), scratch(thread), &packed);
            }
        });
        if self.values == Values::Single {
            return;
        }
        pool.split(panels.count(), 1, |own| {
            for panel in own {
                let (start, row) = (panels.start(panel), panels.row(panel));
                // SAFETY: each panel is one thread's.
                let panel = unsafe { packed.part(start..start + row * depth.len()) };
                match self.values {
                    Values::Pairs => bf16::pair(panel, depth.len(), row),
                    _ => bf16::round(panel),
                }
            }
        });
    }

    /// Multiplies a thread's rows with its panels.
    fn multiply_block(
        self,
        a: &Operand<'_>,
        block: Block<'_>,
        rows: Range<usize>,
        panels: Range<usize>,
        packed_a: &mut [f32],
        scratch: &mut [f32],
        out: &SharedOut<'_>,
    ) {
        if rows.is_empty() || panels.is_empty() {
            return;
        }
        let depth = block.depth.0..block.depth.1;
        // Blocks of about the same height, whole tiles each.
        let height = rows.len().div_ceil(rows.len().div_ceil(ROWS)).next_multiple_of(self.shape.rows);
        for first in rows.clone().step_by(height) {
            let rows = first..rows.end.min(first + height);
            let packed_a = &mut packed_a[..rows.len() * DEPTH];
            pack::pack_a(self.isa, a, rows.clone(), depth.clone(), scratch, packed_a);
            for row in packed_a.chunks_exact_mut(DEPTH) {
                match self.values {
                    Values::Single => break,
                    Values::Rounded => bf16::round(&mut row[..depth.len()]),
                    Values::Pairs => bf16::pair(row, depth.len(), 1),
                }
            }
            for start in panels.clone().step_by(self.shape.panels) {
                let chunk = start..panels.end.min(start + self.shape.panels);
                for first in rows.clone().step_by(self.shape.rows) {
                    let count = self.shape.rows.min(rows.end - first);
                    let a = &packed_a[(first - rows.start) * DEPTH..][..count * DEPTH];
                    for panel in chunk.clone() {
                        self.multiply_tile(block, first, a, panel, out);
                    }
                }
            }
        }
    }

    /// Multiplies the packed rows of a tile with a panel.
    fn multiply_tile(self, block: Block<'_>, first: usize, a: &[f32], panel: usize, out: &SharedOut<'_>) {
        let steps = block.depth.1 - block.depth.0;
        let depth = if self.values == Values::Pairs { steps.div_ceil(2) } else { steps };
        let (panels, start) = (block.panels, block.panels.start(panel));
        let (row, columns) = (panels.row(panel), panels.columns_of(panel));
        let b = &block.packed[start..start + row * depth];
        let rows = a.len() / DEPTH;
        let at = first * block.out_stride + panels.first + panel * panels.width;
        let job = Job {
            depth,
            a: a.as_ptr(),
            b: b.as_ptr(),
            out: out.tile(at, rows, columns, block.out_stride),
            stride: block.out_stride,
            columns,
            add: block.add,
        };
        // SAFETY: the path is available; the slices hold what the job says, the tile lies in the output, and rows
        // and panels are this thread's alone.
        unsafe { self.kernel(rows, row / tile::LANES)(job) };
    }

    fn kernel(self, rows: usize, vectors: usize) -> Kernel {
        #[cfg(target_arch = "x86_64")]
        if self.values == Values::Pairs {
            return pairs::kernel(rows, vectors);
        }
        tile::kernel(self.isa, rows, vectors)
    }
}

#[cfg(test)]
mod tests;
