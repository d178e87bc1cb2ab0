//! From a kernel written over [`Simd`] to one function for every instruction set and number of tokens.

use super::simd::{Scalar, Simd};
use super::{Activations, PANEL, Sums};
use crate::isa::Isa;

/// Sums of a panel with `tokens` tokens from `first` on.
pub(super) type Kernel = fn(panel: &[u8], x: &Activations, first: usize, tokens: usize, sums: &mut Sums);

/// The tokens of one call: `T` of them from `first` on, of which those beyond `last` repeat it.
#[derive(Clone, Copy)]
pub(super) struct Tile<'x> {
    pub x: &'x Activations,
    first: usize,
    last: usize,
}

impl Tile<'_> {
    /// The number of the `t`-th token in the activations.
    #[inline(always)]
    pub(super) fn token(&self, t: usize) -> usize {
        (self.first + t).min(self.last)
    }
}

/// A product of a panel with some tokens.
pub(super) trait Product {
    /// Writes the sums of `T` tokens with the panel's sixteen rows.
    ///
    /// # Safety
    /// As [`Simd`]'s functions; the panel holds all blocks of the activations' columns in the format's layout, and the
    /// activations are in the format's form.
    unsafe fn sums<S: Simd, const T: usize>(panel: &[u8], tile: Tile<'_>, sums: &mut [[f32; PANEL]]);
}

/// The kernel of a path.
pub(super) fn kernel<P: Product>(isa: Isa) -> Kernel {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => x86::avx512::<P>,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => x86::avx2::<P>,
        #[cfg(target_arch = "aarch64")]
        Isa::Neon if std::arch::is_aarch64_feature_detected!("dotprod") => aarch64::neon_dot::<P>,
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => aarch64::neon::<P>,
        _ => portable::<P>,
    }
}

fn portable<P: Product>(panel: &[u8], x: &Activations, first: usize, tokens: usize, sums: &mut Sums) {
    for t in 0..tokens {
        let tile = Tile { x, first: first + t, last: first + t };
        // SAFETY: scalar code needs no instructions; `PackedMatrix` made the panel and checked the activations.
        unsafe { P::sums::<Scalar, 1>(panel, tile, &mut sums[t..]) };
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::simd::{Avx2, Avx512};
    use super::*;

    /// Up to eight tokens at once: as many sums as 32 registers hold beside a unit of weights. Numbers between
    /// powers of two repeat the last token; reading the weights is what costs.
    pub(super) fn avx512<P: Product>(
        panel: &[u8],
        x: &Activations,
        first: usize,
        tokens: usize,
        sums: &mut Sums,
    ) {
        let tile = Tile { x, first, last: first + tokens - 1 };
        // SAFETY: this path is chosen only where the processor has its instructions; `PackedMatrix` made the panel and
        // checked the activations.
        unsafe {
            match tokens {
                1 => avx512_tokens::<P, 1>(panel, tile, sums),
                2 => avx512_tokens::<P, 2>(panel, tile, sums),
                3 | 4 => avx512_tokens::<P, 4>(panel, tile, sums),
                _ => avx512_tokens::<P, 8>(panel, tile, sums),
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    unsafe fn avx512_tokens<P: Product, const T: usize>(
        panel: &[u8],
        tile: Tile<'_>,
        sums: &mut [[f32; PANEL]],
    ) {
        // SAFETY: the same contract.
        unsafe { P::sums::<Avx512, T>(panel, tile, sums) }
    }

    /// Two tokens at once: sixteen registers hold no more.
    pub(super) fn avx2<P: Product>(
        panel: &[u8],
        x: &Activations,
        first: usize,
        tokens: usize,
        sums: &mut Sums,
    ) {
        for t in (0..tokens).step_by(2) {
            let tile = Tile { x, first: first + t, last: first + tokens - 1 };
            // SAFETY: as for `avx512`.
            unsafe {
                if t + 1 < tokens {
                    avx2_tokens::<P, 2>(panel, tile, &mut sums[t..]);
                } else {
                    avx2_tokens::<P, 1>(panel, tile, &mut sums[t..]);
                }
            }
        }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn avx2_tokens<P: Product, const T: usize>(
        panel: &[u8],
        tile: Tile<'_>,
        sums: &mut [[f32; PANEL]],
    ) {
        // SAFETY: the same contract.
        unsafe { P::sums::<Avx2, T>(panel, tile, sums) }
    }
}

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use super::super::simd::Neon;
    use super::*;

    /// Two tokens at once: a value takes four of the 32 registers.
    pub(super) fn neon_dot<P: Product>(
        panel: &[u8],
        x: &Activations,
        first: usize,
        tokens: usize,
        sums: &mut Sums,
    ) {
        for t in (0..tokens).step_by(2) {
            let tile = Tile { x, first: first + t, last: first + tokens - 1 };
            // SAFETY: this path is chosen only where the processor has its instructions; `PackedMatrix` made the panel
            // and checked the activations.
            unsafe {
                if t + 1 < tokens {
                    neon_dot_tokens::<P, 2>(panel, tile, &mut sums[t..]);
                } else {
                    neon_dot_tokens::<P, 1>(panel, tile, &mut sums[t..]);
                }
            }
        }
    }

    #[target_feature(enable = "neon,dotprod")]
    unsafe fn neon_dot_tokens<P: Product, const T: usize>(
        panel: &[u8],
        tile: Tile<'_>,
        sums: &mut [[f32; PANEL]],
    ) {
        // SAFETY: the same contract.
        unsafe { P::sums::<Neon<true>, T>(panel, tile, sums) }
    }

    /// As [`neon_dot`].
    pub(super) fn neon<P: Product>(
        panel: &[u8],
        x: &Activations,
        first: usize,
        tokens: usize,
        sums: &mut Sums,
    ) {
        for t in (0..tokens).step_by(2) {
            let tile = Tile { x, first: first + t, last: first + tokens - 1 };
            // SAFETY: as for `neon_dot`.
            unsafe {
                if t + 1 < tokens {
                    neon_tokens::<P, 2>(panel, tile, &mut sums[t..]);
                } else {
                    neon_tokens::<P, 1>(panel, tile, &mut sums[t..]);
                }
            }
        }
    }

    #[target_feature(enable = "neon")]
    unsafe fn neon_tokens<P: Product, const T: usize>(
        panel: &[u8],
        tile: Tile<'_>,
        sums: &mut [[f32; PANEL]],
    ) {
        // SAFETY: the same contract.
        unsafe { P::sums::<Neon<false>, T>(panel, tile, sums) }
    }
}
