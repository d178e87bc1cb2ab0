//! Multiply-adds in NEON registers. The dot and matrix instructions have no stable functions in Rust, so they are
//! assembly.

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};
use std::hint::black_box;

use super::{CHAINS, Kind, Loop, STEPS};

/// The loops of NEON and of those of its extensions that the processor has.
pub(super) fn arithmetic(kind: Kind) -> Option<Loop> {
    let of = |instruction, multiply_adds: usize, run| Loop {
        instruction,
        operations: (CHAINS * STEPS * multiply_adds * 2) as u64,
        run,
    };
    match kind {
        // SAFETY: every AArch64 processor that this compiles for has NEON.
        Kind::F32 => Some(of("fmla", 4, || unsafe { fmla() })),
        Kind::Int8 if is_aarch64_feature_detected!("dotprod") => {
            // SAFETY: just seen.
            Some(of("sdot", 16, || unsafe { sdot() }))
        }
        // SAFETY: as for `fmla`.
        Kind::Int8 => Some(of("smull", 16, || unsafe { smull() })),
        Kind::Bf16 => is_aarch64_feature_detected!("bf16").then_some(
            // SAFETY: just seen.
            of("bfdot", 8, || unsafe { bfdot() }),
        ),
        Kind::MatrixBf16 => is_aarch64_feature_detected!("bf16").then_some(
            // SAFETY: just seen.
            of("bfmmla", 16, || unsafe { bfmmla() }),
        ),
        Kind::MatrixInt8 => is_aarch64_feature_detected!("i8mm").then_some(
            // SAFETY: just seen.
            of("smmla", 32, || unsafe { smmla() }),
        ),
    }
}

#[target_feature(enable = "neon")]
fn fmla() -> f64 {
    let one = vdupq_n_f32(black_box(1.0));
    let mut sums = [vdupq_n_f32(0.0); CHAINS];
    for _ in 0..STEPS {
        for sum in &mut sums {
            *sum = vfmaq_f32(*sum, one, one);
        }
    }
    sums.iter().map(|&sum| f64::from(vaddvq_f32(sum))).sum()
}

/// A loop over an instruction that multiplies bytes into four i32 or pairs of bf16 into four f32.
macro_rules! dot_loop {
    ($name:ident, $feature:literal, [$($line:literal),*], $ones:expr, $zero:expr, $total:expr) => {
        #[target_feature(enable = $feature)]
        fn $name() -> f64 {
            let one = $ones;
            let mut sums = [$zero; CHAINS];
            for _ in 0..STEPS {
                for sum in &mut sums {
                    // SAFETY: registers only.
                    unsafe {
                        asm!(
                            $($line,)*
                            sum = inout(vreg) *sum,
                            one = in(vreg) one,
                            products = out(vreg) _,
                            options(nomem, nostack, preserves_flags)
                        );
                    }
                }
            }
            sums.iter().map(|&sum| f64::from($total(sum))).sum()
        }
    };
}

/// Two bf16 of value 1 in every lane.
#[target_feature(enable = "neon")]
fn bf16_ones() -> uint32x4_t {
    vdupq_n_u32(black_box(0x3f80_3f80))
}

dot_loop!(
    sdot,
    "neon,dotprod",
    ["sdot {sum:v}.4s, {one:v}.16b, {one:v}.16b", "/* {products} is not needed */"],
    vdupq_n_s8(black_box(1)),
    vdupq_n_s32(0),
    vaddvq_s32
);
dot_loop!(
    smull,
    "neon",
    [
        "smull {products:v}.8h, {one:v}.8b, {one:v}.8b",
        "smlal2 {products:v}.8h, {one:v}.16b, {one:v}.16b",
        "sadalp {sum:v}.4s, {products:v}.8h"
    ],
    vdupq_n_s8(black_box(1)),
    vdupq_n_s32(0),
    vaddvq_s32
);
dot_loop!(
    smmla,
    "neon,i8mm",
    ["smmla {sum:v}.4s, {one:v}.16b, {one:v}.16b", "/* {products} is not needed */"],
    vdupq_n_s8(black_box(1)),
    vdupq_n_s32(0),
    vaddvq_s32
);
dot_loop!(
    bfdot,
    "neon,bf16",
    ["bfdot {sum:v}.4s, {one:v}.8h, {one:v}.8h", "/* {products} is not needed */"],
    bf16_ones(),
    vdupq_n_f32(0.0),
    vaddvq_f32
);
dot_loop!(
    bfmmla,
    "neon,bf16",
    ["bfmmla {sum:v}.4s, {one:v}.8h, {one:v}.8h", "/* {products} is not needed */"],
    bf16_ones(),
    vdupq_n_f32(0.0),
    vaddvq_f32
);
