//! What the block formats share: walking over blocks, reading and writing their fields, extremes of a block.

use half::f16;

/// Calls `decode` for every pair of a stored block and its values.
pub(super) fn decode_blocks<const BYTES: usize, const LEN: usize>(
    bytes: &[u8],
    out: &mut [f32],
    decode: impl Fn(&[u8; BYTES], &mut [f32; LEN]),
) {
    for (block, values) in bytes.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        decode(block, values);
    }
}

/// Calls `encode` for every pair of values and the block to store them in.
pub(super) fn encode_blocks<const BYTES: usize, const LEN: usize>(
    values: &[f32],
    out: &mut [u8],
    encode: impl Fn(&[f32; LEN], &mut [u8; BYTES]),
) {
    for (values, block) in values.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        encode(values, block);
    }
}

/// The F16 at byte `at`.
#[inline]
pub(super) fn f16_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// The little-endian word at byte `at`.
#[inline]
pub(super) fn u32_at(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// Stores `value` as F16 (to nearest, ties to even) at byte `at`.
#[inline]
pub(super) fn put_f16(block: &mut [u8], at: usize, value: f32) {
    block[at..at + 2].copy_from_slice(&f16::from_f32(value).to_le_bytes());
}

/// Stores 32 four-bit codes in 16 bytes: the first half in the low halves, the second in the high ones.
#[inline]
pub(super) fn put_halves(codes: &[u8; 32], bytes: &mut [u8]) {
    for (j, byte) in bytes[..16].iter_mut().enumerate() {
        *byte = codes[j] | codes[j + 16] << 4;
    }
}

/// `1 / x`, or 0 for 0: the scale of an all-zero block.
#[inline]
pub(super) fn reciprocal(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { 1.0 / x }
}

/// The largest magnitude.
#[inline]
pub(super) fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |largest, x| if x.abs() > largest { x.abs() } else { largest })
}

/// The value of largest magnitude with its sign, the first one of several; 0 if all are zero.
#[inline]
pub(super) fn peak(values: &[f32]) -> f32 {
    let largest = largest(values);
    values.iter().copied().find(|x| x.abs() == largest && largest > 0.0).unwrap_or(0.0)
}

/// The largest value, if it is positive; else 0.
#[inline]
pub(super) fn top_of(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |top, &x| if x > top { x } else { top })
}

/// The smallest and the largest value.
#[inline]
pub(super) fn extent(values: &[f32]) -> (f32, f32) {
    values.iter().fold((f32::MAX, f32::MIN), |(min, max), &x| {
        (if x < min { x } else { min }, if x > max { x } else { max })
    })
}
