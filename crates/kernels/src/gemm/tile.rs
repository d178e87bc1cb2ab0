//! The innermost loop: a tile of the output held in registers over a block of the depth.
//!
//! A tile of `R` rows and `V` vectors of sixteen columns reads one vector row of a panel of B, and from each of `R` rows of
//! A one value that it multiplies with all of it. Every element is summed in the order of the depth by fused
//! multiply-adds, from zero; what came before is added at the end. So a sum depends neither on the tile's shape nor on
//! the instruction set, as long as that fuses.

use crate::isa::Isa;
use crate::packed::simd::{Scalar, Simd};

/// Lanes of a vector, whatever registers make it up.
pub(super) const LANES: usize = 16;

/// Steps ahead of the one being read for which B is asked for.
const AHEAD: usize = 8;

/// What is multiplied into which tile.
#[derive(Clone, Copy)]
pub(super) struct Job {
    /// Steps of the depth: values, or pairs of bf16.
    pub depth: usize,
    /// Rows of A.
    pub a: *const f32,
    /// Steps between rows of A.
    pub a_stride: usize,
    /// Panels of B: a row of all its vectors for each step.
    pub b: *const f32,
    /// Values from one panel to the next.
    pub b_stride: usize,
    /// Panels, whose tiles lie side by side.
    pub panels: usize,
    /// The first element of the first tile.
    pub out: *mut f32,
    /// Values between rows of the output.
    pub stride: usize,
    /// Columns of a tile that there are: all, if there are several panels.
    pub columns: usize,
    /// Whether the sums are added to what is there.
    pub add: bool,
}

/// A kernel for a number of rows and vectors.
///
/// # Safety
/// The processor has its instructions; `a`, `b` and `out` are readable, and `out` writable, as [`Job`] describes them.
pub(super) type Kernel = unsafe fn(Job);

/// The largest tile of a path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub rows: usize,
    pub vectors: usize,
    /// Values of the panels that pass by before the next rows of A are taken, at most: they stay in the second-level
    /// cache.
    pub chunk: usize,
}

impl Shape {
    /// Columns of a panel.
    pub(super) fn columns(self) -> usize {
        self.vectors * LANES
    }
}

/// Sums a tile. See the module.
///
/// # Safety
/// As [`Kernel`].
#[inline(always)]
unsafe fn tile<S: Simd, const R: usize, const V: usize>(job: Job) {
    let Job { depth, a, a_stride, b, b_stride, panels, out, stride, columns, add } = job;
    // SAFETY: rows of A hold `depth` values each; a panel holds `depth` rows of `V` vectors; the output has `R` rows of
    // `columns` values for each panel.
    unsafe {
        let rows: [*const f32; R] = std::array::from_fn(|row| apart(a.wrapping_add(row * a_stride)));
        for panel in 0..panels {
            let (b, out) = (b.add(panel * b_stride), out.add(panel * V * LANES));
            for row in 0..R {
                for vector in 0..V {
                    fetch(out.wrapping_add(row * stride + vector * LANES));
                }
            }
            let mut sums = [[S::splat(0.0); V]; R];
            for step in 0..depth {
                let at = b.add(step * V * LANES);
                for vector in 0..V {
                    fetch(at.wrapping_add((AHEAD * V + vector) * LANES));
                }
                let vectors: [S::Floats; V] =
                    std::array::from_fn(|vector| S::floats(at.add(vector * LANES).cast()));
                for row in 0..R {
                    let value = S::splat(*rows[row].add(step));
                    for vector in 0..V {
                        sums[row][vector] = S::multiply_add(vectors[vector], value, sums[row][vector]);
                    }
                }
            }
            put::<S, R, V>(sums, out, stride, columns, add);
        }
    }
}

/// Writes a tile's sums, or adds them.
///
/// # Safety
/// As [`Kernel`].
#[inline(always)]
pub(super) unsafe fn put<S: Simd, const R: usize, const V: usize>(
    sums: [[S::Floats; V]; R],
    out: *mut f32,
    stride: usize,
    columns: usize,
    add: bool,
) {
    // SAFETY: the output has `R` rows of `columns` values.
    unsafe {
        if columns == V * LANES {
            let one = S::splat(1.0);
            for row in 0..R {
                for vector in 0..V {
                    let to = out.add(row * stride + vector * LANES);
                    let mut sum = sums[row][vector];
                    if add {
                        sum = S::multiply_add(sum, one, S::floats(to.cast_const().cast()));
                    }
                    S::store(sum, to);
                }
            }
            return;
        }
        for row in 0..R {
            let mut values = [[0.0f32; LANES]; V];
            for vector in 0..V {
                S::store(sums[row][vector], values[vector].as_mut_ptr());
            }
            let to = std::slice::from_raw_parts_mut(out.add(row * stride), columns);
            for (to, sum) in to.iter_mut().zip(values.as_flattened()) {
                *to = if add { *sum + *to } else { *sum };
            }
        }
    }
}

/// Asks for the cache line at a place that is written soon.
#[inline(always)]
fn fetch(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint; it neither faults nor counts as an access.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// The same pointer, of which the compiler does not know how far it is from others: a register for each row is one
/// index for all, where sums of distances take the ports that multiply (measured: 155 and 161 GFLOP/s).
#[inline(always)]
#[expect(clippy::pointers_in_nomem_asm_block, reason = "the block is empty and follows no pointer")]
fn apart(mut at: *const f32) -> *const f32 {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    // SAFETY: no instruction.
    unsafe {
        std::arch::asm!("/* {0} */", inout(reg) at, options(pure, nomem, nostack, preserves_flags));
    }
    at
}

/// The largest tile of a path: as many sums as its registers hold beside a row of B and a value of A.
pub(super) fn shape(isa: Isa) -> Shape {
    match isa.vectors() {
        Isa::Avx512 => Shape { rows: 8, vectors: 3, chunk: 3 << 16 },
        Isa::Avx2 | Isa::Neon | Isa::NeonDot => Shape { rows: 6, vectors: 1, chunk: 3 << 14 },
        _ => Shape { rows: 3, vectors: 1, chunk: 3 << 14 },
    }
}

/// The kernel for tiles of up to [`shape`]'s rows and vectors, at least one of each.
pub(super) fn kernel(isa: Isa, rows: usize, vectors: usize) -> Kernel {
    match isa.vectors() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => x86::AVX512[vectors - 1][rows - 1],
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => x86::AVX2[vectors - 1][rows - 1],
        #[cfg(target_arch = "aarch64")]
        Isa::Neon | Isa::NeonDot => aarch64::NEON[vectors - 1][rows - 1],
        _ => PLAIN[vectors - 1][rows - 1],
    }
}

/// The kernels of a path for one number of vectors, by rows.
macro_rules! by_rows {
    ($kernel:ident, $vectors:literal: $($rows:literal)*) => { [$($kernel::<$rows, $vectors>),*] };
}
#[cfg(target_arch = "x86_64")]
pub(super) use by_rows;

unsafe fn plain<const R: usize, const V: usize>(job: Job) {
    // SAFETY: the same contract; plain code needs no instructions.
    unsafe { tile::<Scalar, R, V>(job) }
}

static PLAIN: [[Kernel; 3]; 1] = [by_rows!(plain, 1: 1 2 3)];

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;
    use crate::packed::simd::{Avx2, Avx512};

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    unsafe fn avx512<const R: usize, const V: usize>(job: Job) {
        // SAFETY: the same contract.
        unsafe { tile::<Avx512, R, V>(job) }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn avx2<const R: usize, const V: usize>(job: Job) {
        // SAFETY: the same contract.
        unsafe { tile::<Avx2, R, V>(job) }
    }

    pub(super) static AVX512: [[Kernel; 8]; 3] = [
        by_rows!(avx512, 1: 1 2 3 4 5 6 7 8),
        by_rows!(avx512, 2: 1 2 3 4 5 6 7 8),
        by_rows!(avx512, 3: 1 2 3 4 5 6 7 8),
    ];
    pub(super) static AVX2: [[Kernel; 6]; 1] = [by_rows!(avx2, 1: 1 2 3 4 5 6)];
}

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use super::*;
    use crate::packed::simd::Neon;

    #[target_feature(enable = "neon")]
    unsafe fn neon<const R: usize, const V: usize>(job: Job) {
        // SAFETY: the same contract.
        unsafe { tile::<Neon<false>, R, V>(job) }
    }

    pub(super) static NEON: [[Kernel; 6]; 1] = [by_rows!(neon, 1: 1 2 3 4 5 6)];
}
