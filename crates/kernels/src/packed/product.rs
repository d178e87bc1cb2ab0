//! The product of a panel whose codes have scales, and perhaps minima, for 16 or 32 values:
//! `w = s · (c − o) + m`, where s and m belong to a *part* of a unit (all of it, or half of it).
//!
//! With int8 activations `x = a · v` a part adds `(a · Σ (c − o) · v) · s + (a · Σ v) · m`: the first sum is exact in
//! integers, the second one comes with the activations. Codes are multiplied as they are stored; what the offset adds
//! too much is taken off where the sum begins, which comes with the activations as well.

use super::dispatch::{Product, Tile};
use super::panel::Blocks;
use super::planes::{self, UNIT};
use super::simd::Simd;
#[cfg(target_arch = "x86_64")]
use super::tiles::{Parted, Unit};
use super::{Form, Int8, PANEL, Tiles};

/// What a code stands for.
#[derive(Clone, Copy)]
pub(super) enum Codes {
    /// Itself.
    Unsigned,
    /// Itself less a number.
    Less(u8),
    /// A signed byte.
    Signed,
    /// An entry of a table.
    Table(&'static [i8; 16]),
}

impl Codes {
    /// What is added to the numbers that codes stand for when they are multiplied as unsigned bytes; `flipped` says
    /// whether signed ones are.
    const fn offset(self, flipped: bool) -> u8 {
        match self {
            Codes::Unsigned => 0,
            Codes::Less(offset) => offset,
            Codes::Signed | Codes::Table(_) => {
                if flipped {
                    128
                } else {
                    0
                }
            }
        }
    }
}

/// A format as its kernel sees it.
pub(super) trait Format: 'static {
    const BITS: usize;
    const CODES: Codes;
    /// Units of a block, and parts of a unit: 1 or 2.
    const UNITS: usize;
    const PARTS: usize;
    const MINIMA: bool;
    /// Bytes of what belongs to a block besides its codes.
    const EXTRAS: usize;

    /// The scales of a unit's part.
    ///
    /// # Safety
    /// As [`Simd`]'s functions; a block's extras can be read.
    unsafe fn scales<S: Simd>(extras: *const u8, unit: usize, part: usize) -> S::Floats;

    /// The minima of a unit's part, if the format has them.
    ///
    /// # Safety
    /// As [`Format::scales`].
    unsafe fn minima<S: Simd>(extras: *const u8, unit: usize, part: usize) -> S::Floats;

    /// Bits of the weights that are multiplied; 8 if they are signed.
    const WEIGHT_BITS: usize =
        if matches!(Self::CODES, Codes::Signed | Codes::Table(_)) { 8 } else { Self::BITS };
    const UNIT_BYTES: usize = planes::unit_bytes(Self::BITS);
    const BLOCKS: Blocks = Blocks { codes: Self::UNITS * Self::UNIT_BYTES, extras: Self::EXTRAS };
    const GROUP: usize = Self::BLOCKS.group();
    const FORM: Form = Form::Int8(Int8 {
        block: UNIT * Self::UNITS,
        offset: Self::CODES.offset(true),
        part: UNIT / Self::PARTS,
    });
}

/// The kernel of AMX's tiles for a format.
pub(super) const fn tiles<F: Format>() -> Option<Tiles> {
    #[cfg(target_arch = "x86_64")]
    return Some(super::tiles::kernel::<Units<F>>());
    #[cfg(not(target_arch = "x86_64"))]
    None
}

/// The product of a format.
pub(super) struct Units<F>(std::marker::PhantomData<F>);

impl<F: Format> Product for Units<F> {
    const TAKEN_APART: bool = true;

    #[inline(always)]
    unsafe fn sums<S: Simd, const T: usize>(panel: &[u8], tile: Tile<'_>, sums: &mut [[f32; PANEL]]) {
        let blocks = tile.x.columns() / (UNIT * F::UNITS);
        let x = tile.x.ints_at(tile.first());
        let offset = F::CODES.offset(S::FLIPPED);
        // SAFETY: all offsets stay inside the panel and the tokens' activations (`blocks` blocks each).
        unsafe {
            let mut total = [S::splat(0.0); T];
            let mut codes = panel.as_ptr();
            let mut block = 0;
            while block < blocks {
                let count = F::GROUP.min(blocks - block);
                let mut extras = codes.add(count * F::BLOCKS.codes);
                for _ in 0..count {
                    for line in 0..F::EXTRAS.div_ceil(64) {
                        S::prefetch(extras.add(line * 64));
                    }
                    let x_scales = x.scales.add(block * x.width);
                    for index in 0..F::UNITS {
                        for line in 0..F::UNIT_BYTES / 64 {
                            S::prefetch(codes.add(line * 64));
                        }
                        let weights = weights::<S, F>(codes);
                        codes = codes.add(F::UNIT_BYTES);
                        let slot = (block * F::UNITS + index) * x.width;
                        for part in 0..F::PARTS {
                            let groups = 8 / F::PARTS;
                            let mut dots = [S::splat_int(0); T];
                            for (t, dot) in dots.iter_mut().enumerate() {
                                let slot = slot + t;
                                let start = x.starts.add(slot * F::PARTS + part);
                                *dot = S::start(offset, start, x.sums.add(slot * 2 + part), F::PARTS);
                            }
                            let dots = S::dots_of(
                                dots,
                                &weights[part * groups..(part + 1) * groups],
                                F::WEIGHT_BITS,
                                x.values.add(slot * UNIT + part * groups * 4),
                            );
                            let scale = F::scales::<S>(extras, index, part);
                            for t in 0..T {
                                let dot = S::scaled(dots[t], x_scales.add(t));
                                total[t] = S::multiply_add(dot, scale, total[t]);
                            }
                            if F::MINIMA {
                                let minimum = F::minima::<S>(extras, index, part);
                                for (t, total) in total.iter_mut().enumerate() {
                                    let weighted = S::splat(*x.weighted.add((slot + t) * F::PARTS + part));
                                    *total = S::multiply_add(minimum, weighted, *total);
                                }
                            }
                        }
                    }
                    extras = extras.add(F::EXTRAS);
                    block += 1;
                }
                codes = extras;
            }
            for t in 0..T {
                S::store(total[t], sums[t].as_mut_ptr());
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl<F: Format> Parted for Units<F> {
    const BLOCK: usize = F::UNITS;
    const PARTS: usize = F::PARTS;
    const RUN: usize = 1;
    const MINIMA: bool = F::MINIMA;
    const SCALES_FIRST: bool = false;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    unsafe fn take_apart(panel: &[u8], columns: usize, first: usize, count: usize, to: *mut Unit) {
        use super::simd::Avx512;
        use std::arch::x86_64::{_mm512_set1_epi8, _mm512_sub_epi8};
        let blocks = columns / (UNIT * F::UNITS);
        // SAFETY: the units lie in the panel, and `to` has room for them.
        unsafe {
            for index in 0..count {
                let (block, unit) = ((first + index) / F::UNITS, (first + index) % F::UNITS);
                let (codes, extras) = F::BLOCKS.places(block, blocks);
                let codes = panel.as_ptr().add(codes + unit * F::UNIT_BYTES);
                let extras = panel.as_ptr().add(extras);
                for line in 0..F::UNIT_BYTES / 64 {
                    Avx512::prefetch(codes.add(line * 64));
                }
                let mut weights = codes_of::<Avx512, F>(codes);
                if let Codes::Less(offset) = F::CODES {
                    let offset = _mm512_set1_epi8(offset as i8);
                    weights.iter_mut().for_each(|weights| *weights = _mm512_sub_epi8(*weights, offset));
                }
                let to = to.add(index);
                (&raw mut (*to).codes).write(weights);
                for part in 0..F::PARTS {
                    let scale = F::scales::<Avx512>(extras, unit, part);
                    (&raw mut (*to).scales[part]).write(scale);
                    if F::MINIMA {
                        (&raw mut (*to).minima[part]).write(F::minima::<Avx512>(extras, unit, part));
                    }
                }
            }
        }
    }
}

/// The weights of a unit as the products take them.
///
/// # Safety
/// As [`planes::get`].
#[inline(always)]
unsafe fn weights<S: Simd, F: Format>(unit: *const u8) -> [S::Bytes; 8] {
    // SAFETY: the same contract.
    unsafe {
        let codes = codes_of::<S, F>(unit);
        if matches!(F::CODES, Codes::Signed | Codes::Table(_)) { signed::<S>(codes) } else { codes }
    }
}

/// The codes of a unit; of a table, its entries.
///
/// # Safety
/// As [`planes::get`].
#[inline(always)]
unsafe fn codes_of<S: Simd, F: Format>(unit: *const u8) -> [S::Bytes; 8] {
    // SAFETY: the same contract.
    unsafe {
        let mut codes = match F::BITS {
            8 => planes::get::<S, 8>(unit),
            6 => planes::get::<S, 6>(unit),
            5 => planes::get::<S, 5>(unit),
            3 => planes::get::<S, 3>(unit),
            2 => planes::get::<S, 2>(unit),
            _ => planes::get::<S, 4>(unit),
        };
        if let Codes::Table(table) = F::CODES {
            for codes in &mut codes {
                *codes = S::lookup(table, *codes);
            }
        }
        codes
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
