//! Q5_K: super-blocks of 256 values, 5 bits each; 8 groups of 32 with a 6-bit scale and a 6-bit minimum.
//!
//! 176 bytes: F16 `d`, F16 `dmin`, 12 bytes of group scales and minimums (packed as in Q4_K), 32 bytes with the
//! fifth bits (bit `g` belongs to group `g`), 128 bytes with the lower four bits.
//! `x = d scale q - dmin minimum`. Decoded only.

use super::block::f16_at;
use super::q4_k::group_scale;

/// Bytes of a super-block.
pub(super) const BYTES: usize = 176;

pub(super) fn decode(block: &[u8; BYTES], out: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    let dmin = f16_at(block, 2);
    let fifth = &block[16..48];
    for (group, values) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, minimum) = group_scale(&block[4..16], group);
        let scale = d * f32::from(scale);
        let minimum = dmin * f32::from(minimum);
        let lower = &block[48 + group / 2 * 32..][..32];
        let shift = group % 2 * 4;
        for ((value, lower), fifth) in values.iter_mut().zip(lower).zip(fifth) {
            let code = ((lower >> shift) & 15) | ((fifth >> group) & 1) << 4;
            *value = scale * f32::from(code) - minimum;
        }
    }
}
