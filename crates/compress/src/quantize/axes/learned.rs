//! Ranges that are learned by gradients.
//!
//! LSQ (Esser et al., "Learned Step Size Quantization", 2020, equation 3): `∂r̂/∂S = −r/S + round(r/S)` inside the range,
//! −Q_N or Q_P outside, scaled by `1/√(n Q_P)`. PACT (Choi et al., 2018): activations are clipped to [0, α], and
//! `∂r̂/∂α` is 1 where they are clipped and 0 elsewhere. Both let the gradient of `r` pass inside the range only: the
//! straight-through estimator.

use super::grid::Grid;
use super::range::{Point, squared_error};

/// `∂r̂/∂S` of one value, by equation (3) of LSQ.
pub fn step_gradient(value: f32, grid: &Grid) -> f32 {
    let steps = value / grid.scale;
    let (low, high) = ((grid.low - grid.zero) as f32, (grid.high - grid.zero) as f32);
    if steps <= low {
        low
    } else if steps >= high {
        high
    } else {
        steps.round_ties_even() - steps
    }
}

/// `∂r̂/∂r` by the straight-through estimator: 1 inside the range.
pub fn pass_gradient(value: f32, grid: &Grid) -> f32 {
    let steps = value / grid.scale;
    let inside = steps >= (grid.low - grid.zero) as f32 && steps <= (grid.high - grid.zero) as f32;
    if inside { 1.0 } else { 0.0 }
}

/// By what LSQ multiplies the gradient of the step of `count` values: `1/√(n Q_P)`.
pub fn gradient_scale(count: usize, grid: &Grid) -> f32 {
    1.0 / (count as f32 * (grid.high - grid.zero).max(1) as f32).sqrt()
}

/// `∂r̂/∂α` of PACT.
pub fn clip_gradient(value: f32, alpha: f32) -> f32 {
    if value >= alpha { 1.0 } else { 0.0 }
}

/// Steps of [`fit`].
const STEPS: usize = 200;

/// Learns the step on the squared error, from `start` on: descent by LSQ's gradient, in the logarithm of the step so that
/// it stays positive, with a rate that falls. The best step on the way is kept.
pub fn fit(points: &[Point], start: Grid) -> Grid {
    let total: f64 = points.iter().map(|it| it.count).sum();
    let energy: f64 = points.iter().map(|it| it.count * f64::from(it.value).powi(2)).sum();
    if total == 0.0 || energy == 0.0 {
        return start;
    }
    let (mut grid, mut best) = (start, (squared_error(points, &start), start));
    for step in 0..STEPS {
        let slope: f64 = points
            .iter()
            .map(|it| {
                let error = f64::from(grid.round(it.value) - it.value);
                it.count * 2.0 * error * f64::from(step_gradient(it.value, &grid))
            })
            .sum();
        let relative = slope * f64::from(grid.scale) / energy;
        let rate = 0.5 * (1.0 - step as f64 / STEPS as f64);
        grid.scale *= (-(relative * rate * 20.0).clamp(-0.1, 0.1)).exp() as f32;
        let error = squared_error(points, &grid);
        if error < best.0 {
            best = (error, grid);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::super::range::points;
    use super::super::{Symmetry, random};
    use super::*;

    #[test]
    fn the_gradient_is_that_of_the_rounded_value_at_fixed_codes() {
        let grid = Grid::new(-1.0, 1.0, 4, Symmetry::Restricted);
        let mut next = random::normal(1);
        for _ in 0..200 {
            let value = next();
            // With the code held, r̂ = q S and r passes straight through: ∂(q S − r)/∂S + ∂r/∂S inside, q outside.
            let code = grid.code(value) as f32;
            let inside = pass_gradient(value, &grid) == 1.0;
            let expected = if inside { code - value / grid.scale } else { code };
            assert!((step_gradient(value, &grid) - expected).abs() < 1e-5, "{value}");
        }
        assert_eq!(gradient_scale(49, &Grid::new(-1.0, 1.0, 2, Symmetry::Restricted)), 1.0 / 7.0);
    }

    #[test]
    fn gradients_of_clipped_values_are_finite_differences() {
        let value = 5.0f32;
        for (scale, zero) in [(0.1f32, 0), (0.2, 2)] {
            let grid = Grid { scale, zero, low: -8, high: 7 };
            let moved = Grid { scale: scale + 1e-3, ..grid };
            let difference = (moved.round(value) - grid.round(value)) / 1e-3;
            assert!((step_gradient(value, &grid) - difference).abs() < 1e-2);
        }
        let clip = |value: f32, alpha: f32| value.clamp(0.0, alpha);
        for value in [-1.0f32, 0.3, 0.9, 1.5] {
            let difference = (clip(value, 1.0 + 1e-3) - clip(value, 1.0)) / 1e-3;
            assert!((clip_gradient(value, 1.0) - difference).abs() < 1e-2);
        }
    }

    #[test]
    fn the_learned_step_is_near_the_best_one() {
        let mut next = random::normal(2);
        let values: Vec<f32> = (0..600).map(|_| next()).collect();
        let points = points(&values);
        for bits in [2, 3, 4] {
            let start = Grid::of(&values, bits, Symmetry::Restricted);
            let found = squared_error(&points, &fit(&points, start));
            let scales = (1..=400).map(|step| Grid { scale: start.scale * step as f32 / 400.0, ..start });
            let best = scales.map(|grid| squared_error(&points, &grid)).fold(f64::INFINITY, f64::min);
            assert!(found <= best * 1.03, "{bits} bits: {found} against {best}");
        }
    }
}
