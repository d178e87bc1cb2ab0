//! Q6_K: `w = d · s · (q − 32)`, q in 0..=63; 16 values share the int8 scale s, 256 the f16 d.
//!
//! A panel: for each block of 256 columns, for each half of 128: two times eight groups of 64 bytes with the low four
//! bits (in group g of part p the low halves of the bytes hold columns 32p+4g.. of sixteen rows, the high halves the
//! columns 64 further on), then eight groups with the high two bits of all four parts of 32 columns, lowest part in
//! the lowest bits. 3072 bytes a block. Behind all blocks, 288 bytes each: sixteen f16 d, sixteen times sixteen s.

use super::{Activations, Form, Kernel, Layout, PANEL, Sums, f16, kernel_for};
use crate::isa::Isa;

const BLOCK: usize = 256;
const STORED: usize = 210;
/// Bytes of half a block: low bits, then high bits.
const HALF: usize = 1024 + 512;
const QUANTS: usize = 2 * HALF;
const EXTRAS: usize = PANEL * (2 + 16);
/// Offset of the scales within a block's extras.
const SCALES: usize = PANEL * 2;

pub(super) static LAYOUT: Layout =
    Layout { block: BLOCK, bytes: QUANTS + EXTRAS, form: Form::Int8(BLOCK), pack, kernel };

fn pack(rows: &[u8], row_bytes: usize, out: &mut [u8]) {
    let blocks = row_bytes / STORED;
    let (quants, extras) = out.split_at_mut(blocks * QUANTS);
    for (row, stored) in rows.chunks_exact(row_bytes).enumerate() {
        for (block, stored) in stored.chunks_exact(STORED).enumerate() {
            let (low, rest) = stored.split_at(128);
            let (high, rest) = rest.split_at(64);
            let extras = &mut extras[block * EXTRAS..][..EXTRAS];
            extras[row * 2..][..2].copy_from_slice(&rest[16..18]);
            for part in 0..16 {
                extras[SCALES + part * PANEL + row] = rest[part];
            }
            for half in 0..2 {
                let quants = &mut quants[block * QUANTS + half * HALF..][..HALF];
                let stored =
                    low[half * 64..][..64].chunks_exact(4).chain(high[half * 32..][..32].chunks_exact(4));
                for (group, four) in stored.enumerate() {
                    quants[group * 64 + row * 4..][..4].copy_from_slice(four);
                }
            }
        }
    }
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
                let mut scaled = 0i32;
                for (column, &value) in values[block * BLOCK..][..BLOCK].iter().enumerate() {
                    let quants = &quants[block * QUANTS + column / 128 * HALF..];
                    let (part, within) = (column % 128 / 32, column % 32);
                    let lane = within / 4 * 64 + row * 4 + within % 4;
                    let low = quants[part % 2 * 512 + lane] >> (part / 2 * 4) & 15;
                    let high = quants[1024 + lane] >> (part * 2) & 3;
                    let scale = extras[SCALES + column / 16 * PANEL + row] as i8;
                    scaled += i32::from(scale) * (i32::from(low | high << 4) - 32) * i32::from(value);
                }
                *sum += scaled as f32 * (f16(&extras[row * 2..]) * x_scales[block]);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::super::activations::SUM_BLOCK;
    use super::super::{Activations, PANEL, Sums, for_tokens, in_twos};
    use super::{BLOCK, EXTRAS, HALF, QUANTS, SCALES};

    pub(super) fn avx512(panel: &[u8], x: &Activations, first: usize, tokens: usize, sums: &mut Sums) {
        // SAFETY: this path is chosen only where the processor has its instructions; a panel holds all blocks of
        // `x.columns()` columns, as `PackedMatrix` made it.
        unsafe { for_tokens!(tokens, avx512_tokens(panel, x, first, sums)) }
    }

    /// Six-bit weights of group `group` in part `P` (32 columns) of half a block.
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn weights_512<const P: usize>(half: *const u8, group: usize) -> __m512i {
        let (low_mask, high_mask) = (_mm512_set1_epi8(0x0f), _mm512_set1_epi8(0x30));
        // SAFETY: the caller gives a half of `HALF` bytes and a group below eight.
        let (low, high) = unsafe {
            let low = _mm512_loadu_si512(half.add(P % 2 * 512 + group * 64).cast());
            (low, _mm512_loadu_si512(half.add(1024 + group * 64).cast()))
        };
        let low = if P < 2 { low } else { _mm512_srli_epi16::<4>(low) };
        let high = match P {
            0 => _mm512_slli_epi16::<4>(high),
            1 => _mm512_slli_epi16::<2>(high),
            2 => high,
            _ => _mm512_srli_epi16::<2>(high),
        };
        _mm512_or_si512(_mm512_and_si512(low, low_mask), _mm512_and_si512(high, high_mask))
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    unsafe fn avx512_tokens<const T: usize>(panel: &[u8], x: &Activations, first: usize, sums: &mut Sums) {
        let blocks = x.columns() / BLOCK;
        let values: [*const i8; T] = std::array::from_fn(|t| x.values(first + t).as_ptr());
        let x_scales: [*const f32; T] = std::array::from_fn(|t| x.scales(first + t).as_ptr());
        let x_sums: [*const i16; T] = std::array::from_fn(|t| x.sums(first + t).as_ptr());
        // SAFETY: all offsets stay inside the panel and the tokens' activations (`blocks` blocks each).
        unsafe {
            let quants = panel.as_ptr();
            let extras = panel.as_ptr().add(blocks * QUANTS);
            let mut total = [_mm512_setzero_ps(); T];
            for block in 0..blocks {
                let extras = extras.add(block * EXTRAS);
                let mut scaled = [_mm512_setzero_si512(); T];
                macro_rules! part {
                    ($half:expr, $part:literal) => {
                        for quarter in 0..2 {
                            let column = $half * 128 + $part * 32 + quarter * 16;
                            let mut dots = [_mm512_setzero_si512(); T];
                            for t in 0..T {
                                let sum = x_sums[t].add((block * BLOCK + column) / SUM_BLOCK);
                                dots[t] = _mm512_set1_epi32(-32 * i32::from(*sum));
                            }
                            for group in 0..4 {
                                let half = quants.add(block * QUANTS + $half * HALF);
                                let weights = weights_512::<$part>(half, quarter * 4 + group);
                                for t in 0..T {
                                    let four = values[t].add(block * BLOCK + column + group * 4);
                                    let four = _mm512_set1_epi32(four.cast::<i32>().read_unaligned());
                                    dots[t] = _mm512_dpbusd_epi32(dots[t], weights, four);
                                }
                            }
                            let scale = _mm_loadu_si128(extras.add(SCALES + column / 16 * PANEL).cast());
                            let scale = _mm512_cvtepi8_epi32(scale);
                            for t in 0..T {
                                scaled[t] = _mm512_add_epi32(scaled[t], _mm512_mullo_epi32(dots[t], scale));
                            }
                        }
                    };
                }
                for half in 0..2 {
                    part!(half, 0);
                    part!(half, 1);
                    part!(half, 2);
                    part!(half, 3);
                }
                let d = _mm512_cvtph_ps(_mm256_loadu_si256(extras.cast()));
                for t in 0..T {
                    let d = _mm512_mul_ps(d, _mm512_set1_ps(*x_scales[t].add(block)));
                    total[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(scaled[t]), d, total[t]);
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
        let (low_mask, high_mask) = (_mm256_set1_epi8(0x0f), _mm256_set1_epi8(0x30));
        // SAFETY: all offsets stay inside the panel and the tokens' activations.
        unsafe {
            let quants = panel.as_ptr();
            let extras = panel.as_ptr().add(blocks * QUANTS);
            for rows in 0..2 {
                let mut total = [_mm256_setzero_ps(); T];
                for block in 0..blocks {
                    let extras = extras.add(block * EXTRAS);
                    let mut scaled = [_mm256_setzero_si256(); T];
                    for sixteen in 0..16 {
                        let column = sixteen * 16;
                        let (part, half) =
                            (column % 128 / 32, quants.add(block * QUANTS + column / 128 * HALF));
                        let mut dots = [_mm256_setzero_si256(); T];
                        for t in 0..T {
                            let sum = x.sums(first + t)[(block * BLOCK + column) / SUM_BLOCK];
                            dots[t] = _mm256_set1_epi32(-32 * i32::from(sum));
                        }
                        for group in 0..4 {
                            let at = (column % 32 / 4 + group) * 64 + rows * 32;
                            let low = _mm256_loadu_si256(half.add(part % 2 * 512 + at).cast());
                            let high = _mm256_loadu_si256(half.add(1024 + at).cast());
                            let low = if part < 2 { low } else { _mm256_srli_epi16::<4>(low) };
                            let high = match part {
                                0 => _mm256_slli_epi16::<4>(high),
                                1 => _mm256_slli_epi16::<2>(high),
                                2 => high,
                                _ => _mm256_srli_epi16::<2>(high),
                            };
                            let weights = _mm256_or_si256(
                                _mm256_and_si256(low, low_mask),
                                _mm256_and_si256(high, high_mask),
                            );
                            for t in 0..T {
                                let four =
                                    x.values(first + t).as_ptr().add(block * BLOCK + column + group * 4);
                                let four = _mm256_set1_epi32(four.cast::<i32>().read_unaligned());
                                let pairs = _mm256_maddubs_epi16(weights, four);
                                dots[t] = _mm256_add_epi32(dots[t], _mm256_madd_epi16(pairs, ones));
                            }
                        }
                        let scale = extras.add(SCALES + sixteen * PANEL + rows * 8);
                        let scale = _mm256_cvtepi8_epi32(_mm_loadl_epi64(scale.cast()));
                        for t in 0..T {
                            scaled[t] = _mm256_add_epi32(scaled[t], _mm256_mullo_epi32(dots[t], scale));
                        }
                    }
                    let d = _mm256_cvtph_ps(_mm_loadu_si128(extras.add(rows * 16).cast()));
                    for t in 0..T {
                        let d = _mm256_mul_ps(d, _mm256_set1_ps(x.scales(first + t)[block]));
                        total[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(scaled[t]), d, total[t]);
                    }
                }
                for t in 0..T {
                    _mm256_storeu_ps(sums[t].as_mut_ptr().add(rows * 8), total[t]);
                }
            }
        }
    }
}
