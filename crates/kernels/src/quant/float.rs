//! Plain number formats: F64, F32, F16, BF16 and the two 8-bit floats E4M3 (finite only) and E5M2.
//!
//! Little-endian bytes in, `f32` out, and back. Lengths are checked by the caller (`quant::decode`,
//! `quant::encode`). Rounding is to nearest, ties to even: the error of a normal number `x` is at most
//! `|x| / 2^(m+1)` with `m` stored mantissa bits (F16 10, BF16 7, E4M3 3, E5M2 2), below the normal range half
//! of the smallest step (2^-25, 2^-134, 2^-10, 2^-17). Numbers past the end of the range become infinite, or NaN
//! in E4M3 which has no infinity; `quant::encode` refuses them.

use half::f16;
use half::slice::HalfFloatSliceExt;

/// Values converted at a time where the conversion needs an aligned buffer.
const CHUNK: usize = 256;

pub(super) fn decode_f64(bytes: &[u8], out: &mut [f32]) {
    for (value, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
        *value = f64::from_le_bytes(*bytes) as f32;
    }
}

pub(super) fn decode_f32(bytes: &[u8], out: &mut [f32]) {
    for (value, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
        *value = f32::from_le_bytes(*bytes);
    }
}

pub(super) fn decode_f16(bytes: &[u8], out: &mut [f32]) {
    // The stored bytes may be unaligned; the hardware conversion works on whole aligned slices.
    let mut aligned = [f16::ZERO; CHUNK];
    for (values, bytes) in out.chunks_mut(CHUNK).zip(bytes.chunks(2 * CHUNK)) {
        let aligned = &mut aligned[..values.len()];
        for (half, bytes) in aligned.iter_mut().zip(bytes.as_chunks().0) {
            *half = f16::from_le_bytes(*bytes);
        }
        aligned.convert_to_f32_slice(values);
    }
}

pub(super) fn decode_bf16(bytes: &[u8], out: &mut [f32]) {
    for (value, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
        *value = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
    }
}

pub(super) fn decode_f8_e4m3(bytes: &[u8], out: &mut [f32]) {
    decode_f8(&E4M3, bytes, out);
}

pub(super) fn decode_f8_e5m2(bytes: &[u8], out: &mut [f32]) {
    decode_f8(&E5M2, bytes, out);
}

fn decode_f8(table: &[f32; 256], bytes: &[u8], out: &mut [f32]) {
    for (value, byte) in out.iter_mut().zip(bytes) {
        *value = table[usize::from(*byte)];
    }
}

pub(super) fn encode_f32(values: &[f32], out: &mut [u8]) {
    for (bytes, value) in out.as_chunks_mut().0.iter_mut().zip(values) {
        *bytes = value.to_le_bytes();
    }
}

pub(super) fn encode_f16(values: &[f32], out: &mut [u8]) {
    let mut aligned = [f16::ZERO; CHUNK];
    for (bytes, values) in out.chunks_mut(2 * CHUNK).zip(values.chunks(CHUNK)) {
        let aligned = &mut aligned[..values.len()];
        aligned.convert_from_f32_slice(values);
        for (bytes, half) in bytes.as_chunks_mut().0.iter_mut().zip(aligned.iter()) {
            *bytes = half.to_le_bytes();
        }
    }
}

pub(super) fn encode_bf16(values: &[f32], out: &mut [u8]) {
    for (bytes, value) in out.as_chunks_mut().0.iter_mut().zip(values) {
        let bits = value.to_bits();
        let half_way = 0x7fff + ((bits >> 16) & 1);
        // Adding could turn a NaN into an infinity, so a NaN is cut off and made quiet instead.
        let upper = if value.is_nan() { (bits >> 16) | 0x40 } else { bits.wrapping_add(half_way) >> 16 };
        *bytes = (upper as u16).to_le_bytes();
    }
}

/// How an 8-bit float divides its seven bits, and what its largest codes mean.
#[derive(Clone, Copy)]
struct Small {
    mantissa_bits: u32,
    /// Exponent bias of the small format.
    bias: u32,
    /// The code (without sign) that everything past the range gets.
    overflow: u8,
}

const E4M3_LAYOUT: Small = Small { mantissa_bits: 3, bias: 7, overflow: 0x7f };
const E5M2_LAYOUT: Small = Small { mantissa_bits: 2, bias: 15, overflow: 0x7c };
const NAN_CODE: u8 = 0x7f;

pub(super) fn encode_f8_e4m3(values: &[f32], out: &mut [u8]) {
    for (byte, value) in out.iter_mut().zip(values) {
        *byte = small_from_f32(E4M3_LAYOUT, *value);
    }
}

pub(super) fn encode_f8_e5m2(values: &[f32], out: &mut [u8]) {
    for (byte, value) in out.iter_mut().zip(values) {
        *byte = small_from_f32(E5M2_LAYOUT, *value);
    }
}

fn small_from_f32(layout: Small, value: f32) -> u8 {
    let sign = (value.to_bits() >> 24) as u8 & 0x80;
    if value.is_nan() {
        return sign | NAN_CODE;
    }
    let magnitude = value.abs();
    let smallest_normal = f32::from_bits((128 - layout.bias) << 23);
    let code = if magnitude < smallest_normal {
        // The sum has the spacing of the format's subnormals, so the addition itself rounds to even.
        let spacing_at = f32::from_bits((128 - layout.bias + 23 - layout.mantissa_bits) << 23);
        (magnitude + spacing_at).to_bits() - spacing_at.to_bits()
    } else {
        let dropped = 23 - layout.mantissa_bits;
        let rebased = magnitude.to_bits() - ((127 - layout.bias) << 23);
        let half_way = (1 << (dropped - 1)) - 1 + ((rebased >> dropped) & 1);
        (rebased + half_way) >> dropped
    };
    sign | code.min(u32::from(layout.overflow)) as u8
}

static E4M3: [f32; 256] = small_table(E4M3_LAYOUT);
static E5M2: [f32; 256] = small_table(E5M2_LAYOUT);

const fn small_table(layout: Small) -> [f32; 256] {
    let mut table = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        table[code] = small_to_f32(layout, code as u8);
        code += 1;
    }
    table
}

const fn small_to_f32(layout: Small, code: u8) -> f32 {
    let magnitude = code & 0x7f;
    let has_infinity = layout.overflow != NAN_CODE;
    let value = if magnitude > layout.overflow || (magnitude == layout.overflow && !has_infinity) {
        f32::NAN
    } else if magnitude == layout.overflow {
        f32::INFINITY
    } else {
        // The bits read as a float with the large bias are too small by a power of two; exact for subnormals
        // as well because the product is a normal number.
        let bits = (magnitude as u32) << (23 - layout.mantissa_bits);
        f32::from_bits(bits) * f32::from_bits((254 - layout.bias) << 23)
    };
    if code & 0x80 == 0 { value } else { -value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_small_float_survives_the_round_trip() {
        for (table, layout) in [(&E4M3, E4M3_LAYOUT), (&E5M2, E5M2_LAYOUT)] {
            for (code, value) in table.iter().enumerate() {
                let back = small_from_f32(layout, *value);
                let same_nan = value.is_nan() && table[usize::from(back)].is_nan();
                assert!(same_nan || back == code as u8, "{code:#x} is {value}, came back as {back:#x}");
            }
        }
    }

    #[test]
    fn small_floats_round_to_the_nearest_and_ties_to_even() {
        for (table, layout, finite) in [(&E4M3, E4M3_LAYOUT, 0x7e), (&E5M2, E5M2_LAYOUT, 0x7b)] {
            for code in 0..finite {
                let (low, high) = (table[code], table[code + 1]);
                let middle = (low + high) / 2.0;
                let even = if code % 2 == 0 { code } else { code + 1 };
                assert_eq!(usize::from(small_from_f32(layout, middle)), even, "{low} {high}");
                assert_eq!(usize::from(small_from_f32(layout, middle.next_down())), code, "{low} {high}");
                assert_eq!(usize::from(small_from_f32(layout, middle.next_up())), code + 1, "{low} {high}");
            }
        }
    }

    #[test]
    fn the_ends_of_the_range_are_those_of_the_formats() {
        assert_eq!(E4M3[0x7e], 448.0);
        assert_eq!(E5M2[0x7b], 57344.0);
        assert_eq!(small_from_f32(E4M3_LAYOUT, 464.0), 0x7e);
        assert_eq!(small_from_f32(E4M3_LAYOUT, f32::INFINITY), 0x7f);
        assert_eq!(small_from_f32(E5M2_LAYOUT, 61440.0), 0x7c);
        assert_eq!(small_from_f32(E5M2_LAYOUT, f32::NEG_INFINITY), 0xfc);
    }
}
