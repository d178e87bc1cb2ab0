//! IQ4_NL and IQ4_XS: 4-bit codes that index a fixed table of unevenly spaced values. Decoded only.
//!
//! IQ4_NL, 32 values in 18 bytes: F16 `d`, then 16 bytes whose low halves are values 0..16 and high halves 16..32;
//! `x = d table[q]`. IQ4_XS, 256 values in 136 bytes: F16 `d`, a 16-bit word with two high bits and 4 bytes with
//! four low bits of each of the 8 group scales, then 16 bytes per group of 32 as above;
//! `x = d (scale - 32) table[q]`.

use super::block::f16_at;

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
    let high_bits = u16::from_le_bytes([block[2], block[3]]);
    for (group, values) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let low = (block[4 + group / 2] >> (group % 2 * 4)) & 15;
        let high = (high_bits >> (2 * group)) as u8 & 3;
        let scale = d * (i32::from(low | high << 4) - 32) as f32;
        decode_group(scale, &block[8 + 16 * group..], values);
    }
}
