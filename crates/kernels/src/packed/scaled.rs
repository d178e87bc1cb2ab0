//! Formats with a scale for 32 values: `w = d · c` or `w = d · c + m`, where c is a small whole number.
//!
//! A panel: a unit of codes for each 32 columns (see [`planes`](super::planes)); behind all of them for each unit
//! sixteen scales (f16, or a byte where scales are powers of two) and, where the format has them, sixteen minima (f16).
//!
//! With int8 activations `x = a · v` a unit adds `d · a · Σ c · v`, the inner sum exact in integers. Codes are
//! multiplied as they are stored; an offset o of the codes is taken off as `o · Σ v`.

use super::dispatch::{self, Product, Tile};
use super::planes::{self, UNIT};
use super::simd::Simd;
use super::{Form, Layout, PANEL};
use crate::quant::tables;

/// What a code stands for.
#[derive(Clone, Copy)]
enum Codes {
    /// Itself.
    Unsigned,
    /// Itself less 8.
    Less8,
    /// Itself less 16.
    Less16,
    /// A signed byte.
    Signed,
    /// An entry of a table.
    Table(&'static [i8; 16]),
}

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

    /// Bits of the weights that are multiplied; 8 if they are signed.
    const WEIGHT_BITS: usize =
        if matches!(Self::CODES, Codes::Signed | Codes::Table(_)) { 8 } else { Self::BITS };
    /// Bytes of a unit's codes.
    const UNIT_BYTES: usize = planes::unit_bytes(Self::BITS);
    /// Bytes of a unit's scales and minima.
    const EXTRAS: usize = Self::SCALE.bytes() + if Self::MINIMUM { PANEL * 2 } else { 0 };
}

/// The layout of a format.
const fn layout<F: Scaled>() -> Layout {
    Layout {
        block: UNIT,
        bytes: F::UNIT_BYTES + F::EXTRAS,
        form: Form::Int8(UNIT),
        pack: pack::<F>,
        kernel: dispatch::kernel::<Blocks<F>>,
        tiles: None,
    }
}

fn pack<F: Scaled>(rows: &[u8], row_bytes: usize, out: &mut [u8]) {
    let blocks = row_bytes / F::STORED;
    let (units, extras) = out.split_at_mut(blocks * F::UNIT_BYTES);
    let units = units.chunks_exact_mut(F::UNIT_BYTES).zip(extras.chunks_exact_mut(F::EXTRAS));
    // Blocks outside, rows inside: the sixteen rows of a block fill the same cache lines.
    for (block, (unit, extras)) in units.enumerate() {
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

/// The product of a format.
struct Blocks<F>(std::marker::PhantomData<F>);

impl<F: Scaled> Product for Blocks<F> {
    const TAKEN_APART: bool = true;

    #[inline(always)]
    unsafe fn sums<S: Simd, const T: usize>(panel: &[u8], tile: Tile<'_>, sums: &mut [[f32; PANEL]]) {
        let blocks = tile.x.columns() / UNIT;
        let values: [*const i8; T] = std::array::from_fn(|t| tile.x.values(tile.token(t)).as_ptr());
        let x_scales: [*const f32; T] = std::array::from_fn(|t| tile.x.scales(tile.token(t)).as_ptr());
        let x_sums: [*const i16; T] = std::array::from_fn(|t| tile.x.sums(tile.token(t)).as_ptr());
        // SAFETY: all offsets stay inside the panel and the tokens' activations (`blocks` blocks each).
        unsafe {
            let extras = panel.as_ptr().add(blocks * F::UNIT_BYTES);
            let mut total = [S::splat(0.0); T];
            let none = S::splat_int(0);
            let offset = offset::<S>(F::CODES);
            let offsets = S::pair(S::splat_int(-offset), S::splat_int(-offset));
            for block in 0..blocks {
                let unit = panel.as_ptr().add(block * F::UNIT_BYTES);
                for line in 0..F::UNIT_BYTES / 64 {
                    S::prefetch(unit.add(line * 64));
                }
                let weights = weights::<S, F>(unit);
                let extras = extras.add(block * F::EXTRAS);
                S::prefetch(extras);
                let scale = match F::SCALE {
                    Scale::F16 => S::halves(extras),
                    Scale::Power => S::multiply(S::powers(extras), S::splat(0.5)),
                };
                for t in 0..T {
                    // The sums of the two halves of the unit's values.
                    let two = x_sums[t].add(block * 2);
                    let start = if offset == 0 { none } else { S::dot_pair(none, offsets, two) };
                    let dot = S::dots(start, &weights, F::WEIGHT_BITS, values[t].add(block * UNIT));
                    let x_scale = *x_scales[t].add(block);
                    let both = S::multiply(scale, S::splat(x_scale));
                    total[t] = S::multiply_add(S::to_floats(dot), both, total[t]);
                    if F::MINIMUM {
                        let x_sum = S::splat(x_scale * f32::from(*two + *two.add(1)));
                        total[t] = S::multiply_add(S::halves(extras.add(PANEL * 2)), x_sum, total[t]);
                    }
                }
            }
            for t in 0..T {
                S::store(total[t], sums[t].as_mut_ptr());
            }
        }
    }
}

/// What is added to the numbers that codes stand for when they are multiplied.
#[inline(always)]
fn offset<S: Simd>(codes: Codes) -> i32 {
    match codes {
        Codes::Unsigned => 0,
        Codes::Less8 => 8,
        Codes::Less16 => 16,
        Codes::Signed | Codes::Table(_) => {
            if S::FLIPPED {
                128
            } else {
                0
            }
        }
    }
}

/// The weights of a unit as the products take them.
///
/// # Safety
/// As [`planes::get`].
#[inline(always)]
unsafe fn weights<S: Simd, F: Scaled>(unit: *const u8) -> [S::Bytes; 8] {
    // SAFETY: the same contract.
    unsafe {
        let codes = match F::BITS {
            8 => planes::get::<S, 8>(unit),
            5 => planes::get::<S, 5>(unit),
            _ => planes::get::<S, 4>(unit),
        };
        match F::CODES {
            Codes::Signed => signed::<S>(codes),
            Codes::Table(table) => signed::<S>(looked_up::<S>(table, codes)),
            _ => codes,
        }
    }
}

/// [`Simd::signed`] of every group.
///
/// # Safety
/// As [`Simd`]'s functions.
#[inline(always)]
pub(super) unsafe fn signed<S: Simd>(mut weights: [S::Bytes; 8]) -> [S::Bytes; 8] {
    for weights in &mut weights {
        // SAFETY: the same contract.
        *weights = unsafe { S::signed(*weights) };
    }
    weights
}

/// [`Simd::lookup`] of every group.
///
/// # Safety
/// As [`Simd`]'s functions.
#[inline(always)]
pub(super) unsafe fn looked_up<S: Simd>(table: &[i8; 16], mut codes: [S::Bytes; 8]) -> [S::Bytes; 8] {
    for codes in &mut codes {
        // SAFETY: the same contract.
        *codes = unsafe { S::lookup(table, *codes) };
    }
    codes
}

/// Sixteen bytes whose low halves are codes 0..16 and high halves 16..32.
#[inline(always)]
pub(super) fn nibbles(bytes: &[u8]) -> [u8; UNIT] {
    let bytes: &[u8; 16] = bytes[..16].try_into().expect("sixteen bytes");
    let mut codes = [0; UNIT];
    let (low, high) = codes.split_at_mut(16);
    for j in 0..16 {
        low[j] = bytes[j] & 15;
        high[j] = bytes[j] >> 4;
    }
    codes
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
    Q4_0, Q40, 18, 4, Codes::Less8, nibbles
);
declare!(
    /// `w = d · q + m`, four bits.
    Q4_1, Q41, 20, 4, Codes::Unsigned, nibbles, const MINIMUM: bool = true;
);
declare!(
    /// `w = d · (q − 16)`, five bits.
    Q5_0, Q50, 22, 5, Codes::Less16, five_bits
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
