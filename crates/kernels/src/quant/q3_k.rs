//! Q3_K: super-blocks of 256 values, 3 bits each; 16 groups of 16 with a 6-bit signed scale.
//!
//! 110 bytes: 32 bytes with the third bits, 64 bytes with the lower two bits, 12 bytes of group scales, F16 `d`.
//! `x = d (scale - 32) (q - 4)`.
//!
//! Error of decode(encode(x)), with `a` the super-block's largest magnitude: at most `a`, and that only next to
//! outliers; on normally distributed values the root mean square error is below 20 % of their deviation.

use super::block::{f16_at, put_f16};
use super::fit::{fit_by_descent, nearest};

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

/// The reverse of [`scales`], into bytes that are zero.
pub(super) fn put_scales(scales: &[i8; 16], packed: &mut [u8]) {
    for (group, scale) in scales.iter().enumerate() {
        let scale = (scale + 32) as u8;
        packed[group % 8] |= (scale & 15) << (group / 8 * 4);
        packed[8 + group % 4] |= (scale >> 4) << (group / 4 * 2);
    }
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

pub(super) fn encode(values: &[f32; 256], block: &mut [u8; BYTES]) {
    let groups = values.as_chunks::<16>().0;
    let mut codes = [[0u8; 16]; 16];
    let mut fitted = [0.0f32; 16];
    for (group, values) in groups.iter().enumerate() {
        fitted[group] = fit_by_descent(values, &mut codes[group]);
    }

    block.fill(0);
    let peak = super::block::peak(&fitted);
    if peak != 0.0 {
        let inverse = -32.0 / peak;
        put_scales(&fitted.map(|scale| nearest(inverse * scale).clamp(-32, 31) as i8), &mut block[96..108]);
        put_f16(block, 108, 1.0 / inverse);
    }

    // The codes are chosen again for the scales as they are stored.
    let (d, scales) = (f16_at(block, 108), scales(&block[96..108]));
    for (group, values) in groups.iter().enumerate() {
        let scale = d * f32::from(scales[group]);
        if scale == 0.0 {
            continue;
        }
        for (code, x) in codes[group].iter_mut().zip(values) {
            *code = (nearest(x / scale).clamp(-4, 3) + 4) as u8;
        }
    }
    put_codes(codes.as_flattened(), block);
}

/// Writes 256 codes into a block whose codes are zero.
pub(super) fn put_codes(codes: &[u8], block: &mut [u8]) {
    for (index, code) in codes.iter().enumerate() {
        let (run, j) = (index / 32, index % 32);
        block[j] |= (code >> 2) << run;
        block[32 + run / 4 * 32 + j] |= (code & 3) << (run % 4 * 2);
    }
}
