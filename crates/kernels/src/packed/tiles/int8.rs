//! Products of int8. Sums of a part of a unit are exact integers in a tile; for its scales they leave it, by way of
//! memory, for the registers in which sixteen tokens' sums of sixteen rows stay.
//!
//! Three things keep the tiles from waiting for that. Weights are taken apart for some units ahead, once for all tokens of
//! a block. The sixteen tokens of a unit lie side by side, so that a tile reads 512 bytes in a row. And what a product has
//! left in memory is taken up only [`LAG`] products later: a load cannot be served from a tile's store that is still on
//! its way to the cache. The steps of a sum are those of the kernels without tiles, and so is every bit of it.

use std::arch::asm;
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::super::dispatch::{self, Kernel, Product};
use super::super::int8::IntsAt;
use super::super::planes::UNIT;
use super::super::{Activations, PANEL, TOKEN_BLOCK, Tiles};
use super::{Shape, TOKENS, configure, tile_memory};
use crate::isa::Isa;

/// Units that are taken apart at a time: they stay in the first-level cache.
const TOGETHER: usize = 32;

/// Tokens from which on tiles are faster: taking weights apart by way of memory pays only if many share it.
const FROM: usize = 32;

/// Products between a product and the use of its sums.
const LAG: usize = 6;

/// Products whose sums lie in memory.
const RING: usize = 8;

/// A unit of a panel taken apart.
#[repr(C, align(64))]
pub(in super::super) struct Unit {
    /// Signed weights, eight groups of four columns of sixteen rows.
    pub codes: [__m512i; 8],
    /// The scales of its parts, or those of the unit's run.
    pub scales: [__m512; 2],
    /// The minima of its parts.
    pub minima: [__m512; 2],
}

/// A format whose weights, less their offset, are signed bytes.
pub(in super::super) trait Parted: Product + 'static {
    /// Units that share the activations' scales.
    const BLOCK: usize;
    /// Parts of a unit with scales of their own.
    const PARTS: usize;
    /// Units whose products are summed before they are scaled; 1 if there are parts.
    const RUN: usize;
    const MINIMA: bool;
    /// Whether scales are multiplied with each other first, and not one after the other with the sum.
    const SCALES_FIRST: bool;

    /// Takes `count` units of a panel of `columns` columns apart, from `first` on, a multiple of [`TOGETHER`].
    ///
    /// # Safety
    /// The processor has AVX-512 F, BW, VL and DQ; the panel holds the units, `to` has room for them.
    unsafe fn take_apart(panel: &[u8], columns: usize, first: usize, count: usize, to: *mut Unit);
}

/// The kernel of a format.
pub(in super::super) const fn kernel<P: Parted>() -> Tiles {
    Tiles { kernel: products::<P>, from: FROM }
}

fn products<P: Parted>(
    panel: &[u8],
    x: &Activations,
    first: usize,
    tokens: usize,
    sums: &mut [[f32; PANEL]],
) {
    assert!(tokens <= TOKEN_BLOCK && sums.len() >= TOKEN_BLOCK, "a block of tokens");
    match if tokens < FROM { 0 } else { x.ints_at(first).width } {
        // SAFETY: this kernel is chosen only where tiles are permitted; `PackedMatrix` made the panel and checked the
        // activations.
        TOKENS => unsafe { wide::<P, TOKENS>(panel, x, first, tokens, sums) },
        // SAFETY: the same.
        8 => unsafe { wide::<P, 8>(panel, x, first, tokens, sums) },
        _ => {
            let kernel: Kernel = dispatch::kernel::<P>(Isa::Avx512);
            kernel(panel, x, first, tokens, sums);
        }
    }
}

/// Activations `W` tokens wide.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn wide<P: Parted, const W: usize>(
    panel: &[u8],
    x: &Activations,
    first: usize,
    tokens: usize,
    sums: &mut [[f32; PANEL]],
) {
    let mut units = [const { MaybeUninit::<Unit>::uninit() }; TOGETHER];
    let all = x.columns() / UNIT;
    // SAFETY: the shapes are those of the loads in `some`; the rest is the same contract.
    unsafe {
        let mut shapes = [Shape { rows: W, bytes: 64 }; 8];
        shapes[4] = Shape { rows: 8 / P::PARTS, bytes: 64 };
        shapes[5] = shapes[4];
        shapes[6] = Shape { rows: W, bytes: UNIT / P::PARTS };
        shapes[7] = shapes[6];
        configure(shapes);
        for from in (0..all).step_by(TOGETHER) {
            let count = TOGETHER.min(all - from);
            P::take_apart(panel, x.columns(), from, count, units.as_mut_ptr().cast());
            for token in (0..tokens).step_by(W) {
                let sums = sums[token..token + W].as_mut_ptr();
                some::<P, W>(units.as_ptr().cast(), from, count, x.ints_at(first + token), sums);
            }
        }
        asm!("tilerelease", options(nostack, nomem));
    }
}

/// Adds the products of some units to the sums of `W` tokens; the first units begin the sums.
///
/// # Safety
/// As [`wide`]; tiles are configured for the format; `count` units can be read, and `W` sums.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn some<P: Parted, const W: usize>(
    units: *const Unit,
    from: usize,
    count: usize,
    x: IntsAt,
    sums: *mut [f32; PANEL],
) {
    #[repr(C, align(64))]
    struct Ring([MaybeUninit<[[__m512i; TOKENS]; RING]>; 1]);
    let mut ring = Ring([MaybeUninit::uninit()]);
    let ring = ring.0.as_mut_ptr().cast::<[__m512i; TOKENS]>();
    let steps = count / P::RUN * P::PARTS;
    // SAFETY: units, activations and sums as the contract says.
    unsafe {
        let mut total = [_mm512_setzero_ps(); W];
        if from > 0 {
            for (t, total) in total.iter_mut().enumerate() {
                *total = _mm512_loadu_ps(sums.add(t).cast());
            }
        }
        macro_rules! step {
            ($step:expr, $sums:literal, $values:literal, $weights:literal) => {
                let step = $step;
                if step < steps {
                    let to = ring.add(step % RING);
                    asm!(concat!("tilezero ", $sums), options(nostack, nomem));
                    for unit in 0..P::RUN {
                        let (unit, part) = (step / P::PARTS * P::RUN + unit, step % P::PARTS);
                        let codes = (*units.add(unit)).codes.as_ptr().add(part * 8 / P::PARTS);
                        let values = x.values.add((from + unit) * W * UNIT + part * UNIT / P::PARTS);
                        tile_memory!(concat!("tileloadd ", $values, ", [{at} + {stride}]"), values, UNIT);
                        tile_memory!(concat!("tileloadd ", $weights, ", [{at} + {stride}]"), codes, 64usize);
                        asm!(
                            concat!("tdpbssd ", $sums, ", ", $values, ", ", $weights),
                            options(nostack, nomem)
                        );
                    }
                    tile_memory!(concat!("tilestored [{at} + {stride}], ", $sums), to, 64usize);
                }
                if step >= LAG && step < steps + LAG {
                    let step = step - LAG;
                    let (unit, part) = (step / P::PARTS * P::RUN, step % P::PARTS);
                    let dots = (*ring.add(step % RING)).as_ptr();
                    let parts = units.add(unit);
                    let scale = (*parts).scales[part];
                    let scales = x.scales.add((from + unit) / P::BLOCK * W);
                    for (t, total) in total.iter_mut().enumerate() {
                        let dot = _mm512_cvtepi32_ps(_mm512_load_si512(dots.add(t).cast()));
                        let x_scale = _mm512_set1_ps((*scales.add(t))[0]);
                        *total = if P::SCALES_FIRST {
                            _mm512_fmadd_ps(dot, _mm512_mul_ps(scale, x_scale), *total)
                        } else {
                            _mm512_fmadd_ps(_mm512_mul_ps(dot, x_scale), scale, *total)
                        };
                    }
                    if P::MINIMA {
                        let minimum = (*parts).minima[part];
                        let weighted = x.weighted.add((from + unit) * W * P::PARTS + part);
                        for (t, total) in total.iter_mut().enumerate() {
                            let weighted = _mm512_set1_ps(*weighted.add(t * P::PARTS));
                            *total = _mm512_fmadd_ps(minimum, weighted, *total);
                        }
                    }
                }
            };
        }
        let mut first = 0;
        while first < steps + LAG {
            step!(first, "tmm0", "tmm6", "tmm4");
            step!(first + 1, "tmm1", "tmm7", "tmm5");
            step!(first + 2, "tmm2", "tmm6", "tmm4");
            step!(first + 3, "tmm3", "tmm7", "tmm5");
            first += 4;
        }
        for (t, total) in total.iter().enumerate() {
            _mm512_storeu_ps(sums.add(t).cast(), *total);
        }
    }
}
