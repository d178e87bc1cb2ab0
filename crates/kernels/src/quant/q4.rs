//! Q4_0 and Q4_1: 32 values, 4 bits each, one scale (and for Q4_1 one minimum) as F16.
//!
//! Q4_0, 18 bytes: scale `d`, then 16 bytes whose low halves are values 0..16 and high halves 16..32;
//! `x = d (q - 8)`. Q4_1, 20 bytes: `d`, minimum `m`, the same 16 bytes; `x = d q + m`.
//!
//! Error of decode(encode(x)), with `a` the block's largest magnitude and `r` its range: Q4_0 at most
//! `a/8 (1 + 2^-8)` (a whole step only at the end opposite to the largest value), Q4_1 at most
//! `r/30 (1 + 2^-6) + |m| 2^-11`. Blocks whose scale is below F16's normal range (6.1e-5) lose precision and
//! add up to `8 * 2^-25` (Q4_0) or `16 * 2^-25` (Q4_1).

use super::block::{extent, f16_at, peak, put_f16, put_halves, reciprocal};

/// Bytes of a Q4_0 block.
pub(super) const Q4_0_BYTES: usize = 18;
/// Bytes of a Q4_1 block.
pub(super) const Q4_1_BYTES: usize = 20;

pub(super) fn decode_q4_0(block: &[u8; Q4_0_BYTES], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    for (j, byte) in block[2..].iter().enumerate() {
        out[j] = d * (i32::from(byte & 15) - 8) as f32;
        out[j + 16] = d * (i32::from(byte >> 4) - 8) as f32;
    }
}

pub(super) fn decode_q4_1(block: &[u8; Q4_1_BYTES], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    let m = f16_at(block, 2);
    for (j, byte) in block[4..].iter().enumerate() {
        out[j] = d * f32::from(byte & 15) + m;
        out[j + 16] = d * f32::from(byte >> 4) + m;
    }
}

pub(super) fn encode_q4_0(values: &[f32; 32], block: &mut [u8; Q4_0_BYTES]) {
    // The largest value gets the code -8, the one that has no counterpart on the other side.
    let d = peak(values) / -8.0;
    let inverse = reciprocal(d);
    put_f16(block, 0, d);
    put_halves(&values.map(|x| ((x * inverse + 8.5) as i32).clamp(0, 15) as u8), &mut block[2..]);
}

pub(super) fn encode_q4_1(values: &[f32; 32], block: &mut [u8; Q4_1_BYTES]) {
    let (min, max) = extent(values);
    let d = (max - min) / 15.0;
    let inverse = reciprocal(d);
    put_f16(block, 0, d);
    put_f16(block, 2, min);
    put_halves(&values.map(|x| (((x - min) * inverse + 0.5) as i32).clamp(0, 15) as u8), &mut block[4..]);
}
