//! TQ1_0 and TQ2_0: −1, 0 and 1 times an F16 for 256 values, five digits of three a byte, or four codes of two bits.
//!
//! For models that were trained to such weights: to the nearest multiple of the largest magnitude. Reading is
//! [`lattice`](super::lattice)'s work.
//!
//! Error of decode(encode(x)): at most half the block's largest magnitude.

use super::block::{largest, put_f16, reciprocal};

/// Digits 0, 1 and 2 for −1, 0 and 1; ties to the larger magnitude.
fn digits(values: &[f32; 256]) -> (f32, [u8; 256]) {
    let scale = largest(values);
    let inverse = reciprocal(scale);
    (scale, values.map(|x| ((x * inverse).round() as i8 + 1) as u8))
}

/// Writes four codes of two bits a byte.
pub(super) fn put_two_bits(digits: &[u8], bytes: &mut [u8]) {
    for (at, digit) in digits.iter().enumerate() {
        bytes[at / 128 * 32 + at % 32] |= digit << (at % 128 / 32 * 2);
    }
}

/// Writes five digits of three a byte, the first ones the highest, as a fraction of 256.
pub(super) fn put_threes(digits: &[u8], bytes: &mut [u8]) {
    const POWERS: [u16; 5] = [81, 27, 9, 3, 1];
    let mut rest = digits;
    for (from, width, count) in [(0, 32, 5), (32, 16, 5), (48, 4, 4)] {
        for (at, byte) in bytes[from..from + width].iter_mut().enumerate() {
            let number: u16 = (0..count).map(|run| u16::from(rest[run * width + at]) * POWERS[run]).sum();
            *byte = (number * 256).div_ceil(243) as u8;
        }
        rest = &rest[count * width..];
    }
}

pub(super) fn encode_tq2_0(values: &[f32; 256], block: &mut [u8; 66]) {
    let (scale, digits) = digits(values);
    block.fill(0);
    put_two_bits(&digits, &mut block[..64]);
    put_f16(block, 64, scale);
}

pub(super) fn encode_tq1_0(values: &[f32; 256], block: &mut [u8; 54]) {
    let (scale, digits) = digits(values);
    put_threes(&digits, &mut block[..52]);
    put_f16(block, 52, scale);
}
