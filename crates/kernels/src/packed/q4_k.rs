//! Q4_K: `w = d · s · q − e · m`, q in 0..=15; 32 values share the 6-bit scale s and minimum m, 256 the f16 d and e.
//!
//! A panel: for each block of 256 columns four times (for 64 columns each) eight groups of 64 bytes; in group g
//! the low halves of the bytes hold columns 4g..4g+4 of sixteen rows, the high halves columns 32+4g..32+4g+4. 2048
//! bytes a block. Behind all blocks what they need besides, 320 bytes each: sixteen f16 d, sixteen f16 e, eight times
//! sixteen s, eight times sixteen m, a byte each.
//!
//! Scales and minima multiply exact integer sums: with one activation scale a for 256 values a block is
//! `d · a · Σ s · dot − e · a · Σ m · sum`, where both sums are integers.

use super::{Activations, Form, Kernel, Layout, PANEL, Sums, f16, kernel_for};
use crate::isa::Isa;

const BLOCK: usize = 256;
const STORED: usize = 144;
const QUANTS: usize = PANEL * BLOCK / 2;
const EXTRAS: usize = PANEL * (2 + 2 + 8 + 8);
/// Offsets within a block's extras.
const MINIMUM: usize = PANEL * 2;
const SCALES: usize = PANEL * 4;
const MINIMA: usize = PANEL * 12;

pub(super) static LAYOUT: Layout =
    Layout { block: BLOCK, bytes: QUANTS + EXTRAS, form: Form::Int8(BLOCK), pack, kernel };

fn pack(rows: &[u8], row_bytes: usize, out: &mut [u8]) {
    let blocks = row_bytes / STORED;
    let (quants, extras) = out.split_at_mut(blocks * QUANTS);
    for (row, stored) in rows.chunks_exact(row_bytes).enumerate() {
        for (block, stored) in stored.chunks_exact(STORED).enumerate() {
            let extras = &mut extras[block * EXTRAS..][..EXTRAS];
            extras[row * 2..][..2].copy_from_slice(&stored[..2]);
            extras[MINIMUM + row * 2..][..2].copy_from_slice(&stored[2..4]);
            for part in 0..8 {
                let (scale, minimum) = scale_and_minimum(&stored[4..16], part);
                extras[SCALES + part * PANEL + row] = scale;
                extras[MINIMA + part * PANEL + row] = minimum;
            }
            for (group, four) in stored[16..].chunks_exact(4).enumerate() {
                quants[block * QUANTS + group * 64 + row * 4..][..4].copy_from_slice(four);
            }
        }
    }
}

/// The 6-bit scale and minimum of 32 values, as twelve bytes hold eight of each.
fn scale_and_minimum(packed: &[u8], part: usize) -> (u8, u8) {
    if part < 4 {
        return (packed[part] & 63, packed[part + 4] & 63);
    }
    let low = packed[part + 4];
    ((low & 15) | (packed[part - 4] >> 6 << 4), (low >> 4) | (packed[part] >> 6 << 4))
}

fn kernel(isa: Isa) -> Kernel {
    kernel_for!(isa)
}

fn plain(panel: &[u8], x: &Activations, first: usize, tokens: usize, sums: &mut Sums) {
    let blocks = x.columns() / BLOCK;
    let (quants, extras) = panel.split_at(blocks * QUANTS);
    for (token, sums) in sums[..tokens].iter_mut().enumerate() {
        *sums = [0.0; PANEL];
        let (values, x_scales) = (x.values(first + token), x.scales(first + token));
        for block in 0..blocks {
            let extras = &extras[block * EXTRAS..];
            for (row, sum) in sums.iter_mut().enumerate() {
                let (mut scaled, mut minima) = (0i32, 0i32);
                for (column, &value) in values[block * BLOCK..][..BLOCK].iter().enumerate() {
                    let (part, within) = (column / 32, column % 32);
                    let byte =
                        quants[block * QUANTS + part / 2 * 512 + within / 4 * 64 + row * 4 + within % 4];
                    let weight = if part % 2 == 0 { byte & 15 } else { byte >> 4 };
                    let product = i32::from(weight) * i32::from(value);
                    scaled += i32::from(extras[SCALES + part * PANEL + row]) * product;
                    minima += i32::from(extras[MINIMA + part * PANEL + row]) * i32::from(value);
                }
                let scale = f16(&extras[row * 2..]) * x_scales[block];
                let minimum = f16(&extras[MINIMUM + row * 2..]) * x_scales[block];
                *sum = scaled as f32 * scale + *sum - minima as f32 * minimum;
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::super::activations::SUM_BLOCK;
    use super::super::{Activations, PANEL, Sums, for_tokens, in_twos};
    use super::{BLOCK, EXTRAS, MINIMA, MINIMUM, QUANTS, SCALES};

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
        let low = _mm512_set1_epi8(15);
        // SAFETY: all offsets stay inside the panel and the tokens' activations (`blocks` blocks each).
        unsafe {
            let quants = panel.as_ptr();
            let extras = panel.as_ptr().add(blocks * QUANTS);
            let mut total = [_mm512_setzero_ps(); T];
            for block in 0..blocks {
                let extras = extras.add(block * EXTRAS);
                let mut scaled = [_mm512_setzero_si512(); T];
                let mut minima = [_mm512_setzero_si512(); T];
                for part in 0..8 {
                    let mut dots = [_mm512_setzero_si512(); T];
                    for group in 0..8 {
                        let at = block * QUANTS + part / 2 * 512 + group * 64;
                        let bytes = _mm512_loadu_si512(quants.add(at).cast());
                        let bytes = if part % 2 == 0 { bytes } else { _mm512_srli_epi16::<4>(bytes) };
                        let weights = _mm512_and_si512(bytes, low);
                        for t in 0..T {
                            let four = values[t].add(block * BLOCK + part * 32 + group * 4);
                            let four = _mm512_set1_epi32(four.cast::<i32>().read_unaligned());
                            dots[t] = _mm512_dpbusd_epi32(dots[t], weights, four);
                        }
                    }
                    let bytes = |offset: usize| {
                        _mm512_cvtepu8_epi32(_mm_loadu_si128(extras.add(offset + part * PANEL).cast()))
                    };
                    let scale = bytes(SCALES);
                    // The minimum twice, for the two halves of 32 values whose sums are kept.
                    let minimum = bytes(MINIMA);
                    let minimum = _mm512_or_si512(minimum, _mm512_slli_epi32::<16>(minimum));
                    for t in 0..T {
                        scaled[t] = _mm512_add_epi32(scaled[t], _mm512_mullo_epi32(dots[t], scale));
                        let two = x_sums[t].add((block * BLOCK + part * 32) / SUM_BLOCK);
                        let two = _mm512_set1_epi32(two.cast::<i32>().read_unaligned());
                        minima[t] = _mm512_dpwssd_epi32(minima[t], minimum, two);
                    }
                }
                let halves = |offset: usize| _mm512_cvtph_ps(_mm256_loadu_si256(extras.add(offset).cast()));
                let (d, e) = (halves(0), halves(MINIMUM));
                for t in 0..T {
                    let scale = _mm512_set1_ps(*x_scales[t].add(block));
                    let (d, e) = (_mm512_mul_ps(d, scale), _mm512_mul_ps(e, scale));
                    total[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(scaled[t]), d, total[t]);
                    total[t] = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(minima[t]), e, total[t]);
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
        let (ones, low) = (_mm256_set1_epi16(1), _mm256_set1_epi8(15));
        // SAFETY: all offsets stay inside the panel and the tokens' activations.
        unsafe {
            let quants = panel.as_ptr();
            let extras = panel.as_ptr().add(blocks * QUANTS);
            for rows in 0..2 {
                let mut total = [_mm256_setzero_ps(); T];
                for block in 0..blocks {
                    let extras = extras.add(block * EXTRAS);
                    let mut scaled = [_mm256_setzero_si256(); T];
                    let mut minima = [_mm256_setzero_si256(); T];
                    for part in 0..8 {
                        let mut dots = [_mm256_setzero_si256(); T];
                        for group in 0..8 {
                            let at = block * QUANTS + part / 2 * 512 + group * 64 + rows * 32;
                            let bytes = _mm256_loadu_si256(quants.add(at).cast());
                            let bytes = if part % 2 == 0 { bytes } else { _mm256_srli_epi16::<4>(bytes) };
                            let weights = _mm256_and_si256(bytes, low);
                            for t in 0..T {
                                let four =
                                    x.values(first + t).as_ptr().add(block * BLOCK + part * 32 + group * 4);
                                let four = _mm256_set1_epi32(four.cast::<i32>().read_unaligned());
                                let pairs = _mm256_maddubs_epi16(weights, four);
                                dots[t] = _mm256_add_epi32(dots[t], _mm256_madd_epi16(pairs, ones));
                            }
                        }
                        let bytes = |offset: usize| {
                            let at = extras.add(offset + part * PANEL + rows * 8);
                            _mm256_cvtepu8_epi32(_mm_loadl_epi64(at.cast()))
                        };
                        let (scale, minimum) = (bytes(SCALES), bytes(MINIMA));
                        for t in 0..T {
                            scaled[t] = _mm256_add_epi32(scaled[t], _mm256_mullo_epi32(dots[t], scale));
                            let two = &x.sums(first + t)[(block * BLOCK + part * 32) / SUM_BLOCK..];
                            let sum = _mm256_set1_epi32(i32::from(two[0]) + i32::from(two[1]));
                            minima[t] = _mm256_add_epi32(minima[t], _mm256_mullo_epi32(sum, minimum));
                        }
                    }
                    let halves = |offset: usize| {
                        _mm256_cvtph_ps(_mm_loadu_si128(extras.add(offset + rows * 16).cast()))
                    };
                    let (d, e) = (halves(0), halves(MINIMUM));
                    for t in 0..T {
                        let scale = _mm256_set1_ps(x.scales(first + t)[block]);
                        let (d, e) = (_mm256_mul_ps(d, scale), _mm256_mul_ps(e, scale));
                        total[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(scaled[t]), d, total[t]);
                        total[t] = _mm256_fnmadd_ps(_mm256_cvtepi32_ps(minima[t]), e, total[t]);
                    }
                }
                for t in 0..T {
                    _mm256_storeu_ps(sums[t].as_mut_ptr().add(rows * 8), total[t]);
                }
            }
        }
    }
}
