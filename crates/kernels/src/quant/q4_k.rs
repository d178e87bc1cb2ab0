//! Q4_K: super-blocks of 256 values, 4 bits each; 8 groups of 32 with a 6-bit scale and a 6-bit minimum.
//!
//! 144 bytes: F16 `d`, F16 `dmin`, 12 bytes of group scales and minimums, 128 bytes of codes (32 bytes hold two
//! groups, the even one in the low halves). `x = d scale q - dmin minimum`.
//!
//! Error of decode(encode(x)): at most a third of the super-block's range (zero included), and that only next to
//! outliers; on normally distributed values the root mean square error is below 8 % of their deviation.

use super::block::{f16_at, put_f16, top_of};
use super::fit::{Difference, Search, fit_with_minimum, nearest, weights_with_mean};

/// Bytes of a super-block.
pub(super) const BYTES: usize = 144;

/// The 6-bit scale and minimum of a group. Groups 0..4 have theirs in the low six bits of bytes 0..4 and 4..8;
/// groups 4..8 have four bits in bytes 8..12 and two on top of the bytes of groups 0..4.
#[inline]
pub(super) fn group_scale(packed: &[u8], group: usize) -> (u8, u8) {
    if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        let low = packed[group + 4];
        ((low & 15) | packed[group - 4] >> 6 << 4, (low >> 4) | packed[group] >> 6 << 4)
    }
}

/// The reverse of [`group_scale`], for groups in rising order.
pub(super) fn put_group_scale(packed: &mut [u8], group: usize, scale: u8, minimum: u8) {
    if group < 4 {
        packed[group] = scale;
        packed[group + 4] = minimum;
    } else {
        packed[group + 4] = (scale & 15) | (minimum & 15) << 4;
        packed[group - 4] |= scale >> 4 << 6;
        packed[group] |= minimum >> 4 << 6;
    }
}

pub(super) fn decode(block: &[u8; BYTES], out: &mut [f32; 256]) {
    let d = f16_at(block, 0);
    let dmin = f16_at(block, 2);
    for (pair, values) in out.as_chunks_mut::<64>().0.iter_mut().enumerate() {
        let codes = &block[16 + 32 * pair..][..32];
        let (scale, minimum) = group_scale(&block[4..16], 2 * pair);
        let (low_scale, low_minimum) = (d * f32::from(scale), dmin * f32::from(minimum));
        let (scale, minimum) = group_scale(&block[4..16], 2 * pair + 1);
        let (high_scale, high_minimum) = (d * f32::from(scale), dmin * f32::from(minimum));
        let (low, high) = values.split_at_mut(32);
        for ((low, high), code) in low.iter_mut().zip(high).zip(codes) {
            *low = low_scale * f32::from(code & 15) - low_minimum;
            *high = high_scale * f32::from(code >> 4) - high_minimum;
        }
    }
}

pub(super) fn encode(values: &[f32; 256], block: &mut [u8; BYTES]) {
    let search = Search { top: 15, first: -1.0, steps: 20, difference: Difference::Squared };
    let codes = encode_groups(values, &search, &mut block[..16]);
    put_codes(codes.as_flattened(), block);
}

/// Writes 256 codes into a block.
pub(super) fn put_codes(codes: &[u8], block: &mut [u8]) {
    for (bytes, codes) in block[16..].as_chunks_mut::<32>().0.iter_mut().zip(codes.as_chunks::<64>().0) {
        for (j, byte) in bytes.iter_mut().enumerate() {
            *byte = codes[j] | codes[32 + j] << 4;
        }
    }
}

/// The codes of eight groups, whose scales and minimums go into `head`, which Q4_K and Q5_K share.
pub(super) fn encode_groups(values: &[f32; 256], search: &Search, head: &mut [u8]) -> [[u8; 32]; 8] {
    let groups = values.as_chunks::<32>().0;
    let mut codes = [[0u8; 32]; 8];
    let mut scales = [0.0f32; 8];
    let mut minimums = [0.0f32; 8];
    for (group, values) in groups.iter().enumerate() {
        (scales[group], minimums[group]) =
            fit_with_minimum(values, &weights_with_mean(values), search, &mut codes[group]);
    }

    // Scales and minimums are not negative (a fit with a negative scale counts as the largest code below).
    let (top_scale, top_minimum) = (top_of(&scales), top_of(&minimums));
    let inverse = |top: f32| if top > 0.0 { 63.0 / top } else { 0.0 };
    let (inverse_scale, inverse_minimum) = (inverse(top_scale), inverse(top_minimum));
    for group in 0..8 {
        let scale = nearest(inverse_scale * scales[group]) as u8;
        let minimum = nearest(inverse_minimum * minimums[group]) as u8;
        put_group_scale(&mut head[4..16], group, scale.min(63), minimum.min(63));
    }
    put_f16(head, 0, top_scale / 63.0);
    put_f16(head, 2, top_minimum / 63.0);

    // The codes are chosen again for the scales as they are stored.
    let (d, dmin) = (f16_at(head, 0), f16_at(head, 2));
    for (group, values) in groups.iter().enumerate() {
        let (scale, minimum) = group_scale(&head[4..16], group);
        let scale = d * f32::from(scale);
        if scale == 0.0 {
            continue;
        }
        let minimum = dmin * f32::from(minimum);
        for (code, x) in codes[group].iter_mut().zip(values) {
            *code = nearest((x + minimum) / scale).clamp(0, search.top) as u8;
        }
    }
    codes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_scales_survive_packing() {
        let mut packed = [0u8; 12];
        let scale = |group: usize| (group * 9 % 64) as u8;
        let minimum = |group: usize| 63 - (group * 5 % 64) as u8;
        for group in 0..8 {
            put_group_scale(&mut packed, group, scale(group), minimum(group));
        }
        for group in 0..8 {
            assert_eq!(group_scale(&packed, group), (scale(group), minimum(group)), "group {group}");
        }
    }
}
