//! Q5_0 and Q5_1: 32 values, 5 bits each, one scale (and for Q5_1 one minimum) as F16.
//!
//! Q5_0, 22 bytes: scale `d`, a 32-bit word with the fifth bit of value `j` in bit `j`, then 16 bytes whose low
//! halves are values 0..16 and high halves 16..32; `x = d (q - 16)`. Q5_1, 24 bytes: `d`, minimum `m`, the word,
//! the 16 bytes; `x = d q + m`.
//!
//! Error of decode(encode(x)), with `a` the block's largest magnitude and `r` its range: Q5_0 at most
//! `a/16 (1 + 2^-7)` (a whole step only at the end opposite to the largest value), Q5_1 at most
//! `r/62 (1 + 2^-5) + |m| 2^-11`. Blocks whose scale is below F16's normal range (6.1e-5) lose precision and
//! add up to `16 * 2^-25` (Q5_0) or `32 * 2^-25` (Q5_1).

use super::block::{extent, f16_at, peak, put_f16, reciprocal, u32_at};

/// Bytes of a Q5_0 block.
pub(super) const Q5_0_BYTES: usize = 22;
/// Bytes of a Q5_1 block.
pub(super) const Q5_1_BYTES: usize = 24;

/// The codes of byte `j`: of value `j` and of value `j + 16`.
fn codes(byte: u8, fifth: u32, j: usize) -> (u8, u8) {
    let low = (byte & 15) | ((fifth >> j) as u8 & 1) << 4;
    let high = (byte >> 4) | ((fifth >> (j + 16)) as u8 & 1) << 4;
    (low, high)
}

pub(super) fn decode_q5_0(block: &[u8; Q5_0_BYTES], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    let fifth = u32_at(block, 2);
    for (j, byte) in block[6..].iter().enumerate() {
        let (low, high) = codes(*byte, fifth, j);
        out[j] = d * (i32::from(low) - 16) as f32;
        out[j + 16] = d * (i32::from(high) - 16) as f32;
    }
}

pub(super) fn decode_q5_1(block: &[u8; Q5_1_BYTES], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    let m = f16_at(block, 2);
    let fifth = u32_at(block, 4);
    for (j, byte) in block[8..].iter().enumerate() {
        let (low, high) = codes(*byte, fifth, j);
        out[j] = d * f32::from(low) + m;
        out[j + 16] = d * f32::from(high) + m;
    }
}

/// Writes the fifth bits as a word and the other four as 16 bytes behind it.
pub(super) fn put_codes(codes: &[u8; 32], bytes: &mut [u8]) {
    let fifth = codes.iter().enumerate().fold(0, |word, (j, code)| word | u32::from(code >> 4) << j);
    bytes[..4].copy_from_slice(&fifth.to_le_bytes());
    for j in 0..16 {
        bytes[4 + j] = (codes[j] & 15) | codes[j + 16] << 4;
    }
}

pub(super) fn encode_q5_0(values: &[f32; 32], block: &mut [u8; Q5_0_BYTES]) {
    // The largest value gets the code -16, the one that has no counterpart on the other side.
    let d = peak(values) / -16.0;
    let inverse = reciprocal(d);
    put_f16(block, 0, d);
    let codes = values.map(|x| ((x * inverse + 16.5) as i32).clamp(0, 31) as u8);
    put_codes(&codes, &mut block[2..]);
}

pub(super) fn encode_q5_1(values: &[f32; 32], block: &mut [u8; Q5_1_BYTES]) {
    let (min, max) = extent(values);
    let d = (max - min) / 31.0;
    let inverse = reciprocal(d);
    put_f16(block, 0, d);
    put_f16(block, 2, min);
    let codes = values.map(|x| (((x - min) * inverse + 0.5) as i32).clamp(0, 31) as u8);
    put_codes(&codes, &mut block[4..]);
}
