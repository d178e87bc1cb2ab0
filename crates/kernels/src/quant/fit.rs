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

/// How a difference counts in [`fit_with_minimum`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Difference {
    /// By its size.
    Absolute,
    /// By its square.
    Squared,
}

/// The search of [`fit_with_minimum`].
pub(super) struct Search {
    /// The largest code.
    pub top: i32,
    /// By how many codes the first candidate's range is longer than the values'. The others follow in tenths.
    pub first: f32,
    /// Candidates after the first.
    pub steps: u8,
    pub difference: Difference,
}

/// Weights of a group: the value's magnitude plus the group's root mean square.
pub(super) fn weights_with_mean<const N: usize>(values: &[f32; N]) -> [f32; N] {
    let mut squares = 0.0f32;
    for x in values {
        squares += x * x;
    }
    let root_mean_square = (squares / N as f32).sqrt();
    values.map(|x| root_mean_square + x.abs())
}

/// Fits `x = scale q - minimum` with codes up to a largest one and a minimum that is not negative.
///
/// Writes the codes and returns `(scale, minimum)`; a group without range gets scale 0 and codes 0.
pub(super) fn fit_with_minimum<const N: usize>(
    values: &[f32; N],
    weights: &[f32; N],
    search: &Search,
    codes: &mut [u8; N],
) -> (f32, f32) {
    let top = search.top;
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

    let levels = |inverse: f32, min: f32| values.map(|x| nearest(inverse * (x - min)).clamp(0, top) as u8);
    let error = |levels: &[u8; N], scale: f32, min: f32| {
        let mut error = 0.0f32;
        for ((level, x), w) in levels.iter().zip(values).zip(weights) {
            let difference = scale * f32::from(*level) + min - x;
            error += w * match search.difference {
                Difference::Absolute => difference.abs(),
                Difference::Squared => difference * difference,
            };
        }
        error
    };
    let inverse = top as f32 / (max - min);
    let mut scale = 1.0 / inverse;
    *codes = levels(inverse, min);
    let mut best_error = error(codes, scale, min);
    for step in 0..=search.steps {
        // `min` is the best fit so far, not the smallest value: each improvement moves the later candidates.
        let inverse = (search.first + 0.1 * f32::from(step) + top as f32) / (max - min);
        let levels = levels(inverse, min);
        let (mut sum_l, mut sum_ll, mut sum_xl) = (0.0f32, 0.0f32, 0.0f32);
        for ((level, x), w) in levels.iter().zip(values).zip(weights) {
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

/// Fits `x = scale (q - 4)` with 3-bit codes, weighting each value's error by its square: from the codes of the scale that
/// the largest value asks for, one code after another is changed as long as the fit of all becomes better.
///
/// Writes the codes and returns the scale. A negligible group gets scale 0 and codes 0.
pub(super) fn fit_by_descent(values: &[f32; 16], codes: &mut [u8; 16]) -> f32 {
    const HALF: i32 = 4;
    const ROUNDS: usize = 5;
    let peak = super::block::peak(values);
    if peak.abs() < NEGLIGIBLE {
        codes.fill(0);
        return 0.0;
    }
    let level = |x: f32| nearest(x).clamp(-HALF, HALF - 1);
    let inverse = -(HALF as f32) / peak;
    let mut levels = values.map(|x| level(inverse * x));
    let (mut xl, mut ll) = (0.0f32, 0.0f32);
    for (&x, &l) in values.iter().zip(&levels) {
        let weight = x * x;
        xl += weight * x * l as f32;
        ll += weight * l as f32 * l as f32;
    }
    for _ in 0..ROUNDS {
        let mut changed = false;
        for (&x, l) in values.iter().zip(&mut levels) {
            let weight = x * x;
            let mut other_xl = xl - weight * x * *l as f32;
            if other_xl > 0.0 {
                let mut other_ll = ll - weight * *l as f32 * *l as f32;
                let new = level(x * other_ll / other_xl);
                if new != *l {
                    other_xl += weight * x * new as f32;
                    other_ll += weight * new as f32 * new as f32;
                    if other_ll > 0.0 && other_xl * other_xl * ll > xl * xl * other_ll {
                        (*l, xl, ll, changed) = (new, other_xl, other_ll, true);
                    }
                }
            }
        }
        if !changed {
            break;
        }
    }
    *codes = levels.map(|l| (l + HALF) as u8);
    if ll > 0.0 { xl / ll } else { 0.0 }
}

/// The number in a rising table that is nearest to `x`, the upper one of two.
pub(super) fn nearest_in(table: &[i8; 16], x: f32) -> u8 {
    let above = table.partition_point(|&entry| f32::from(entry) <= x);
    match above {
        0 => 0,
        16 => 15,
        _ => {
            let (low, high) = (f32::from(table[above - 1]), f32::from(table[above]));
            (if x - low < high - x { above - 1 } else { above }) as u8
        }
    }
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
