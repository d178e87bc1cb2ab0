//! Rotary position embedding of one head, half-split layout.

/// Rotates the first `2 · cos.len()` dimensions of `head`: dimension `j` with dimension `j + cos.len()`, by
/// the angle whose cosine and sine are given.
pub fn rotate_half(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let half = cos.len();
    let (first, rest) = head.split_at_mut(half);
    let second = &mut rest[..half];
    for j in 0..half {
        let (a, b) = (first[j], second[j]);
        first[j] = a * cos[j] - b * sin[j];
        second[j] = b * cos[j] + a * sin[j];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_turn_swaps_the_halves_and_leaves_the_rest() {
        let mut head = [1.0f32, 2.0, 3.0, 4.0, 9.0];
        rotate_half(&mut head, &[0.0, 0.0], &[1.0, 1.0]);
        assert_eq!(head, [-3.0, -4.0, 1.0, 2.0, 9.0]);
    }
}
