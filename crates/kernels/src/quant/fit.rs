//! Scale search of the K formats: the scale (and minimum) that fits a group of values best.
//!
//! The steps and the order of every single `f32` operation are those of ggml's reference quantizers without
//! an importance matrix, so that the files are the same bit by bit: do not rearrange sums or use fused
//! multiply-add here. The golden tests compare with ggml.

/// Groups whose largest magnitude is below this count as zero.
pub(super) const NEGLIGIBLE: f32 = 1e-15;

/// Rounds to the nearest integer, ties to even, for magnitudes below 2^22.
///
/// Adding 1.5 * 2^23 pushes the fraction out of the mantissa; what is left in the low bits is the integer.
/// Larger inputs give wrapped numbers, as they do in ggml.
#[inline]
pub(super) fn nearest(x: f32) -> i32 {
    const SHIFT: f32 = 12_582_912.0;
    ((x + SHIFT).to_bits() & 0x007f_ffff) as i32 - 0x0040_0000
}

/// Fits `x = scale (q - 32)` with 6-bit codes, weighting each value's error by its square.
///
/// Writes the codes and returns the scale, whose sign is chosen so that the value of largest magnitude lies on
/// the longer, negative side. A negligible group gets scale 0 and codes 0.
pub(super) fn fit_symmetric(values: &[f32; 16], codes: &mut [u8; 16]) -> f32 {
    const HALF: i32 = 32;
    let peak = super::block::peak(values);
    if peak.abs() < NEGLIGIBLE {
        codes.fill(0);
        return 0.0;
    }
    let level = |inverse: f32, x: f32| nearest(inverse * x).clamp(-HALF, HALF - 1);
    // Weighted least squares for fixed codes: scale = sum(w x l) / sum(w l l) with w = x x.
    let sums = |inverse: f32| {
        let (mut xl, mut ll) = (0.0f32, 0.0f32);
        for &x in values {
            let l = level(inverse, x) as f32;
            let weight = x * x;
            xl += weight * x * l;
            ll += weight * l * l;
        }
        (xl, ll)
    };
    let mut best_inverse = -(HALF as f32) / peak;
    let (xl, ll) = sums(best_inverse);
    let mut scale = if ll != 0.0 { xl / ll } else { 0.0 };
    // The weighted error is sum(w x x) - gain: the largest gain wins.
    let mut gain = scale * xl;
    for step in (-9i8..=9).filter(|step| *step != 0) {
        let inverse = -(HALF as f32 + 0.1 * f32::from(step)) / peak;
        let (xl, ll) = sums(inverse);
        if ll > 0.0 && xl * xl > gain * ll {
            best_inverse = inverse;
            scale = xl / ll;
            gain = scale * xl;
        }
    }
    for (code, &x) in codes.iter_mut().zip(values) {
        *code = (level(best_inverse, x) + HALF) as u8;
    }
    scale
}

/// Fits `x = scale q - minimum` with 4-bit codes and a minimum that is not negative.
///
/// Errors are weighted by the value's magnitude plus the group's root mean square. Writes the codes and returns
/// `(scale, minimum)`; a group without range gets scale 0 and codes 0.
pub(super) fn fit_with_minimum(values: &[f32; 32], codes: &mut [u8; 32]) -> (f32, f32) {
    const TOP: i32 = 15;
    let mut squares = 0.0f32;
    for x in values {
        squares += x * x;
    }
    let root_mean_square = (squares / 32.0).sqrt();
    let weights = values.map(|x| root_mean_square + x.abs());

    let (mut sum_w, mut sum_x) = (weights[0], weights[0] * values[0]);
    for (w, x) in weights.iter().zip(values).skip(1) {
        sum_w += w;
        sum_x += w * x;
    }
    let (min, max) = super::block::extent(values);
    let mut min = if min > 0.0 { 0.0 } else { min };
    if max == min {
        codes.fill(0);
        return (0.0, -min);
    }

    let levels = |inverse: f32, min: f32| values.map(|x| nearest(inverse * (x - min)).clamp(0, TOP) as u8);
    let error = |levels: &[u8; 32], scale: f32, min: f32| {
        let mut error = 0.0f32;
        for ((level, x), w) in levels.iter().zip(values).zip(&weights) {
            let difference = scale * f32::from(*level) + min - x;
            error += w * (difference * difference);
        }
        error
    };
    let inverse = TOP as f32 / (max - min);
    let mut scale = 1.0 / inverse;
    *codes = levels(inverse, min);
    let mut best_error = error(codes, scale, min);
    for step in 0u8..=20 {
        // `min` is the best fit so far, not the smallest value: each improvement moves the later candidates.
        let inverse = (-1.0 + 0.1 * f32::from(step) + TOP as f32) / (max - min);
        let levels = levels(inverse, min);
        let (mut sum_l, mut sum_ll, mut sum_xl) = (0.0f32, 0.0f32, 0.0f32);
        for ((level, x), w) in levels.iter().zip(values).zip(&weights) {
            let l = f32::from(*level);
            sum_l += w * l;
            sum_ll += w * l * l;
            sum_xl += w * l * x;
        }
        let determinant = sum_w * sum_ll - sum_l * sum_l;
        if determinant > 0.0 {
            let mut this_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
            let mut this_min = (sum_ll * sum_x - sum_l * sum_xl) / determinant;
            if this_min > 0.0 {
                this_min = 0.0;
                this_scale = sum_xl / sum_ll;
            }
            let this_error = error(&levels, this_scale, this_min);
            if this_error < best_error {
                *codes = levels;
                best_error = this_error;
                scale = this_scale;
                min = this_min;
            }
        }
    }
    (scale, -min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_is_ties_to_even() {
        for x in [-4_000_000.0, -2.5, -1.5, -0.5, -0.49, 0.0, 0.5, 0.51, 1.5, 2.5, 15.499999, 4_000_000.0f32]
        {
            assert_eq!(nearest(x) as f32, x.round_ties_even(), "{x}");
        }
    }
}
