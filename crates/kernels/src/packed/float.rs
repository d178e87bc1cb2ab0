//! F32, F16 and BF16 weights.
//!
//! A panel of F32 or F16 holds the columns one after another, sixteen rows each; activations are f32. A panel of BF16
//! holds two columns at a time, `row 0: two values, row 1: two values …`; activations are bf16, products are exact,
//! sums are f32; the number of columns is even.

use super::dispatch::{self, Kernel, Product, Tile};
use super::simd::Simd;
use super::sparse::Fused;
use super::{Form, Layout, PANEL};
use crate::isa::Isa;

pub(super) static F32: Layout = Layout {
    block: 1,
    bytes: PANEL * 4,
    form: Form::F32,
    pack: pack::<4>,
    kernel: dispatch::kernel::<Columns<4>>,
    tiles: None,
};
pub(super) static F16: Layout = Layout {
    block: 1,
    bytes: PANEL * 2,
    form: Form::F32,
    pack: pack::<2>,
    kernel: dispatch::kernel::<Columns<2>>,
    tiles: None,
};
pub(super) static BF16: Layout = Layout {
    block: 2,
    bytes: PANEL * 4,
    form: Form::Bf16,
    pack: pack::<4>,
    kernel: kernel_bf16,
    #[cfg(target_arch = "x86_64")]
    tiles: Some(super::tiles::BF16),
    #[cfg(not(target_arch = "x86_64"))]
    tiles: None,
};

/// `SIZE` bytes of a row (one f32, one f16, or two bf16) after as many of the next.
fn pack<const SIZE: usize>(rows: &[u8], row_bytes: usize, out: &mut [u8]) {
    for (row, stored) in rows.chunks_exact(row_bytes).enumerate() {
        for (index, value) in stored.as_chunks::<SIZE>().0.iter().enumerate() {
            out[(index * PANEL + row) * SIZE..][..SIZE].copy_from_slice(value);
        }
    }
}

/// Products of columns of `SIZE` bytes a value: 4 for f32, 2 for f16.
struct Columns<const SIZE: usize>;

impl<const SIZE: usize> Product for Columns<SIZE> {
    const TAKEN_APART: bool = false;

    #[inline(always)]
    unsafe fn sums<S: Simd, const T: usize>(panel: &[u8], tile: Tile<'_>, sums: &mut [[f32; PANEL]]) {
        let x = tile.x.floats_at(tile.first());
        // SAFETY: a panel holds sixteen values for each of the token's columns.
        unsafe {
            let mut total = [S::splat(0.0); T];
            for column in 0..tile.x.columns() {
                let at = panel.as_ptr().add(column * PANEL * SIZE);
                S::prefetch(at);
                let weights = if SIZE == 4 { S::floats(at) } else { S::halves(at) };
                let values = x.values.add(column * x.width);
                for (t, total) in total.iter_mut().enumerate() {
                    *total = S::multiply_add(weights, S::splat(*values.add(t)), *total);
                }
            }
            for t in 0..T {
                S::store(total[t], sums[t].as_mut_ptr());
            }
        }
    }
}

/// Products of pairs of bf16 columns, widened to f32.
struct Pairs;

impl Product for Pairs {
    const TAKEN_APART: bool = false;

    #[inline(always)]
    unsafe fn sums<S: Simd, const T: usize>(panel: &[u8], tile: Tile<'_>, sums: &mut [[f32; PANEL]]) {
        let x = tile.x.floats_at(tile.first());
        // SAFETY: a panel holds sixteen pairs for each pair of the token's columns.
        unsafe {
            let mut total = [S::splat(0.0); T];
            for pair in 0..tile.x.columns() / 2 {
                let at = panel.as_ptr().add(pair * PANEL * 4);
                S::prefetch(at);
                let (first, second) = S::bf16_pairs(at);
                let values = x.values.add(pair * 2 * x.width);
                for (t, total) in total.iter_mut().enumerate() {
                    *total = S::multiply_add(second, S::splat(*values.add(x.width + t)), *total);
                    *total = S::multiply_add(first, S::splat(*values.add(t)), *total);
                }
            }
            for t in 0..T {
                S::store(total[t], sums[t].as_mut_ptr());
            }
        }
    }
}

fn kernel_bf16(isa: Isa) -> Kernel {
    match isa.vectors() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if crate::isa::bf16_pays() => native::kernel,
        _ => dispatch::kernel::<Pairs>(isa),
    }
}

/// The kernel of a path for panels of BF16 without their zeros.
pub(super) fn fused(isa: Isa) -> Option<Fused> {
    match isa.vectors() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if crate::isa::bf16_pays() && super::sparse::expands_fast() => {
            Some(Fused { one: native::fused, pair: native::fused_pair })
        }
        _ => None,
    }
}

/// The instruction for pairs of bf16.
#[cfg(target_arch = "x86_64")]
mod native {
    use std::arch::x86_64::*;

    use super::super::sparse::x86::halves;
    use super::super::{Activations, PANEL, TILE};

    pub(super) fn fused(
        panel: &[u8],
        x: &Activations,
        first: usize,
        tokens: usize,
        sums: &mut [[f32; PANEL]],
    ) {
        let last = first + tokens - 1;
        // SAFETY: `bf16_pays` and `expands_fast` were asked; the panel is one without its zeros, as `PackedMatrix` made it.
        unsafe {
            match tokens {
                1 => fused_sums_of::<1>(panel, x, first, last, sums),
                2 => fused_sums_of::<2>(panel, x, first, last, sums),
                3 | 4 => fused_sums_of::<4>(panel, x, first, last, sums),
                _ => fused_sums_of::<TILE>(panel, x, first, last, sums),
            }
        }
    }

    pub(super) fn fused_pair(panels: [&[u8]; 2], x: &Activations, sums: &mut [[f32; PANEL]]) {
        // SAFETY: as in `fused`.
        unsafe { fused_sums_of_pair(panels, x, sums) }
    }

    /// The product of a line of weights with two columns of a token.
    ///
    /// # Safety
    /// The processor has the instructions; the pair of columns can be read.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
    unsafe fn add(total: __m512, weights: __m512i, two: *const i32) -> __m512 {
        // SAFETY: the same contract; registers of integers and of bf16 are the same.
        unsafe {
            let two = std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(two.read_unaligned()));
            _mm512_dpbf16_ps(total, std::mem::transmute::<__m512i, __m512bh>(weights), two)
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi2,popcnt")]
    unsafe fn fused_sums_of<const T: usize>(
        panel: &[u8],
        x: &Activations,
        first: usize,
        last: usize,
        sums: &mut [[f32; PANEL]],
    ) {
        let values: [*const i32; T] =
            std::array::from_fn(|t| x.halves((first + t).min(last)).as_ptr().cast());
        let mut total = [_mm512_setzero_ps(); T];
        // SAFETY: a panel has a line for each pair of the token's columns.
        unsafe {
            halves([panel.as_ptr()], x.columns() / 2, |pair, [weights]| {
                for t in 0..T {
                    total[t] = add(total[t], weights, values[t].add(pair));
                }
            });
            for t in 0..T {
                _mm512_storeu_ps(sums[t].as_mut_ptr(), total[t]);
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vbmi2,popcnt")]
    unsafe fn fused_sums_of_pair(panels: [&[u8]; 2], x: &Activations, sums: &mut [[f32; PANEL]]) {
        let values = x.halves(0).as_ptr().cast::<i32>();
        let mut total = [_mm512_setzero_ps(); 2];
        // SAFETY: as in `fused_sums_of`, for each panel.
        unsafe {
            halves(panels.map(<[u8]>::as_ptr), x.columns() / 2, |pair, weights| {
                for (total, weights) in total.iter_mut().zip(weights) {
                    *total = add(*total, weights, values.add(pair));
                }
            });
            for (sums, total) in sums.iter_mut().zip(total) {
                _mm512_storeu_ps(sums.as_mut_ptr(), total);
            }
        }
    }

    pub(super) fn kernel(
        panel: &[u8],
        x: &Activations,
        first: usize,
        tokens: usize,
        sums: &mut [[f32; PANEL]],
    ) {
        let last = first + tokens - 1;
        let mut done = 0;
        while done < tokens {
            let (first, sums) = (first + done, &mut sums[done..]);
            // SAFETY: `bf16_pays` was asked; a panel holds `x.columns()` columns, as `PackedMatrix` made it; there are so
            // many tokens.
            unsafe {
                match tokens - done {
                    1 => sums_of::<1>(panel, x, first, last, sums),
                    2 => sums_of::<2>(panel, x, first, last, sums),
                    3 | 4 => sums_of::<4>(panel, x, first, last, sums),
                    5..WIDE => sums_of::<TILE>(panel, x, first, last, sums),
                    _ => {
                        sums_of_wide(panel, x, first, sums);
                        done += WIDE - TILE;
                    }
                }
            }
            done += TILE;
        }
    }

    /// Tokens whose sums fill half of the registers. A product waits six cycles for the one before it and two can begin in
    /// each, so that eight sums keep the processor busy two thirds of the time.
    const WIDE: usize = 2 * TILE;

    /// The sums of [`WIDE`] tokens, in fours at one distance from each other: sixteen pointers would leave no registers.
    ///
    /// # Safety
    /// As `sums_of`; so many tokens are there.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
    unsafe fn sums_of_wide(panel: &[u8], x: &Activations, first: usize, sums: &mut [[f32; PANEL]]) {
        let fours: [*const u8; WIDE / 4] =
            std::array::from_fn(|four| x.halves(first + 4 * four).as_ptr().cast());
        let stride = 2 * x.stride();
        // SAFETY: a panel holds sixteen pairs for each pair of the tokens' columns.
        unsafe {
            let mut total = [[_mm512_setzero_ps(); 4]; WIDE / 4];
            for pair in 0..x.columns() / 2 {
                let at = panel.as_ptr().add(pair * PANEL * 4);
                _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(2048).cast());
                let weights = _mm512_loadu_si512(at.cast());
                for (total, values) in total.iter_mut().zip(fours) {
                    for (token, total) in total.iter_mut().enumerate() {
                        *total = add(*total, weights, values.add(token * stride + pair * 4).cast());
                    }
                }
            }
            for (sums, total) in sums.iter_mut().zip(total.as_flattened()) {
                _mm512_storeu_ps(sums.as_mut_ptr(), *total);
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
    unsafe fn sums_of<const T: usize>(
        panel: &[u8],
        x: &Activations,
        first: usize,
        last: usize,
        sums: &mut [[f32; PANEL]],
    ) {
        let values: [*const i32; T] =
            std::array::from_fn(|t| x.halves((first + t).min(last)).as_ptr().cast());
        // SAFETY: a panel holds sixteen pairs for each pair of the token's columns; pairs are read unaligned.
        unsafe {
            let mut total = [_mm512_setzero_ps(); T];
            for pair in 0..x.columns() / 2 {
                let at = panel.as_ptr().add(pair * PANEL * 4);
                _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(2048).cast());
                let weights = _mm512_loadu_si512(at.cast());
                for t in 0..T {
                    total[t] = add(total[t], weights, values[t].add(pair));
                }
            }
            for t in 0..T {
                _mm512_storeu_ps(sums[t].as_mut_ptr(), total[t]);
            }
        }
    }
}
