//! Four 128-bit registers a value: lanes 0..4, 4..8, 8..12 and 12..16.

use std::arch::aarch64::*;
use std::arch::asm;

use super::{Simd, ahead};

/// NEON; int8 products by the dot product instruction of ARMv8.2 (FEAT_DotProd) if `DOT`, otherwise by the widening
/// multiplications that every AArch64 processor has.
#[derive(Clone, Copy)]
pub(in crate::packed) struct Neon<const DOT: bool>;

/// Runs intrinsics; each function's contract is the intrinsics'.
macro_rules! intrinsics {
    ($body:expr) => {
        // SAFETY: the caller runs this only on a processor with the path's instructions and with readable pointers.
        unsafe { $body }
    };
}

/// All quarters through the same instruction. The index is a constant in each of the four copies.
macro_rules! each {
    ($quarter:ident => $body:expr) => {
        intrinsics!([
            {
                let $quarter = 0;
                $body
            },
            {
                let $quarter = 1;
                $body
            },
            {
                let $quarter = 2;
                $body
            },
            {
                let $quarter = 3;
                $body
            }
        ])
    };
}

impl<const DOT: bool> Neon<DOT> {
    /// Adds to each lane its four signed bytes of `weights` times those of `values`. Sums of two products must fit 16
    /// bits.
    ///
    /// # Safety
    /// As [`Simd`]'s functions.
    #[inline(always)]
    unsafe fn dot_quarter(sum: int32x4_t, weights: int8x16_t, values: int8x16_t) -> int32x4_t {
        if DOT {
            let mut sum = sum;
            intrinsics!(asm!(
                // The intrinsic for it is not stable yet.
                "sdot {sum:v}.4s, {weights:v}.16b, {values:v}.16b",
                sum = inout(vreg) sum,
                weights = in(vreg) weights,
                values = in(vreg) values,
                options(pure, nomem, nostack, preserves_flags),
            ));
            return sum;
        }
        intrinsics!({
            let low = vmull_s8(vget_low_s8(weights), vget_low_s8(values));
            let high = vmull_high_s8(weights, values);
            vpadalq_s16(sum, vpaddq_s16(low, high))
        })
    }
}

/// Sixteen bytes as four times four unsigned numbers.
///
/// # Safety
/// Sixteen bytes can be read.
#[inline(always)]
unsafe fn widened(at: *const u8) -> [uint32x4_t; 4] {
    intrinsics!({
        let bytes = vld1q_u8(at);
        let (low, high) = (vmovl_u8(vget_low_u8(bytes)), vmovl_high_u8(bytes));
        [
            vmovl_u16(vget_low_u16(low)),
            vmovl_high_u16(low),
            vmovl_u16(vget_low_u16(high)),
            vmovl_high_u16(high),
        ]
    })
}

impl<const DOT: bool> Simd for Neon<DOT> {
    type Bytes = [uint8x16_t; 4];
    type Ints = [int32x4_t; 4];
    type Floats = [float32x4_t; 4];

    const FLIPPED: bool = false;

    #[inline(always)]
    unsafe fn bytes(at: *const u8) -> [uint8x16_t; 4] {
        each!(quarter => vld1q_u8(at.add(quarter * 16)))
    }
    #[inline(always)]
    unsafe fn splat_byte(byte: u8) -> [uint8x16_t; 4] {
        intrinsics!([vdupq_n_u8(byte); 4])
    }
    #[inline(always)]
    unsafe fn and(a: [uint8x16_t; 4], b: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
        each!(quarter => vandq_u8(a[quarter], b[quarter]))
    }
    #[inline(always)]
    unsafe fn or(a: [uint8x16_t; 4], b: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
        each!(quarter => vorrq_u8(a[quarter], b[quarter]))
    }
    #[inline(always)]
    unsafe fn shift_right<const BITS: u32>(a: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
        each!(quarter => vshlq_u8(a[quarter], vdupq_n_s8(-(BITS as i8))))
    }
    #[inline(always)]
    unsafe fn shift_left<const BITS: u32>(a: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
        each!(quarter => vshlq_u8(a[quarter], vdupq_n_s8(BITS as i8)))
    }
    #[inline(always)]
    unsafe fn lookup(table: &[i8; 16], index: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
        each!(quarter => vqtbl1q_u8(vld1q_u8(table.as_ptr().cast()), index[quarter]))
    }

    #[inline(always)]
    unsafe fn signed(weights: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
        weights
    }
    #[inline(always)]
    unsafe fn dot(sum: [int32x4_t; 4], weights: [uint8x16_t; 4], four: *const i8) -> [int32x4_t; 4] {
        // SAFETY: the same contract; weights below 128 are the same signed.
        unsafe { Self::dot_signed(sum, weights, four) }
    }
    #[inline(always)]
    unsafe fn dot_signed(sum: [int32x4_t; 4], weights: [uint8x16_t; 4], four: *const i8) -> [int32x4_t; 4] {
        // 128 · 127 · 2 fits 16 bits.
        each!(quarter => {
            let four = vreinterpretq_s8_s32(vdupq_n_s32(four.cast::<i32>().read_unaligned()));
            Self::dot_quarter(sum[quarter], vreinterpretq_s8_u8(weights[quarter]), four)
        })
    }

    #[inline(always)]
    unsafe fn splat_int(value: i32) -> [int32x4_t; 4] {
        intrinsics!([vdupq_n_s32(value); 4])
    }
    #[inline(always)]
    unsafe fn widen_unsigned(at: *const u8) -> [int32x4_t; 4] {
        let wide = intrinsics!(widened(at));
        each!(quarter => vreinterpretq_s32_u32(wide[quarter]))
    }
    #[inline(always)]
    unsafe fn widen_signed(at: *const u8) -> [int32x4_t; 4] {
        intrinsics!({
            let bytes = vld1q_s8(at.cast());
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
            [
                vmovl_s16(vget_low_s16(low)),
                vmovl_high_s16(low),
                vmovl_s16(vget_low_s16(high)),
                vmovl_high_s16(high),
            ]
        })
    }
    #[inline(always)]
    unsafe fn pair(low: [int32x4_t; 4], high: [int32x4_t; 4]) -> [int32x4_t; 4] {
        each!(quarter => {
            let low = vandq_s32(low[quarter], vdupq_n_s32(0xffff));
            vorrq_s32(low, vshlq_n_s32::<16>(high[quarter]))
        })
    }
    #[inline(always)]
    unsafe fn dot_pair(sum: [int32x4_t; 4], pairs: [int32x4_t; 4], two: *const i16) -> [int32x4_t; 4] {
        // Taking the pairs apart again costs nothing: the compiler still has the parts.
        each!(quarter => {
            let low = vshrq_n_s32::<16>(vshlq_n_s32::<16>(pairs[quarter]));
            let high = vshrq_n_s32::<16>(pairs[quarter]);
            let sum = vmlaq_n_s32(sum[quarter], low, i32::from(*two));
            vmlaq_n_s32(sum, high, i32::from(*two.add(1)))
        })
    }
    #[inline(always)]
    unsafe fn multiply_add_ints(sum: [int32x4_t; 4], a: [int32x4_t; 4], b: [int32x4_t; 4]) -> [int32x4_t; 4] {
        each!(quarter => vmlaq_s32(sum[quarter], a[quarter], b[quarter]))
    }
    #[inline(always)]
    unsafe fn subtract_shifted<const BITS: u32>(a: [int32x4_t; 4], b: [int32x4_t; 4]) -> [int32x4_t; 4] {
        each!(quarter => vmlsq_s32(a[quarter], b[quarter], vdupq_n_s32(1 << BITS)))
    }
    #[inline(always)]
    unsafe fn to_floats(a: [int32x4_t; 4]) -> [float32x4_t; 4] {
        each!(quarter => vcvtq_f32_s32(a[quarter]))
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> [float32x4_t; 4] {
        intrinsics!([vdupq_n_f32(value); 4])
    }
    #[inline(always)]
    unsafe fn floats(at: *const u8) -> [float32x4_t; 4] {
        each!(quarter => vreinterpretq_f32_u8(vld1q_u8(at.add(quarter * 16))))
    }
    #[inline(always)]
    unsafe fn halves(at: *const u8) -> [float32x4_t; 4] {
        each!(quarter => vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(at.add(quarter * 8)))))
    }
    #[inline(always)]
    unsafe fn powers(at: *const u8) -> [float32x4_t; 4] {
        let wide = intrinsics!(widened(at));
        each!(quarter => vreinterpretq_f32_u32(vshlq_n_u32::<23>(wide[quarter])))
    }
    #[inline(always)]
    unsafe fn bf16_pairs(at: *const u8) -> ([float32x4_t; 4], [float32x4_t; 4]) {
        let pairs: [uint32x4_t; 4] = each!(quarter => vreinterpretq_u32_u8(vld1q_u8(at.add(quarter * 16))));
        (
            each!(quarter => vreinterpretq_f32_u32(vshlq_n_u32::<16>(pairs[quarter]))),
            each!(quarter => vreinterpretq_f32_u32(vandq_u32(pairs[quarter], vdupq_n_u32(0xffff_0000)))),
        )
    }
    #[inline(always)]
    unsafe fn multiply(a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] {
        each!(quarter => vmulq_f32(a[quarter], b[quarter]))
    }
    #[inline(always)]
    unsafe fn multiply_add(
        a: [float32x4_t; 4],
        b: [float32x4_t; 4],
        c: [float32x4_t; 4],
    ) -> [float32x4_t; 4] {
        each!(quarter => vfmaq_f32(c[quarter], a[quarter], b[quarter]))
    }
    #[inline(always)]
    unsafe fn subtract_product(
        a: [float32x4_t; 4],
        b: [float32x4_t; 4],
        c: [float32x4_t; 4],
    ) -> [float32x4_t; 4] {
        each!(quarter => vfmsq_f32(c[quarter], a[quarter], b[quarter]))
    }
    #[inline(always)]
    unsafe fn store(a: [float32x4_t; 4], to: *mut f32) {
        let _: [(); 4] = each!(quarter => vst1q_f32(to.add(quarter * 4), a[quarter]));
    }
    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        // The intrinsic is not stable yet. A hint: it neither faults nor counts as an access.
        intrinsics!(
            asm!("prfm pldl1keep, [{at}]", at = in(reg) ahead(at), options(readonly, nostack, preserves_flags))
        )
    }
}
