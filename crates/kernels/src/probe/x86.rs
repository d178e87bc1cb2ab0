//! Multiply-adds in AVX2 and AVX-512 registers.

use std::arch::asm;
use std::arch::x86_64::*;
use std::hint::black_box;

use super::{CHAINS, Kind, Loop, STEPS};

/// Operations of a run whose instruction does this many multiply-adds.
const fn operations(multiply_adds: usize) -> u64 {
    (CHAINS * STEPS * multiply_adds * 2) as u64
}

/// The loops of AVX-512; the caller has seen that the processor has the path.
pub(super) fn avx512(kind: Kind) -> Option<Loop> {
    match kind {
        Kind::F32 => Some(Loop {
            instruction: "vfmadd zmm",
            operations: operations(16),
            // SAFETY: chosen only where the processor has AVX-512 F.
            run: || unsafe { f32_512() },
        }),
        Kind::Bf16 => std::arch::is_x86_feature_detected!("avx512bf16").then_some(Loop {
            instruction: "vdpbf16ps zmm",
            operations: operations(32),
            // SAFETY: as above, and AVX512_BF16 was just seen.
            run: || unsafe { bf16_512() },
        }),
        Kind::Int8 => Some(Loop {
            instruction: "vpdpbusd zmm",
            operations: operations(64),
            // SAFETY: VNNI is part of the path.
            run: || unsafe { int8_512() },
        }),
        Kind::MatrixBf16 | Kind::MatrixInt8 => None,
    }
}

/// The loops of AVX2 with FMA; the caller has seen that the processor has the path.
pub(super) fn avx2(kind: Kind) -> Option<Loop> {
    match kind {
        Kind::F32 => Some(Loop {
            instruction: "vfmadd ymm",
            operations: operations(8),
            // SAFETY: chosen only where the processor has AVX2 and FMA.
            run: || unsafe { f32_256() },
        }),
        Kind::Int8 => Some(Loop {
            instruction: "vpmaddubsw ymm",
            operations: operations(32),
            // SAFETY: as above.
            run: || unsafe { int8_256() },
        }),
        Kind::Bf16 | Kind::MatrixBf16 | Kind::MatrixInt8 => None,
    }
}

#[target_feature(enable = "avx512f")]
fn f32_512() -> f64 {
    let one = _mm512_set1_ps(black_box(1.0));
    let mut sums = [_mm512_setzero_ps(); CHAINS];
    for _ in 0..STEPS {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(one, one, *sum);
        }
    }
    sums.iter().map(|&sum| f64::from(_mm512_reduce_add_ps(sum))).sum()
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn bf16_512() -> f64 {
    /// Two bf16 of value 1.
    const ONES: i32 = 0x3f80_3f80;
    // SAFETY: both are 512 bits in which every pattern is a value.
    let one = unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(black_box(ONES))) };
    let mut sums = [_mm512_setzero_ps(); CHAINS];
    for _ in 0..STEPS {
        for sum in &mut sums {
            *sum = _mm512_dpbf16_ps(*sum, one, one);
        }
    }
    sums.iter().map(|&sum| f64::from(_mm512_reduce_add_ps(sum))).sum()
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn int8_512() -> f64 {
    let one = _mm512_set1_epi8(black_box(1));
    let mut sums = [_mm512_setzero_si512(); CHAINS];
    for _ in 0..STEPS {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, one, one);
        }
    }
    sums.iter().map(|&sum| f64::from(_mm512_reduce_add_epi32(sum))).sum()
}

#[target_feature(enable = "avx2,fma")]
fn f32_256() -> f64 {
    let one = _mm256_set1_ps(black_box(1.0));
    let mut sums = [_mm256_setzero_ps(); CHAINS];
    for _ in 0..STEPS {
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(one, one, *sum);
        }
    }
    let mut lanes = [[0.0f32; 8]; CHAINS];
    for (lanes, &sum) in lanes.iter_mut().zip(&sums) {
        // SAFETY: eight lanes are 256 bits.
        unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), sum) };
    }
    lanes.as_flattened().iter().map(|&lane| f64::from(lane)).sum()
}

#[target_feature(enable = "avx2")]
fn int8_256() -> f64 {
    let one = _mm256_set1_epi8(black_box(1));
    let pairs = _mm256_set1_epi16(black_box(1));
    let mut sums = [_mm256_setzero_si256(); CHAINS];
    for _ in 0..STEPS {
        for sum in &mut sums {
            // SAFETY: registers only. Written out because a compiler would take what is the same in every step out
            // of the loop; in a kernel it never is.
            unsafe {
                asm!(
                    "vpmaddubsw {products}, {one}, {one}",
                    "vpmaddwd {products}, {products}, {pairs}",
                    "vpaddd {sum}, {sum}, {products}",
                    products = out(ymm_reg) _,
                    one = in(ymm_reg) one,
                    pairs = in(ymm_reg) pairs,
                    sum = inout(ymm_reg) *sum,
                    options(nomem, nostack, preserves_flags)
                );
            }
        }
    }
    let mut lanes = [[0i32; 8]; CHAINS];
    for (lanes, &sum) in lanes.iter_mut().zip(&sums) {
        // SAFETY: eight lanes are 256 bits.
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sum) };
    }
    lanes.as_flattened().iter().map(|&lane| f64::from(lane)).sum()
}
