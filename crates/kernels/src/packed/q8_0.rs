//! Q8_0: `w = d · q`, q in −128..=127, one f16 scale d for 32 values.
//!
//! A panel: for each block of 32 columns eight groups of 64 bytes (group g holds columns 4g..4g+4 of sixteen rows),
//! 512 bytes; behind all blocks their scales, sixteen f16 a block.

use super::{Activations, Form, Kernel, Layout, PANEL, Sums, f16, kernel_for, pack_scaled_blocks};
use crate::isa::Isa;

const BLOCK: usize = 32;
const STORED: usize = 34;
const QUANTS: usize = PANEL * BLOCK;

pub(super) static LAYOUT: Layout = Layout {
    block: BLOCK,
    bytes: QUANTS + PANEL * 2,
    form: Form::Int8(BLOCK),
    pack: pack_scaled_blocks::<STORED>,
    kernel,
};

fn kernel(isa: Isa) -> Kernel {
    kernel_for!(isa)
}

fn plain(panel: &[u8], x: &Activations, first: usize, tokens: usize, sums: &mut Sums) {
    let blocks = x.columns() / BLOCK;
    let (quants, scales) = panel.split_at(blocks * QUANTS);
    for (token, sums) in sums[..tokens].iter_mut().enumerate() {
        *sums = [0.0; PANEL];
        let (values, x_scales) = (x.values(first + token), x.scales(first + token));
        for block in 0..blocks {
            for (row, sum) in sums.iter_mut().enumerate() {
                let mut dot = 0i32;
                for (column, &value) in values[block * BLOCK..][..BLOCK].iter().enumerate() {
                    let at = block * QUANTS + column / 4 * 64 + row * 4 + column % 4;
                    dot += i32::from(quants[at] as i8) * i32::from(value);
                }
                *sum += dot as f32 * (f16(&scales[(block * PANEL + row) * 2..]) * x_scales[block]);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::super::{Activations, PANEL, Sums, for_tokens, in_twos};
    use super::{BLOCK, QUANTS};
    use crate::packed::activations::SUM_BLOCK;

    pub(super) fn avx512(panel: &[u8], x: &Activations, first: usize, tokens: usize, sums: &mut Sums) {
        // SAFETY: this path is chosen only where the processor has its instructions; a panel holds all blocks of
        // `x.columns()` columns, as `PackedMatrix` made it.
        unsafe { for_tokens!(tokens, avx512_tokens(panel, x, first, sums)) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    unsafe fn avx512_tokens<const T: usize>(panel: &[u8], x: &Activations, first: usize, sums: &mut Sums) {
        let blocks = x.columns() / BLOCK;
        let values: [*const i8; T] = std::array::from_fn(|t| x.values(first + t).as_ptr());
        let x_scales: [*const f32; T] = std::array::from_fn(|t| x.scales(first + t).as_ptr());
        let x_sums: [*const i16; T] = std::array::from_fn(|t| x.sums(first + t).as_ptr());
        let quants = panel.as_ptr();
        // SAFETY: all offsets stay inside the panel and the tokens' activations (`blocks` blocks each).
        unsafe {
            let scales = panel.as_ptr().add(blocks * QUANTS);
            let mut total = [_mm512_setzero_ps(); T];
            let flip = _mm512_set1_epi8(-128);
            for block in 0..blocks {
                let mut dots = [_mm512_setzero_si512(); T];
                for t in 0..T {
                    // The weights are taken as unsigned by adding 128; this takes it back.
                    let sums = x_sums[t].add(block * (BLOCK / SUM_BLOCK));
                    dots[t] = _mm512_set1_epi32(-128 * (i32::from(*sums) + i32::from(*sums.add(1))));
                }
                for group in 0..8 {
                    let weights = _mm512_loadu_si512(quants.add(block * QUANTS + group * 64).cast());
                    let weights = _mm512_xor_si512(weights, flip);
                    for t in 0..T {
                        let four = values[t].add(block * BLOCK + group * 4).cast::<i32>().read_unaligned();
                        dots[t] = _mm512_dpbusd_epi32(dots[t], weights, _mm512_set1_epi32(four));
                    }
                }
                let scale = _mm512_cvtph_ps(_mm256_loadu_si256(scales.add(block * PANEL * 2).cast()));
                for t in 0..T {
                    let scale = _mm512_mul_ps(scale, _mm512_set1_ps(*x_scales[t].add(block)));
                    total[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[t]), scale, total[t]);
                }
            }
            for t in 0..T {
                _mm512_storeu_ps(sums[t].as_mut_ptr(), total[t]);
            }
        }
    }

    pub(super) fn avx2(panel: &[u8], x: &Activations, first: usize, tokens: usize, sums: &mut Sums) {
        // SAFETY: as for `avx512`.
        unsafe { in_twos!(tokens, first, sums, avx2_tokens(panel, x)) }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn avx2_tokens<const T: usize>(
        panel: &[u8],
        x: &Activations,
        first: usize,
        sums: &mut [[f32; PANEL]],
    ) {
        let blocks = x.columns() / BLOCK;
        let ones = _mm256_set1_epi16(1);
        // SAFETY: all offsets stay inside the panel and the tokens' activations.
        unsafe {
            let quants = panel.as_ptr();
            let scales = panel.as_ptr().add(blocks * QUANTS);
            let mut total = [[_mm256_setzero_ps(); 2]; T];
            for block in 0..blocks {
                let mut dots = [[_mm256_setzero_si256(); 2]; T];
                for group in 0..8 {
                    for half in 0..2 {
                        let at = block * QUANTS + group * 64 + half * 32;
                        let weights = _mm256_loadu_si256(quants.add(at).cast());
                        let magnitude = _mm256_abs_epi8(weights);
                        for t in 0..T {
                            let four = x.values(first + t).as_ptr().add(block * BLOCK + group * 4);
                            let four = _mm256_set1_epi32(four.cast::<i32>().read_unaligned());
                            // 128 · 127 · 2 fits 16 bits, so the pairwise sums do not saturate.
                            let pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(four, weights));
                            dots[t][half] = _mm256_add_epi32(dots[t][half], _mm256_madd_epi16(pairs, ones));
                        }
                    }
                }
                for half in 0..2 {
                    let scale = scales.add((block * PANEL + half * 8) * 2);
                    let scale = _mm256_cvtph_ps(_mm_loadu_si128(scale.cast()));
                    for t in 0..T {
                        let scale = _mm256_mul_ps(scale, _mm256_set1_ps(x.scales(first + t)[block]));
                        total[t][half] =
                            _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[t][half]), scale, total[t][half]);
                    }
                }
            }
            for t in 0..T {
                for half in 0..2 {
                    _mm256_storeu_ps(sums[t].as_mut_ptr().add(half * 8), total[t][half]);
                }
            }
        }
    }
}
