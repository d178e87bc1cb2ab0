//! Two 256-bit registers a value: lanes 0..8 and 8..16.

use std::arch::x86_64::*;

use super::{Simd, ahead};

/// AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx2;

/// Runs intrinsics; each function's contract is the intrinsics'.
macro_rules! intrinsics {
    ($body:expr) => {
        // SAFETY: the caller runs this only on a processor with the path's instructions and with readable pointers.
        unsafe { $body }
    };
}

/// Both halves through the same instruction.
macro_rules! both {
    ($half:ident => $body:expr) => {
        intrinsics!([
            {
                let $half = 0;
                $body
            },
            {
                let $half = 1;
                $body
            }
        ])
    };
}

impl Simd for Avx2 {
    type Bytes = [__m256i; 2];
    type Ints = [__m256i; 2];
    type Floats = [__m256; 2];

    const FLIPPED: bool = false;

    #[inline(always)]
    unsafe fn bytes(at: *const u8) -> [__m256i; 2] {
        both!(half => _mm256_loadu_si256(at.add(half * 32).cast()))
    }
    #[inline(always)]
    unsafe fn splat_byte(byte: u8) -> [__m256i; 2] {
        intrinsics!([_mm256_set1_epi8(byte as i8); 2])
    }
    #[inline(always)]
    unsafe fn and(a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        both!(half => _mm256_and_si256(a[half], b[half]))
    }
    #[inline(always)]
    unsafe fn or(a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        both!(half => _mm256_or_si256(a[half], b[half]))
    }
    #[inline(always)]
    unsafe fn shift_right<const BITS: u32>(a: [__m256i; 2]) -> [__m256i; 2] {
        both!(half => _mm256_srl_epi16(a[half], _mm_cvtsi32_si128(BITS as i32)))
    }
    #[inline(always)]
    unsafe fn shift_left<const BITS: u32>(a: [__m256i; 2]) -> [__m256i; 2] {
        both!(half => _mm256_sll_epi16(a[half], _mm_cvtsi32_si128(BITS as i32)))
    }
    #[inline(always)]
    unsafe fn lookup(table: &[i8; 16], index: [__m256i; 2]) -> [__m256i; 2] {
        both!(half => {
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            _mm256_shuffle_epi8(table, index[half])
        })
    }

    #[inline(always)]
    unsafe fn signed(weights: [__m256i; 2]) -> [__m256i; 2] {
        weights
    }
    #[inline(always)]
    unsafe fn dot(sum: [__m256i; 2], weights: [__m256i; 2], four: *const i8) -> [__m256i; 2] {
        both!(half => {
            // 127 · 127 · 2 fits 16 bits, so the pairwise sums do not saturate.
            let four = _mm256_set1_epi32(four.cast::<i32>().read_unaligned());
            let pairs = _mm256_maddubs_epi16(weights[half], four);
            _mm256_add_epi32(sum[half], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        })
    }
    #[inline(always)]
    unsafe fn dot_signed(sum: [__m256i; 2], weights: [__m256i; 2], four: *const i8) -> [__m256i; 2] {
        both!(half => {
            // The weights' signs go to the values; 128 · 127 · 2 fits 16 bits.
            let four = _mm256_set1_epi32(four.cast::<i32>().read_unaligned());
            let four = _mm256_sign_epi8(four, weights[half]);
            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(weights[half]), four);
            _mm256_add_epi32(sum[half], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        })
    }

    #[inline(always)]
    unsafe fn dots(
        mut sum: [__m256i; 2],
        weights: &[[__m256i; 2]],
        bits: usize,
        values: *const i8,
    ) -> [__m256i; 2] {
        for (index, weights) in weights.as_chunks::<4>().0.iter().enumerate() {
            let values = intrinsics!(values.add(index * 16));
            if bits == 8 {
                for group in 0..4 {
                    // SAFETY: the same contract.
                    sum = unsafe { Self::dot_signed(sum, weights[group], values.add(group * 4)) };
                }
                continue;
            }
            sum = both!(half => {
                let pairs = |group: usize| {
                    let four = _mm256_set1_epi32(values.add(group * 4).cast::<i32>().read_unaligned());
                    _mm256_maddubs_epi16(weights[group][half], four)
                };
                let ones = _mm256_set1_epi16(1);
                let (first, second) = (_mm256_add_epi16(pairs(0), pairs(1)), _mm256_add_epi16(pairs(2), pairs(3)));
                // Four products of 63 · 127 fit sixteen bits, eight of 31 · 127.
                if bits == 6 {
                    let sum = _mm256_add_epi32(sum[half], _mm256_madd_epi16(first, ones));
                    _mm256_add_epi32(sum, _mm256_madd_epi16(second, ones))
                } else {
                    let all = _mm256_add_epi16(first, second);
                    _mm256_add_epi32(sum[half], _mm256_madd_epi16(all, ones))
                }
            });
        }
        sum
    }

    #[inline(always)]
    unsafe fn splat_int(value: i32) -> [__m256i; 2] {
        intrinsics!([_mm256_set1_epi32(value); 2])
    }
    #[inline(always)]
    unsafe fn widen_unsigned(at: *const u8) -> [__m256i; 2] {
        both!(half => _mm256_cvtepu8_epi32(_mm_loadl_epi64(at.add(half * 8).cast())))
    }
    #[inline(always)]
    unsafe fn widen_signed(at: *const u8) -> [__m256i; 2] {
        both!(half => _mm256_cvtepi8_epi32(_mm_loadl_epi64(at.add(half * 8).cast())))
    }
    #[inline(always)]
    unsafe fn pair(low: [__m256i; 2], high: [__m256i; 2]) -> [__m256i; 2] {
        both!(half => _mm256_blend_epi16::<0xaa>(low[half], _mm256_slli_epi32::<16>(high[half])))
    }
    #[inline(always)]
    unsafe fn dot_pair(sum: [__m256i; 2], pairs: [__m256i; 2], two: *const i16) -> [__m256i; 2] {
        both!(half => {
            let two = _mm256_set1_epi32(two.cast::<i32>().read_unaligned());
            _mm256_add_epi32(sum[half], _mm256_madd_epi16(pairs[half], two))
        })
    }
    #[inline(always)]
    unsafe fn subtract_shifted<const BITS: u32>(a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        both!(half => {
            let shifted = _mm256_sll_epi32(b[half], _mm_cvtsi32_si128(BITS as i32));
            _mm256_sub_epi32(a[half], shifted)
        })
    }
    #[inline(always)]
    unsafe fn to_floats(a: [__m256i; 2]) -> [__m256; 2] {
        both!(half => _mm256_cvtepi32_ps(a[half]))
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> [__m256; 2] {
        intrinsics!([_mm256_set1_ps(value); 2])
    }
    #[inline(always)]
    unsafe fn floats(at: *const u8) -> [__m256; 2] {
        both!(half => _mm256_loadu_ps(at.add(half * 32).cast()))
    }
    #[inline(always)]
    unsafe fn halves(at: *const u8) -> [__m256; 2] {
        both!(half => _mm256_cvtph_ps(_mm_loadu_si128(at.add(half * 16).cast())))
    }
    #[inline(always)]
    unsafe fn powers(at: *const u8) -> [__m256; 2] {
        both!(half => {
            let wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64(at.add(half * 8).cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(wide))
        })
    }
    #[inline(always)]
    unsafe fn bf16_pairs(at: *const u8) -> ([__m256; 2], [__m256; 2]) {
        intrinsics!({
            let pairs = Self::bytes(at);
            let upper = _mm256_set1_epi32(0xffff_0000_u32 as i32);
            let first = pairs.map(|pairs| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs)));
            (first, pairs.map(|pairs| _mm256_castsi256_ps(_mm256_and_si256(pairs, upper))))
        })
    }
    #[inline(always)]
    unsafe fn multiply(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        both!(half => _mm256_mul_ps(a[half], b[half]))
    }
    #[inline(always)]
    unsafe fn multiply_add(a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
        both!(half => _mm256_fmadd_ps(a[half], b[half], c[half]))
    }
    #[inline(always)]
    unsafe fn subtract_product(a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
        both!(half => _mm256_fnmadd_ps(a[half], b[half], c[half]))
    }
    #[inline(always)]
    unsafe fn store(a: [__m256; 2], to: *mut f32) {
        let [low, high] = a;
        intrinsics!({
            _mm256_storeu_ps(to, low);
            _mm256_storeu_ps(to.add(8), high);
        })
    }
    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        intrinsics!(_mm_prefetch::<_MM_HINT_T0>(ahead(at).cast()))
    }
}
