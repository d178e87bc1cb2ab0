//! Q3_K: super-blocks of 256 values, 3 bits each; 16 groups of 16 with a 6-bit signed scale.
//!
//! 110 bytes: 32 bytes with the third bits, 64 bytes with the lower two bits, 12 bytes of group scales, F16 `d`.
//! `x = d (scale - 32) (q - 4)`. Decoded only.

use super::block::f16_at;

/// Bytes of a super-block.
pub(super) const BYTES: usize = 110;

/// The 16 group scales: four low bits in bytes 0..8 (two per byte), two high bits in bytes 8..12 (four per byte).
pub(super) fn scales(packed: &[u8]) -> [i8; 16] {
    std::array::from_fn(|group| {
        let low = (packed[group % 8] >> (group / 8 * 4)) & 15;
        let high = (packed[8 + group % 4] >> (group / 4 * 2)) & 3;
        (low | high << 4) as i8 - 32
    })
}

pub(super) fn decode(block: &[u8; BYTES], out: &mut [f32; 256]) {
    let third = &block[..32];
    let lower = &block[32..96];
    let scales = scales(&block[96..108]);
    let d = f16_at(block, 108);
    for (run, values) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let lower = &lower[run / 4 * 32..][..32];
        let shift = run % 4 * 2;
        for (group, values) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let scale = d * f32::from(scales[2 * run + group]);
            let lower = &lower[16 * group..][..16];
            let third = &third[16 * group..][..16];
            for ((value, lower), third) in values.iter_mut().zip(lower).zip(third) {
                let code = ((lower >> shift) & 3) | ((third >> run) & 1) << 2;
                *value = scale * (i32::from(code) - 4) as f32;
            }
        }
    }
}
