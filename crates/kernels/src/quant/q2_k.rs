//! Q2_K: super-blocks of 256 values, 2 bits each; 16 groups of 16 with a 4-bit scale and a 4-bit minimum.
//!
//! 84 bytes: 16 bytes of group scales (low half) and minimums (high half), 64 bytes of codes, F16 `d`, F16 `dmin`.
//! `x = d scale q - dmin minimum`. Decoded only.

use super::block::f16_at;

/// Bytes of a super-block.
pub(super) const BYTES: usize = 84;

pub(super) fn decode(block: &[u8; BYTES], out: &mut [f32; 256]) {
    let scales = &block[..16];
    let codes = &block[16..80];
    let d = f16_at(block, 80);
    let dmin = f16_at(block, 82);
    // Four groups of 32 values share 32 bytes, two bits each.
    for (run, values) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let bytes = &codes[run / 4 * 32..][..32];
        let shift = run % 4 * 2;
        for (group, values) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let packed = scales[2 * run + group];
            let scale = d * f32::from(packed & 15);
            let minimum = dmin * f32::from(packed >> 4);
            for (value, byte) in values.iter_mut().zip(&bytes[16 * group..][..16]) {
                *value = scale * f32::from((byte >> shift) & 3) - minimum;
            }
        }
    }
}
