//! Q5_K: super-blocks of 256 values, 5 bits each; 8 groups of 32 with a 6-bit scale and a 6-bit minimum.
//!
//! 176 bytes: F16 `d`, F16 `dmin`, 12 bytes of group scales and minimums (packed as in Q4_K), 32 bytes with the
//! fifth bits (bit `g` belongs to group `g`), 128 bytes with the lower four bits.
//! `x = d scale q - dmin minimum`.
//!
//! Error of decode(encode(x)): as Q4_K's at most a third of the super-block's range (zero included); on normally
//! distributed values the root mean square error is below 4 % of their deviation.

use super::block::f16_at;
use super::fit::{Difference, Search};
use super::q4_k::{encode_groups, group_scale};

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

pub(super) fn encode(values: &[f32; 256], block: &mut [u8; BYTES]) {
    let search = Search { top: 31, first: -0.5, steps: 15, difference: Difference::Squared };
    let codes = encode_groups(values, &search, &mut block[..16]);
    block[16..].fill(0);
    put_codes(codes.as_flattened(), block);
}

/// Writes 256 codes into a block whose codes are zero.
pub(super) fn put_codes(codes: &[u8], block: &mut [u8]) {
    for (group, codes) in codes.as_chunks::<32>().0.iter().enumerate() {
        for (j, code) in codes.iter().enumerate() {
            block[16 + j] |= (code >> 4) << group;
            block[48 + group / 2 * 32 + j] |= (code & 15) << (group % 2 * 4);
        }
    }
}
