//! Formats of 256 values that share an f16 d, in parts of 16 or 32 with a small whole scale each: `w = d · s · c`, or
//! `w = d · s · c − e · m` with an f16 e and a small minimum m for each part.
//!
//! A panel: for each block eight units of codes (see [`planes`](super::planes)). Behind all blocks what they need
//! besides, each field for sixteen rows: d (f16), e (f16, if there are minima), the parts' scales (a byte each),
//! the parts' minima (a byte each).
//!
//! Scales and minima multiply exact integer sums: with one activation scale a for 256 values v a block adds
//! `d · a · Σ s · (Σ c · v) − e · a · Σ m · Σ v`, where both sums are integers of at most 2^29.

use super::dispatch::{self, Product, Tile};
use super::planes::{self, UNIT};
use super::scaled::{looked_up, nibbles, signed};
use super::simd::Simd;
use super::{Form, Layout, PANEL};
use crate::quant::tables;

/// Values of a block.
const BLOCK: usize = 256;
/// Units of a block.
const UNITS: usize = BLOCK / UNIT;

/// What a code stands for.
#[derive(Clone, Copy)]
enum Codes {
    /// Itself; parts have minima.
    WithMinima,
    /// Itself less 4.
    Less4,
    /// Itself less 32.
    Less32,
    /// An entry of a table.
    Table(&'static [i8; 16]),
}

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
    /// Parts of a unit: 1 or 2.
    const PARTS: usize;
    /// Whether scales are signed.
    const SIGNED_SCALES: bool;
    /// Bytes of a stored block.
    const STORED: usize;
    fn parts(stored: &[u8]) -> Parts;

    /// Bits of the weights that are multiplied; 8 if they are signed.
    const WEIGHT_BITS: usize = if matches!(Self::CODES, Codes::Table(_)) { 8 } else { Self::BITS };
    const MINIMA: bool = matches!(Self::CODES, Codes::WithMinima);
    const BLOCK_BYTES: usize = UNITS * planes::unit_bytes(Self::BITS);
    /// Offsets within a block's extras.
    const E_AT: usize = PANEL * 2;
    const SCALES_AT: usize = if Self::MINIMA { PANEL * 4 } else { PANEL * 2 };
    const MINIMA_AT: usize = Self::SCALES_AT + PANEL * UNITS * Self::PARTS;
    const EXTRAS: usize = Self::MINIMA_AT + if Self::MINIMA { PANEL * UNITS * Self::PARTS } else { 0 };
}

/// The layout of a format.
const fn layout<F: Super>() -> Layout {
    Layout {
        block: BLOCK,
        bytes: F::BLOCK_BYTES + F::EXTRAS,
        form: Form::Int8(BLOCK),
        pack: pack::<F>,
        kernel: dispatch::kernel::<Blocks<F>>,
        tiles: None,
    }
}

fn pack<F: Super>(rows: &[u8], row_bytes: usize, out: &mut [u8]) {
    let blocks = row_bytes / F::STORED;
    let (quants, extras) = out.split_at_mut(blocks * F::BLOCK_BYTES);
    let out = quants.chunks_exact_mut(F::BLOCK_BYTES).zip(extras.chunks_exact_mut(F::EXTRAS));
    for (block, (quants, extras)) in out.enumerate() {
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

/// The product of a format.
struct Blocks<F>(std::marker::PhantomData<F>);

impl<F: Super> Product for Blocks<F> {
    const TAKEN_APART: bool = true;

    #[inline(always)]
    unsafe fn sums<S: Simd, const T: usize>(panel: &[u8], tile: Tile<'_>, sums: &mut [[f32; PANEL]]) {
        let blocks = tile.x.columns() / BLOCK;
        let values: [*const i8; T] = std::array::from_fn(|t| tile.x.values(tile.token(t)).as_ptr());
        let x_scales: [*const f32; T] = std::array::from_fn(|t| tile.x.scales(tile.token(t)).as_ptr());
        let x_sums: [*const i16; T] = std::array::from_fn(|t| tile.x.sums(tile.token(t)).as_ptr());
        // SAFETY: all offsets stay inside the panel and the tokens' activations (`blocks` blocks each).
        unsafe {
            let all_extras = panel.as_ptr().add(blocks * F::BLOCK_BYTES);
            let mut total = [S::splat(0.0); T];
            for block in 0..blocks {
                let extras = all_extras.add(block * F::EXTRAS);
                for line in 0..F::EXTRAS / 64 {
                    S::prefetch(extras.add(line * 64));
                }
                let mut scaled = [S::splat_int(0); T];
                // Σ m · Σ v, or Σ s · Σ v for codes with an offset.
                let mut offsets = [S::splat_int(0); T];
                for index in 0..UNITS {
                    let at = block * F::BLOCK_BYTES + index * planes::unit_bytes(F::BITS);
                    let unit = panel.as_ptr().add(at);
                    for line in 0..planes::unit_bytes(F::BITS) / 64 {
                        S::prefetch(unit.add(line * 64));
                    }
                    let weights = weights::<S, F>(unit);
                    let scale = |part: usize| {
                        let at = extras.add(F::SCALES_AT + (index * F::PARTS + part) * PANEL);
                        if F::SIGNED_SCALES { S::widen_signed(at) } else { S::widen_unsigned(at) }
                    };
                    let minimum = |part: usize| {
                        S::widen_unsigned(extras.add(F::MINIMA_AT + (index * F::PARTS + part) * PANEL))
                    };
                    let (first, second) = (scale(0), scale(F::PARTS - 1));
                    let pair = match F::CODES {
                        Codes::WithMinima => S::pair(minimum(0), minimum(F::PARTS - 1)),
                        _ => S::pair(first, second),
                    };
                    for t in 0..T {
                        let values = values[t].add(block * BLOCK + index * UNIT);
                        let none = S::splat_int(0);
                        if F::PARTS == 1 {
                            let dot = S::dots(none, &weights, F::WEIGHT_BITS, values);
                            scaled[t] = S::multiply_add_ints(scaled[t], dot, first);
                        } else {
                            let dot = S::dots(none, &weights[..4], F::WEIGHT_BITS, values);
                            scaled[t] = S::multiply_add_ints(scaled[t], dot, first);
                            let dot = S::dots(none, &weights[4..], F::WEIGHT_BITS, values.add(UNIT / 2));
                            scaled[t] = S::multiply_add_ints(scaled[t], dot, second);
                        }
                        if !matches!(F::CODES, Codes::Table(_)) || S::FLIPPED {
                            let two = x_sums[t].add((block * UNITS + index) * 2);
                            offsets[t] = S::dot_pair(offsets[t], pair, two);
                        }
                    }
                }
                let d = S::halves(extras);
                for t in 0..T {
                    let x_scale = S::splat(*x_scales[t].add(block));
                    let scaled = match F::CODES {
                        Codes::WithMinima => {
                            let e = S::multiply(S::halves(extras.add(F::E_AT)), x_scale);
                            total[t] = S::subtract_product(S::to_floats(offsets[t]), e, total[t]);
                            scaled[t]
                        }
                        Codes::Less4 => S::subtract_shifted::<2>(scaled[t], offsets[t]),
                        Codes::Less32 => S::subtract_shifted::<5>(scaled[t], offsets[t]),
                        Codes::Table(_) if S::FLIPPED => S::subtract_shifted::<7>(scaled[t], offsets[t]),
                        Codes::Table(_) => scaled[t],
                    };
                    total[t] = S::multiply_add(S::to_floats(scaled), S::multiply(d, x_scale), total[t]);
                }
            }
            for t in 0..T {
                S::store(total[t], sums[t].as_mut_ptr());
            }
        }
    }
}

/// The weights of a unit as the products take them.
///
/// # Safety
/// As [`planes::get`].
#[inline(always)]
unsafe fn weights<S: Simd, F: Super>(unit: *const u8) -> [S::Bytes; 8] {
    // SAFETY: the same contract.
    unsafe {
        let codes = match F::BITS {
            2 => planes::get::<S, 2>(unit),
            3 => planes::get::<S, 3>(unit),
            4 => planes::get::<S, 4>(unit),
            5 => planes::get::<S, 5>(unit),
            _ => planes::get::<S, 6>(unit),
        };
        match F::CODES {
            Codes::Table(table) => signed::<S>(looked_up::<S>(table, codes)),
            _ => codes,
        }
    }
}

/// Declares a format and its layout.
macro_rules! declare {
    ($(#[$doc:meta])* $layout:ident, $name:ident, $stored:literal, $bits:literal, $parts:literal,
     signed $signed:literal, $codes:expr, $read:expr) => {
        $(#[$doc])*
        struct $name;
        impl Super for $name {
            const BITS: usize = $bits;
            const CODES: Codes = $codes;
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
    Q2_K, Q2, 84, 2, 2, signed false, Codes::WithMinima, |stored: &[u8]| Parts {
        d: [stored[80], stored[81]],
        e: [stored[82], stored[83]],
        scales: std::array::from_fn(|part| stored[part] & 15),
        minima: std::array::from_fn(|part| stored[part] >> 4),
        codes: std::array::from_fn(|unit| two_bits(&stored[16..80], unit)),
    }
);
declare!(
    /// Three bits less 4; sixteen parts with 6-bit signed scales.
    Q3_K, Q3, 110, 3, 2, signed true, Codes::Less4, |stored: &[u8]| Parts {
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
    Q4_K, Q4, 144, 4, 1, signed false, Codes::WithMinima, |stored: &[u8]| {
        with_minima(stored, |unit| halves(&stored[16..144], unit))
    }
);
declare!(
    /// Five bits; eight parts with 6-bit scales and minima.
    Q5_K, Q5, 176, 5, 1, signed false, Codes::WithMinima, |stored: &[u8]| {
        with_minima(stored, |unit| {
            let low = halves(&stored[48..176], unit);
            std::array::from_fn(|j| low[j] | (stored[16 + j] >> unit & 1) << 4)
        })
    }
);
declare!(
    /// Six bits less 32; sixteen parts with int8 scales.
    Q6_K, Q6, 210, 6, 2, signed true, Codes::Less32, |stored: &[u8]| Parts {
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
    IQ4_XS, Iq4Xs, 136, 4, 1, signed true, Codes::Table(&tables::IQ4), |stored: &[u8]| {
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
