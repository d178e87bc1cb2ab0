//! AVX-512 and AVX2.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::super::hadamard::transform_blocks;
use super::super::kernel::{PanelSums, panel_sums};
use super::super::share::{Work, run_share};
use super::super::tile::Buffers;
use super::{Arithmetic, Element, Lanes, NORMAL};
use crate::vector::LANES;

/// One 512-bit register.
#[derive(Clone, Copy)]
pub(crate) struct Avx512;

// SAFETY (of every block below): the features are there and sixteen elements can be read or written, the caller's
// promise.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Arithmetic for Avx512 {
    type V = __m512;
    const WIDE: bool = true;
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(at: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(at) }
    }
    #[inline(always)]
    unsafe fn store(at: *mut f32, x: __m512) {
        unsafe { _mm512_storeu_ps(at, x) }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn zero_up_to(bound: f32, at: __m512, x: __m512) -> __m512 {
        unsafe {
            let kept = _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(at, _mm512_set1_ps(bound));
            _mm512_maskz_mov_ps(kept, x)
        }
    }
    #[inline(always)]
    unsafe fn times_power(x: __m512, shifted: __m512) -> __m512 {
        unsafe {
            let power = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted));
            _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(x), power))
        }
    }
    #[inline(always)]
    unsafe fn greatest(x: __m512) -> f32 {
        unsafe { _mm512_reduce_max_ps(x) }
    }
    #[inline(always)]
    unsafe fn sum(x: __m512) -> f32 {
        unsafe { _mm512_reduce_add_ps(x) }
    }
}

// SAFETY (of every block below): as above.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Lanes for Avx512 {
    const ROWS: usize = 8;
    #[inline(always)]
    unsafe fn load_f16(at: *const f16) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(at.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16(at: *const bf16) -> __m512 {
        let wide = unsafe { _mm512_cvtepu16_epi32(_mm256_loadu_si256(at.cast())) };
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide)) }
    }
    #[inline(always)]
    unsafe fn load_i8(at: *const i8) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(at.cast()))) }
    }
    #[inline(always)]
    unsafe fn load_q4(at: *const u8) -> __m512 {
        unsafe {
            let bytes = _mm_loadl_epi64(at.cast());
            // The permutation looks at the low four bits of a lane.
            let codes = _mm_unpacklo_epi64(bytes, _mm_srli_epi16::<4>(bytes));
            _mm512_permutexvar_ps(_mm512_cvtepu8_epi32(codes), _mm512_loadu_ps(NORMAL.as_ptr()))
        }
    }
    #[inline(always)]
    unsafe fn fetch(at: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }
    #[inline(always)]
    unsafe fn hadamard(x: __m512) -> __m512 {
        unsafe {
            // Where a lane's number has the bit, the difference: other − x.
            let other = _mm512_permute_ps::<0b10_11_00_01>(x);
            let x = _mm512_mask_sub_ps(_mm512_add_ps(x, other), 0b1010_1010_1010_1010, other, x);
            let other = _mm512_permute_ps::<0b01_00_11_10>(x);
            let x = _mm512_mask_sub_ps(_mm512_add_ps(x, other), 0b1100_1100_1100_1100, other, x);
            let other = _mm512_shuffle_f32x4::<0b10_11_00_01>(x, x);
            let x = _mm512_mask_sub_ps(_mm512_add_ps(x, other), 0b1111_0000_1111_0000, other, x);
            let other = _mm512_shuffle_f32x4::<0b01_00_11_10>(x, x);
            _mm512_mask_sub_ps(_mm512_add_ps(x, other), 0b1111_1111_0000_0000, other, x)
        }
    }
    unsafe fn panel_sums<E: Element, const T: usize, const P: usize>(sums: &PanelSums<E>) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
        unsafe fn compiled<E: Element, const T: usize, const P: usize>(sums: &PanelSums<E>) {
            unsafe { panel_sums::<Avx512, E, T, P>(sums) }
        }
        unsafe { compiled::<E, T, P>(sums) }
    }
    unsafe fn transform(rows: &mut [f32], block: usize) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
        unsafe fn compiled(rows: &mut [f32], block: usize) {
            unsafe { transform_blocks::<Avx512>(rows, block) }
        }
        unsafe { compiled(rows, block) }
    }
    unsafe fn run(work: &Work<'_>, thread: usize, buffers: &mut Buffers) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
        unsafe fn compiled(work: &Work<'_>, thread: usize, buffers: &mut Buffers) {
            unsafe { run_share::<Avx512>(work, thread, buffers) }
        }
        unsafe { compiled(work, thread, buffers) }
    }
}

/// Two 256-bit registers.
#[derive(Clone, Copy)]
pub(crate) struct Avx2;

type Pair = (__m256, __m256);

// SAFETY (of every block below): as for `Avx512`.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Arithmetic for Avx2 {
    type V = Pair;
    const WIDE: bool = false;
    #[inline(always)]
    unsafe fn splat(x: f32) -> Pair {
        let x = unsafe { _mm256_set1_ps(x) };
        (x, x)
    }
    #[inline(always)]
    unsafe fn load(at: *const f32) -> Pair {
        unsafe { (_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))) }
    }
    #[inline(always)]
    unsafe fn store(at: *mut f32, x: Pair) {
        unsafe {
            _mm256_storeu_ps(at, x.0);
            _mm256_storeu_ps(at.add(8), x.1);
        }
    }
    #[inline(always)]
    unsafe fn add(a: Pair, b: Pair) -> Pair {
        unsafe { (_mm256_add_ps(a.0, b.0), _mm256_add_ps(a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn sub(a: Pair, b: Pair) -> Pair {
        unsafe { (_mm256_sub_ps(a.0, b.0), _mm256_sub_ps(a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn mul(a: Pair, b: Pair) -> Pair {
        unsafe { (_mm256_mul_ps(a.0, b.0), _mm256_mul_ps(a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn div(a: Pair, b: Pair) -> Pair {
        unsafe { (_mm256_div_ps(a.0, b.0), _mm256_div_ps(a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn fma(a: Pair, b: Pair, c: Pair) -> Pair {
        unsafe { (_mm256_fmadd_ps(a.0, b.0, c.0), _mm256_fmadd_ps(a.1, b.1, c.1)) }
    }
    #[inline(always)]
    unsafe fn max(a: Pair, b: Pair) -> Pair {
        unsafe { (_mm256_max_ps(a.0, b.0), _mm256_max_ps(a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn zero_up_to(bound: f32, at: Pair, x: Pair) -> Pair {
        unsafe {
            let bound = _mm256_set1_ps(bound);
            let low = _mm256_and_ps(_mm256_cmp_ps::<_CMP_NLE_UQ>(at.0, bound), x.0);
            let high = _mm256_and_ps(_mm256_cmp_ps::<_CMP_NLE_UQ>(at.1, bound), x.1);
            (low, high)
        }
    }
    #[inline(always)]
    unsafe fn times_power(x: Pair, shifted: Pair) -> Pair {
        unsafe {
            let low = _mm256_slli_epi32::<23>(_mm256_castps_si256(shifted.0));
            let high = _mm256_slli_epi32::<23>(_mm256_castps_si256(shifted.1));
            let low = _mm256_add_epi32(_mm256_castps_si256(x.0), low);
            let high = _mm256_add_epi32(_mm256_castps_si256(x.1), high);
            (_mm256_castsi256_ps(low), _mm256_castsi256_ps(high))
        }
    }
    #[inline(always)]
    unsafe fn greatest(x: Pair) -> f32 {
        let mut lanes = [0.0; LANES];
        unsafe { Avx2::store(lanes.as_mut_ptr(), x) };
        lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
    #[inline(always)]
    unsafe fn sum(x: Pair) -> f32 {
        let mut lanes = [0.0; LANES];
        unsafe { Avx2::store(lanes.as_mut_ptr(), x) };
        lanes.into_iter().sum()
    }
}

// SAFETY (of every block below): as above.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Lanes for Avx2 {
    const ROWS: usize = 6;
    #[inline(always)]
    unsafe fn load_f16(at: *const f16) -> Pair {
        unsafe {
            let [low, high] = [_mm_loadu_si128(at.cast()), _mm_loadu_si128(at.add(8).cast())];
            (_mm256_cvtph_ps(low), _mm256_cvtph_ps(high))
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(at: *const bf16) -> Pair {
        unsafe {
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast()));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(at.add(8).cast()));
            let (low, high) = (_mm256_slli_epi32::<16>(low), _mm256_slli_epi32::<16>(high));
            (_mm256_castsi256_ps(low), _mm256_castsi256_ps(high))
        }
    }
    #[inline(always)]
    unsafe fn load_i8(at: *const i8) -> Pair {
        unsafe {
            let low = _mm256_cvtepi8_epi32(_mm_loadl_epi64(at.cast()));
            let high = _mm256_cvtepi8_epi32(_mm_loadl_epi64(at.add(8).cast()));
            (_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high))
        }
    }
    #[inline(always)]
    unsafe fn load_q4(at: *const u8) -> Pair {
        unsafe {
            let bytes = _mm_loadl_epi64(at.cast());
            let magnitudes = _mm256_loadu_ps(NORMAL.as_ptr());
            // The low three bits of a lane choose the magnitude, the fourth is its sign.
            let number = |codes: __m256i| {
                let sign = _mm256_and_si256(_mm256_slli_epi32::<28>(codes), _mm256_set1_epi32(i32::MIN));
                _mm256_xor_ps(_mm256_permutevar8x32_ps(magnitudes, codes), _mm256_castsi256_ps(sign))
            };
            let codes = _mm256_cvtepu8_epi32(bytes);
            (number(codes), number(_mm256_srli_epi32::<4>(codes)))
        }
    }
    #[inline(always)]
    unsafe fn fetch(at: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }
    #[inline(always)]
    unsafe fn hadamard(x: Pair) -> Pair {
        // Lanes 8 apart last, as everywhere: the order of additions decides the bits.
        unsafe {
            let (low, high) = (hadamard_8(x.0), hadamard_8(x.1));
            (_mm256_add_ps(low, high), _mm256_sub_ps(low, high))
        }
    }
    unsafe fn panel_sums<E: Element, const T: usize, const P: usize>(sums: &PanelSums<E>) {
        #[target_feature(enable = "avx2,fma,f16c")]
        unsafe fn compiled<E: Element, const T: usize, const P: usize>(sums: &PanelSums<E>) {
            unsafe { panel_sums::<Avx2, E, T, P>(sums) }
        }
        unsafe { compiled::<E, T, P>(sums) }
    }
    unsafe fn transform(rows: &mut [f32], block: usize) {
        #[target_feature(enable = "avx2,fma,f16c")]
        unsafe fn compiled(rows: &mut [f32], block: usize) {
            unsafe { transform_blocks::<Avx2>(rows, block) }
        }
        unsafe { compiled(rows, block) }
    }
    unsafe fn run(work: &Work<'_>, thread: usize, buffers: &mut Buffers) {
        #[target_feature(enable = "avx2,fma,f16c")]
        unsafe fn compiled(work: &Work<'_>, thread: usize, buffers: &mut Buffers) {
            unsafe { run_share::<Avx2>(work, thread, buffers) }
        }
        unsafe { compiled(work, thread, buffers) }
    }
}

/// Sums and differences of lanes 1, 2 and 4 apart.
///
/// # Safety
/// The processor has AVX.
#[inline(always)]
unsafe fn hadamard_8(x: __m256) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe {
        let other = _mm256_permute_ps::<0b10_11_00_01>(x);
        let x = _mm256_blend_ps::<0b1010_1010>(_mm256_add_ps(x, other), _mm256_sub_ps(other, x));
        let other = _mm256_permute_ps::<0b01_00_11_10>(x);
        let x = _mm256_blend_ps::<0b1100_1100>(_mm256_add_ps(x, other), _mm256_sub_ps(other, x));
        let other = _mm256_permute2f128_ps::<1>(x, x);
        _mm256_blend_ps::<0b1111_0000>(_mm256_add_ps(x, other), _mm256_sub_ps(other, x))
    }
}
