//! Uniform grids: equation (2) and (3) of the survey, `Q(r) = round(r / S) − Z`, `r̃ = S (Q(r) + Z)`.
//!
//! What is kept as [`Grid::zero`] is −Z, the code that stands for 0, which is the convention of most programs.

/// Whether a grid is centred on zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Symmetry {
    /// Z = 0, codes −(2^(b−1) − 1) to 2^(b−1) − 1: `S = max|r| / (2^(b−1) − 1)`.
    #[default]
    Restricted,
    /// Z = 0, codes −2^(b−1) to 2^(b−1) − 1: `S = 2 max|r| / (2^b − 1)`.
    Full,
    /// Codes 0 to 2^b − 1: `S = (β − α) / (2^b − 1)`; 0 is always a code.
    Asymmetric,
}

/// Evenly spaced values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid {
    /// S, the distance of neighbours.
    pub scale: f32,
    /// The code that stands for 0.
    pub zero: i32,
    /// The smallest code.
    pub low: i32,
    /// The largest code.
    pub high: i32,
}

impl Grid {
    /// The grid of 2 to 16 bits for values from `alpha` to `beta`; a range of no width gives a scale of 1.
    ///
    /// # Panics
    /// With other bits.
    pub fn new(alpha: f32, beta: f32, bits: u32, symmetry: Symmetry) -> Grid {
        assert!((2..=16).contains(&bits), "a grid has 2 to 16 bits, not {bits}");
        let half = 1i32 << (bits - 1);
        let usable = |scale: f32| if scale > 0.0 && scale.is_finite() { scale } else { 1.0 };
        let most = alpha.abs().max(beta.abs());
        match symmetry {
            Symmetry::Restricted => {
                Grid { scale: usable(most / (half - 1) as f32), zero: 0, low: 1 - half, high: half - 1 }
            }
            Symmetry::Full => {
                let scale = usable(2.0 * most / (2 * half - 1) as f32);
                Grid { scale, zero: 0, low: -half, high: half - 1 }
            }
            Symmetry::Asymmetric => {
                let (alpha, beta) = (alpha.min(0.0), beta.max(0.0));
                let scale = usable((beta - alpha) / (2 * half - 1) as f32);
                let zero = (-alpha / scale).round_ties_even() as i32;
                Grid { scale, zero: zero.clamp(0, 2 * half - 1), low: 0, high: 2 * half - 1 }
            }
        }
    }

    /// The grid from the least to the largest of the values: what a dynamic range is at run time.
    pub fn of(values: &[f32], bits: u32, symmetry: Symmetry) -> Grid {
        let ends = |(low, high): (f32, f32), &value: &f32| (low.min(value), high.max(value));
        let (low, high) = values.iter().fold((0.0, 0.0), ends);
        Grid::new(low, high, bits, symmetry)
    }

    /// The nearest code, ties to even.
    #[inline]
    pub fn code(&self, value: f32) -> i32 {
        self.clamped((value / self.scale).round_ties_even())
    }

    /// The code of a place between codes that was rounded to a whole number, zero counted from 0.
    #[inline]
    pub(super) fn clamped(&self, steps: f32) -> i32 {
        // A conversion saturates, and NaN becomes 0.
        (steps as i32).saturating_add(self.zero).clamp(self.low, self.high)
    }

    /// The value of a code.
    #[inline]
    pub fn value(&self, code: i32) -> f32 {
        (code - self.zero) as f32 * self.scale
    }

    /// The nearest value of the grid.
    #[inline]
    pub fn round(&self, value: f32) -> f32 {
        self.value(self.code(value))
    }

    /// Rounds values in place: simulated quantization.
    pub fn simulate(&self, values: &mut [f32]) {
        values.iter_mut().for_each(|value| *value = self.round(*value));
    }

    /// The least and the largest value.
    pub fn ends(&self) -> (f32, f32) {
        (self.value(self.low), self.value(self.high))
    }
}

#[cfg(test)]
mod tests {
    use super::super::random;
    use super::*;

    #[test]
    fn scales_are_those_of_the_equations() {
        let grid = Grid::new(-2.0, 1.0, 4, Symmetry::Restricted);
        assert_eq!((grid.scale, grid.zero, grid.low, grid.high), (2.0 / 7.0, 0, -7, 7));
        let grid = Grid::new(-2.0, 1.0, 4, Symmetry::Full);
        assert_eq!((grid.scale, grid.zero, grid.low, grid.high), (4.0 / 15.0, 0, -8, 7));
        let grid = Grid::new(-2.0, 1.0, 4, Symmetry::Asymmetric);
        assert_eq!((grid.scale, grid.zero, grid.low, grid.high), (0.2, 10, 0, 15));
        // Ranges that don't hold 0 are widened, and 0 stays exact.
        assert_eq!(
            Grid::new(1.0, 3.0, 8, Symmetry::Asymmetric),
            Grid::new(0.0, 3.0, 8, Symmetry::Asymmetric)
        );
        assert_eq!(Grid::new(0.0, 0.0, 8, Symmetry::Restricted).round(0.0), 0.0);
    }

    #[test]
    fn codes_are_the_nearest_of_all() {
        for (seed, symmetry) in
            [Symmetry::Restricted, Symmetry::Full, Symmetry::Asymmetric].into_iter().enumerate()
        {
            let mut next = random::normal(seed as u64 + 1);
            let values: Vec<f32> = (0..500).map(|_| next() + 0.5).collect();
            for bits in [2, 3, 4, 8] {
                let grid = Grid::of(&values, bits, symmetry);
                for &value in &values {
                    let near = (grid.low..=grid.high).map(|code| (grid.value(code) - value).abs());
                    let least = near.fold(f32::INFINITY, f32::min);
                    assert!((grid.round(value) - value).abs() <= least + grid.scale * 1e-5);
                }
                assert_eq!(grid.round(0.0), 0.0);
            }
        }
    }

    #[test]
    fn odd_values_give_codes_of_the_grid() {
        let grid = Grid::new(-1.0, 1.0, 8, Symmetry::Asymmetric);
        assert_eq!((grid.code(f32::INFINITY), grid.code(f32::NEG_INFINITY)), (255, 0));
        assert_eq!(grid.code(f32::NAN), grid.zero);
    }
}
