//! From a kernel written over [`Simd`] to one function for every instruction set and number of tokens.

use super::simd::{Scalar, Simd};
use super::{Activations, PANEL, TILE};
use crate::isa::Isa;

/// Sums of a panel with `tokens` tokens from `first` on.
pub(super) type Kernel =
    fn(panel: &[u8], x: &Activations, first: usize, tokens: usize, sums: &mut [[f32; PANEL]]);

/// The tokens of one call: from `first` on, in one octet of the activations if they are not whole octets. There may be fewer
/// than are multiplied: what an octet lacks is multiplied too, and nobody looks at it.
#[derive(Clone, Copy)]
pub(super) struct Tile<'x> {
    pub x: &'x Activations,
    first: usize,
}

impl Tile<'_> {
    /// The first token's number in the activations.
    #[inline(always)]
    pub(super) fn first(&self) -> usize {
        self.first
    }
}

/// A product of a panel with some tokens.
pub(super) trait Product {
    /// Whether weights are taken apart, a unit at a time, before they are multiplied.
    const TAKEN_APART: bool;

    /// Writes the sums of `T` tokens with the panel's sixteen rows.
    ///
    /// # Safety
    /// As [`Simd`]'s functions; the panel holds all blocks of the activations' columns in the format's layout, and the
    /// activations are in the format's form.
    unsafe fn sums<S: Simd, const T: usize>(panel: &[u8], tile: Tile<'_>, sums: &mut [[f32; PANEL]]);
}

/// The kernel of a path.
pub(super) fn kernel<P: Product>(isa: Isa) -> Kernel {
    match isa.vectors() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => x86::avx512::<P>,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => x86::avx2::<P>,
        #[cfg(target_arch = "aarch64")]
        Isa::NeonDot => aarch64::neon_dot::<P>,
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => aarch64::neon::<P>,
        _ => portable::<P>,
    }
}

fn portable<P: Product>(
    panel: &[u8],
    x: &Activations,
    first: usize,
    tokens: usize,
    sums: &mut [[f32; PANEL]],
) {
    for t in 0..tokens {
        let tile = Tile { x, first: first + t };
        // SAFETY: scalar code needs no instructions; `PackedMatrix` made the panel and checked the activations.
        unsafe { P::sums::<Scalar, 1>(panel, tile, &mut sums[t..]) };
    }
}

/// Declares the kernel of a path whose values take more than one register: for `$kept` tokens at once, whose sums the
/// registers hold, or for those that [`tokens_at_once`] finds better.
macro_rules! path {
    ($kernel:ident, $sums:ident, $simd:ty, $features:literal, $kept:literal) => {
        pub(super) fn $kernel<P: Product>(
            panel: &[u8],
            x: &Activations,
            first: usize,
            tokens: usize,
            sums: &mut [[f32; PANEL]],
        ) {
            let mut done = 0;
            while done < tokens {
                let count = tokens_at_once::<P>(tokens - done, $kept);
                let tile = Tile { x, first: first + done };
                let sums = &mut sums[done..];
                // SAFETY: this path is chosen only where the processor has its instructions; `PackedMatrix` made the
                // panel and checked the activations.
                unsafe {
                    match count {
                        1 => $sums::<P, 1>(panel, tile, sums),
                        2 => $sums::<P, 2>(panel, tile, sums),
                        4 => $sums::<P, 4>(panel, tile, sums),
                        _ => $sums::<P, 8>(panel, tile, sums),
                    }
                }
                done += count;
            }
        }

        #[target_feature(enable = $features)]
        unsafe fn $sums<P: Product, const T: usize>(panel: &[u8], tile: Tile<'_>, sums: &mut [[f32; PANEL]]) {
            // SAFETY: the same contract.
            unsafe { P::sums::<$simd, T>(panel, tile, sums) }
        }
    };
}

/// How many of the tokens that are left to take at once: 8, 4, 2 or 1. Weights that are taken apart do not fit the
/// registers beside any sums. They pass through the first-level cache, and the more tokens share that, the better.
/// Measured on AVX2 and one thread, eight tokens at once against two: Q4_0 105 and 80 billion products a second, Q4_K 96
/// and 76, Q6_K 81 and 54.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn tokens_at_once<P: Product>(left: usize, kept: usize) -> usize {
    let most = if P::TAKEN_APART { TILE } else { kept };
    1 << left.min(most).ilog2()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::simd::{Avx2, Avx512};
    use super::*;

    /// Up to eight tokens at once: as many sums as 32 registers hold beside a unit of weights; numbers between powers of
    /// two multiply more than there are, since reading the weights is what costs.
    pub(super) fn avx512<P: Product>(
        panel: &[u8],
        x: &Activations,
        first: usize,
        tokens: usize,
        sums: &mut [[f32; PANEL]],
    ) {
        let mut done = 0;
        while done < tokens {
            let (tile, left) = (Tile { x, first: first + done }, tokens - done);
            let sums = &mut sums[done..];
            // SAFETY: this path is chosen only where the processor has its instructions; `PackedMatrix` made the panel
            // and checked the activations.
            done += unsafe {
                match left {
                    1 => avx512_tokens::<P, 1>(panel, tile, sums),
                    2 => avx512_tokens::<P, 2>(panel, tile, sums),
                    3 | 4 => avx512_tokens::<P, 4>(panel, tile, sums),
                    _ => avx512_tokens::<P, TILE>(panel, tile, sums),
                }
            };
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    unsafe fn avx512_tokens<P: Product, const T: usize>(
        panel: &[u8],
        tile: Tile<'_>,
        sums: &mut [[f32; PANEL]],
    ) -> usize {
        // SAFETY: the same contract.
        unsafe { P::sums::<Avx512, T>(panel, tile, sums) }
        T
    }

    path!(avx2, avx2_sums, Avx2, "avx2,fma,f16c", 2);
}

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use super::super::simd::Neon;
    use super::*;

    path!(neon, neon_sums, Neon<false>, "neon", 4);
    path!(neon_dot, neon_dot_sums, Neon<true>, "neon,dotprod", 4);
}
