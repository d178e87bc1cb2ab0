//! Which range a grid covers: the clipping range [α, β] of the survey, section III.B.
//!
//! Every rule looks at points, values with their counts, so that weights and histograms of activations go the same way.

use super::grid::{Grid, Symmetry};
use super::learned;

/// Bins of the histograms that entropy is computed on, and that observers keep for each sign.
pub const BINS: usize = 2048;

/// How the range is found.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Calibration {
    /// All that was seen.
    #[default]
    MinMax,
    /// All but the outermost: this share (such as 0.999) of the absolute values lies inside; of an asymmetric grid, so much
    /// lies below β, and so much above α.
    Percentile(f64),
    /// The least squared error of rounding and clipping together.
    Mse,
    /// The least KL divergence of the histogram from that of the rounded values, over thresholds (Migacz, "8-bit Inference
    /// with TensorRT", 2017).
    Entropy,
    /// The step is learned by LSQ's gradient on the squared error.
    Learned,
}

/// A value that was seen so many times.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// The value.
    pub value: f32,
    /// How often.
    pub count: f64,
}

/// Points of plain values, in rising order; those that are no numbers are left out.
pub fn points(values: &[f32]) -> Vec<Point> {
    let finite = values.iter().filter(|value| value.is_finite());
    let mut points: Vec<Point> = finite.map(|&value| Point { value, count: 1.0 }).collect();
    points.sort_unstable_by(|a, b| a.value.total_cmp(&b.value));
    points
}

/// The squared error of rounding points to a grid.
pub fn squared_error(points: &[Point], grid: &Grid) -> f64 {
    points.iter().map(|it| it.count * f64::from(it.value - grid.round(it.value)).powi(2)).sum()
}

impl Calibration {
    /// The grid for `points` in rising order.
    pub fn grid(self, points: &[Point], bits: u32, symmetry: Symmetry) -> Grid {
        let (Some(first), Some(last)) = (points.first(), points.last()) else {
            return Grid::new(0.0, 0.0, bits, symmetry);
        };
        let (alpha, beta) = (first.value.min(0.0), last.value.max(0.0));
        match self {
            Calibration::MinMax => Grid::new(alpha, beta, bits, symmetry),
            Calibration::Percentile(share) => {
                let (alpha, beta) = percentile(points, share, symmetry);
                Grid::new(alpha, beta, bits, symmetry)
            }
            Calibration::Mse => least_squares(points, alpha, beta, bits, symmetry),
            Calibration::Entropy => {
                let threshold = entropy(points, bits, symmetry);
                Grid::new(alpha.max(-threshold), beta.min(threshold), bits, symmetry)
            }
            Calibration::Learned => learned::fit(points, Grid::new(alpha, beta, bits, symmetry)),
        }
    }
}

/// The value below which `share` of the points lie, which are in rising order.
fn quantile(points: impl Iterator<Item = Point> + Clone, share: f64) -> f32 {
    let total: f64 = points.clone().map(|it| it.count).sum();
    let mut below = 0.0;
    let mut at = 0.0;
    for point in points {
        at = point.value;
        below += point.count;
        if below >= share * total * (1.0 - 1e-12) {
            break;
        }
    }
    at
}

fn percentile(points: &[Point], share: f64, symmetry: Symmetry) -> (f32, f32) {
    if symmetry == Symmetry::Asymmetric {
        let negated = points.iter().rev().map(|it| Point { value: -it.value, ..*it });
        return (-quantile(negated, share), quantile(points.iter().copied(), share));
    }
    let mut absolute: Vec<Point> = points.iter().map(|it| Point { value: it.value.abs(), ..*it }).collect();
    absolute.sort_unstable_by(|a, b| a.value.total_cmp(&b.value));
    let most = quantile(absolute.iter().copied(), share);
    (-most, most)
}

/// Shares of the full range that are tried, and by which each end of an asymmetric one is then moved.
const STEPS: usize = 100;

fn least_squares(points: &[Point], alpha: f32, beta: f32, bits: u32, symmetry: Symmetry) -> Grid {
    let mut best = (f64::INFINITY, 1.0, 1.0);
    let mut look = |low: f32, high: f32| {
        let error = squared_error(points, &Grid::new(alpha * low, beta * high, bits, symmetry));
        if error < best.0 {
            best = (error, low, high);
        }
        (best.1, best.2)
    };
    let share = |step: usize| step as f32 / STEPS as f32;
    let mut ends = (1.0, 1.0);
    for step in (1..=STEPS).rev() {
        ends = look(share(step), share(step));
    }
    if symmetry == Symmetry::Asymmetric && alpha < 0.0 && beta > 0.0 {
        for step in (0..=STEPS).rev() {
            look(share(step), ends.1);
        }
        ends = (best.1, best.2);
        let mut look = |low: f32, high: f32| {
            let error = squared_error(points, &Grid::new(alpha * low, beta * high, bits, symmetry));
            if error < best.0 {
                best = (error, low, high);
            }
        };
        for step in (0..=STEPS).rev() {
            look(ends.0, share(step));
        }
    }
    Grid::new(alpha * best.1, beta * best.2, bits, symmetry)
}

/// The threshold on absolute values with the least divergence.
fn entropy(points: &[Point], bits: u32, symmetry: Symmetry) -> f32 {
    let most = points.iter().map(|it| it.value.abs()).fold(0.0, f32::max);
    if most == 0.0 {
        return 0.0;
    }
    // Codes on one side of zero; of an asymmetric grid, all of them where there is but one side.
    let one_sided = points.iter().all(|it| it.value >= 0.0) || points.iter().all(|it| it.value <= 0.0);
    let levels = if symmetry == Symmetry::Asymmetric && one_sided { 1 << bits } else { 1 << (bits - 1) };
    let histogram = histogram(points, most);
    let from = levels.min(BINS);
    let divergence = |bins: usize| divergence(&histogram, bins, levels);
    let best = (from..=BINS).map(|bins| (divergence(bins), bins)).min_by(|a, b| a.0.total_cmp(&b.0));
    let bins = best.map_or(BINS, |best| best.1);
    most * bins as f32 / BINS as f32
}

/// Counts of absolute values in even bins up to `most`.
fn histogram(points: &[Point], most: f32) -> Vec<f64> {
    let mut histogram = vec![0.0; BINS];
    for point in points.iter().filter(|point| point.value != 0.0) {
        // Exact zeros, which rounding keeps whatever the threshold, say nothing of it, and there are many behind a ReLU.
        let bin = (point.value.abs() / most * BINS as f32) as usize;
        histogram[bin.min(BINS - 1)] += point.count;
    }
    histogram
}

/// KL(P ‖ Q): P is the first `bins` with what is beyond in the last; Q the same bins brought to `levels` and spread
/// out again over those that hold something.
fn divergence(histogram: &[f64], bins: usize, levels: usize) -> f64 {
    let total: f64 = histogram.iter().sum();
    let beyond: f64 = histogram[bins..].iter().sum();
    let inside: f64 = total - beyond;
    if inside <= 0.0 {
        return f64::INFINITY;
    }
    let mut sum = 0.0;
    for level in 0..levels {
        let (start, end) = (level * bins / levels, (level + 1) * bins / levels);
        let own = &histogram[start..end];
        let mass: f64 = own.iter().sum();
        let filled = own.iter().filter(|&&count| count > 0.0).count();
        for (at, &count) in (start..end).zip(own) {
            let p = (count + if at + 1 == bins { beyond } else { 0.0 }) / total;
            if p <= 0.0 {
                continue;
            }
            // A last bin that held nothing but what lies beyond has no share in Q.
            let q = if count > 0.0 { mass / filled as f64 / inside } else { 1e-12 };
            sum += p * (p / q).ln();
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::super::random;
    use super::*;

    fn sample(seed: u64, count: usize) -> Vec<f32> {
        let mut next = random::normal(seed);
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn min_max_is_the_range_and_percentiles_are_sorted_values() {
        let values = sample(1, 1000);
        let points = points(&values);
        let grid = Calibration::MinMax.grid(&points, 8, Symmetry::Restricted);
        let most = values.iter().map(|value| value.abs()).fold(0.0, f32::max);
        assert_eq!(grid.scale, most / 127.0);
        let mut absolute: Vec<f32> = values.iter().map(|value| value.abs()).collect();
        absolute.sort_by(f32::total_cmp);
        let grid = Calibration::Percentile(0.99).grid(&points, 8, Symmetry::Restricted);
        assert_eq!(grid.scale, absolute[989] / 127.0);
        let mut sorted = values.clone();
        sorted.sort_by(f32::total_cmp);
        let (alpha, beta) = percentile(&points, 0.99, Symmetry::Asymmetric);
        assert_eq!((alpha, beta), (sorted[10], sorted[989]));
    }

    #[test]
    fn counts_stand_for_repeated_values() {
        let repeated = [0.5f32, 0.5, 0.5, 1.0, 2.0, -1.0];
        let counted = [(-1.0, 1.0), (0.5, 3.0), (1.0, 1.0), (2.0, 1.0)];
        let counted: Vec<Point> = counted.map(|(value, count)| Point { value, count }).to_vec();
        let calibrations = [
            Calibration::MinMax,
            Calibration::Percentile(0.6),
            Calibration::Mse,
            Calibration::Entropy,
            Calibration::Learned,
        ];
        for calibration in calibrations {
            for symmetry in [Symmetry::Restricted, Symmetry::Asymmetric] {
                let [a, b] = [&points(&repeated), &counted].map(|it| calibration.grid(it, 3, symmetry));
                assert!((a.scale / b.scale - 1.0).abs() < 1e-4 && a.zero == b.zero, "{calibration:?}");
            }
        }
    }

    #[test]
    fn least_squares_is_near_the_best_of_a_fine_search() {
        for symmetry in [Symmetry::Restricted, Symmetry::Full, Symmetry::Asymmetric] {
            let mut values = sample(2, 400);
            values.push(9.0);
            let points = points(&values);
            for bits in [2, 3, 4] {
                let found = squared_error(&points, &Calibration::Mse.grid(&points, bits, symmetry));
                let lowest = values.iter().copied().fold(0.0, f32::min);
                let mut best = f64::INFINITY;
                for high in 1..=300 {
                    for low in 0..=if symmetry == Symmetry::Asymmetric { 60 } else { 0 } {
                        let (low, high) = (lowest * low as f32 / 60.0, 9.0 * high as f32 / 300.0);
                        let grid = Grid::new(low, high, bits, symmetry);
                        best = best.min(squared_error(&points, &grid));
                    }
                }
                assert!(found <= best * 1.05, "{symmetry:?} {bits}: {found} against {best}");
                let widest = squared_error(&points, &Calibration::MinMax.grid(&points, bits, symmetry));
                assert!(found < widest * 0.9);
            }
        }
    }

    /// The definition, bin by bin, without tricks.
    fn brute_force(histogram: &[f64], bins: usize, levels: usize) -> f64 {
        let mut p = histogram[..bins].to_vec();
        p[bins - 1] += histogram[bins..].iter().sum::<f64>();
        let mut q = vec![0.0; bins];
        for level in 0..levels {
            let range = level * bins / levels..(level + 1) * bins / levels;
            let filled = range.clone().filter(|&at| histogram[at] > 0.0).count();
            let mass: f64 = histogram[range.clone()].iter().sum();
            for at in range.filter(|&at| histogram[at] > 0.0) {
                q[at] = mass / filled as f64;
            }
        }
        let (all_p, all_q) = (p.iter().sum::<f64>(), q.iter().sum::<f64>());
        let pairs = p.iter().zip(&q).filter(|(p, _)| **p > 0.0);
        pairs.map(|(p, q)| p / all_p * (p / all_p / (q / all_q).max(1e-12)).ln()).sum()
    }

    #[test]
    fn entropy_takes_the_threshold_of_least_divergence_and_cuts_outliers() {
        let mut values = sample(3, 20_000);
        let most = 40.0;
        values.push(most);
        let points = points(&values);
        let histogram = histogram(&points, most);
        let best = (128..=BINS)
            .map(|bins| (brute_force(&histogram, bins, 128), bins))
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .unwrap();
        let threshold = entropy(&points, 8, Symmetry::Restricted);
        assert!((threshold - most * best.1 as f32 / BINS as f32).abs() < 1e-5);
        assert!(threshold < 8.0, "{threshold}");
        // Even values lose most where any are cut.
        let mut next = random::even(4);
        let even: Vec<f32> = (0..20_000).map(|_| next()).collect();
        assert!(entropy(&super::points(&even), 8, Symmetry::Restricted) > 0.9);
    }

    #[test]
    fn nothing_and_zeros_give_a_grid() {
        for values in [&[][..], &[0.0, 0.0], &[f32::NAN]] {
            let calibrations =
                [Calibration::Mse, Calibration::Entropy, Calibration::Learned, Calibration::Percentile(0.99)];
            for calibration in calibrations {
                let grid = calibration.grid(&points(values), 8, Symmetry::Asymmetric);
                assert!(grid.scale > 0.0 && grid.round(0.0) == 0.0);
            }
        }
    }
}
