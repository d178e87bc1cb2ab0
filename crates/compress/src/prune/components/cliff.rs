//! Where quality falls: bisection, intervals, and the best pair of sparsities.

use std::collections::HashMap;

use ounce_eval::bootstrap::{interval, resampled};

use super::criterion::{Criterion, masked};
use super::subject::Subject;
use crate::{Error, Result};

/// The highest sparsity that is tried.
pub const MOST: f64 = 0.95;

/// The largest sparsity within the loss of quality that is allowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cliff {
    /// The largest that was tried and kept to it.
    pub sparsity: f64,
    /// Where it lies in 95 of 100 resamplings of the items, interpolated.
    pub interval: [f64; 2],
}

/// Sparsities of components together.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// Of each component.
    pub sparsities: Vec<f64>,
    /// Of all weights of these components.
    pub total: f64,
    /// The share of quality that is lost, on the items that it was chosen by.
    pub lost: f64,
}

/// What was measured at a sparsity.
#[derive(Debug, Clone)]
struct Point {
    sparsity: f64,
    items: Vec<f64>,
}

/// A subject, and everything that was measured of it.
pub struct Bench<'s> {
    subject: &'s mut dyn Subject,
    whole: Vec<f64>,
    /// The loss of quality that is allowed, a share.
    allowed: f64,
    /// How close bisection comes.
    tolerance: f64,
    seed: u64,
    evaluations: usize,
}

impl std::fmt::Debug for Bench<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bench({} items, {} evaluations)", self.whole.len(), self.evaluations)
    }
}

impl<'s> Bench<'s> {
    /// Measures the subject as it is.
    ///
    /// # Errors
    /// If it can't be run, is worth nothing as it is, or numbers are out of their range.
    pub fn new(subject: &'s mut dyn Subject, allowed: f64, tolerance: f64, seed: u64) -> Result<Bench<'s>> {
        if !(allowed > 0.0 && allowed < 1.0 && tolerance > 0.0 && tolerance < 1.0) {
            return Err(Error::Option(format!(
                "the loss that is allowed and the tolerance should be above 0 and below 1, found {allowed} and {tolerance}"
            )));
        }
        let whole = subject.items(&HashMap::new())?;
        let bench = Bench { subject, whole, allowed, tolerance, seed, evaluations: 1 };
        match bench.quality(&bench.whole) {
            quality if quality > 0.0 && quality.is_finite() => Ok(bench),
            quality => Err(Error::Option(format!(
                "the quality of the whole model is {quality}, so there is nothing to lose; give items that it is good at"
            ))),
        }
    }

    /// Times that the subject was measured.
    pub fn evaluations(&self) -> usize {
        self.evaluations
    }

    /// The quality of the whole model.
    pub fn whole(&self) -> f64 {
        self.quality(&self.whole)
    }

    /// The loss of quality that is allowed.
    pub fn allowed(&self) -> f64 {
        self.allowed
    }

    /// The subject.
    pub fn subject(&self) -> &dyn Subject {
        self.subject
    }

    fn quality(&self, items: &[f64]) -> f64 {
        self.subject.quality(&mut items.iter().copied())
    }

    fn lost_by(&self, items: &[f64], order: Option<&[usize]>) -> f64 {
        let [pruned, whole] = [items, &self.whole].map(|items| match order {
            None => self.quality(items),
            Some(order) => self.subject.quality(&mut order.iter().map(|&at| items[at])),
        });
        let lost = 1.0 - pruned / whole.max(f64::MIN_POSITIVE);
        if lost.is_finite() { lost } else { 1.0 }
    }

    fn measured(&mut self, criterion: &dyn Criterion, plan: &[(usize, f64)]) -> Result<Vec<f64>> {
        let mut pruned = HashMap::new();
        for &(component, sparsity) in plan {
            let places = self.subject.components()[component].matrices.clone();
            let matrices: Vec<_> = places.iter().map(|&at| &self.subject.matrices()[at]).collect();
            let values = masked(criterion, &matrices, sparsity)?;
            pruned.extend(places.into_iter().zip(values));
        }
        self.evaluations += 1;
        let items = self.subject.items(&pruned)?;
        match items.len() == self.whole.len() {
            true => Ok(items),
            false => Err(Error::Option("a subject should be judged by the same items each time".into())),
        }
    }

    /// The share of quality that is lost with these sparsities of components.
    ///
    /// # Errors
    /// If the subject can't be run.
    pub fn lost(&mut self, criterion: &dyn Criterion, plan: &[(usize, f64)]) -> Result<f64> {
        let items = self.measured(criterion, plan)?;
        Ok(self.lost_by(&items, None))
    }

    /// The share that is lost at each of some sparsities of components that are all the same.
    ///
    /// # Errors
    /// As [`Bench::lost`].
    pub fn curve(&mut self, criterion: &dyn Criterion, components: &[usize], at: &[f64]) -> Result<Vec<f64>> {
        let plan = |sparsity: f64| components.iter().map(|&it| (it, sparsity)).collect::<Vec<_>>();
        at.iter().map(|&sparsity| self.lost(criterion, &plan(sparsity))).collect()
    }

    /// The cliff of some components that are pruned at one rate, by bisection.
    ///
    /// # Errors
    /// As [`Bench::lost`].
    pub fn cliff(&mut self, criterion: &dyn Criterion, components: &[usize]) -> Result<Cliff> {
        let mut points = vec![Point { sparsity: 0.0, items: self.whole.clone() }];
        let (mut within, mut beyond) = (0.0, MOST);
        let mut sparsity = MOST;
        loop {
            let plan: Vec<(usize, f64)> = components.iter().map(|&it| (it, sparsity)).collect();
            let items = self.measured(criterion, &plan)?;
            let keeps = self.lost_by(&items, None) <= self.allowed;
            points.push(Point { sparsity, items });
            if keeps {
                within = sparsity
            } else {
                beyond = sparsity
            }
            if beyond - within <= self.tolerance {
                break;
            }
            sparsity = (within + beyond) / 2.0;
        }
        points.sort_by(|a, b| a.sparsity.total_cmp(&b.sparsity));
        let crossings = resampled(self.whole.len(), self.seed, |order| self.crossing(&points, order));
        let interval = interval(within, &crossings);
        Ok(Cliff { sparsity: within, interval: [interval.low, interval.high] })
    }

    /// Where the lost share passes what is allowed, between measured points, with the items in some order.
    fn crossing(&self, points: &[Point], order: &[usize]) -> f64 {
        let mut before = (0.0, 0.0);
        for point in points {
            let lost = self.lost_by(&point.items, Some(order));
            if lost > self.allowed {
                let part = (self.allowed - before.1) / (lost - before.1).max(1e-12);
                return before.0 + (point.sparsity - before.0) * part.clamp(0.0, 1.0);
            }
            before = (point.sparsity, lost);
        }
        before.0
    }

    /// Near the cliffs of components the sparsities that zero most weights together within what is allowed: combinations of `steps` around each,
    /// the highest total first, until one keeps to it. None if no combination does.
    ///
    /// # Errors
    /// As [`Bench::lost`].
    pub fn best_split(
        &mut self,
        criterion: &dyn Criterion,
        cliffs: &[(usize, f64)],
        steps: &[f64],
    ) -> Result<Option<Pair>> {
        let weights: Vec<f64> =
            cliffs.iter().map(|(component, _)| self.subject.weights(*component) as f64).collect();
        let all: f64 = weights.iter().sum();
        let mut combinations: Vec<Vec<f64>> = vec![Vec::new()];
        for (_, cliff) in cliffs {
            let around: Vec<f64> = steps.iter().map(|step| (cliff + step).clamp(0.0, MOST)).collect();
            combinations = (combinations.iter())
                .flat_map(|chosen| around.iter().map(move |&it| [chosen.as_slice(), &[it]].concat()))
                .collect();
        }
        let total =
            |chosen: &[f64]| chosen.iter().zip(&weights).map(|(s, w)| s * w).sum::<f64>() / all.max(1.0);
        combinations.sort_by(|a, b| total(b).total_cmp(&total(a)));
        combinations.dedup();
        for sparsities in combinations {
            let plan: Vec<(usize, f64)> = cliffs
                .iter()
                .zip(&sparsities)
                .map(|((component, _), sparsity)| (*component, *sparsity))
                .collect();
            let lost = self.lost(criterion, &plan)?;
            if lost <= self.allowed {
                return Ok(Some(Pair { total: total(&sparsities), sparsities, lost }));
            }
        }
        Ok(None)
    }
}
