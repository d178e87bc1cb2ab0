//! Q8_0: 32 values, 8 bits each, one scale as F16.
//!
//! 34 bytes: scale `d`, then 32 signed bytes; `x = d q`, with `q` in -127..=127.
//!
//! Error of decode(encode(x)), with `a` the block's largest magnitude: at most `a/254 (1 + 2^-3)`; blocks whose
//! scale is below F16's normal range (6.1e-5) lose precision and add up to `127 * 2^-25`.

use super::block::{f16_at, largest, put_f16, reciprocal};

/// Bytes of a block.
pub(super) const BYTES: usize = 34;

pub(super) fn decode(block: &[u8; BYTES], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    for (value, code) in out.iter_mut().zip(&block[2..]) {
        *value = f32::from(*code as i8) * d;
    }
}

pub(super) fn encode(values: &[f32; 32], block: &mut [u8; BYTES]) {
    let d = largest(values) / 127.0;
    let inverse = reciprocal(d);
    put_f16(block, 0, d);
    for (code, x) in block[2..].iter_mut().zip(values) {
        *code = round_half_away(x * inverse) as u8;
    }
}

/// Rounds a number of a signed byte's range, halves away from zero. Without the library call of `f32::round`.
fn round_half_away(x: f32) -> i8 {
    // The largest float below one half: with one half itself, 0.49999997 would become 1.
    const ALMOST_HALF: f32 = 0.5 - f32::EPSILON / 4.0;
    (x + ALMOST_HALF.copysign(x)) as i8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_that_of_the_library() {
        for quarter in -4 * 127..=4 * 127 {
            let x = quarter as f32 / 4.0;
            for x in [x, x.next_up(), x.next_down()] {
                if x.abs() <= 127.0 {
                    assert_eq!(f32::from(round_half_away(x)), x.round() + 0.0, "{x:e}");
                }
            }
        }
    }
}
