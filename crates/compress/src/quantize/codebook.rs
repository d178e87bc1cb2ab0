//! GPTQ and coordinate descent where eight columns become one point of a list (IQ2_XXS, IQ2_XS, IQ2_S): what
//! [`gptq`](super::gptq) and [`descent`](super::descent) do with single codes, done with points.
//!
//! The eight columns of a point are chosen together: of the points that are nearest column by column, the one that leaves the
//! least of the whole quadratic form, errors within the eight answered as they would be column by column (vector
//! quantization with feedback, as in van Baalen et al., 2024, "GPTVQ", and Tseng et al., 2024, "QuIP#", section 4). Descent
//! moves a point to where the loss, given all others, is least, and fits factors in between. No step raises the loss.

use ounce_kernels::matmul::add_scaled;
use ounce_kernels::quant::lattice::search::{DIMS, NEAR, Scales, Sums};
use ounce_kernels::quant::lattice::{BLOCK, Lattice, Near};
use rayon::prelude::*;

use super::descent::fitted;
use super::gptq::{self, Hessian, Options, Quantized, sweep};
use super::moments::times;

/// A matrix while its points are chosen.
struct Points {
    /// `[rows, n / 8]`.
    chosen: Vec<Near>,
    /// What they stand for, `[rows, n]`.
    values: Vec<f32>,
    /// `[rows, n / 256]`.
    scales: Vec<Scales>,
}

/// Quantizes `weights`, `[rows, n]`.
///
/// # Errors
/// In one sentence, if columns are to be gone through in another order than that in which they are stored.
///
/// # Panics
/// If rows are no whole number of blocks, or of another width than the Hessian.
pub(super) fn quantize(
    weights: &[f32],
    lattice: &Lattice,
    hessian: &Hessian,
    options: &Options,
) -> Result<Quantized, String> {
    let n = hessian.width();
    assert!(n.is_multiple_of(BLOCK) && weights.len().is_multiple_of(n), "whole blocks");
    if !hessian.is_in_order() {
        return Err(format!(
            "{} holds eight columns in one code, which --act-order would tear apart; leave it out, or choose another format",
            lattice.dtype()
        ));
    }
    let mut points = feed_back(weights, lattice, hessian);
    let whole = hessian.loss(weights).max(f64::MIN_POSITIVE);
    let difference =
        |values: &[f32]| -> Vec<f32> { weights.iter().zip(values).map(|(w, v)| w - v).collect() };
    let before = hessian.loss(&difference(&points.values)) / whole;
    let mut after = before;
    if options.descent > 0 {
        descend(weights, lattice, hessian, &mut points, options.descent);
        after = hessian.loss(&difference(&points.values)) / whole;
    }
    let dtype = lattice.dtype();
    let mut bytes = vec![0; weights.len() / BLOCK * dtype.block_bytes()];
    bytes
        .par_chunks_exact_mut(dtype.block_bytes())
        .zip(points.chosen.par_chunks_exact(BLOCK / DIMS))
        .zip(&points.scales)
        .for_each(|((block, chosen), scales)| lattice.put(scales, chosen, block));
    Ok(Quantized { bytes, error: after, error_before_descent: before })
}

/// What a point stands for at a step.
fn values_of(lattice: &Lattice, near: &Near, step: f32) -> [f32; DIMS] {
    lattice.levels(near).map(|level| step * level)
}

fn eight(values: &[f32]) -> [f32; DIMS] {
    std::array::from_fn(|at| values[at])
}

/// Chooses point after point, later columns answering the errors of earlier ones.
fn feed_back(weights: &[f32], lattice: &Lattice, hessian: &Hessian) -> Points {
    let n = hessian.width();
    let rows = weights.len() / n;
    let costs = hessian.costs();
    let mut points = Points {
        chosen: vec![Near::default(); rows * n / DIMS],
        values: vec![0.0; rows * n],
        scales: vec![Scales::ZERO; rows * n / BLOCK],
    };
    sweep(weights, hessian, |columns, wanted, errors| {
        let (first, last) = (columns.start, columns.end);
        let per_row = wanted
            .par_chunks_exact_mut(n)
            .zip(weights.par_chunks_exact(n))
            .zip(points.chosen.par_chunks_exact_mut(n / DIMS))
            .zip(points.values.par_chunks_exact_mut(n))
            .zip(points.scales.par_chunks_exact_mut(n / BLOCK))
            .zip(errors.par_chunks_exact_mut(gptq::BLOCK));
        per_row.for_each_init(
            Sums::default,
            |sums, (((((wanted, weights), chosen), values), scales), errors)| {
                for k in (first..last).step_by(DIMS) {
                    if k % BLOCK == 0 {
                        scales[k / BLOCK] = lattice.fit(&wanted[k..k + BLOCK], &costs[k..k + BLOCK]);
                    }
                    let step = scales[k / BLOCK].step(k % BLOCK / lattice.part());
                    let mut near = [Near::default(); NEAR];
                    lattice.sum(&eight(&wanted[k..]), &eight(&costs[k..]), sums);
                    let found = lattice.near(sums, step, &mut near);
                    let loss = |near: &Near| -> f32 {
                        let stored = values_of(lattice, near, step);
                        let mut wanted = eight(&wanted[k..]);
                        let mut loss = 0.0;
                        for at in 0..DIMS {
                            loss += costs[k + at] * (wanted[at] - stored[at]).powi(2);
                            hessian.answer(k + at, weights[k + at] - stored[at], &mut wanted[at + 1..]);
                        }
                        loss
                    };
                    let best = near[..found].iter().min_by(|a, b| loss(a).total_cmp(&loss(b)));
                    let best = best.copied().unwrap_or_default();
                    chosen[k / DIMS] = best;
                    for (at, value) in values_of(lattice, &best, step).into_iter().enumerate() {
                        values[k + at] = value;
                        let error = weights[k + at] - value;
                        errors[k + at - first] = error;
                        hessian.answer(k + at, error, &mut wanted[k + at + 1..last]);
                    }
                }
            },
        );
    });
    points
}

/// Lowers the loss in so many rounds, or fewer when nothing moves any more.
fn descend(weights: &[f32], lattice: &Lattice, hessian: &Hessian, points: &mut Points, rounds: usize) {
    let n = hessian.width();
    let difference: Vec<f32> = weights.iter().zip(&points.values).map(|(w, v)| w - v).collect();
    let mut slopes = times(&difference, &hessian.full, n);
    drop(difference);
    let inverses: Vec<[[f32; DIMS]; DIMS]> =
        (0..n).step_by(DIMS).map(|first| inverse(&hessian.full, n, first)).collect();
    let rows = slopes
        .par_chunks_exact_mut(n)
        .zip(points.chosen.par_chunks_exact_mut(n / DIMS))
        .zip(points.values.par_chunks_exact_mut(n))
        .zip(points.scales.par_chunks_exact_mut(n / BLOCK));
    rows.for_each_init(Sums::default, |sums, (((slope, chosen), values), scales)| {
        let mut row =
            Row { h: &hessian.full, n, lattice, inverses: &inverses, slope, chosen, values, scales };
        for round in 0..rounds {
            if round > 0 {
                (0..n / BLOCK).for_each(|block| row.fit_factor(block));
            }
            if !row.move_points(sums) {
                break;
            }
        }
    });
}

/// The inverse of the eight columns' own part of H, which is positive definite.
fn inverse(h: &[f32], n: usize, first: usize) -> [[f32; DIMS]; DIMS] {
    let mut left: [[f64; DIMS]; DIMS] =
        std::array::from_fn(|i| std::array::from_fn(|j| f64::from(h[(first + i) * n + first + j])));
    let mut right: [[f64; DIMS]; DIMS] =
        std::array::from_fn(|i| std::array::from_fn(|j| f64::from(u8::from(i == j))));
    for pivot in 0..DIMS {
        let scale = 1.0 / left[pivot][pivot];
        left[pivot].iter_mut().chain(&mut right[pivot]).for_each(|x| *x *= scale);
        let (own_left, own_right) = (left[pivot], right[pivot]);
        for other in (0..DIMS).filter(|it| *it != pivot) {
            let factor = left[other][pivot];
            left[other].iter_mut().zip(own_left).for_each(|(x, own)| *x -= factor * own);
            right[other].iter_mut().zip(own_right).for_each(|(x, own)| *x -= factor * own);
        }
    }
    right.map(|row| row.map(|x| x as f32))
}

struct Row<'a> {
    h: &'a [f32],
    n: usize,
    lattice: &'a Lattice,
    inverses: &'a [[[f32; DIMS]; DIMS]],
    slope: &'a mut [f32],
    chosen: &'a mut [Near],
    values: &'a mut [f32],
    scales: &'a mut [Scales],
}

impl Row<'_> {
    /// One pass over all points; whether any moved.
    fn move_points(&mut self, sums: &mut Sums) -> bool {
        let (n, lattice) = (self.n, self.lattice);
        let mut moved = false;
        for unit in 0..n / DIMS {
            let first = unit * DIMS;
            let step = self.scales[first / BLOCK].step(first % BLOCK / lattice.part());
            if step == 0.0 {
                continue;
            }
            let own = eight(&self.values[first..]);
            let slope = eight(&self.slope[first..]);
            let inverse = &self.inverses[unit];
            // The best eight values, given all others.
            let best: [f32; DIMS] = std::array::from_fn(|i| {
                own[i] + inverse[i].iter().zip(slope).map(|(inverse, slope)| inverse * slope).sum::<f32>()
            });
            let weights: [f32; DIMS] = std::array::from_fn(|i| self.h[(first + i) * n + first + i]);
            let mut near = [Near::default(); NEAR];
            lattice.sum(&best, &weights, sums);
            let found = lattice.near(sums, step, &mut near);
            let change = |near: &Near| -> [f32; DIMS] {
                let new = values_of(lattice, near, step);
                std::array::from_fn(|i| new[i] - own[i])
            };
            let rise = |change: &[f32; DIMS]| -> f32 {
                (0..DIMS)
                    .map(|i| {
                        let h = &self.h[(first + i) * n + first..][..DIMS];
                        let own: f32 = h.iter().zip(change).map(|(h, change)| h * change).sum();
                        change[i] * (own - 2.0 * slope[i])
                    })
                    .sum()
            };
            let candidates = near[..found].iter().map(|near| (near, rise(&change(near))));
            let Some((near, rise)) = candidates.min_by(|a, b| a.1.total_cmp(&b.1)) else { continue };
            // What rounding of the sums may feign is no gain.
            let scale: f32 = (0..DIMS).map(|i| weights[i] * step * step).sum();
            if !(rise < -1e-5 * scale) {
                continue;
            }
            let change = change(near);
            self.chosen[unit] = *near;
            for (at, change) in change.into_iter().enumerate() {
                self.set(first + at, change);
            }
            moved = true;
        }
        moved
    }

    /// A stored value changes: the slope follows.
    fn set(&mut self, column: usize, change: f32) {
        if change != 0.0 {
            self.values[column] += change;
            add_scaled(-change, &self.h[column * self.n..][..self.n], self.slope);
        }
    }

    /// Fits the factor of a block to its points.
    fn fit_factor(&mut self, block: usize) {
        let range = block * BLOCK..(block + 1) * BLOCK;
        let factor = self.scales[block].factor;
        if factor == 0.0 {
            return;
        }
        let direction: Vec<f32> = self.values[range.clone()].iter().map(|value| value / factor).collect();
        let Some(new) = fitted(factor, &direction, range.start, self.slope, self.h) else {
            return;
        };
        self.scales[block].factor = new;
        for (index, column) in range.enumerate() {
            let step = self.scales[block].step(index / self.lattice.part());
            let near = &self.chosen[column / DIMS];
            let value = values_of(self.lattice, near, step)[index % DIMS];
            self.set(column, value - self.values[column]);
            self.values[column] = value;
        }
    }
}
