//! One metric over all items: its value, its error, and how two models differ in it.

use crate::bootstrap::{Interval, interval, resampled};
use crate::perplexity::Estimate;

/// How values of items become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aggregation {
    /// The mean of the first numbers.
    Mean,
    /// `exp(−mean)` of the first numbers.
    Perplexity,
    /// `exp(−Σ first / Σ second)`.
    WeightedPerplexity,
    /// `−Σ first / (Σ second · ln 2)`.
    BitsPerByte,
    /// F1 of the class 1, the first number being what is right and the second what was said.
    F1,
}

/// A metric of a task, with what each item gives for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Measure {
    /// Its name, as in a task's `metric_list`.
    pub metric: String,
    /// The filter through which answers went.
    pub filter: String,
    /// Whether more is better.
    pub higher_is_better: bool,
    pub(super) aggregation: Aggregation,
    pub(super) items: Vec<[f64; 2]>,
}

impl Measure {
    /// `metric,filter`: the key of the harness's results.
    pub fn key(&self) -> String {
        format!("{},{}", self.metric, self.filter)
    }

    /// `metric_stderr,filter`.
    pub fn stderr_key(&self) -> String {
        format!("{}_stderr,{}", self.metric, self.filter)
    }

    /// What each item gives, in their order: 0 or 1 where it is wrong or right, else a score or a log-likelihood (nats;
    /// per word or byte where the metric is).
    pub fn items(&self) -> impl Iterator<Item = f64> + '_ {
        self.items.iter().map(|&[first, second]| match self.aggregation {
            Aggregation::Mean | Aggregation::Perplexity => first,
            Aggregation::WeightedPerplexity | Aggregation::BitsPerByte => first / second,
            Aggregation::F1 => f64::from(u8::from(first == second)),
        })
    }

    /// Its value over all items, and the standard error: exact for means, else from a bootstrap over items; none for a
    /// single item.
    pub fn estimate(&self, seed: u64) -> Estimate {
        let all: Vec<usize> = (0..self.items.len()).collect();
        let (value, count) = (self.over(&all), self.items.len() as f64);
        let deviation = |values: &[f64]| {
            let count = values.len() as f64;
            let mean = values.iter().sum::<f64>() / count;
            (values.iter().map(|it| (it - mean).powi(2)).sum::<f64>() / (count - 1.0)).sqrt()
        };
        let stderr = (self.items.len() > 1).then(|| match self.aggregation {
            Aggregation::Mean => deviation(&self.items().collect::<Vec<_>>()) / count.sqrt(),
            _ => deviation(&resampled(self.items.len(), seed, |drawn| self.over(drawn))),
        });
        Estimate { value, stderr }
    }

    /// This model's value less another's on the same items, with its 95 % interval from a bootstrap over items: what makes
    /// items hard for both is no part of it. None if the items are not the same in number.
    pub fn change_from(&self, other: &Measure, seed: u64) -> Option<Interval> {
        if self.items.len() != other.items.len() || self.items.is_empty() {
            return None;
        }
        let all: Vec<usize> = (0..self.items.len()).collect();
        let change = |drawn: &[usize]| self.over(drawn) - other.over(drawn);
        Some(interval(change(&all), &resampled(self.items.len(), seed, change)))
    }

    fn over(&self, drawn: &[usize]) -> f64 {
        let items = || drawn.iter().map(|&at| self.items[at]);
        let sum = |part: usize| items().map(|it| it[part]).sum::<f64>();
        match self.aggregation {
            Aggregation::Mean => sum(0) / drawn.len() as f64,
            Aggregation::Perplexity => (-sum(0) / drawn.len() as f64).exp(),
            Aggregation::WeightedPerplexity => (-sum(0) / sum(1)).exp(),
            Aggregation::BitsPerByte => -sum(0) / (sum(1) * std::f64::consts::LN_2),
            Aggregation::F1 => {
                let count = |right: f64, said: f64| items().filter(|it| *it == [right, said]).count() as f64;
                let (both, wrong) = (2.0 * count(1.0, 1.0), count(0.0, 1.0) + count(1.0, 0.0));
                if both == 0.0 { 0.0 } else { both / (both + wrong) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(aggregation: Aggregation, items: &[[f64; 2]]) -> Measure {
        let (metric, filter) = ("m".to_string(), "none".to_string());
        Measure { metric, filter, higher_is_better: true, aggregation, items: items.to_vec() }
    }

    #[test]
    fn values_and_errors_are_those_of_the_harness() {
        // Python: mean, sample_stddev / sqrt(n) of [1, 0, 1, 1].
        let found = measure(Aggregation::Mean, &[[1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [1.0, 0.0]]).estimate(1);
        assert!((found.value - 0.75).abs() < 1e-12 && (found.stderr.unwrap() - 0.25).abs() < 1e-12);
        let texts = [[-10.0, 4.0], [-30.0, 16.0]];
        let value = |aggregation| measure(aggregation, &texts).estimate(1).value;
        assert!((value(Aggregation::Perplexity) - 20f64.exp()).abs() < 1e-3);
        assert!((value(Aggregation::WeightedPerplexity) - 2f64.exp()).abs() < 1e-12);
        assert!((value(Aggregation::BitsPerByte) - 2.0 / std::f64::consts::LN_2).abs() < 1e-12);
        // sklearn.metrics.f1_score([1, 1, 0, 0, 1], [1, 0, 1, 0, 1]) = 2/3.
        let pairs = [[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [1.0, 1.0]];
        assert!((measure(Aggregation::F1, &pairs).estimate(1).value - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(measure(Aggregation::Mean, &[[1.0, 0.0]]).estimate(1).stderr, None);
    }

    #[test]
    fn differences_are_of_the_same_items() {
        let hard: Vec<[f64; 2]> = (0..200).map(|at| [f64::from(u8::from(at % 2 == 0)), 0.0]).collect();
        let mut better = hard.clone();
        better[1] = [1.0, 0.0];
        let (ours, theirs) = (measure(Aggregation::Mean, &better), measure(Aggregation::Mean, &hard));
        let change = ours.change_from(&theirs, 5).unwrap();
        assert!((change.value - 0.005).abs() < 1e-12);
        // Items alone would give intervals of 7 points to each side.
        assert!(change.low >= 0.0 && change.high < 0.02, "{change:?}");
        assert_eq!(ours.change_from(&measure(Aggregation::Mean, &hard[1..]), 5), None);
    }
}
