//! F32, F16 and BF16 weights.
//!
//! A panel of F32 or F16 holds the columns one after another, sixteen rows each; activations are f32. A panel of BF16
//! holds two columns at a time, `row 0: two values, row 1: two values …`; activations are bf16, products are exact,
//! sums are f32; the number of columns is even.

use half::{bf16, f16};

use super::{Activations, Form, Kernel, Layout, PANEL, Sums};
use crate::isa::Isa;

pub(super) static F32: Layout =
    Layout { block: 1, bytes: PANEL * 4, form: Form::F32, pack: pack_f32, kernel: kernel_f32 };
pub(super) static F16: Layout =
    Layout { block: 1, bytes: PANEL * 2, form: Form::F32, pack: pack_f16, kernel: kernel_f16 };
pub(super) static BF16: Layout =
    Layout { block: 2, bytes: PANEL * 4, form: Form::Bf16, pack: pack_f32, kernel: kernel_bf16 };

/// Four bytes of a row (one f32, or two bf16) after four of the next.
fn pack_f32(rows: &[u8], row_bytes: usize, out: &mut [u8]) {
    pack::<4>(rows, row_bytes, out);
}

/// Two bytes of a row after two of the next.
fn pack_f16(rows: &[u8], row_bytes: usize, out: &mut [u8]) {
    pack::<2>(rows, row_bytes, out);
}

fn pack<const SIZE: usize>(rows: &[u8], row_bytes: usize, out: &mut [u8]) {
    for (row, stored) in rows.chunks_exact(row_bytes).enumerate() {
        for (index, value) in stored.as_chunks::<SIZE>().0.iter().enumerate() {
            out[(index * PANEL + row) * SIZE..][..SIZE].copy_from_slice(value);
        }
    }
}

fn kernel_f32(isa: Isa) -> Kernel {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => x86::f32_avx512,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => x86::f32_avx2,
        _ => |panel, x, first, tokens, sums| {
            plain(panel, x, first, tokens, sums, 4, |bytes| {
                f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
            });
        },
    }
}

fn kernel_f16(isa: Isa) -> Kernel {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => x86::f16_avx512,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => x86::f16_avx2,
        _ => |panel, x, first, tokens, sums| {
            plain(panel, x, first, tokens, sums, 2, |bytes| {
                f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
            });
        },
    }
}

fn kernel_bf16(isa: Isa) -> Kernel {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if std::arch::is_x86_feature_detected!("avx512bf16") => x86::bf16_avx512,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx2 => x86::bf16_avx2,
        _ => plain_bf16,
    }
}

fn plain(
    panel: &[u8],
    x: &Activations,
    first: usize,
    tokens: usize,
    sums: &mut Sums,
    size: usize,
    decode: fn(&[u8]) -> f32,
) {
    for (token, sums) in sums[..tokens].iter_mut().enumerate() {
        *sums = [0.0; PANEL];
        for (column, &value) in x.floats(first + token).iter().enumerate() {
            for (row, sum) in sums.iter_mut().enumerate() {
                *sum += decode(&panel[(column * PANEL + row) * size..][..size]) * value;
            }
        }
    }
}

fn plain_bf16(panel: &[u8], x: &Activations, first: usize, tokens: usize, sums: &mut Sums) {
    for (token, sums) in sums[..tokens].iter_mut().enumerate() {
        *sums = [0.0; PANEL];
        for (column, value) in x.halves(first + token).iter().enumerate() {
            for (row, sum) in sums.iter_mut().enumerate() {
                let at = (column / 2 * PANEL + row) * 4 + column % 2 * 2;
                *sum += bf16::from_le_bytes([panel[at], panel[at + 1]]).to_f32() * value.to_f32();
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::super::{Activations, PANEL, Sums, for_tokens, in_twos};

    pub(super) fn f32_avx512(panel: &[u8], x: &Activations, first: usize, tokens: usize, sums: &mut Sums) {
        // SAFETY: this path is chosen only where the processor has its instructions; a panel holds `x.columns()`
        // columns of sixteen values, as `PackedMatrix` made it.
        unsafe { for_tokens!(tokens, f32_512_tokens(panel, x, first, sums)) }
    }

    pub(super) fn f16_avx512(panel: &[u8], x: &Activations, first: usize, tokens: usize, sums: &mut Sums) {
        // SAFETY: as for `f32_avx512`.
        unsafe { for_tokens!(tokens, f16_512_tokens(panel, x, first, sums)) }
    }

    pub(super) fn bf16_avx512(panel: &[u8], x: &Activations, first: usize, tokens: usize, sums: &mut Sums) {
        // SAFETY: as for `f32_avx512`; AVX512_BF16 was asked for besides.
        unsafe { for_tokens!(tokens, bf16_512_tokens(panel, x, first, sums)) }
    }

    pub(super) fn f32_avx2(panel: &[u8], x: &Activations, first: usize, tokens: usize, sums: &mut Sums) {
        // SAFETY: as for `f32_avx512`.
        unsafe { in_twos!(tokens, first, sums, f32_256_tokens(panel, x)) }
    }

    pub(super) fn f16_avx2(panel: &[u8], x: &Activations, first: usize, tokens: usize, sums: &mut Sums) {
        // SAFETY: as for `f32_avx512`.
        unsafe { in_twos!(tokens, first, sums, f16_256_tokens(panel, x)) }
    }

    pub(super) fn bf16_avx2(panel: &[u8], x: &Activations, first: usize, tokens: usize, sums: &mut Sums) {
        // SAFETY: as for `f32_avx512`.
        unsafe { in_twos!(tokens, first, sums, bf16_256_tokens(panel, x)) }
    }

    /// A kernel on 512-bit registers: `$load` gives sixteen weights of a column as f32.
    macro_rules! kernel_512 {
        ($name:ident, $size:literal, $load:expr) => {
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
            unsafe fn $name<const T: usize>(panel: &[u8], x: &Activations, first: usize, sums: &mut Sums) {
                let values: [*const f32; T] = std::array::from_fn(|t| x.floats(first + t).as_ptr());
                let weights = panel.as_ptr();
                // SAFETY: a panel holds sixteen values for each of the token's columns.
                unsafe {
                    let mut total = [_mm512_setzero_ps(); T];
                    for column in 0..x.columns() {
                        let weights = $load(weights.add(column * PANEL * $size));
                        for t in 0..T {
                            total[t] =
                                _mm512_fmadd_ps(weights, _mm512_set1_ps(*values[t].add(column)), total[t]);
                        }
                    }
                    for t in 0..T {
                        _mm512_storeu_ps(sums[t].as_mut_ptr(), total[t]);
                    }
                }
            }
        };
    }

    kernel_512!(f32_512_tokens, 4, |at: *const u8| _mm512_loadu_ps(at.cast()));
    kernel_512!(f16_512_tokens, 2, |at: *const u8| _mm512_cvtph_ps(_mm256_loadu_si256(at.cast())));

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
    unsafe fn bf16_512_tokens<const T: usize>(panel: &[u8], x: &Activations, first: usize, sums: &mut Sums) {
        let values: [*const i32; T] = std::array::from_fn(|t| x.halves(first + t).as_ptr().cast());
        let weights = panel.as_ptr();
        // SAFETY: a panel holds sixteen pairs for each pair of the token's columns; pairs are read unaligned.
        unsafe {
            let mut total = [_mm512_setzero_ps(); T];
            for pair in 0..x.columns() / 2 {
                let weights = _mm512_loadu_si512(weights.add(pair * PANEL * 4).cast());
                let weights = std::mem::transmute::<__m512i, __m512bh>(weights);
                for t in 0..T {
                    let two = _mm512_set1_epi32(values[t].add(pair).read_unaligned());
                    let two = std::mem::transmute::<__m512i, __m512bh>(two);
                    total[t] = _mm512_dpbf16_ps(total[t], weights, two);
                }
            }
            for t in 0..T {
                _mm512_storeu_ps(sums[t].as_mut_ptr(), total[t]);
            }
        }
    }

    /// A kernel on 256-bit registers: `$load` gives eight weights of a column as f32.
    macro_rules! kernel_256 {
        ($name:ident, $size:literal, $load:expr) => {
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn $name<const T: usize>(
                panel: &[u8],
                x: &Activations,
                first: usize,
                sums: &mut [[f32; PANEL]],
            ) {
                let weights = panel.as_ptr();
                // SAFETY: as in the 512-bit kernel.
                unsafe {
                    let mut total = [[_mm256_setzero_ps(); 2]; T];
                    for column in 0..x.columns() {
                        for half in 0..2 {
                            let weights = $load(weights.add((column * PANEL + half * 8) * $size));
                            for t in 0..T {
                                let value = _mm256_set1_ps(*x.floats(first + t).get_unchecked(column));
                                total[t][half] = _mm256_fmadd_ps(weights, value, total[t][half]);
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
        };
    }

    kernel_256!(f32_256_tokens, 4, |at: *const u8| _mm256_loadu_ps(at.cast()));
    kernel_256!(f16_256_tokens, 2, |at: *const u8| _mm256_cvtph_ps(_mm_loadu_si128(at.cast())));

    #[target_feature(enable = "avx2,fma")]
    unsafe fn bf16_256_tokens<const T: usize>(
        panel: &[u8],
        x: &Activations,
        first: usize,
        sums: &mut [[f32; PANEL]],
    ) {
        let weights = panel.as_ptr();
        let upper = _mm256_set1_epi32(0xffff_0000_u32 as i32);
        // SAFETY: as in the 512-bit kernel.
        unsafe {
            let mut total = [[_mm256_setzero_ps(); 2]; T];
            for pair in 0..x.columns() / 2 {
                for half in 0..2 {
                    let both = _mm256_loadu_si256(weights.add((pair * PANEL + half * 8) * 4).cast());
                    // A bf16 is the upper half of an f32.
                    let first_weights = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(both));
                    let second_weights = _mm256_castsi256_ps(_mm256_and_si256(both, upper));
                    for t in 0..T {
                        let values = x.halves(first + t);
                        let value =
                            |index: usize| _mm256_set1_ps(values.get_unchecked(pair * 2 + index).to_f32());
                        total[t][half] = _mm256_fmadd_ps(second_weights, value(1), total[t][half]);
                        total[t][half] = _mm256_fmadd_ps(first_weights, value(0), total[t][half]);
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
