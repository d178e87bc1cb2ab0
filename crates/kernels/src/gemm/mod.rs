//! Products of matrices in f32 (and bf16) with any operands: what training needs, forward and backward.
//!
//! Both factors are packed block by block into the order in which a register tile reads them (`pack`, `tile`):
//! a block of B is `DEPTH` steps deep and up to `WIDTH` columns wide, and all threads share it; a block of A is some
//! hundred rows of it, a thread's own, that stay in the second-level cache. Stored weights are decoded while they are
//! packed, so that a quantized weight is multiplied, either way round, without a dense copy of the whole.
//!
//! An element's sum is that of its blocks of `DEPTH` steps in rising order, each summed in rising order from zero.
//! Neither threads, nor the place in the matrix, nor the number of rows that are multiplied at once change it; nor does
//! the instruction set in f32, except the plain path, which does not fuse.
//!
//! There is no tile for AMX: `bf16` products on it would be five to seven times as fast.

mod bf16;
mod blocks;
mod operand;
mod pack;
#[cfg(target_arch = "x86_64")]
mod pairs;
mod tile;
mod transpose;

use crate::isa::{self, Isa};
use crate::packed::buffer::Buffer;
use crate::pool::Pool;

use blocks::{Path, Values};
pub use operand::Operand;

/// Steps of the depth in a block: a tile's panels stay in the first-level cache over them.
const DEPTH: usize = 512;

/// Columns of B that are packed at once, at most: whole panels of every path, and whole blocks of every stored format.
/// Of narrower matrices more of the depth is packed at once.
const WIDTH: usize = 3072;

/// Rows of A in a block, at most: with [`DEPTH`] steps a part of the second-level cache.
const ROWS: usize = 264;

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

#[cfg(test)]
mod tests;
