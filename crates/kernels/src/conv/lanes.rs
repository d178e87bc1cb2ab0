//! Sixteen sums side by side on each instruction set: of f32 products, and of groups of four products of bytes.
//!
//! Activations are unsigned here, so that the whole of eight bits serves what comes out of a ReLU, and weights signed.

/// Arithmetic on sixteen sums.
///
/// # Safety
/// Every function needs the instruction set's features, inside a function compiled for them, and pointers that can be
/// read (or written) over what is loaded, of any alignment.
pub(super) trait Lanes: Copy + 'static {
    /// Sixteen groups of four bytes.
    type Bytes: Copy;
    /// Sixteen i32.
    type Ints: Copy;
    /// Sixteen f32.
    type Floats: Copy;

    /// Reads 64 weights.
    unsafe fn bytes(at: *const i8) -> Self::Bytes;
    /// Sixteen zeros.
    unsafe fn ints() -> Self::Ints;
    /// Adds to each lane its four weights times the four bytes at `four`, exactly.
    unsafe fn dot(sum: Self::Ints, weights: Self::Bytes, four: *const u8) -> Self::Ints;
    /// Writes sixteen i32.
    unsafe fn store_ints(sum: Self::Ints, to: *mut i32);

    /// Reads 16 weights.
    unsafe fn floats(at: *const f32) -> Self::Floats;
    /// Sixteen zeros.
    unsafe fn none() -> Self::Floats;
    /// Adds to each lane its weight times the value at `value`.
    unsafe fn add_product(sum: Self::Floats, weights: Self::Floats, value: *const f32) -> Self::Floats;
    /// Writes sixteen f32.
    unsafe fn store_floats(sum: Self::Floats, to: *mut f32);
}

/// Portable loops.
#[derive(Clone, Copy)]
pub(super) struct Plain;

impl Lanes for Plain {
    type Bytes = [i8; 64];
    type Ints = [i32; 16];
    type Floats = [f32; 16];

    #[inline(always)]
    unsafe fn bytes(at: *const i8) -> [i8; 64] {
        // SAFETY: as promised.
        unsafe { at.cast::<[i8; 64]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn ints() -> [i32; 16] {
        [0; 16]
    }
    #[inline(always)]
    unsafe fn dot(sum: [i32; 16], weights: [i8; 64], four: *const u8) -> [i32; 16] {
        // SAFETY: as promised.
        let four = unsafe { four.cast::<[u8; 4]>().read_unaligned() };
        std::array::from_fn(|lane| {
            let products = (0..4).map(|i| i32::from(weights[lane * 4 + i]) * i32::from(four[i]));
            sum[lane] + products.sum::<i32>()
        })
    }
    #[inline(always)]
    unsafe fn store_ints(sum: [i32; 16], to: *mut i32) {
        // SAFETY: as promised.
        unsafe { to.cast::<[i32; 16]>().write_unaligned(sum) }
    }

    #[inline(always)]
    unsafe fn floats(at: *const f32) -> [f32; 16] {
        // SAFETY: as promised.
        unsafe { at.cast::<[f32; 16]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn none() -> [f32; 16] {
        [0.0; 16]
    }
    #[inline(always)]
    unsafe fn add_product(sum: [f32; 16], weights: [f32; 16], value: *const f32) -> [f32; 16] {
        // SAFETY: as promised.
        let value = unsafe { value.read_unaligned() };
        std::array::from_fn(|lane| {
            if cfg!(target_arch = "aarch64") {
                weights[lane].mul_add(value, sum[lane])
            } else {
                weights[lane] * value + sum[lane]
            }
        })
    }
    #[inline(always)]
    unsafe fn store_floats(sum: [f32; 16], to: *mut f32) {
        // SAFETY: as promised.
        unsafe { to.cast::<[f32; 16]>().write_unaligned(sum) }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Lanes;

    /// AVX-512 with VNNI: one register a value, four products of bytes in one instruction.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx512;

    /// Runs intrinsics; each function's contract is the intrinsics'.
    macro_rules! intrinsics {
        ($body:expr) => {
            // SAFETY: the caller runs this only on a processor with the path's instructions and with usable pointers.
            unsafe { $body }
        };
    }

    impl Lanes for Avx512 {
        type Bytes = __m512i;
        type Ints = __m512i;
        type Floats = __m512;

        #[inline(always)]
        unsafe fn bytes(at: *const i8) -> __m512i {
            intrinsics!(_mm512_loadu_si512(at.cast()))
        }
        #[inline(always)]
        unsafe fn ints() -> __m512i {
            intrinsics!(_mm512_setzero_si512())
        }
        #[inline(always)]
        unsafe fn dot(sum: __m512i, weights: __m512i, four: *const u8) -> __m512i {
            intrinsics!({
                let four = _mm512_set1_epi32(four.cast::<i32>().read_unaligned());
                _mm512_dpbusd_epi32(sum, four, weights)
            })
        }
        #[inline(always)]
        unsafe fn store_ints(sum: __m512i, to: *mut i32) {
            intrinsics!(_mm512_storeu_si512(to.cast(), sum))
        }

        #[inline(always)]
        unsafe fn floats(at: *const f32) -> __m512 {
            intrinsics!(_mm512_loadu_ps(at))
        }
        #[inline(always)]
        unsafe fn none() -> __m512 {
            intrinsics!(_mm512_setzero_ps())
        }
        #[inline(always)]
        unsafe fn add_product(sum: __m512, weights: __m512, value: *const f32) -> __m512 {
            intrinsics!(_mm512_fmadd_ps(weights, _mm512_set1_ps(value.read_unaligned()), sum))
        }
        #[inline(always)]
        unsafe fn store_floats(sum: __m512, to: *mut f32) {
            intrinsics!(_mm512_storeu_ps(to, sum))
        }
    }

    /// AVX2: two registers a value. Sums of two products would overflow 16 bits, so that the highest bit of each byte is
    /// multiplied apart: `x = (x mod 128) + 128 · (x div 128)`.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx2;

    impl Lanes for Avx2 {
        type Bytes = [__m256i; 2];
        type Ints = [__m256i; 2];
        type Floats = [__m256; 2];

        #[inline(always)]
        unsafe fn bytes(at: *const i8) -> [__m256i; 2] {
            intrinsics!([_mm256_loadu_si256(at.cast()), _mm256_loadu_si256(at.add(32).cast())])
        }
        #[inline(always)]
        unsafe fn ints() -> [__m256i; 2] {
            intrinsics!([_mm256_setzero_si256(); 2])
        }
        #[inline(always)]
        unsafe fn dot(sum: [__m256i; 2], weights: [__m256i; 2], four: *const u8) -> [__m256i; 2] {
            intrinsics!({
                let four = four.cast::<u32>().read_unaligned();
                let low = _mm256_set1_epi32((four & 0x7f7f_7f7f) as i32);
                let high = _mm256_set1_epi32((four >> 7 & 0x0101_0101) as i32);
                let (one, top) = (_mm256_set1_epi16(1), _mm256_set1_epi16(128));
                let lane = |sum: __m256i, weights: __m256i| {
                    let low = _mm256_madd_epi16(_mm256_maddubs_epi16(low, weights), one);
                    let high = _mm256_madd_epi16(_mm256_maddubs_epi16(high, weights), top);
                    _mm256_add_epi32(sum, _mm256_add_epi32(low, high))
                };
                [lane(sum[0], weights[0]), lane(sum[1], weights[1])]
            })
        }
        #[inline(always)]
        unsafe fn store_ints(sum: [__m256i; 2], to: *mut i32) {
            intrinsics!({
                _mm256_storeu_si256(to.cast(), sum[0]);
                _mm256_storeu_si256(to.add(8).cast(), sum[1]);
            })
        }

        #[inline(always)]
        unsafe fn floats(at: *const f32) -> [__m256; 2] {
            intrinsics!([_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))])
        }
        #[inline(always)]
        unsafe fn none() -> [__m256; 2] {
            intrinsics!([_mm256_setzero_ps(); 2])
        }
        #[inline(always)]
        unsafe fn add_product(sum: [__m256; 2], weights: [__m256; 2], value: *const f32) -> [__m256; 2] {
            intrinsics!({
                let value = _mm256_set1_ps(value.read_unaligned());
                [_mm256_fmadd_ps(weights[0], value, sum[0]), _mm256_fmadd_ps(weights[1], value, sum[1])]
            })
        }
        #[inline(always)]
        unsafe fn store_floats(sum: [__m256; 2], to: *mut f32) {
            intrinsics!({
                _mm256_storeu_ps(to, sum[0]);
                _mm256_storeu_ps(to.add(8), sum[1]);
            })
        }
    }
}
