//! Four 128-bit registers a value: lanes 0..4, 4..8, 8..12 and 12..16.

use std::arch::aarch64::*;
use std::arch::asm;

use super::{Simd, ahead};

/// NEON; int8 products by the dot product instruction of ARMv8.2 (FEAT_DotProd) if `DOT`, otherwise by the widening
/// multiplications that every AArch64 processor has.
#[derive(Clone, Copy)]
pub(crate) struct Neon<const DOT: bool>;

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

/// Adds to each lane its four bytes of `weights` times the four bytes in lane `LANE` of `values`.
///
/// # Safety
/// As [`Simd`]'s functions; the processor has FEAT_DotProd.
#[inline(always)]
unsafe fn dot_lane<const LANE: i32>(mut sum: int32x4_t, weights: uint8x16_t, values: int8x16_t) -> int32x4_t {
    // The intrinsic for it is not stable yet.
    intrinsics!(asm!(
        "sdot {sum:v}.4s, {weights:v}.16b, {values:v}.4b[{lane}]",
        sum = inout(vreg) sum,
        weights = in(vreg) weights,
        values = in(vreg) values,
        lane = const LANE,
        options(pure, nomem, nostack, preserves_flags),
    ));
    sum
}

/// Sums of products of bytes, sixteen bits each: those of the lower and of the upper eight bytes.
type Products = [int16x8_t; 2];

// These two are assembly because the compiler takes the registers of the intrinsics apart: it keeps halves of weights.

/// # Safety
/// As [`Simd`]'s functions.
#[inline(always)]
unsafe fn products(weights: uint8x16_t, values: int8x16_t) -> Products {
    let (low, high);
    intrinsics!(asm!(
        "smull {low:v}.8h, {weights:v}.8b, {values:v}.8b",
        "smull2 {high:v}.8h, {weights:v}.16b, {values:v}.16b",
        low = out(vreg) low,
        high = lateout(vreg) high,
        weights = in(vreg) weights,
        values = in(vreg) values,
        options(pure, nomem, nostack, preserves_flags),
    ));
    [low, high]
}

/// # Safety
/// As [`Simd`]'s functions; the sums fit sixteen bits.
#[inline(always)]
unsafe fn more_products([mut low, mut high]: Products, weights: uint8x16_t, values: int8x16_t) -> Products {
    intrinsics!(asm!(
        "smlal {low:v}.8h, {weights:v}.8b, {values:v}.8b",
        "smlal2 {high:v}.8h, {weights:v}.16b, {values:v}.16b",
        low = inout(vreg) low,
        high = inout(vreg) high,
        weights = in(vreg) weights,
        values = in(vreg) values,
        options(pure, nomem, nostack, preserves_flags),
    ));
    [low, high]
}

/// Adds to each lane of 32 bits its four sums.
///
/// # Safety
/// As [`Simd`]'s functions; two sums together fit sixteen bits.
#[inline(always)]
unsafe fn add_products(sum: int32x4_t, [low, high]: Products) -> int32x4_t {
    intrinsics!(vpadalq_s16(sum, vpaddq_s16(low, high)))
}

/// The same four bytes in all lanes.
///
/// # Safety
/// Four bytes can be read.
#[inline(always)]
unsafe fn splat_four(four: *const i8) -> int8x16_t {
    intrinsics!(vreinterpretq_s8_s32(vdupq_n_s32(four.cast::<i32>().read_unaligned())))
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
        each!(quarter => {
            let (sum, weights, four) = (sum[quarter], weights[quarter], splat_four(four));
            // 128 · 127 · 2 fits sixteen bits.
            if DOT { dot_lane::<0>(sum, weights, four) } else { add_products(sum, products(weights, four)) }
        })
    }
    #[inline(always)]
    unsafe fn dots(
        mut sum: [int32x4_t; 4],
        weights: &[[uint8x16_t; 4]],
        bits: usize,
        values: *const i8,
    ) -> [int32x4_t; 4] {
        for (index, [w0, w1, w2, w3]) in weights.as_chunks::<4>().0.iter().enumerate() {
            let values = intrinsics!(values.add(index * 16));
            sum = if DOT {
                each!(quarter => {
                    let values = vld1q_s8(values);
                    let sum = dot_lane::<0>(sum[quarter], w0[quarter], values);
                    let sum = dot_lane::<1>(sum, w1[quarter], values);
                    let sum = dot_lane::<2>(sum, w2[quarter], values);
                    dot_lane::<3>(sum, w3[quarter], values)
                })
            } else {
                each!(quarter => {
                    let sum = sum[quarter];
                    let first = products(w0[quarter], splat_four(values));
                    let (x1, x2) = (splat_four(values.add(4)), splat_four(values.add(8)));
                    let x3 = splat_four(values.add(12));
                    // As many products are summed in sixteen bits as fit with one sum added to another.
                    match bits {
                        0..=5 => {
                            let products = more_products(first, w1[quarter], x1);
                            let products = more_products(products, w2[quarter], x2);
                            add_products(sum, more_products(products, w3[quarter], x3))
                        }
                        6 => {
                            let sum = add_products(sum, more_products(first, w1[quarter], x1));
                            add_products(sum, more_products(products(w2[quarter], x2), w3[quarter], x3))
                        }
                        _ => {
                            let sum = add_products(sum, first);
                            let sum = add_products(sum, products(w1[quarter], x1));
                            let sum = add_products(sum, products(w2[quarter], x2));
                            add_products(sum, products(w3[quarter], x3))
                        }
                    }
                })
            };
        }
        sum
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
