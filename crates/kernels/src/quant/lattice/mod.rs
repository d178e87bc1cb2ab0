//! ggml's formats below three bits and their kin: 256 values share an F16 d, parts of 16 or 32 have a small odd scale s, and a
//! value is `d · f · s · l` with a constant f of the format and one of few levels l.
//!
//! In the codebook formats (IQ1, IQ2, IQ3) eight or four neighbours together are a point of a list: their magnitudes (or, in
//! IQ1, numbers of −1, 0 and 1 moved by an eighth) are stored as its place in the list, signs apart. With seven bits for the
//! signs of eight values the eighth follows from the others: an even number of them is negative. TQ1_0 and TQ2_0 hold −1, 0
//! and 1 without a list.
//!
//! `parts` takes a block apart; decoding and the packed products both stand on it. All factors of a value have few bits, so
//! that every order of the products gives the same number as ggml's. The formats of [`Lattice`] are written too: a search
//! finds the points near values, weighted ([`search`]).

mod points;
pub mod search;
mod store;

use crate::DType;
use half::f16;

pub use search::{Lattice, Near};

/// Values of a block.
pub const BLOCK: usize = 256;

/// A block taken apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parts {
    /// Bytes of the F16 d.
    pub d: [u8; 2],
    /// Odd scales of parts of 16, or, in the first eight, of 32 values.
    pub scales: [u8; 16],
    /// Codes of the format's levels.
    pub codes: [u8; BLOCK],
}

/// What codes of a format stand for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    /// Levels by code.
    pub levels: [i8; 16],
    /// Constant factor of all values.
    pub factor: f32,
    /// Values of a part.
    pub part: usize,
}

/// Three magnitudes in codes 0 to 2, the same below zero in 4 to 6.
pub(crate) const IQ2_LEVELS: [i8; 16] = [8, 25, 43, 0, -8, -25, -43, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// Eight magnitudes, then the same below zero.
pub(crate) const IQ3_XXS_LEVELS: [i8; 16] =
    [4, 12, 20, 28, 36, 44, 52, 62, -4, -12, -20, -28, -36, -44, -52, -62];
/// Eight magnitudes, then the same below zero.
pub(crate) const IQ3_S_LEVELS: [i8; 16] = [1, 3, 5, 7, 9, 11, 13, 15, -1, -3, -5, -7, -9, -11, -13, -15];
/// Eight times −1, 0 and 1, moved up by one in codes 0 to 2 and down in codes 4 to 6.
pub(crate) const IQ1_LEVELS: [i8; 16] = [-7, 1, 9, 0, -9, -1, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// −1, 0 and 1.
pub(crate) const TERNARY: [i8; 16] = [-1, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// What is known of a format of this family; none of others.
pub(crate) const fn facts(dtype: DType) -> Option<Facts> {
    let (levels, factor, part) = match dtype {
        DType::IQ2XXS => (IQ2_LEVELS, 0.125, 32),
        DType::IQ2XS | DType::IQ2S => (IQ2_LEVELS, 0.125, 16),
        DType::IQ3XXS => (IQ3_XXS_LEVELS, 0.25, 32),
        DType::IQ3S => (IQ3_S_LEVELS, 1.0, 32),
        DType::IQ1S => (IQ1_LEVELS, 0.125, 32),
        DType::IQ1M => (IQ1_LEVELS, 0.125, 16),
        DType::TQ1_0 | DType::TQ2_0 => (TERNARY, 1.0, 32),
        _ => return None,
    };
    Some(Facts { levels, factor, part })
}

/// Takes a block apart.
///
/// # Panics
/// If `block` has not the length of a block, or the format is none of this family.
#[inline]
pub(crate) fn parts(dtype: DType, block: &[u8]) -> Parts {
    let mut parts = Parts { d: [block[0], block[1]], scales: [1; 16], codes: [0; BLOCK] };
    match dtype {
        DType::IQ2XXS => iq2_xxs(block, &mut parts),
        DType::IQ2XS => iq2_xs(block, &mut parts),
        DType::IQ2S => iq2_s(block, &mut parts),
        DType::IQ3XXS => iq3_xxs(block, &mut parts),
        DType::IQ3S => iq3_s(block, &mut parts),
        DType::IQ1S => iq1_s(block, &mut parts),
        DType::IQ1M => iq1_m(block, &mut parts),
        DType::TQ1_0 => tq1_0(block, &mut parts),
        DType::TQ2_0 => tq2_0(block, &mut parts),
        _ => unreachable!("{dtype} is no format of this family"),
    }
    parts
}

/// Decodes whole blocks.
pub(super) fn decode(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    let Some(Facts { levels, factor, part }) = facts(dtype) else { return };
    let levels = levels.map(f32::from);
    for (block, out) in bytes.chunks_exact(dtype.block_bytes()).zip(out.chunks_exact_mut(BLOCK)) {
        let Parts { d, scales, codes } = parts(dtype, block);
        let d = f16::from_le_bytes(d).to_f32() * factor;
        let all = out.chunks_exact_mut(part).zip(codes.chunks_exact(part)).zip(scales);
        for ((out, codes), scale) in all {
            let step = d * f32::from(scale);
            out.iter_mut().zip(codes).for_each(|(out, code)| *out = step * levels[usize::from(*code)]);
        }
    }
}

/// Whether the F16 d of a block is finite.
pub(super) fn is_finite(dtype: DType, block: &[u8]) -> bool {
    f16::from_le_bytes(d_bytes(dtype, block)).is_finite()
}

fn d_bytes(dtype: DType, block: &[u8]) -> [u8; 2] {
    match dtype {
        // A quarter of its bits stands above the scales in each of four words.
        DType::IQ1M => {
            let word = |at: usize| u16::from_le_bytes([block[48 + 2 * at], block[49 + 2 * at]]) >> 12;
            (word(0) | word(1) << 4 | word(2) << 8 | word(3) << 12).to_le_bytes()
        }
        DType::TQ1_0 => [block[52], block[53]],
        DType::TQ2_0 => [block[64], block[65]],
        _ => [block[0], block[1]],
    }
}

/// The odd number that a scale of few bits stands for.
fn odd(scale: u8) -> u8 {
    2 * scale + 1
}

/// Two scales of four bits a byte, the first in the low half.
fn halves(bytes: &[u8], at: usize) -> u8 {
    odd(bytes[at / 2] >> (at % 2 * 4) & 15)
}

/// All eight signs from seven: an even number is negative.
fn eight_signs(seven: u8) -> u8 {
    seven | ((seven.count_ones() as u8 & 1) << 7)
}

/// Writes the codes of a point with two bits a coordinate, a sign behind them.
fn put_eight(point: u16, signs: u8, codes: &mut [u8]) {
    for (at, code) in codes.iter_mut().enumerate() {
        *code = (point >> (2 * at)) as u8 & 3 | (signs >> at & 1) << 2;
    }
}

/// The same for four coordinates of three bits.
fn put_four(point: u16, signs: u8, codes: &mut [u8]) {
    for (at, code) in codes.iter_mut().enumerate() {
        *code = (point >> (3 * at)) as u8 & 7 | (signs >> at & 1) << 3;
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn short(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// Of 32 values: four places of a byte, then a word with four times seven signs and the scale.
fn iq2_xxs(block: &[u8], parts: &mut Parts) {
    for (index, (codes, stored)) in
        parts.codes.chunks_exact_mut(32).zip(block[2..].chunks_exact(8)).enumerate()
    {
        let signs = word(stored, 4);
        parts.scales[index] = odd((signs >> 28) as u8);
        for (at, codes) in codes.chunks_exact_mut(8).enumerate() {
            let seven = (signs >> (7 * at)) as u8 & 127;
            put_eight(points::IQ2_XXS[usize::from(stored[at])], eight_signs(seven), codes);
        }
    }
}

/// Of eight values: a place of nine bits and seven signs; then scales.
fn iq2_xs(block: &[u8], parts: &mut Parts) {
    parts.scales = std::array::from_fn(|at| halves(&block[66..], at));
    for (at, codes) in parts.codes.chunks_exact_mut(8).enumerate() {
        let stored = short(block, 2 + 2 * at);
        put_eight(points::IQ2_XS[usize::from(stored & 511)], eight_signs((stored >> 9) as u8), codes);
    }
}

/// Low bits of places, signs, high bits of places, scales.
fn iq2_s(block: &[u8], parts: &mut Parts) {
    parts.scales = std::array::from_fn(|at| halves(&block[74..], at));
    for (at, codes) in parts.codes.chunks_exact_mut(8).enumerate() {
        let high = u16::from(block[66 + at / 4] >> (at % 4 * 2) & 3);
        put_eight(points::IQ2_S[usize::from(u16::from(block[2 + at]) | high << 8)], block[34 + at], codes);
    }
}

/// Places, then for 32 values a word with four times seven signs and the scale.
fn iq3_xxs(block: &[u8], parts: &mut Parts) {
    for index in 0..8 {
        parts.scales[index] = odd((word(block, 66 + 4 * index) >> 28) as u8);
    }
    for (at, codes) in parts.codes.chunks_exact_mut(4).enumerate() {
        let seven = (word(block, 66 + at / 8 * 4) >> (at % 8 / 2 * 7)) as u8 & 127;
        let signs = eight_signs(seven) >> (at % 2 * 4);
        put_four(points::IQ3_XXS[usize::from(block[2 + at])], signs, codes);
    }
}

/// Low bits of places, their ninth bits, signs, scales.
fn iq3_s(block: &[u8], parts: &mut Parts) {
    for index in 0..8 {
        parts.scales[index] = halves(&block[106..], index);
    }
    for (at, codes) in parts.codes.chunks_exact_mut(4).enumerate() {
        let place = usize::from(block[2 + at]) | usize::from(block[66 + at / 8] >> (at % 8) & 1) << 8;
        put_four(points::IQ3_S[place], block[74 + at / 2] >> (at % 2 * 4), codes);
    }
}

/// Writes the codes of a point of IQ1, moved up, or down.
fn put_ternary(point: u16, down: bool, codes: &mut [u8]) {
    for (at, code) in codes.iter_mut().enumerate() {
        *code = (point >> (2 * at)) as u8 & 3 | u8::from(down) << 2;
    }
}

/// Low bits of places, then for 32 values a word with four times three high bits, the scale and which way they are moved.
fn iq1_s(block: &[u8], parts: &mut Parts) {
    for index in 0..8 {
        parts.scales[index] = odd((short(block, 34 + 2 * index) >> 12) as u8 & 7);
    }
    for (at, codes) in parts.codes.chunks_exact_mut(8).enumerate() {
        let high = short(block, 34 + at / 4 * 2);
        let place = u16::from(block[2 + at]) | (high >> (at % 4 * 3) & 7) << 8;
        put_ternary(points::IQ1[usize::from(place)], high & 0x8000 != 0, codes);
    }
}

/// Low bits of places; for each a half byte with three high bits and which way it is moved; scales of three bits, and d
/// above them.
fn iq1_m(block: &[u8], parts: &mut Parts) {
    parts.d = d_bytes(DType::IQ1M, block);
    parts.scales = std::array::from_fn(|at| odd((short(block, 48 + at / 4 * 2) >> (at % 4 * 3)) as u8 & 7));
    for (at, codes) in parts.codes.chunks_exact_mut(8).enumerate() {
        let high = block[32 + at / 2] >> (at % 2 * 4);
        let place = usize::from(block[at]) | usize::from(high & 7) << 8;
        put_ternary(points::IQ1[place], high & 8 != 0, codes);
    }
}

/// Five digits of three a byte, read off from the top of `byte · 3^n / 256`.
fn tq1_0(block: &[u8], parts: &mut Parts) {
    const POWERS: [u8; 5] = [1, 3, 9, 27, 81];
    parts.d = d_bytes(DType::TQ1_0, block);
    let digit = |byte: u8, power: u8| ((u16::from(byte.wrapping_mul(power)) * 3) >> 8) as u8;
    let runs = [(0, 32, 5), (32, 16, 5), (48, 4, 4)];
    let mut codes = parts.codes.iter_mut();
    for (from, width, digits) in runs {
        for power in &POWERS[..digits] {
            for (byte, code) in block[from..from + width].iter().zip(codes.by_ref()) {
                *code = digit(*byte, *power);
            }
        }
    }
}

/// Four runs of 32 values share 32 bytes.
fn tq2_0(block: &[u8], parts: &mut Parts) {
    parts.d = d_bytes(DType::TQ2_0, block);
    for (at, code) in parts.codes.iter_mut().enumerate() {
        // The fourth code stands for nothing that is written; ggml reads it as 2.
        *code = block[at / 128 * 32 + at % 32] >> (at % 128 / 32 * 2) & 3;
    }
}

#[cfg(test)]
mod tests;
