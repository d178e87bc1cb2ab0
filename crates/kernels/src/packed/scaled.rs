//! Formats with a scale for 32 values: `w = d · c` or `w = d · c + m`, where c is a small whole number.
//!
//! A panel ([`panel`](super::panel)): blocks of one unit of codes (see [`planes`](super::planes)) with sixteen scales (f16,
//! or a byte where scales are powers of two) and, where the format has them, sixteen minima (f16).

use super::dispatch;
use super::planes::{self, UNIT};
use super::product::{self, Codes, Format, Units, nibbles};
use super::simd::Simd;
use super::{Layout, PANEL};
use crate::quant::tables;

/// How scales are kept.
#[derive(Clone, Copy, PartialEq)]
enum Scale {
    F16,
    /// `2^(e − 128)`, e a byte.
    Power,
}

impl Scale {
    const fn bytes(self) -> usize {
        match self {
            Scale::F16 => PANEL * 2,
            Scale::Power => PANEL,
        }
    }
}

/// A format whose blocks of 32 values begin with the scale, then the minimum if there is one.
trait Scaled: 'static {
    const BITS: usize;
    const CODES: Codes;
    const SCALE: Scale = Scale::F16;
    const MINIMUM: bool = false;
    /// Bytes of a stored block.
    const STORED: usize;
    /// The codes behind scale and minimum.
    fn codes(stored: &[u8]) -> [u8; UNIT];
}

/// What the kernel of such a format must know.
struct One<F>(std::marker::PhantomData<F>);

impl<F: Scaled> Format for One<F> {
    const BITS: usize = F::BITS;
    const CODES: Codes = F::CODES;
    const UNITS: usize = 1;
    const PARTS: usize = 1;
    const MINIMA: bool = F::MINIMUM;
    const EXTRAS: usize = F::SCALE.bytes() + if F::MINIMUM { PANEL * 2 } else { 0 };

    #[inline(always)]
    unsafe fn scales<S: Simd>(extras: *const u8, _unit: usize, _part: usize) -> S::Floats {
        // SAFETY: the same contract.
        unsafe {
            match F::SCALE {
                Scale::F16 => S::halves(extras),
                Scale::Power => S::multiply(S::powers(extras), S::splat(0.5)),
            }
        }
    }

    #[inline(always)]
    unsafe fn minima<S: Simd>(extras: *const u8, _unit: usize, _part: usize) -> S::Floats {
        // SAFETY: the same contract; a format without minima has none to read.
        unsafe { if F::MINIMUM { S::halves(extras.add(PANEL * 2)) } else { S::splat(0.0) } }
    }
}

/// The layout of a format.
const fn layout<F: Scaled>() -> Layout {
    Layout {
        block: UNIT,
        bytes: One::<F>::BLOCKS.bytes(),
        form: One::<F>::FORM,
        pack: pack::<F>,
        kernel: dispatch::kernel::<Units<One<F>>>,
        tiles: product::tiles::<One<F>>(),
    }
}

fn pack<F: Scaled>(rows: &[u8], row_bytes: usize, out: &mut [u8]) {
    let blocks = row_bytes / F::STORED;
    // Blocks outside, rows inside: the sixteen rows of a block fill the same cache lines.
    for block in 0..blocks {
        let (unit, extras) = One::<F>::BLOCKS.split(out, block, blocks);
        for (row, stored) in rows.chunks_exact(row_bytes).enumerate() {
            let stored = &stored[block * F::STORED..][..F::STORED];
            let width = F::SCALE.bytes() / PANEL;
            extras[row * width..][..width].copy_from_slice(&stored[..width]);
            let mut header = width;
            if F::MINIMUM {
                extras[F::SCALE.bytes() + row * 2..][..2].copy_from_slice(&stored[2..4]);
                header += 2;
            }
            planes::put(F::BITS, row, &F::codes(&stored[header..]), unit);
        }
    }
}

/// A word with the fifth bits, then [`nibbles`].
#[inline(always)]
fn five_bits(bytes: &[u8]) -> [u8; UNIT] {
    let word = u32::from_le_bytes(bytes[..4].try_into().expect("four bytes"));
    let low = nibbles(&bytes[4..]);
    std::array::from_fn(|j| low[j] | ((word >> j) as u8 & 1) << 4)
}

/// Declares a format and its layout.
macro_rules! declare {
    ($(#[$doc:meta])* $layout:ident, $name:ident, $stored:literal, $bits:literal, $codes:expr, $read:expr $(, $more:item)*) => {
        $(#[$doc])*
        struct $name;
        impl Scaled for $name {
            const BITS: usize = $bits;
            const CODES: Codes = $codes;
            const STORED: usize = $stored;
            $($more)*
            #[inline(always)]
            fn codes(stored: &[u8]) -> [u8; UNIT] {
                $read(stored)
            }
        }
        $(#[$doc])*
        pub(super) static $layout: Layout = layout::<$name>();
    };
}

declare!(
    /// `w = d · q`, q a signed byte.
    Q8_0, Q8, 34, 8, Codes::Signed,
    |stored: &[u8]| <[u8; UNIT]>::try_from(&stored[..UNIT]).expect("32 bytes")
);
declare!(
    /// `w = d · (q − 8)`, four bits.
    Q4_0, Q40, 18, 4, Codes::Less(8), nibbles
);
declare!(
    /// `w = d · q + m`, four bits.
    Q4_1, Q41, 20, 4, Codes::Unsigned, nibbles, const MINIMUM: bool = true;
);
declare!(
    /// `w = d · (q − 16)`, five bits.
    Q5_0, Q50, 22, 5, Codes::Less(16), five_bits
);
declare!(
    /// `w = d · q + m`, five bits.
    Q5_1, Q51, 24, 5, Codes::Unsigned, five_bits, const MINIMUM: bool = true;
);
declare!(
    /// `w = d · table[q]`, four bits.
    IQ4_NL, Iq4Nl, 18, 4, Codes::Table(&tables::IQ4), nibbles
);
declare!(
    /// `w = 2^(e − 128) · table[q]`, four bits.
    MXFP4, Mx, 17, 4, Codes::Table(&tables::E2M1_DOUBLED), nibbles, const SCALE: Scale = Scale::Power;
);
