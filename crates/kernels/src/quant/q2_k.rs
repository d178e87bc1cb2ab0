//! Q2_K: super-blocks of 256 values, 2 bits each; 16 groups of 16 with a 4-bit scale and a 4-bit minimum.
//!
//! 84 bytes: 16 bytes of group scales (low half) and minimums (high half), 64 bytes of codes, F16 `d`, F16 `dmin`.
//! `x = d scale q - dmin minimum`.
//!
//! Error of decode(encode(x)): at most the super-block's range (zero included), and that only next to outliers; on
//! normally distributed values the root mean square error is below 35 % of their deviation.

use super::block::{f16_at, put_f16, top_of};
use super::fit::{Difference, Search, fit_with_minimum, nearest};

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

pub(super) fn encode(values: &[f32; 256], block: &mut [u8; BYTES]) {
    let search = Search { top: 3, first: -0.5, steps: 15, difference: Difference::Absolute };
    let groups = values.as_chunks::<16>().0;
    let mut codes = [[0u8; 16]; 16];
    let mut scales = [0.0f32; 16];
    let mut minimums = [0.0f32; 16];
    for (group, values) in groups.iter().enumerate() {
        (scales[group], minimums[group]) =
            fit_with_minimum(values, &values.map(f32::abs), &search, &mut codes[group]);
    }

    block.fill(0);
    for (fitted, at, shift) in [(&scales, 80, 0), (&minimums, 82, 4)] {
        let top = top_of(fitted);
        if top > 0.0 {
            let inverse = 15.0 / top;
            for (byte, fitted) in block[..16].iter_mut().zip(fitted) {
                *byte |= (nearest(inverse * fitted) as u8) << shift;
            }
            put_f16(block, at, top / 15.0);
        }
    }

    // The codes are chosen again for the scales as they are stored.
    let (d, dmin) = (f16_at(block, 80), f16_at(block, 82));
    for (group, values) in groups.iter().enumerate() {
        let scale = d * f32::from(block[group] & 15);
        if scale == 0.0 {
            continue;
        }
        let minimum = dmin * f32::from(block[group] >> 4);
        for (code, x) in codes[group].iter_mut().zip(values) {
            *code = nearest((x + minimum) / scale).clamp(0, 3) as u8;
        }
    }
    put_codes(codes.as_flattened(), block);
}

/// Writes 256 codes into a block whose codes are zero.
pub(super) fn put_codes(codes: &[u8], block: &mut [u8]) {
    for (index, code) in codes.iter().enumerate() {
        let (run, j) = (index / 32, index % 32);
        block[16 + run / 4 * 32 + j] |= code << (run % 4 * 2);
    }
}
