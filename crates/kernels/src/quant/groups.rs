//! ounce's own group formats `G2_32` … `G8_256`: groups of 32, 64, 128 or 256 values in codes of 2, 3, 4 or 8 bits, with
//! a scale and a whole zero point each. What GPTQ, AWQ and their like store fits in without loss.
//!
//! A block of `3 + bits · group / 8` bytes: F16 scale `d`, one byte zero point `z`, then the codes as one stream of bits,
//! lowest first: code `i` lies at bits `i · bits` to `(i + 1) · bits`. `x = d (c − z)`, exact in f32: eleven bits of
//! scale times nine bits of difference.
//!
//! Encoding rounds to nearest between the block's extremes, zero among them. Error of decode(encode(x)), with `r` that range
//! and `t` the largest code: at most `r/(2t) (1 + 2^-10) + r · 2^-11`; blocks whose scale is below F16's normal range
//! (6.1e-5) add up to `(t + 1) · 2^-25`.

use half::f16;

use super::block::{f16_at, reciprocal};

/// Bytes before the codes: the scale and the zero point.
pub const HEAD: usize = 3;

/// Codes that fill a whole number of bytes, whatever their bits: one byte for every bit.
const RUN: usize = 8;

/// Bytes of a block.
pub const fn block_bytes(bits: usize, group: usize) -> usize {
    HEAD + bits * group / 8
}

/// Stores a block: its scale, its zero point and its codes, of which only the lowest `bits` bits are kept.
///
/// # Panics
/// If `block` is not [`block_bytes`] long for as many codes, or the codes are no multiple of 8.
pub fn write_block(bits: usize, scale: f16, zero: u8, codes: &[u8], block: &mut [u8]) {
    assert_eq!(block.len(), block_bytes(bits, codes.len()), "a block of {} codes", codes.len());
    block[..2].copy_from_slice(&scale.to_le_bytes());
    block[2] = zero;
    pack_codes(bits, codes, &mut block[HEAD..]);
}

/// Reads a block's codes, and gives its scale and zero point.
///
/// # Panics
/// As [`write_block`].
pub fn read_block(bits: usize, block: &[u8], codes: &mut [u8]) -> (f16, u8) {
    assert_eq!(block.len(), block_bytes(bits, codes.len()), "a block of {} codes", codes.len());
    unpack_codes(bits, &block[HEAD..], codes);
    (f16::from_le_bytes([block[0], block[1]]), block[2])
}

/// Codes of 1 to 8 bits to a stream of bits, lowest first; only their lowest `bits` bits are kept.
///
/// # Panics
/// If the codes are no multiple of 8 or `stream` does not have `codes.len() · bits / 8` bytes.
pub fn pack_codes(bits: usize, codes: &[u8], stream: &mut [u8]) {
    assert!(codes.len().is_multiple_of(RUN) && stream.len() == codes.len() / RUN * bits, "whole bytes");
    for (codes, bytes) in codes.as_chunks::<RUN>().0.iter().zip(stream.chunks_exact_mut(bits)) {
        let low = |code: u8| u64::from(code) & ((1 << bits) - 1);
        let word = codes.iter().enumerate().fold(0, |word, (i, &code)| word | low(code) << (i * bits));
        bytes.copy_from_slice(&word.to_le_bytes()[..bits]);
    }
}

/// The reverse of [`pack_codes`].
///
/// # Panics
/// As [`pack_codes`].
pub fn unpack_codes(bits: usize, stream: &[u8], codes: &mut [u8]) {
    assert!(codes.len().is_multiple_of(RUN) && stream.len() == codes.len() / RUN * bits, "whole bytes");
    match bits {
        2 => unpack::<2>(stream, codes),
        3 => unpack::<3>(stream, codes),
        4 => unpack::<4>(stream, codes),
        8 => codes.copy_from_slice(stream),
        _ => {
            for (bytes, codes) in stream.chunks_exact(bits).zip(codes.as_chunks_mut().0) {
                unpack_run(bits, bytes, codes);
            }
        }
    }
}

/// [`unpack_codes`] for bits known at compile time.
fn unpack<const BITS: usize>(stream: &[u8], codes: &mut [u8]) {
    for (bytes, codes) in stream.as_chunks::<BITS>().0.iter().zip(codes.as_chunks_mut().0) {
        unpack_run(BITS, bytes, codes);
    }
}

#[inline(always)]
fn unpack_run(bits: usize, bytes: &[u8], codes: &mut [u8; RUN]) {
    let mut word = [0; 8];
    word[..bits].copy_from_slice(bytes);
    let word = u64::from_le_bytes(word);
    for (i, code) in codes.iter_mut().enumerate() {
        *code = (word >> (i * bits)) as u8 & (u8::MAX >> (8 - bits));
    }
}

/// Decodes whole blocks.
pub(super) fn decode(bits: usize, group: usize, bytes: &[u8], out: &mut [f32]) {
    let mut codes = [0; 256];
    let codes = &mut codes[..group];
    for (block, values) in bytes.chunks_exact(block_bytes(bits, group)).zip(out.chunks_exact_mut(group)) {
        unpack_codes(bits, &block[HEAD..], codes);
        let (scale, zero) = (f16_at(block, 0), f32::from(block[2]));
        for (value, &code) in values.iter_mut().zip(&*codes) {
            *value = scale * (f32::from(code) - zero);
        }
    }
}

/// Encodes whole blocks.
pub(super) fn encode(bits: usize, group: usize, values: &[f32], out: &mut [u8]) {
    let top = ((1 << bits) - 1) as f32;
    let mut codes = [0; 256];
    let codes = &mut codes[..group];
    for (values, block) in values.chunks_exact(group).zip(out.chunks_exact_mut(block_bytes(bits, group))) {
        let (min, max) = values.iter().fold((0.0f32, 0.0f32), |(min, max), &x| (min.min(x), max.max(x)));
        let scale = f16::from_f32((max - min) / top);
        // The codes are those of the scale and the zero point as they are stored.
        let inverse = reciprocal(scale.to_f32());
        let zero = (-min * inverse).round().clamp(0.0, top);
        for (code, x) in codes.iter_mut().zip(values) {
            *code = ((x * inverse).round() + zero).clamp(0.0, top) as u8;
        }
        write_block(bits, scale, zero as u8, codes, block);
    }
}
