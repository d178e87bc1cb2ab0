//! Coordinate descent on codes and factors: what is left to gain once every column has been rounded.
//!
//! For a row with the difference `r = w − ŵ` the loss is `r H rᵀ`, its slope `g = r H`. Given all other codes, the best
//! value of column j is `ŵ_j + g_j / H_jj`: the code moves to the level nearest to that. Given all codes, the best factor
//! of a block follows from a quadratic in one number. The slope is kept up to date; no step can raise the loss.

use half::f16;
use ounce_kernels::matmul::add_scaled;
use ounce_kernels::quant::grid::{Grid, Scales};
use rayon::prelude::*;

use super::gptq::{Codes, Hessian};
use super::moments::times;

/// Lowers the loss of `coded` in so many rounds, or fewer when nothing moves any more.
pub(super) fn descend(weights: &[f32], grid: &Grid, hessian: &Hessian, coded: &mut Codes, rounds: usize) {
    let n = hessian.width();
    let difference: Vec<f32> = weights.iter().zip(&coded.values).map(|(w, v)| w - v).collect();
    let mut slopes = times(&difference, &hessian.full, n);
    drop(difference);
    let rows = slopes
        .par_chunks_exact_mut(n)
        .zip(coded.codes.par_chunks_exact_mut(n))
        .zip(coded.values.par_chunks_exact_mut(n))
        .zip(coded.scales.par_chunks_exact_mut(n / grid.block_len()));
    rows.with_min_len(4).for_each(|(((slope, codes), values), scales)| {
        let mut row = Row { h: &hessian.full, n, grid, slope, codes, values, scales };
        for round in 0..rounds {
            if round > 0 {
                (0..n / grid.block_len()).for_each(|block| row.fit_factors(block));
            }
            if !row.move_codes() {
                break;
            }
        }
    });
}

/// The best factor of a block that begins at column `first`, as f16 has it: values go along `direction` with it, and a row's slope and the
/// moments `h` (`[n, n]` for `n` slopes) say what that does to the loss. None if nothing is gained, or its sign would change.
pub(super) fn fitted(factor: f32, direction: &[f32], first: usize, slope: &[f32], h: &[f32]) -> Option<f32> {
    let range = first..first + direction.len();
    let (mut gain, mut curve) = (0.0f64, 0.0f64);
    for (d, column) in direction.iter().zip(range.clone()) {
        gain += f64::from(d * slope[column]);
        let h = &h[column * slope.len()..][range.clone()];
        curve += f64::from(*d) * f64::from(h.iter().zip(direction).map(|(h, d)| h * d).sum::<f32>());
    }
    if !(curve > 0.0) {
        return None;
    }
    let new = f16::from_f32(factor + (gain / curve) as f32).to_f32();
    let step = f64::from(new - factor);
    let keeps_sign = new != 0.0 && (new < 0.0) == (factor < 0.0);
    // Rounding may have taken the gain away.
    (new.is_finite() && keeps_sign && step * (2.0 * gain - step * curve) > 0.0).then_some(new)
}

struct Row<'a> {
    h: &'a [f32],
    n: usize,
    grid: &'a Grid,
    slope: &'a mut [f32],
    codes: &'a mut [u8],
    values: &'a mut [f32],
    scales: &'a mut [Scales],
}

impl Row<'_> {
    /// One pass over all codes; whether any moved.
    fn move_codes(&mut self) -> bool {
        let (n, len, part) = (self.n, self.grid.block_len(), self.grid.part());
        let mut moved = false;
        for column in 0..n {
            let own = self.h[column * n + column];
            let best = self.values[column] + self.slope[column] / own;
            let (code, value) = self.grid.nearest(&self.scales[column / len], column % len / part, best);
            let change = value - self.values[column];
            // Two levels equally far from the best must not take turns.
            if change != 0.0 && (value - best).abs() < (self.values[column] - best).abs() {
                (self.codes[column], self.values[column]) = (code, value);
                self.answer(column, change);
                moved = true;
            }
        }
        moved
    }

    /// A stored value changed by `change`: the slope follows.
    fn answer(&mut self, column: usize, change: f32) {
        let h = &self.h[column * self.n..][..self.n];
        add_scaled(-change, h, self.slope);
    }

    /// Fits the factor of a block, and then the factor of its minimums, to its codes.
    fn fit_factors(&mut self, block: usize) {
        let (len, part) = (self.grid.block_len(), self.grid.part());
        if self.grid.steps_are_powers() {
            return;
        }
        let range = block * len..(block + 1) * len;
        let old = self.scales[block];
        // How the values follow the factor: (value − offset) / factor; and the factor of minimums: offset / second. Where
        // both are one number (a zero point), the values follow it as a whole.
        let joint = self.grid.has_zero_points();
        for second in [false, true] {
            let scales = self.scales[block];
            let factor = if second { scales.second } else { scales.factor };
            if factor == 0.0 || (second && (joint || scales.minimums.iter().all(|&it| it == 0))) {
                continue;
            }
            let direction: Vec<f32> = range
                .clone()
                .enumerate()
                .map(|(index, column)| {
                    let offset = scales.offset(index / part);
                    let follows = if second {
                        offset
                    } else if joint {
                        self.values[column]
                    } else {
                        self.values[column] - offset
                    };
                    follows / factor
                })
                .collect();
            let Some(new) = fitted(factor, &direction, range.start, self.slope, self.h) else {
                continue;
            };
            let scales = &mut self.scales[block];
            if second {
                scales.second = new
            } else {
                scales.factor = new
            }
            if joint {
                scales.second = new
            }
        }
        if self.scales[block] != old {
            for (index, column) in range.enumerate() {
                let value = self.grid.value(&self.scales[block], index / part, self.codes[column]);
                let change = value - self.values[column];
                if change != 0.0 {
                    self.values[column] = value;
                    self.answer(column, change);
                }
            }
        }
    }
}
