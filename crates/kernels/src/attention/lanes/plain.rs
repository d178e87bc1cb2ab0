//! Sixteen lanes as an array.

use half::{bf16, f16};

use super::super::hadamard::transform_blocks;
use super::super::kernel::{PanelSums, panel_sums};
use super::super::share::{Work, run_share};
use super::super::tile::Buffers;
use super::{Arithmetic, Element, Lanes, NORMAL};
use crate::vector::{LANES, fused};

/// Loops over arrays, which the compiler turns into what vectors there are.
#[derive(Clone, Copy)]
pub(crate) struct Plain<const FUSED: bool>;

#[inline(always)]
fn each(f: impl FnMut(usize) -> f32) -> [f32; LANES] {
    std::array::from_fn(f)
}

// SAFETY (of every block below): sixteen elements can be read or written, the caller's promise.
#[allow(clippy::undocumented_unsafe_blocks)]
impl<const FUSED: bool> Arithmetic for Plain<FUSED> {
    type V = [f32; LANES];
    const WIDE: bool = false;
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self::V {
        unsafe { at.cast::<[f32; LANES]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(at: *mut f32, x: Self::V) {
        unsafe { at.cast::<[f32; LANES]>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        each(|lane| a[lane] + b[lane])
    }
    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        each(|lane| a[lane] - b[lane])
    }
    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        each(|lane| a[lane] * b[lane])
    }
    #[inline(always)]
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
        each(|lane| a[lane] / b[lane])
    }
    #[inline(always)]
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        each(|lane| fused::<FUSED>(a[lane], b[lane], c[lane]))
    }
    #[inline(always)]
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
        each(|lane| if a[lane] > b[lane] { a[lane] } else { b[lane] })
    }
    #[inline(always)]
    unsafe fn zero_up_to(bound: f32, at: Self::V, x: Self::V) -> Self::V {
        each(|lane| if at[lane] <= bound { 0.0 } else { x[lane] })
    }
    #[inline(always)]
    unsafe fn times_power(x: Self::V, shifted: Self::V) -> Self::V {
        each(|lane| f32::from_bits(x[lane].to_bits().wrapping_add(shifted[lane].to_bits() << 23)))
    }
    #[inline(always)]
    unsafe fn greatest(x: Self::V) -> f32 {
        x.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
    #[inline(always)]
    unsafe fn sum(x: Self::V) -> f32 {
        x.into_iter().sum()
    }
}

// SAFETY (of every block below): as above.
#[allow(clippy::undocumented_unsafe_blocks)]
impl<const FUSED: bool> Lanes for Plain<FUSED> {
    const ROWS: usize = 6;
    #[inline(always)]
    unsafe fn load_f16(at: *const f16) -> Self::V {
        let halves = unsafe { at.cast::<[f16; LANES]>().read_unaligned() };
        each(|lane| halves[lane].to_f32())
    }
    #[inline(always)]
    unsafe fn load_bf16(at: *const bf16) -> Self::V {
        let halves = unsafe { at.cast::<[u16; LANES]>().read_unaligned() };
        each(|lane| f32::from_bits(u32::from(halves[lane]) << 16))
    }
    #[inline(always)]
    unsafe fn load_i8(at: *const i8) -> Self::V {
        let bytes = unsafe { at.cast::<[i8; LANES]>().read_unaligned() };
        each(|lane| f32::from(bytes[lane]))
    }
    #[inline(always)]
    unsafe fn load_q4(at: *const u8) -> Self::V {
        let bytes = unsafe { at.cast::<[u8; LANES / 2]>().read_unaligned() };
        each(|lane| NORMAL[usize::from(bytes[lane % 8] >> (lane / 8 * 4) & 15)])
    }
    #[inline(always)]
    unsafe fn fetch(_: *const u8) {}
    #[inline(always)]
    unsafe fn hadamard(x: Self::V) -> Self::V {
        [1, 2, 4, 8].into_iter().fold(x, |x, half| {
            each(|lane| if lane & half == 0 { x[lane] + x[lane ^ half] } else { x[lane ^ half] - x[lane] })
        })
    }
    unsafe fn panel_sums<E: Element, const T: usize, const P: usize>(sums: &PanelSums<E>) {
        unsafe { panel_sums::<Self, E, T, P>(sums) }
    }
    unsafe fn transform(rows: &mut [f32], block: usize) {
        unsafe { transform_blocks::<Self>(rows, block) }
    }
    unsafe fn run(work: &Work<'_>, thread: usize, buffers: &mut Buffers) {
        unsafe { run_share::<Self>(work, thread, buffers) }
    }
}
