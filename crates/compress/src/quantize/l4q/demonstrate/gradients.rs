//! Gradients of a merged matrix beside finite differences of what the straight-through estimator differentiates.

use ounce_kernels::DType;
use ounce_model::Tensor;
use ounce_train::graph::ops::Kernels;

use super::super::merged::{Merged, Numbers};
use crate::Result;

const ROWS: usize = 6;
const COLUMNS: usize = 64;
const GROUP: usize = 32;
const GROUPS: usize = COLUMNS / GROUP;
const RANK: usize = 3;
const TOKENS: usize = 5;
const SCALE: f32 = 0.5;

/// How far gradients are from finite differences, at worst, as a share of the largest gradient of their kind; and how many
/// weights were below, in and above the range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Checked {
    pub worst: Numbers<f64>,
    pub input: f64,
    pub ranges: [usize; 3],
}

fn wave(count: usize, speed: f32, size: f32) -> Vec<f32> {
    (0..count).map(|at| (at as f32 * speed).sin() * size).collect()
}

/// All in f64: `s` and `b` move freely, while rounding errors and who is in range stay as they are at the point of the gradient.
struct Surrogate {
    base: Vec<f64>,
    /// Of every weight: what rounding adds to v, or the code at the end of the range.
    rounding: Vec<Result<f64, f64>>,
    /// Of every group: the stored step and offset less the real ones.
    stored: Vec<[f64; 2]>,
}

impl Surrogate {
    fn merged(base: &[f64], at: &Numbers<Vec<f64>>) -> Vec<f64> {
        let product = |row: usize, column: usize| -> f64 {
            (0..RANK).map(|k| at.b[row * RANK + k] * at.a[k * COLUMNS + column]).sum()
        };
        (0..ROWS * COLUMNS)
            .map(|at| base[at] + f64::from(SCALE) * product(at / COLUMNS, at % COLUMNS))
            .collect()
    }

    fn new(dtype: DType, base: &[f64], at: &Numbers<Vec<f64>>) -> Surrogate {
        let half = f64::from(1u32 << (dtype.group_shape().map_or(2, |it| it.0) - 1));
        let mut stored = Vec::new();
        for (&step, &offset) in at.steps.iter().zip(&at.offsets) {
            let near = half::f16::from_f64(step).to_f64();
            // The offset as its zero point has it.
            let zero = (half - offset / step).round_ties_even().clamp(0.0, 2.0 * half - 1.0);
            stored.push([near - step, near * (half - zero) - offset]);
        }
        let of_weight = |(index, weight): (usize, &f64)| {
            let group = index / GROUP;
            let (step, offset) = (at.steps[group] + stored[group][0], at.offsets[group] + stored[group][1]);
            let v = (weight - offset) / step;
            match v.round_ties_even() {
                code if code < -half => Err(-half),
                code if code > half - 1.0 => Err(half - 1.0),
                code => Ok(code - v),
            }
        };
        let rounding = Surrogate::merged(base, at).iter().enumerate().map(of_weight).collect();
        Surrogate { base: base.to_vec(), rounding, stored }
    }

    /// `Σ slope · x Ŵᵀ`.
    fn loss(&self, at: &Numbers<Vec<f64>>, x: &[f64], slope: &[f64]) -> f64 {
        let weights = Surrogate::merged(&self.base, at);
        let value = |index: usize| {
            let group = index / GROUP;
            let (step, offset) =
                (at.steps[group] + self.stored[group][0], at.offsets[group] + self.stored[group][1]);
            match self.rounding[index] {
                Ok(rounding) => step * ((weights[index] - offset) / step + rounding) + offset,
                Err(end) => step * end + offset,
            }
        };
        let mut sum = 0.0;
        for token in 0..TOKENS {
            for row in 0..ROWS {
                let y: f64 = (0..COLUMNS)
                    .map(|column| x[token * COLUMNS + column] * value(row * COLUMNS + column))
                    .sum();
                sum += slope[token * ROWS + row] * y;
            }
        }
        sum
    }
}

/// Compares, with weights on both sides of the range and in it.
///
/// # Errors
/// If a base can't be decoded.
pub fn check(dtype: DType) -> Result<Checked> {
    let base = wave(ROWS * COLUMNS, 0.37, 0.2);
    let merged = Merged::new("checked", Tensor::from_f32(&[ROWS, COLUMNS], &base), dtype, RANK, SCALE)?;
    let bits = dtype.group_shape().map_or(2, |it| it.0);
    // Too narrow for some of the weights, and off the middle.
    let step = 0.3 / f32::from(1u8 << bits);
    let mut numbers = Numbers {
        a: wave(RANK * COLUMNS, 1.3, 0.3),
        b: wave(ROWS * RANK, 2.1, 0.2),
        steps: (0..ROWS * GROUPS).map(|at| step * (1.0 + 0.07 * (at % 5) as f32)).collect::<Vec<f32>>(),
        offsets: wave(ROWS * GROUPS, 1.9, step * 1.2),
    };
    merged.codes().confine(&mut numbers.steps, &mut numbers.offsets);
    let (x, slope) = (wave(TOKENS * COLUMNS, 0.71, 1.0), wave(TOKENS * ROWS, 1.7, 1.0));
    let mut dx = vec![0.0; x.len()];
    let counts = merged.counts();
    let mut found = Numbers {
        a: vec![0.0; counts.a],
        b: vec![0.0; counts.b],
        steps: vec![0.0; counts.steps],
        offsets: vec![0.0; counts.offsets],
    };
    let now = Numbers {
        a: numbers.a.as_slice(),
        b: numbers.b.as_slice(),
        steps: numbers.steps.as_slice(),
        offsets: numbers.offsets.as_slice(),
    };
    merged.backward(Kernels::default(), &now, (&x, &slope), Some(&mut dx), &mut found)?;

    let wide = |values: &[f32]| values.iter().map(|&value| f64::from(value)).collect::<Vec<f64>>();
    let at = Numbers {
        a: wide(&numbers.a),
        b: wide(&numbers.b),
        steps: wide(&numbers.steps),
        offsets: wide(&numbers.offsets),
    };
    let (x, slope) = (wide(&x), wide(&slope));
    let surrogate = Surrogate::new(dtype, &wide(&base), &at);
    let worst = |found: &[f32], change: f64, moved: &dyn Fn(usize, f64) -> f64| {
        let largest = found.iter().fold(0.0f64, |most, it| most.max(f64::from(it.abs())));
        let off = |(place, &found): (usize, &f32)| {
            let expected = (moved(place, change) - moved(place, -change)) / (2.0 * change);
            (f64::from(found) - expected).abs() / largest
        };
        found.iter().enumerate().map(off).fold(0.0, f64::max)
    };
    type Kind = fn(&mut Numbers<Vec<f64>>) -> &mut Vec<f64>;
    let number = |kind: Kind| {
        let (at, x, slope, surrogate) = (&at, &x, &slope, &surrogate);
        move |place: usize, change: f64| {
            let mut near = at.clone();
            kind(&mut near)[place] += change;
            surrogate.loss(&near, x, slope)
        }
    };
    let input = |place: usize, change: f64| {
        let mut near = x.clone();
        near[place] += change;
        surrogate.loss(&at, &near, &slope)
    };
    let mut ranges = [0; 3];
    for rounding in &surrogate.rounding {
        ranges[rounding.as_ref().map_or_else(|end| if *end < 0.0 { 0 } else { 2 }, |_| 1)] += 1;
    }
    let tiny = f64::from(step) * 1e-3;
    Ok(Checked {
        worst: Numbers {
            a: worst(&found.a, 1e-4, &number(|it| &mut it.a)),
            b: worst(&found.b, 1e-4, &number(|it| &mut it.b)),
            steps: worst(&found.steps, tiny, &number(|it| &mut it.steps)),
            offsets: worst(&found.offsets, tiny, &number(|it| &mut it.offsets)),
        },
        input: worst(&dx, 1e-3, &input),
        ranges,
    })
}
