//! Operands in bf16: packed blocks are rounded where they lie, and on processors that multiply pairs of bf16 faster
//! than f32 brought to pairs.

use crate::vector::dispatch;

/// Rounds to the nearest bf16, ties to even; NaN stays NaN.
#[inline(always)]
fn rounded(value: f32) -> u32 {
    let bits = value.to_bits();
    let near = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
    // Adding could turn a NaN into an infinity.
    let upper = if value.is_nan() { bits | 0x0040_0000 } else { near };
    upper & 0xffff_0000
}

/// Rounds values to bf16.
pub(super) fn round(values: &mut [f32]) {
    #[inline(always)]
    fn run<const FUSED: bool>(values: &mut [f32]) {
        values.iter_mut().for_each(|value| *value = f32::from_bits(rounded(*value)));
    }
    dispatch!(run(values: &mut [f32]))
}

/// Values that are turned to pairs at once: into locals, so that the compiler knows what it overwrites.
const AT_ONCE: usize = 16;

/// Pairs of bf16: the first of each is the lower half.
#[inline(always)]
fn pairs(low: [f32; AT_ONCE], high: [f32; AT_ONCE]) -> [f32; AT_ONCE] {
    std::array::from_fn(|at| f32::from_bits(rounded(high[at]) | rounded(low[at]) >> 16))
}

/// Turns rows of `width` values, `steps` of them, into half as many rows of pairs: a pair is the bf16 of a value and of
/// the one `width` behind it. After an odd last row come zeros.
pub(super) fn pair(values: &mut [f32], steps: usize, width: usize) {
    #[inline(always)]
    fn run<const FUSED: bool>(values: &mut [f32], steps: usize, width: usize) {
        if width == 1 {
            let values = &mut values[..steps];
            let mut done = 0;
            while done + 2 * AT_ONCE <= steps {
                let own: [f32; 2 * AT_ONCE] = std::array::from_fn(|at| values[done + at]);
                let low = std::array::from_fn(|at| own[2 * at]);
                let high = std::array::from_fn(|at| own[2 * at + 1]);
                // Half as far: nothing is overwritten that is still needed.
                values[done / 2..done / 2 + AT_ONCE].copy_from_slice(&pairs(low, high));
                done += 2 * AT_ONCE;
            }
            for pair in done / 2..steps.div_ceil(2) {
                let high = if 2 * pair + 1 == steps { 0 } else { rounded(values[2 * pair + 1]) };
                values[pair] = f32::from_bits(high | rounded(values[2 * pair]) >> 16);
            }
            return;
        }
        for pair in 0..steps.div_ceil(2) {
            let last = 2 * pair + 1 == steps;
            let whole = width / AT_ONCE * AT_ONCE;
            // Row `pair` is not behind row `2 · pair`, so nothing is overwritten that is still needed.
            for lane in (0..whole).step_by(AT_ONCE) {
                let row =
                    |from: usize| -> [f32; AT_ONCE] { std::array::from_fn(|at| values[from + lane + at]) };
                let low = row(2 * pair * width);
                let high = if last { [0.0; AT_ONCE] } else { row((2 * pair + 1) * width) };
                values[pair * width + lane..][..AT_ONCE].copy_from_slice(&pairs(low, high));
            }
            for lane in whole..width {
                let low = rounded(values[2 * pair * width + lane]) >> 16;
                let high = if last { 0 } else { rounded(values[(2 * pair + 1) * width + lane]) };
                values[pair * width + lane] = f32::from_bits(high | low);
            }
        }
    }
    dispatch!(run(values: &mut [f32], steps: usize, width: usize))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Value by value, in a place of its own.
        #[test]
        fn pairs_are_of_rows_that_follow_each_other(
            bits in proptest::collection::vec(any::<u32>(), 1..700),
            width in prop_oneof![Just(1usize), Just(16), Just(48), 2usize..20],
        ) {
            let steps = bits.len() / width;
            let values: Vec<f32> = bits.iter().map(|bits| f32::from_bits(*bits)).collect();
            let mut found = values.clone();
            pair(&mut found[..steps * width], steps, width);
            for row in 0..steps.div_ceil(2) {
                for lane in 0..width {
                    let low = rounded(values[2 * row * width + lane]) >> 16;
                    let high = if 2 * row + 1 < steps { rounded(values[(2 * row + 1) * width + lane]) } else { 0 };
                    prop_assert_eq!(found[row * width + lane].to_bits(), high | low);
                }
            }
        }
    }
}
