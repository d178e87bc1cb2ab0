//! Static ranges of activations: what is seen while calibration data runs through, in a histogram that grows.
//!
//! A dynamic range needs no observer: [`Grid::of`] looks at the values at run time.

use super::grid::{Grid, Symmetry};
use super::range::{BINS, Calibration, Point};

/// A histogram of values of both signs, with exact ends.
#[derive(Debug, Clone, Default)]
pub struct Observer {
    /// Of a bin.
    width: f32,
    /// Counts of absolute values: of those from 0 up, and of those below.
    positive: Vec<f64>,
    negative: Vec<f64>,
    low: f32,
    high: f32,
    zeros: f64,
    count: u64,
    sum: f64,
}

impl Observer {
    /// One that has seen nothing.
    pub fn new() -> Observer {
        Observer { positive: vec![0.0; BINS], negative: vec![0.0; BINS], ..Observer::default() }
    }

    /// Looks at values; those that are no finite numbers are passed over.
    pub fn observe(&mut self, values: &[f32]) {
        if self.positive.is_empty() {
            *self = Observer::new();
        }
        let finite = |value: &&f32| value.is_finite();
        let most = values.iter().filter(finite).fold(0.0f32, |most, value| most.max(value.abs()));
        if self.width == 0.0 && most > 0.0 {
            // A little more than was seen, so that the next batch rarely makes the bins wider.
            self.width = most * 1.125 / BINS as f32;
        }
        while most > self.width * BINS as f32 {
            self.widen();
        }
        for &value in values.iter().filter(finite) {
            self.count += 1;
            self.sum += f64::from(value);
            (self.low, self.high) = (self.low.min(value), self.high.max(value));
            if value == 0.0 {
                self.zeros += 1.0;
                continue;
            }
            let bin = ((value.abs() / self.width) as usize).min(BINS - 1);
            let side = if value > 0.0 { &mut self.positive } else { &mut self.negative };
            side[bin] += 1.0;
        }
    }

    /// Makes bins twice as wide; counts stay exact.
    fn widen(&mut self) {
        self.width *= 2.0;
        for side in [&mut self.positive, &mut self.negative] {
            for bin in 0..BINS / 2 {
                side[bin] = side[2 * bin] + side[2 * bin + 1];
            }
            side[BINS / 2..].fill(0.0);
        }
    }

    /// Values that were seen.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their mean.
    pub fn mean(&self) -> f64 {
        self.sum / self.count.max(1) as f64
    }

    /// The least and the largest of them and 0.
    pub fn ends(&self) -> (f32, f32) {
        (self.low, self.high)
    }

    /// The histogram as points in rising order: the middles of bins, and the ends exactly.
    pub fn points(&self) -> Vec<Point> {
        let middle = |bin: usize| (bin as f32 + 0.5) * self.width;
        let below = self.negative.iter().enumerate().rev().map(|(bin, &count)| (-middle(bin), count));
        let above = self.positive.iter().enumerate().map(|(bin, &count)| (middle(bin), count));
        let all = below.chain([(0.0, self.zeros)]).chain(above).filter(|(_, count)| *count > 0.0);
        let inside = |value: f32| value.clamp(self.low, self.high);
        let mut points: Vec<Point> =
            all.map(|(value, count)| Point { value: inside(value), count }).collect();
        if let Some(first) = points.first_mut().filter(|it| it.value < 0.0) {
            first.value = self.low;
        }
        if let Some(last) = points.last_mut().filter(|it| it.value > 0.0) {
            last.value = self.high;
        }
        points
    }

    /// The grid for what was seen: the static range of these activations.
    pub fn grid(&self, calibration: Calibration, bits: u32, symmetry: Symmetry) -> Grid {
        calibration.grid(&self.points(), bits, symmetry)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{random, range};
    use super::*;

    #[test]
    fn batches_give_what_all_values_at_once_give() {
        let mut next = random::normal(1);
        // Later batches are wider, so that the bins must grow.
        let batches: Vec<Vec<f32>> =
            (1..6).map(|factor| (0..3000).map(|_| factor as f32 * (next() + 0.5)).collect()).collect();
        let all: Vec<f32> = batches.concat();
        let mut observer = Observer::new();
        batches.iter().for_each(|batch| observer.observe(batch));
        let points = range::points(&all);
        assert_eq!(observer.count(), all.len() as u64);
        let ends = (points[0].value, points[points.len() - 1].value);
        assert_eq!(observer.ends(), ends);
        assert_eq!(observer.points().iter().map(|it| it.count).sum::<f64>(), all.len() as f64);
        for symmetry in [Symmetry::Restricted, Symmetry::Asymmetric] {
            let exact = Calibration::MinMax.grid(&points, 8, symmetry);
            assert_eq!(observer.grid(Calibration::MinMax, 8, symmetry), exact);
            for calibration in [Calibration::Percentile(0.99), Calibration::Mse, Calibration::Entropy] {
                let (found, exact) =
                    (observer.grid(calibration, 4, symmetry), calibration.grid(&points, 4, symmetry));
                let distance = (found.scale / exact.scale - 1.0).abs();
                assert!(distance < 0.05, "{calibration:?} {symmetry:?}: {} {}", found.scale, exact.scale);
            }
        }
        let mean = all.iter().map(|&it| f64::from(it)).sum::<f64>() / all.len() as f64;
        assert!((observer.mean() - mean).abs() < 1e-9);
    }

    #[test]
    fn nothing_and_zeros_are_no_trouble() {
        let mut observer = Observer::default();
        assert!(observer.grid(Calibration::Mse, 8, Symmetry::Asymmetric).scale > 0.0);
        observer.observe(&[0.0, f32::NAN, f32::INFINITY]);
        assert_eq!((observer.count(), observer.ends()), (1, (0.0, 0.0)));
        observer.observe(&[2.0]);
        assert_eq!(observer.grid(Calibration::MinMax, 8, Symmetry::Asymmetric).scale, 2.0 / 255.0);
    }

    #[test]
    fn after_a_relu_an_asymmetric_grid_errs_less() {
        let mut next = random::normal(2);
        let values: Vec<f32> = (0..5000).map(|_| next().max(0.0)).collect();
        let mut observer = Observer::new();
        observer.observe(&values);
        let points = range::points(&values);
        for bits in [2, 4, 8] {
            let [symmetric, asymmetric] = [Symmetry::Restricted, Symmetry::Asymmetric]
                .map(|it| range::squared_error(&points, &observer.grid(Calibration::MinMax, bits, it)));
            assert!(asymmetric < symmetric * 0.5, "{bits} bits: {asymmetric} {symmetric}");
        }
    }
}
