//! MXFP4 (OCP microscaling) as ggml lays it out: 32 values of 4-bit E2M1 floats with one power-of-two scale.
//!
//! 17 bytes: E8M0 exponent `e`, then 16 bytes whose low halves are values 0..16 and high halves 16..32;
//! `x = 2^(e - 127) E2M1(q)`. The standard makes `e` = 255 a NaN; like ggml, decoding treats it as a number, and
//! `quant::check_scales` reports it. Hugging Face's packing of the same numbers (neighbours share a byte) is
//! another one.
//!
//! Error of decode(encode(x)), with `a` the block's largest magnitude: at most `a/4`.

/// Bytes of a block.
pub(super) const BYTES: usize = 17;

/// Twice the E2M1 numbers, which makes them whole; the scale below is halved in return. Code 8 is plain zero.
pub(super) const DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// 2^(e - 128). The two smallest are subnormal in `f32` and exact nevertheless.
pub(super) fn half_scale(e: u8) -> f32 {
    match e {
        0 | 1 => f32::from_bits(0x0020_0000 << e),
        _ => f32::from_bits((u32::from(e) - 1) << 23),
    }
}

pub(super) fn decode(block: &[u8; BYTES], out: &mut [f32; 32]) {
    let scale = half_scale(block[0]);
    // The table is scaled once: 16 products in place of 32, each the same as the one it replaces.
    let table = DOUBLED.map(|x| scale * f32::from(x));
    for (j, byte) in block[1..].iter().enumerate() {
        out[j] = table[usize::from(byte & 15)];
        out[j + 16] = table[usize::from(byte >> 4)];
    }
}

pub(super) fn encode(values: &[f32; 32], block: &mut [u8; BYTES]) {
    let largest = super::block::largest(values);
    // The largest number of four bits is 6, so that 2^2 is the largest power.
    block[0] = if largest > 0.0 { (largest.log2().floor() - 2.0 + 127.0) as u8 } else { 0 };
    let scale = half_scale(block[0]);
    let code = |x: f32| {
        let mut best = 0;
        for (code, &doubled) in DOUBLED.iter().enumerate() {
            let error = |doubled: i8| (f32::from(doubled) * scale - x).abs();
            if error(doubled) < error(DOUBLED[best]) {
                best = code;
            }
        }
        best as u8
    };
    super::block::put_halves(&values.map(code), &mut block[1..]);
}
