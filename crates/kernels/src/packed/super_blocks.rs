//! Formats of 256 values that share an f16 d, in parts of 16 or 32 with a small whole scale each: `w = d · s · c`, or
//! `w = d · s · c − e · m` with an f16 e and a small minimum m for each part.
//!
//! A panel ([`panel`](super::panel)): blocks of eight units of codes (see [`planes`](super::planes)) with what they need
//! besides, each field for sixteen rows: d (f16), e (f16, if there are minima), the parts' scales (a byte each), the parts'
//! minima (a byte each).

use super::dispatch;
use super::planes::{self, UNIT};
use super::product::{self, Codes, Format, Units, nibbles};
use super::simd::Simd;
use super::{Layout, PANEL};
use crate::DType;
use crate::quant::tables;

/// Values of a block.
const BLOCK: usize = 256;
/// Units of a block.
const UNITS: usize = BLOCK / UNIT;

/// A stored block taken apart. Fields that a format lacks stay zero.
struct Parts {
    /// Bits of the f16 d and e.
    d: [u8; 2],
    e: [u8; 2],
    /// Scales and minima of the parts; signed scales as their bits.
    scales: [u8; 16],
    minima: [u8; 16],
    codes: [[u8; UNIT]; UNITS],
}

/// A format of 256 values.
trait Super: 'static {
    const BITS: usize;
    const CODES: Codes;
    const MINIMA: bool;
    /// Parts of a unit: 1 or 2.
    const PARTS: usize;
    /// Whether scales are signed.
    const SIGNED_SCALES: bool;
    /// A constant factor of all values.
    const FACTOR: f32 = 1.0;
    /// Bytes of a stored block.
    const STORED: usize;
    fn parts(stored: &[u8]) -> Parts;

    /// Offsets within a block's extras.
    const E_AT: usize = PANEL * 2;
    const SCALES_AT: usize = if Self::MINIMA { PANEL * 4 } else { PANEL * 2 };
    const MINIMA_AT: usize = Self::SCALES_AT + PANEL * UNITS * Self::PARTS;
}

/// What the kernel of such a format must know.
struct Eight<F>(std::marker::PhantomData<F>);

impl<F: Super> Format for Eight<F> {
    const BITS: usize = F::BITS;
    const CODES: Codes = F::CODES;
    const UNITS: usize = UNITS;
    const PARTS: usize = F::PARTS;
    const MINIMA: bool = F::MINIMA;
    const EXTRAS: usize = F::MINIMA_AT + if F::MINIMA { PANEL * UNITS * F::PARTS } else { 0 };

    #[inline(always)]
    unsafe fn scales<S: Simd>(extras: *const u8, unit: usize, part: usize) -> S::Floats {
        // SAFETY: the same contract.
        unsafe {
            let at = extras.add(F::SCALES_AT + (unit * F::PARTS + part) * PANEL);
            let scales = if F::SIGNED_SCALES { S::widen_signed(at) } else { S::widen_unsigned(at) };
            let d = S::halves(extras);
            // Beside d, which as an F16 could not be made smaller.
            let d = if F::FACTOR == 1.0 { d } else { S::multiply(d, S::splat(F::FACTOR)) };
            S::multiply(d, S::to_floats(scales))
        }
    }

    #[inline(always)]
    unsafe fn minima<S: Simd>(extras: *const u8, unit: usize, part: usize) -> S::Floats {
        // SAFETY: the same contract; a format without minima has none to read.
        unsafe {
            if !F::MINIMA {
                return S::splat(0.0);
            }
            let minima = S::widen_unsigned(extras.add(F::MINIMA_AT + (unit * F::PARTS + part) * PANEL));
            S::subtract_product(S::halves(extras.add(F::E_AT)), S::to_floats(minima), S::splat(0.0))
        }
    }
}

/// The layout of a format.
const fn layout<F: Super>() -> Layout {
    Layout {
        block: BLOCK,
        bytes: Eight::<F>::BLOCKS.bytes(),
        form: Eight::<F>::FORM,
        pack: pack::<F>,
        kernel: dispatch::kernel::<Units<Eight<F>>>,
        tiles: product::tiles::<Eight<F>>(),
    }
}

fn pack<F: Super>(rows: &[u8], row_bytes: usize, out: &mut [u8]) {
    let blocks = row_bytes / F::STORED;
    for block in 0..blocks {
        let (quants, extras) = Eight::<F>::BLOCKS.split(out, block, blocks);
        for (row, stored) in rows.chunks_exact(row_bytes).enumerate() {
            let parts = F::parts(&stored[block * F::STORED..][..F::STORED]);
            extras[row * 2..][..2].copy_from_slice(&parts.d);
            for part in 0..UNITS * F::PARTS {
                extras[F::SCALES_AT + part * PANEL + row] = parts.scales[part];
                if F::MINIMA {
                    extras[F::MINIMA_AT + part * PANEL + row] = parts.minima[part];
                }
            }
            if F::MINIMA {
                extras[F::E_AT + row * 2..][..2].copy_from_slice(&parts.e);
            }
            let units = quants.chunks_exact_mut(planes::unit_bytes(F::BITS));
            for (codes, unit) in parts.codes.iter().zip(units) {
                planes::put(F::BITS, row, codes, unit);
            }
        }
    }
}

/// Declares a format and its layout.
macro_rules! declare {
    ($(#[$doc:meta])* $layout:ident, $name:ident, $stored:literal, $bits:literal, $parts:literal,
     signed $signed:literal, minima $minima:literal, $codes:expr, $read:expr) => {
        $(#[$doc])*
        struct $name;
        impl Super for $name {
            const BITS: usize = $bits;
            const CODES: Codes = $codes;
            const MINIMA: bool = $minima;
            const PARTS: usize = $parts;
            const SIGNED_SCALES: bool = $signed;
            const STORED: usize = $stored;
            #[inline(always)]
            fn parts(stored: &[u8]) -> Parts {
                $read(stored)
            }
        }
        $(#[$doc])*
        pub(super) static $layout: Layout = layout::<$name>();
    };
}

declare!(
    /// Two bits; sixteen parts with 4-bit scales and minima.
    Q2_K, Q2, 84, 2, 2, signed false, minima true, Codes::Unsigned, |stored: &[u8]| Parts {
        d: [stored[80], stored[81]],
        e: [stored[82], stored[83]],
        scales: std::array::from_fn(|part| stored[part] & 15),
        minima: std::array::from_fn(|part| stored[part] >> 4),
        codes: std::array::from_fn(|unit| two_bits(&stored[16..80], unit)),
    }
);
declare!(
    /// Three bits less 4; sixteen parts with 6-bit signed scales.
    Q3_K, Q3, 110, 3, 2, signed true, minima false, Codes::Less(4), |stored: &[u8]| Parts {
        d: [stored[108], stored[109]],
        e: [0; 2],
        scales: tables::q3_k_scales(&stored[96..108]).map(|scale| scale as u8),
        minima: [0; 16],
        codes: std::array::from_fn(|unit| {
            let low = two_bits(&stored[32..96], unit);
            std::array::from_fn(|j| low[j] | (stored[j] >> unit & 1) << 2)
        }),
    }
);
declare!(
    /// Four bits; eight parts with 6-bit scales and minima.
    Q4_K, Q4, 144, 4, 1, signed false, minima true, Codes::Unsigned, |stored: &[u8]| {
        with_minima(stored, |unit| halves(&stored[16..144], unit))
    }
);
declare!(
    /// Five bits; eight parts with 6-bit scales and minima.
    Q5_K, Q5, 176, 5, 1, signed false, minima true, Codes::Unsigned, |stored: &[u8]| {
        with_minima(stored, |unit| {
            let low = halves(&stored[48..176], unit);
            std::array::from_fn(|j| low[j] | (stored[16 + j] >> unit & 1) << 4)
        })
    }
);
declare!(
    /// Six bits less 32; sixteen parts with int8 scales.
    Q6_K, Q6, 210, 6, 2, signed true, minima false, Codes::Less(32), |stored: &[u8]| Parts {
        d: [stored[208], stored[209]],
        e: [0; 2],
        scales: stored[192..208].try_into().expect("sixteen bytes"),
        minima: [0; 16],
        codes: std::array::from_fn(|unit| {
            // Of each 128 values: 64 bytes with low halves, 32 with high bits.
            let (half, run) = (unit / 4, unit % 4);
            let low = &stored[half * 64 + run % 2 * 32..][..UNIT];
            let high = &stored[128 + half * 32..][..UNIT];
            std::array::from_fn(|j| (low[j] >> (run / 2 * 4) & 15) | (high[j] >> (run * 2) & 3) << 4)
        }),
    }
);
declare!(
    /// Four bits into a table; eight parts with 6-bit signed scales.
    IQ4_XS, Iq4Xs, 136, 4, 1, signed true, minima false, Codes::Table(&tables::IQ4), |stored: &[u8]| {
        let high = u16::from_le_bytes([stored[2], stored[3]]);
        Parts {
            d: [stored[0], stored[1]],
            e: [0; 2],
            scales: std::array::from_fn(|part| {
                let low = stored[4 + part % 8 / 2] >> (part % 2 * 4) & 15;
                let high = (high >> (part % 8 * 2)) as u8 & 3;
                (low | high << 4).wrapping_sub(32)
            }),
            minima: [0; 16],
            codes: std::array::from_fn(|unit| nibbles(&stored[8 + 16 * unit..])),
        }
    }
);

/// Declares a format of few levels with odd scales ([`tables::lattice`]), codes of as many bits as its levels need.
macro_rules! lattice {
    ($(#[$doc:meta])* $layout:ident, $name:ident, $dtype:expr, $stored:literal, $bits:literal, $parts:literal,
     $levels:ident, $factor:literal) => {
        $(#[$doc])*
        struct $name;
        impl Super for $name {
            const BITS: usize = $bits;
            const CODES: Codes = Codes::Table(&tables::lattice::$levels);
            const MINIMA: bool = false;
            const PARTS: usize = $parts;
            const SIGNED_SCALES: bool = false;
            const STORED: usize = $stored;
            const FACTOR: f32 = $factor;
            fn parts(stored: &[u8]) -> Parts {
                let taken = tables::lattice::parts($dtype, stored);
                let codes = taken.codes.as_chunks().0;
                Parts {
                    d: taken.d,
                    e: [0; 2],
                    scales: taken.scales,
                    minima: [0; 16],
                    codes: std::array::from_fn(|unit| codes[unit]),
                }
            }
        }
        $(#[$doc])*
        pub(super) static $layout: Layout = layout::<$name>();
    };
}

lattice!(
    /// Points of −1, 0 and 1, moved by an eighth.
    IQ1_S, Iq1S, DType::IQ1S, 50, 3, 1, IQ1_LEVELS, 0.125
);
lattice!(
    /// The same with scales for 16 values.
    IQ1_M, Iq1M, DType::IQ1M, 56, 3, 2, IQ1_LEVELS, 0.125
);
lattice!(
    /// Points of 256.
    IQ2_XXS, Iq2Xxs, DType::IQ2XXS, 66, 3, 1, IQ2_LEVELS, 0.125
);
lattice!(
    /// Points of 512.
    IQ2_XS, Iq2Xs, DType::IQ2XS, 74, 3, 2, IQ2_LEVELS, 0.125
);
lattice!(
    /// Points of 1024.
    IQ2_S, Iq2S, DType::IQ2S, 82, 3, 2, IQ2_LEVELS, 0.125
);
lattice!(
    /// Points of 256 with four coordinates.
    IQ3_XXS, Iq3Xxs, DType::IQ3XXS, 98, 4, 1, IQ3_XXS_LEVELS, 0.25
);
lattice!(
    /// Points of 512 with four coordinates.
    IQ3_S, Iq3S, DType::IQ3S, 110, 4, 1, IQ3_S_LEVELS, 1.0
);
lattice!(
    /// −1, 0 and 1.
    TQ1_0, Tq1, DType::TQ1_0, 54, 2, 1, TERNARY, 1.0
);
lattice!(
    /// −1, 0 and 1.
    TQ2_0, Tq2, DType::TQ2_0, 66, 2, 1, TERNARY, 1.0
);

/// Two bits of a value: four runs of 32 values share 32 bytes.
#[inline(always)]
fn two_bits(bytes: &[u8], unit: usize) -> [u8; UNIT] {
    let bytes = &bytes[unit / 4 * 32..][..UNIT];
    std::array::from_fn(|j| bytes[j] >> (unit % 4 * 2) & 3)
}

/// Four bits of a value: two runs of 32 values share 32 bytes.
#[inline(always)]
fn halves(bytes: &[u8], unit: usize) -> [u8; UNIT] {
    let bytes = &bytes[unit / 2 * 32..][..UNIT];
    std::array::from_fn(|j| bytes[j] >> (unit % 2 * 4) & 15)
}

/// The head that Q4_K and Q5_K share.
#[inline(always)]
fn with_minima(stored: &[u8], codes: impl Fn(usize) -> [u8; UNIT]) -> Parts {
    let both: [(u8, u8); 8] = std::array::from_fn(|part| tables::q4_k_scale(&stored[4..16], part));
    Parts {
        d: [stored[0], stored[1]],
        e: [stored[2], stored[3]],
        scales: std::array::from_fn(|part| both[part % 8].0),
        minima: std::array::from_fn(|part| both[part % 8].1),
        codes: std::array::from_fn(codes),
    }
}
