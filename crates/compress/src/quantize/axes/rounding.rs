//! Which neighbour a value is rounded to.
//!
//! [`ada_round`] is AdaRound (Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", 2020): of the two
//! neighbours of each weight, those are learned that change the layer's outputs least.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::grid::Grid;

/// How values become codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rounding {
    /// The nearest.
    #[default]
    Nearest,
    /// Up with the probability of the fraction, so that the mean is kept.
    Stochastic {
        /// Where the random numbers begin.
        seed: u64,
    },
    /// Learned on the layer's inputs.
    Adaptive,
}

/// Rounds values to a grid at random, without bias inside its range.
pub fn stochastic(values: &[f32], grid: &Grid, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let round = |value: &f32| grid.value(grid.clamped((value / grid.scale + rng.random::<f32>()).floor()));
    values.iter().map(round).collect()
}

/// The generator of [`stochastic`].
pub fn generator(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// Quant-Noise (Fan et al., 2021): a random `share` of the values is as it will be when quantized, the rest is left as it
/// is, so that training meets noise and most gradients are exact.
pub fn quant_noise(values: &[f32], quantized: &[f32], share: f32, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let choose =
        |(&value, &quantized): (&f32, &f32)| if rng.random::<f32>() < share { quantized } else { value };
    values.iter().zip(quantized).map(choose).collect()
}

/// Numbers of [`ada_round`].
#[derive(Debug, Clone, Copy)]
pub struct AdaOptions {
    /// Steps of descent.
    pub steps: usize,
    /// Learning rate of Adam.
    pub rate: f32,
    /// λ, times the mean loss of a weight that is rounded the wrong way.
    pub regularizer: f32,
}

impl Default for AdaOptions {
    fn default() -> AdaOptions {
        AdaOptions { steps: 600, rate: 0.03, regularizer: 0.3 }
    }
}

/// ζ and γ of the rectified sigmoid `h(V) = clip(σ(V)(ζ − γ) + γ, 0, 1)`.
const ZETA: f32 = 1.1;
const GAMMA: f32 = -0.1;

/// One row of a layer on its grid: `W̃ = S · (floor(W/S) + h(V))`, V learned to make `(W − W̃) H (W − W̃)ᵀ` small, plus
/// `λ Σ (1 − |2h − 1|^β)` with β falling from 20 to 2 (equations 21 to 25). `moments` is H, the mean of `x xᵀ` of the inputs,
/// `[n, n]`. What rounding to the nearest gives comes back if that is better.
///
/// # Panics
/// If the moments are not those of the row.
pub fn ada_round(row: &[f32], grid: &Grid, moments: &[f32], options: &AdaOptions) -> Vec<f32> {
    let count = row.len();
    assert_eq!(moments.len(), count * count, "moments of the row's inputs");
    let floor: Vec<f32> = row.iter().map(|value| (value / grid.scale).floor()).collect();
    let inverse = |h: f32| ((h - GAMMA) / (ZETA - h)).ln();
    let mut v: Vec<f32> = row
        .iter()
        .zip(&floor)
        .map(|(value, floor)| inverse((value / grid.scale - floor).clamp(0.0, 1.0)))
        .collect();
    let value = |floor: f32, h: f32| {
        let steps = (floor + h).clamp((grid.low - grid.zero) as f32, (grid.high - grid.zero) as f32);
        steps * grid.scale
    };
    let diagonal = (0..count).map(|at| moments[at * count + at]).sum::<f32>() / count.max(1) as f32;
    let lambda = options.regularizer * diagonal * grid.scale * grid.scale / 4.0;
    let (mut first, mut second) = (vec![0.0f32; count], vec![0.0f32; count]);
    let mut error = vec![0.0f32; count];
    for step in 0..options.steps {
        let done = step as f32 / options.steps as f32;
        // The first fifth of the steps fits without the regularizer, as the paper's code does.
        let beta = 2.0 + 18.0 * (1.0 - ((done - 0.2) / 0.8).max(0.0));
        let pressed = if done < 0.2 { 0.0 } else { lambda };
        for at in 0..count {
            error[at] = value(floor[at], rectified(v[at]).0) - row[at];
        }
        for at in 0..count {
            let (h, slope) = rectified(v[at]);
            let product: f32 =
                moments[at * count..][..count].iter().zip(&error).map(|(moment, error)| moment * error).sum();
            let centred = 2.0 * h - 1.0;
            let regular = -2.0 * beta * centred.abs().powf(beta - 1.0) * centred.signum();
            let gradient = (2.0 * grid.scale * product + pressed * regular) * slope;
            first[at] += 0.1 * (gradient - first[at]);
            second[at] += 0.001 * (gradient * gradient - second[at]);
            let time = (step + 1) as i32;
            let (mean, square) =
                (first[at] / (1.0 - 0.9f32.powi(time)), second[at] / (1.0 - 0.999f32.powi(time)));
            v[at] -= options.rate * mean / (square.sqrt() + 1e-12 * grid.scale);
        }
    }
    let learned: Vec<f32> = floor
        .iter()
        .zip(&v)
        .map(|(&floor, &v)| grid.value(grid.clamped(floor + if rectified(v).0 >= 0.5 { 1.0 } else { 0.0 })))
        .collect();
    let nearest: Vec<f32> = row.iter().map(|&value| grid.round(value)).collect();
    if output_error(row, &learned, moments) <= output_error(row, &nearest, moments) {
        learned
    } else {
        nearest
    }
}

/// h and its derivative.
fn rectified(v: f32) -> (f32, f32) {
    let sigmoid = 1.0 / (1.0 + (-v).exp());
    let h = sigmoid * (ZETA - GAMMA) + GAMMA;
    let slope = if (0.0..=1.0).contains(&h) { sigmoid * (1.0 - sigmoid) * (ZETA - GAMMA) } else { 0.0 };
    (h.clamp(0.0, 1.0), slope)
}

/// `(w − ŵ) H (w − ŵ)ᵀ`: the mean squared error of a row's outputs.
pub fn output_error(row: &[f32], rounded: &[f32], moments: &[f32]) -> f64 {
    let error: Vec<f64> = row.iter().zip(rounded).map(|(a, b)| f64::from(a - b)).collect();
    let mut sum = 0.0;
    for (left, line) in error.iter().zip(moments.chunks(row.len().max(1))) {
        let product: f64 = line.iter().zip(&error).map(|(moment, error)| f64::from(*moment) * error).sum();
        sum += left * product;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::super::{Symmetry, random};
    use super::*;

    #[test]
    fn stochastic_rounding_keeps_the_mean_and_takes_neighbours() {
        let grid = Grid { scale: 0.5, zero: 0, low: -7, high: 7 };
        for value in [0.6f32, -0.9, 1.24, 2.0] {
            let rounded = stochastic(&vec![value; 20_000], &grid, &mut generator(3));
            let mean = rounded.iter().sum::<f32>() / 20_000.0;
            // Four standard errors of a coin toss between neighbours 0.5 apart.
            assert!((mean - value).abs() < 4.0 * 0.25 / 20_000f32.sqrt(), "{value}: {mean}");
            assert!(rounded.iter().all(|it| (it - value).abs() < 0.5));
        }
        assert_eq!(stochastic(&[100.0, -100.0], &grid, &mut generator(3)), [3.5, -3.5]);
    }

    #[test]
    fn quant_noise_changes_the_share_it_was_told() {
        let (values, quantized) = (vec![1.0; 10_000], vec![0.0; 10_000]);
        let mixed = quant_noise(&values, &quantized, 0.3, &mut generator(1));
        let changed = mixed.iter().filter(|&&it| it == 0.0).count();
        assert!((2800..3200).contains(&changed), "{changed}");
    }

    /// Moments of inputs that go together.
    fn moments(seed: u64, count: usize) -> Vec<f32> {
        let mut next = random::normal(seed);
        let inputs: Vec<Vec<f32>> = (0..40)
            .map(|_| {
                let shared = next();
                (0..count).map(|_| shared + 0.5 * next()).collect()
            })
            .collect();
        let mut moments = vec![0.0; count * count];
        for x in &inputs {
            for a in 0..count {
                for b in 0..count {
                    moments[a * count + b] += x[a] * x[b] / 40.0;
                }
            }
        }
        moments
    }

    #[test]
    fn ada_round_comes_near_the_best_of_all_roundings() {
        let count = 9;
        let (mut found, mut best, mut near) = (0.0, 0.0, 0.0);
        for seed in 0..12 {
            let mut next = random::normal(100 + seed);
            let row: Vec<f32> = (0..count).map(|_| next()).collect();
            let moments = moments(seed + 1, count);
            let grid = Grid::of(&row, 3, Symmetry::Restricted);
            let rounded = ada_round(&row, &grid, &moments, &AdaOptions::default());
            for (value, rounded) in row.iter().zip(&rounded) {
                assert!((value - rounded).abs() <= grid.scale * 1.0001, "a neighbour");
            }
            found += output_error(&row, &rounded, &moments);
            let nearest: Vec<f32> = row.iter().map(|&value| grid.round(value)).collect();
            near += output_error(&row, &nearest, &moments);
            best += (0..1 << count)
                .map(|ups: u32| {
                    let choose = |(at, value): (usize, &f32)| {
                        grid.value(grid.clamped((value / grid.scale).floor() + (ups >> at & 1) as f32))
                    };
                    let rounded: Vec<f32> = row.iter().enumerate().map(choose).collect();
                    output_error(&row, &rounded, &moments)
                })
                .fold(f64::INFINITY, f64::min);
        }
        assert!(found < 0.5 * near, "{found} of {near}");
        assert!(found <= 1.6 * best, "{found} where {best} is the least");
    }

    #[test]
    fn output_errors_are_mean_squares_of_outputs() {
        let inputs = [[1.0f32, 2.0], [0.5, -1.0]];
        let mut moments = [0.0f32; 4];
        for x in inputs {
            for (at, moment) in moments.iter_mut().enumerate() {
                *moment += x[at / 2] * x[at % 2] / 2.0;
            }
        }
        let outputs = inputs.map(|x| f64::from(0.1f32 * x[0] - 0.2 * x[1]).powi(2));
        let found = output_error(&[1.1, 1.8], &[1.0, 2.0], &moments);
        assert!((found - (outputs[0] + outputs[1]) / 2.0).abs() < 1e-6);
    }
}
