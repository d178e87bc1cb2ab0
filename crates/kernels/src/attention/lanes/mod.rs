//! Sixteen f32 side by side on each instruction set, and what attention does with them.
//!
//! Everything here is inlined into functions compiled for the instruction set: [`Lanes::panel_sums`],
//! [`Lanes::transform`] and [`Lanes::run`] are the doors. Called from elsewhere it would be slow, and without the
//! processor's features undefined.

mod plain;
#[cfg(target_arch = "x86_64")]
mod x86;

use half::{bf16, f16};

pub(crate) use plain::Plain;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

use super::kernel::PanelSums;
use super::share::Work;
use super::tile::Buffers;
use crate::vector::LANES;

/// Arithmetic on sixteen f32.
///
/// # Safety
/// Every function needs the instruction set's features; those on pointers need sixteen readable (or writable)
/// elements, of any alignment.
pub(crate) trait Arithmetic: Copy + 'static {
    /// Sixteen f32.
    type V: Copy;
    /// Whether the registers hold sixteen sums of sixteen lanes, and not just six.
    const WIDE: bool;

    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(at: *const f32) -> Self::V;
    unsafe fn store(at: *mut f32, x: Self::V);
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// `a · b + c`.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The greater; `b` if either is NaN.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// `x`, and 0 where `at <= bound`.
    unsafe fn zero_up_to(bound: f32, at: Self::V, x: Self::V) -> Self::V;
    /// `x · 2^n` for a normal result, `n` the integer in the low bits of `shifted`.
    unsafe fn times_power(x: Self::V, shifted: Self::V) -> Self::V;
    /// The greatest lane.
    unsafe fn greatest(x: Self::V) -> f32;
    /// The sum of the lanes, always in the same order.
    unsafe fn sum(x: Self::V) -> f32;
}

/// What attention over a cache needs beside the arithmetic: the elements it stores, and its loops compiled for the
/// instruction set.
///
/// # Safety
/// As for [`Arithmetic`].
pub(super) trait Lanes: Arithmetic {
    /// Most queries that a register tile holds.
    const ROWS: usize;

    unsafe fn load_f16(at: *const f16) -> Self::V;
    unsafe fn load_bf16(at: *const bf16) -> Self::V;
    unsafe fn load_i8(at: *const i8) -> Self::V;
    /// Sixteen codes of [`NORMAL`], the first eight in low halves.
    unsafe fn load_q4(at: *const u8) -> Self::V;
    /// Has a line of memory brought near, wherever it is and whether or not it exists.
    unsafe fn fetch(at: *const u8);

    /// The product with the Hadamard matrix of sixteen rows: sums and differences of lanes 1, 2, 4 and 8 apart.
    unsafe fn hadamard(x: Self::V) -> Self::V;

    /// [`panel_sums`], compiled for the instruction set.
    unsafe fn panel_sums<E: Element, const T: usize, const P: usize>(sums: &PanelSums<E>);

    /// [`transform_blocks`], compiled for the instruction set.
    unsafe fn transform(rows: &mut [f32], block: usize);

    /// [`run_share`], compiled for the instruction set.
    unsafe fn run(work: &Work<'_>, thread: usize, buffers: &mut Buffers);
}

/// What 4-bit codes stand for: the sixteen numbers to which a normal distribution of variance 1 is rounded with the least
/// squared error (Max 1960; Lloyd 1982), magnitudes in order, then the same below zero.
pub(super) const NORMAL: [f32; 16] = [
    0.128_395,
    0.388_048_3,
    0.656_759_1,
    0.942_340_5,
    1.256_231_2,
    1.618_046_4,
    2.069_017_2,
    2.732_589_6,
    -0.128_395,
    -0.388_048_3,
    -0.656_759_1,
    -0.942_340_5,
    -1.256_231_2,
    -1.618_046_4,
    -2.069_017_2,
    -2.732_589_6,
];

/// Sixteen neighbours as they are stored.
pub(super) trait Element: bytemuck::Pod {
    /// Whether what is read next is fetched in advance. Widening bytes and codes leaves the time for it, and is slow enough
    /// that the processor itself looks too short a way ahead; with the others it costs more than it brings.
    const FETCHED: bool;

    /// The neighbours as f32, exact.
    ///
    /// # Safety
    /// As for [`Lanes`].
    unsafe fn load<S: Lanes>(at: *const Self) -> S::V;
}

macro_rules! element {
    ($($type:ty: $load:ident $fetched:literal),*) => {$(
        impl Element for $type {
            const FETCHED: bool = $fetched;

            #[inline(always)]
            unsafe fn load<S: Lanes>(at: *const $type) -> S::V {
                // SAFETY: the caller's promise.
                unsafe { S::$load(at.cast()) }
            }
        }
    )*};
}
element!(
    [f32; LANES]: load false,
    [f16; LANES]: load_f16 false,
    [bf16; LANES]: load_bf16 false,
    [i8; LANES]: load_i8 true,
    [u8; LANES / 2]: load_q4 true
);

/// `e^x` for `x <= 0` to about one unit in the last place; 0 from −87 down, NaN for NaN.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub(crate) unsafe fn exp<S: Arithmetic>(x: S::V) -> S::V {
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const SMALLEST: f32 = -87.0;
    // SAFETY: the caller's promise.
    unsafe {
        let clamped = S::max(S::splat(SMALLEST), x);
        let shifted = S::fma(clamped, S::splat(std::f32::consts::LOG2_E), S::splat(ROUND));
        let n = S::sub(shifted, S::splat(ROUND));
        let r = S::fma(n, S::splat(-LN_2_HIGH), clamped);
        let r = S::fma(n, S::splat(-LN_2_LOW), r);
        let mut p = S::splat(1.388_888_9e-3);
        for coefficient in [8.333_334e-3, 4.166_666_8e-2, 1.666_666_7e-1, 0.5, 1.0, 1.0] {
            p = S::fma(p, r, S::splat(coefficient));
        }
        S::zero_up_to(SMALLEST, x, S::times_power(p, shifted))
    }
}

/// `cap · tanh(x / cap)`.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub(crate) unsafe fn softcap<S: Arithmetic>(x: S::V, cap: f32) -> S::V {
    // SAFETY: the caller's promise.
    unsafe {
        // With e = exp(−2|x|/cap), tanh is ±(1 − e) / (1 + e); both signs are computed, one of them counts.
        let scaled = S::mul(x, S::splat(2.0 / cap));
        let zero = S::splat(0.0);
        let magnitude = S::max(scaled, S::sub(zero, scaled));
        let e = exp::<S>(S::sub(zero, magnitude));
        let one = S::splat(1.0);
        let tanh = S::div(S::sub(one, e), S::add(one, e));
        // The sign of x without a branch: x / |x|, and 0 for 0.
        let sign = S::div(scaled, S::max(magnitude, S::splat(f32::MIN_POSITIVE)));
        S::mul(S::mul(tanh, sign), S::splat(cap))
    }
}
