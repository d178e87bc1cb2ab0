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

/// Turns rows of `width` values, `steps` of them, into half as many rows of pairs: a pair is the bf16 of a value and of
/// the one `width` behind it. After an odd last row come zeros.
pub(super) fn pair(values: &mut [f32], steps: usize, width: usize) {
    #[inline(always)]
    fn run<const FUSED: bool>(values: &mut [f32], steps: usize, width: usize) {
        for pair in 0..steps.div_ceil(2) {
            let last = 2 * pair + 1 == steps;
            // Row `pair` is not behind row `2 · pair`, so nothing is overwritten that is still needed.
            for lane in 0..width {
                let low = rounded(values[2 * pair * width + lane]) >> 16;
                let high = if last { 0 } else { rounded(values[(2 * pair + 1) * width + lane]) };
                values[pair * width + lane] = f32::from_bits(high | low);
            }
        }
    }
    dispatch!(run(values: &mut [f32], steps: usize, width: usize))
}
