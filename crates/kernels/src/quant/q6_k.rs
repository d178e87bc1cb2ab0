//! Q6_K: super-blocks of 256 values, 6 bits each; 16 groups of 16 with an 8-bit signed scale.
//!
//! 210 bytes: 128 bytes with the lower four bits, 64 bytes with the upper two, 16 signed group scales, F16 `d`.
//! `x = d scale (q - 32)`. In each half of 128 values, value `32 k + l` has its lower bits in byte `32 (k % 2) + l`
//! (high half of the byte for `k >= 2`) and its upper bits in byte `l`, bits `2 k` and `2 k + 1`.
//!
//! Error of decode(encode(x)), with `a` the super-block's largest magnitude: at most `a/16`; on normally
//! distributed values the root mean square error is below 2 % of their deviation.

use super::block::{f16_at, put_f16};
use super::fit::{NEGLIGIBLE, fit_symmetric, nearest};

/// Bytes of a super-block.
pub(super) const BYTES: usize = 210;

const UPPER: usize = 128;
pub(super) const SCALES: usize = 192;
pub(super) const SUPER_SCALE: usize = 208;

pub(super) fn decode(block: &[u8; BYTES], out: &mut [f32; 256]) {
    let d = f16_at(block, SUPER_SCALE);
    for (run, values) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (half, k) = (run / 4, run % 4);
        let lower = &block[64 * half + 32 * (k % 2)..][..32];
        let upper = &block[UPPER + 32 * half..][..32];
        let shift = k / 2 * 4;
        for (group, values) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let scale = d * f32::from(block[SCALES + 2 * run + group] as i8);
            let lower = &lower[16 * group..][..16];
            let upper = &upper[16 * group..][..16];
            for ((value, lower), upper) in values.iter_mut().zip(lower).zip(upper) {
                let code = ((lower >> shift) & 15) | ((upper >> (2 * k)) & 3) << 4;
                *value = scale * (i32::from(code) - 32) as f32;
            }
        }
    }
}

pub(super) fn encode(values: &[f32; 256], block: &mut [u8; BYTES]) {
    let groups = values.as_chunks::<16>().0;
    let mut codes = [0u8; 256];
    let mut scales = [0.0f32; 16];
    for (group, codes) in codes.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        scales[group] = fit_symmetric(&groups[group], codes);
    }
    let top_scale = super::block::peak(&scales);
    if top_scale.abs() < NEGLIGIBLE {
        block.fill(0);
        return;
    }

    // The largest scale gets the code -128, the one that has no counterpart on the other side.
    let inverse = -128.0 / top_scale;
    put_f16(block, SUPER_SCALE, 1.0 / inverse);
    for (group, scale) in scales.iter().enumerate() {
        block[SCALES + group] = nearest(inverse * scale).min(127) as u8;
    }

    // The codes are chosen again for the scales as they are stored.
    let d = f16_at(block, SUPER_SCALE);
    for (group, codes) in codes.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let scale = d * f32::from(block[SCALES + group] as i8);
        if scale == 0.0 {
            continue;
        }
        for (code, x) in codes.iter_mut().zip(&groups[group]) {
            *code = (nearest(x / scale).clamp(-32, 31) + 32) as u8;
        }
    }
    put_codes(&codes, block);
}

/// Writes 256 codes into a block.
pub(super) fn put_codes(codes: &[u8], block: &mut [u8]) {
    for (half, codes) in codes.as_chunks::<128>().0.iter().enumerate() {
        for l in 0..32 {
            let code = |k: usize| codes[32 * k + l];
            block[64 * half + l] = (code(0) & 15) | code(2) << 4;
            block[64 * half + 32 + l] = (code(1) & 15) | code(3) << 4;
            block[UPPER + 32 * half + l] =
                code(0) >> 4 | code(1) >> 4 << 2 | code(2) >> 4 << 4 | code(3) >> 4 << 6;
        }
    }
}
