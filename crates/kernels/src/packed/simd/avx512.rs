//! One 512-bit register a value; the int8 products are VNNI's.

use std::arch::x86_64::*;

use super::super::int8::MAGIC;
use super::{Simd, ahead};

/// AVX-512 F, BW, VL, DQ and VNNI.
#[derive(Clone, Copy)]
pub(crate) struct Avx512;

/// Runs intrinsics; each function's contract is the intrinsics'.
macro_rules! intrinsics {
    ($body:expr) => {
        // SAFETY: the caller runs this only on a processor with the path's instructions and with readable pointers.
        unsafe { $body }
    };
}

impl Simd for Avx512 {
    type Bytes = __m512i;
    type Ints = __m512i;
    type Floats = __m512;

    const FLIPPED: bool = true;

    #[inline(always)]
    unsafe fn bytes(at: *const u8) -> __m512i {
        intrinsics!(_mm512_loadu_si512(at.cast()))
    }
    #[inline(always)]
    unsafe fn splat_byte(byte: u8) -> __m512i {
        intrinsics!(_mm512_set1_epi8(byte as i8))
    }
    #[inline(always)]
    unsafe fn and(a: __m512i, b: __m512i) -> __m512i {
        intrinsics!(_mm512_and_si512(a, b))
    }
    #[inline(always)]
    unsafe fn or(a: __m512i, b: __m512i) -> __m512i {
        intrinsics!(_mm512_or_si512(a, b))
    }
    #[inline(always)]
    unsafe fn shift_right<const BITS: u32>(a: __m512i) -> __m512i {
        intrinsics!(_mm512_srli_epi16::<BITS>(a))
    }
    #[inline(always)]
    unsafe fn shift_left<const BITS: u32>(a: __m512i) -> __m512i {
        intrinsics!(_mm512_slli_epi16::<BITS>(a))
    }
    #[inline(always)]
    unsafe fn lookup(table: &[i8; 16], index: __m512i) -> __m512i {
        intrinsics!({
            let table = _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()));
            _mm512_shuffle_epi8(table, index)
        })
    }

    #[inline(always)]
    unsafe fn signed(weights: __m512i) -> __m512i {
        intrinsics!(_mm512_xor_si512(weights, _mm512_set1_epi8(-128)))
    }
    #[inline(always)]
    unsafe fn dot(sum: __m512i, weights: __m512i, four: *const i8) -> __m512i {
        intrinsics!(_mm512_dpbusd_epi32(sum, weights, _mm512_set1_epi32(four.cast::<i32>().read_unaligned())))
    }
    #[inline(always)]
    unsafe fn dot_signed(sum: __m512i, weights: __m512i, four: *const i8) -> __m512i {
        // SAFETY: the same contract.
        unsafe { Self::dot(sum, weights, four) }
    }

    #[inline(always)]
    unsafe fn dots_of<const T: usize>(
        mut sums: [__m512i; T],
        weights: &[__m512i],
        _bits: usize,
        values: *const i8,
    ) -> [__m512i; T] {
        // SAFETY: the same contract.
        unsafe {
            if T <= 2 {
                // Two sums a token: products wait half as long for each other.
                let (first, second) = weights.split_at(weights.len() / 2);
                for (t, sum) in sums.iter_mut().enumerate() {
                    let mut other = Self::splat_int(0);
                    for (group, (first, second)) in first.iter().zip(second).enumerate() {
                        let four = values.add(t * 32 + group * 4);
                        *sum = Self::dot(*sum, *first, four);
                        other = Self::dot(other, *second, four.add(weights.len() / 2 * 4));
                    }
                    *sum = _mm512_add_epi32(*sum, other);
                }
                return sums;
            }
            for (group, weights) in weights.iter().enumerate() {
                for (t, sum) in sums.iter_mut().enumerate() {
                    *sum = Self::dot(*sum, *weights, values.add(t * 32 + group * 4));
                }
            }
            sums
        }
    }

    #[inline(always)]
    unsafe fn splat_int(value: i32) -> __m512i {
        intrinsics!(_mm512_set1_epi32(value))
    }
    #[inline(always)]
    unsafe fn widen_unsigned(at: *const u8) -> __m512i {
        intrinsics!(_mm512_cvtepu8_epi32(_mm_loadu_si128(at.cast())))
    }
    #[inline(always)]
    unsafe fn widen_signed(at: *const u8) -> __m512i {
        intrinsics!(_mm512_cvtepi8_epi32(_mm_loadu_si128(at.cast())))
    }
    #[inline(always)]
    unsafe fn pair(low: __m512i, high: __m512i) -> __m512i {
        intrinsics!(_mm512_mask_mov_epi16(_mm512_slli_epi32::<16>(high), 0x5555_5555, low))
    }
    #[inline(always)]
    unsafe fn dot_pair(sum: __m512i, pairs: __m512i, two: *const i16) -> __m512i {
        intrinsics!(_mm512_dpwssd_epi32(sum, pairs, _mm512_set1_epi32(two.cast::<i32>().read_unaligned())))
    }
    #[inline(always)]
    unsafe fn subtract_shifted<const BITS: u32>(a: __m512i, b: __m512i) -> __m512i {
        intrinsics!(_mm512_sub_epi32(a, _mm512_slli_epi32::<BITS>(b)))
    }
    #[inline(always)]
    unsafe fn to_floats(a: __m512i) -> __m512 {
        intrinsics!(_mm512_cvtepi32_ps(a))
    }
    #[inline(always)]
    unsafe fn start(offset: u8, start: *const i32, _sums: *const i16, _parts: usize) -> __m512i {
        let none = MAGIC.to_bits() as i32;
        intrinsics!(_mm512_set1_epi32(if offset == 0 { none } else { *start }))
    }
    /// The bits of the sum are those of [`MAGIC`] plus the sum: one instruction in place of a conversion and a product.
    /// Its result is the same, the nearest f32 to the product.
    #[inline(always)]
    unsafe fn scaled(sum: __m512i, scale: *const [f32; 2]) -> __m512 {
        intrinsics!({
            let [scale, shift] = *scale;
            _mm512_fmadd_ps(_mm512_castsi512_ps(sum), _mm512_set1_ps(scale), _mm512_set1_ps(shift))
        })
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> __m512 {
        intrinsics!(_mm512_set1_ps(value))
    }
    #[inline(always)]
    unsafe fn floats(at: *const u8) -> __m512 {
        intrinsics!(_mm512_loadu_ps(at.cast()))
    }
    #[inline(always)]
    unsafe fn halves(at: *const u8) -> __m512 {
        intrinsics!(_mm512_cvtph_ps(_mm256_loadu_si256(at.cast())))
    }
    #[inline(always)]
    unsafe fn powers(at: *const u8) -> __m512 {
        intrinsics!(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(Self::widen_unsigned(at))))
    }
    #[inline(always)]
    unsafe fn bf16_pairs(at: *const u8) -> (__m512, __m512) {
        intrinsics!({
            let pairs = _mm512_loadu_si512(at.cast());
            let second = _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32 as i32));
            (_mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)), _mm512_castsi512_ps(second))
        })
    }
    #[inline(always)]
    unsafe fn multiply(a: __m512, b: __m512) -> __m512 {
        intrinsics!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    unsafe fn multiply_add(a: __m512, b: __m512, c: __m512) -> __m512 {
        intrinsics!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    unsafe fn subtract_product(a: __m512, b: __m512, c: __m512) -> __m512 {
        intrinsics!(_mm512_fnmadd_ps(a, b, c))
    }
    #[inline(always)]
    unsafe fn store(a: __m512, to: *mut f32) {
        intrinsics!(_mm512_storeu_ps(to, a))
    }
    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        intrinsics!(_mm_prefetch::<_MM_HINT_T0>(ahead(at).cast()))
    }
}
