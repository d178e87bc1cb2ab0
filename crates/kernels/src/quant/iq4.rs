//! IQ4_NL and IQ4_XS: 4-bit codes that index a fixed table of unevenly spaced values.
//!
//! IQ4_NL, 32 values in 18 bytes: F16 `d`, then 16 bytes whose low halves are values 0..16 and high halves 16..32;
//! `x = d table[q]`. IQ4_XS, 256 values in 136 bytes: F16 `d`, a 16-bit word with two high bits and 4 bytes with
//! four low bits of each of the 8 group scales, then 16 bytes per group of 32 as above;
//! `x = d (scale - 32) table[q]`.
//!
//! Error of decode(encode(x)), with `a` the block's largest magnitude: at most `a/5` for IQ4_NL, `a` next to outliers for
//! IQ4_XS; on normally distributed values the root mean square error is below 9 % of their deviation.

use super::block::{f16_at, peak, put_f16, put_halves, reciprocal};
use super::fit::{NEGLIGIBLE, nearest, nearest_in};

/// Bytes of an IQ4_NL block.
pub(super) const NL_BYTES: usize = 18;
/// Bytes of an IQ4_XS super-block.
pub(super) const XS_BYTES: usize = 136;

/// What the codes stand for; denser around zero, where most weights are. Part of the format (ggml's table).
pub(super) const TABLE: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

fn decode_group(scale: f32, bytes: &[u8], values: &mut [f32; 32]) {
    // The table is scaled once: 16 products in place of 32, each the same as the one it replaces.
    let table = TABLE.map(|x| scale * f32::from(x));
    for (j, byte) in bytes.iter().enumerate().take(16) {
        values[j] = table[usize::from(byte & 15)];
        values[j + 16] = table[usize::from(byte >> 4)];
    }
}

pub(super) fn decode_nl(block: &[u8; NL_BYTES], out: &mut [f32; 32]) {
    decode_group(f16_at(block, 0), &block[2..], out);
}

pub(super) fn decode_xs(block: &[u8; XS_BYTES], out: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    let scales = scales(block);
    for (group, values) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        decode_group(d * f32::from(scales[group]), &block[8 + 16 * group..], values);
    }
}

/// The scale that fits 32 values best, weighting each value's error by its square: with it the value of largest magnitude
/// comes to an end of the table, or a few steps beside it.
fn fit(values: &[f32; 32]) -> f32 {
    const STEPS: i8 = 7;
    let peak = peak(values);
    if peak.abs() < NEGLIGIBLE {
        return 0.0;
    }
    let end = f32::from(TABLE[0]);
    let sums = |inverse: f32| {
        let (mut xq, mut qq) = (0.0f32, 0.0f32);
        for &x in values {
            let q = f32::from(TABLE[usize::from(nearest_in(&TABLE, inverse * x))]);
            let weight = x * x;
            xq += weight * q * x;
            qq += weight * q * q;
        }
        (xq, qq)
    };
    let (xq, qq) = sums(1.0 / (-peak / end));
    let mut scale = xq / qq;
    let mut gain = scale * xq;
    for step in -STEPS..=STEPS {
        let (xq, qq) = sums((f32::from(step) + end) / peak);
        if qq > 0.0 && xq * xq > gain * qq {
            scale = xq / qq;
            gain = scale * xq;
        }
    }
    scale
}

/// Writes the codes of 32 values for a scale.
fn encode_group(values: &[f32; 32], scale: f32, bytes: &mut [u8]) {
    let inverse = reciprocal(scale);
    put_halves(&values.map(|x| nearest_in(&TABLE, inverse * x)), bytes);
}

pub(super) fn encode_nl(values: &[f32; 32], block: &mut [u8; NL_BYTES]) {
    let scale = fit(values);
    put_f16(block, 0, scale);
    encode_group(values, scale, &mut block[2..]);
}

pub(super) fn encode_xs(values: &[f32; 256], block: &mut [u8; XS_BYTES]) {
    let groups = values.as_chunks::<32>().0;
    let mut fitted = [0.0f32; 8];
    for (scale, values) in fitted.iter_mut().zip(groups) {
        *scale = fit(values);
    }
    block.fill(0);
    let d = -peak(&fitted) / 32.0;
    put_f16(block, 0, d);
    let inverse = reciprocal(d);
    let scales = fitted.map(|scale| nearest(inverse * scale).clamp(-32, 31) as i8);
    put_scales(&scales, block);
    for (group, values) in groups.iter().enumerate() {
        encode_group(values, d * f32::from(scales[group]), &mut block[8 + 16 * group..][..16]);
    }
}

/// The scales of the eight groups, from -32 to 31.
pub(super) fn scales(block: &[u8]) -> [i8; 8] {
    let high_bits = u16::from_le_bytes([block[2], block[3]]);
    std::array::from_fn(|group| {
        let low = (block[4 + group / 2] >> (group % 2 * 4)) & 15;
        let high = (high_bits >> (2 * group)) as u8 & 3;
        (low | high << 4) as i8 - 32
    })
}

/// The reverse of [`scales`], into bytes that are zero.
pub(super) fn put_scales(scales: &[i8; 8], block: &mut [u8]) {
    let mut high = 0u16;
    for (group, scale) in scales.iter().enumerate() {
        let scale = (scale + 32) as u8;
        block[4 + group / 2] |= (scale & 15) << (group % 2 * 4);
        high |= u16::from(scale >> 4) << (2 * group);
    }
    block[2..4].copy_from_slice(&high.to_le_bytes());
}
