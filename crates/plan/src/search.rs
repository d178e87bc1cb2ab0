//! Which of several ways to a smaller model is taken.

use serde::Serialize;

use crate::budget::{Budget, Costs, Limit, Miss, Quality};
use crate::recipe::Recipe;

/// Bytes that a limit of memory has to leave beside what is forecast: pages of programs come and go, and the same model takes up to
/// this much more in one run than in the next.
const SPARE_MEMORY: u64 = 1 << 20;

/// Where an expected loss comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// Nothing is changed.
    Unchanged,
    /// The sum of what each matrix alone would cost, measured once in a coarse format and scaled.
    Sensitivities,
    /// All matrices were rounded, and the predictions compared.
    RoundedTrial,
    /// All matrices were quantized as the recipe does it, on less text, and the predictions compared.
    Trial,
}

impl Basis {
    /// What people read.
    pub fn name(self) -> &'static str {
        match self {
            Basis::Unchanged => "unchanged",
            Basis::Sensitivities => "sensitivities",
            Basis::RoundedTrial => "trial, rounded",
            Basis::Trial => "trial",
        }
    }
}

/// What is expected of the quality, and why.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Expected {
    /// Mean KL to the original, in nats a token.
    pub kl: f64,
    /// The rest of the quality, where it was measured.
    pub quality: Option<Quality>,
    /// Where it comes from.
    pub basis: Basis,
}

impl Expected {
    /// Of what was made as the recipe does it, and measured.
    pub fn tried(quality: Quality) -> Expected {
        Expected { kl: quality.kl, quality: Some(quality), basis: Basis::Trial }
    }
}

/// A way to a smaller model.
#[derive(Debug, Clone, Serialize)]
pub struct Candidate {
    /// What people call it.
    pub name: String,
    /// How it is made.
    pub recipe: Recipe,
    /// Bits of all tensors for each weight.
    pub bits_per_weight: f64,
    /// What it is forecast to cost.
    pub costs: Costs,
    /// What is expected of its quality; none where nobody looked.
    pub expected: Option<Expected>,
    /// Limits that it is expected to miss.
    pub misses: Vec<Miss>,
    /// Whether no other is at least as good in everything and better in something.
    pub on_front: bool,
}

impl Candidate {
    /// Compares what is known with a budget.
    pub fn judge(&mut self, budget: &Budget) {
        let costs = Costs { memory: self.costs.memory + SPARE_MEMORY, ..self.costs };
        self.misses = budget.misses(&costs);
        if let Some(quality) = self.expected.and_then(|it| it.quality) {
            self.misses.extend(budget.misses_quality(&quality));
        }
    }

    /// Whether it is expected to meet the budget.
    pub fn fits(&self) -> bool {
        self.misses.is_empty()
    }

    /// Whether its loss was measured, or is none.
    pub fn was_tried(&self) -> bool {
        self.expected.is_some_and(|it| it.basis != Basis::Sensitivities)
    }

    /// What it is compared by: less is better in all.
    fn figures(&self) -> Option<[f64; 3]> {
        Some([self.costs.memory as f64, self.costs.per_token, self.expected?.kl])
    }
}

/// Brings the losses that were only reckoned to the scale of trials: sums of sensitivities rank candidates, but are off together,
/// since errors of matrices meet. `ratios` are losses in trials by what had been reckoned of the same candidates; their median
/// counts.
pub fn scale_reckoned<'c>(candidates: impl Iterator<Item = &'c mut Candidate>, ratios: &[f64]) {
    let mut ratios: Vec<f64> = ratios.iter().copied().filter(|it| it.is_finite() && *it > 0.0).collect();
    if ratios.is_empty() {
        return;
    }
    ratios.sort_by(f64::total_cmp);
    let ratio = ratios[ratios.len() / 2];
    for candidate in candidates {
        if let Some(expected) = candidate.expected.as_mut().filter(|it| it.basis == Basis::Sensitivities) {
            expected.kl *= ratio;
        }
    }
}

/// Marks the candidates that no other beats: memory, time a token and expected loss.
pub fn mark_front(candidates: &mut [Candidate]) {
    let figures: Vec<Option<[f64; 3]>> = candidates.iter().map(Candidate::figures).collect();
    for (index, candidate) in candidates.iter_mut().enumerate() {
        candidate.on_front = figures[index].is_some_and(|own| {
            !figures.iter().flatten().any(|other| {
                other.iter().zip(own).all(|(a, b)| *a <= b) && other.iter().zip(own).any(|(a, b)| *a < b)
            })
        });
    }
}

/// The place of the best candidate: of those that are expected to meet the budget the one with the least expected loss, and
/// of those as good as it the fastest. What was tried goes before what is only reckoned. None if none meets the budget.
pub fn choose(candidates: &[Candidate]) -> Option<usize> {
    let loss = |candidate: &Candidate| candidate.expected.map_or(f64::INFINITY, |it| it.kl);
    let tried = candidates.iter().any(|it| it.fits() && it.was_tried());
    let fitting = candidates.iter().enumerate().filter(|(_, it)| it.fits() && (it.was_tried() || !tried));
    let key =
        |candidate: &Candidate| (loss(candidate), candidate.costs.per_token, candidate.costs.memory as f64);
    let best = fitting.min_by(|(_, a), (_, b)| {
        let (a, b) = (key(a), key(b));
        a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.total_cmp(&b.2))
    });
    best.map(|(index, _)| index)
}

/// The place of the one that misses the budget by least: by its worst limit.
pub fn nearest(candidates: &[Candidate]) -> Option<usize> {
    let worst = |candidate: &Candidate| candidate.misses.iter().map(|it| it.times).fold(1.0, f64::max);
    let all = candidates.iter().enumerate();
    all.min_by(|(_, a), (_, b)| worst(a).total_cmp(&worst(b))).map(|(index, _)| index)
}

/// The place of the best candidate that misses nothing but quality: training may still bring that. None if there is no such.
pub fn trainable(candidates: &[Candidate]) -> Option<usize> {
    let loss = |candidate: &Candidate| candidate.expected.map_or(f64::INFINITY, |it| it.kl);
    let alone = |candidate: &Candidate| {
        !candidate.fits() && candidate.misses.iter().all(|it| it.limit == Limit::Quality)
    };
    let all = candidates.iter().enumerate().filter(|(_, it)| alone(it));
    all.min_by(|(_, a), (_, b)| loss(a).total_cmp(&loss(b))).map(|(index, _)| index)
}

/// Why a candidate was not taken, in a few words; `chosen` is the one that was.
pub fn reason(candidate: &Candidate, chosen: Option<&Candidate>, limit: impl Fn(&Miss) -> String) -> String {
    if !candidate.fits() {
        return candidate.misses.iter().map(limit).collect::<Vec<_>>().join(", ");
    }
    let Some(chosen) = chosen else { return String::new() };
    match (candidate.expected, chosen.expected) {
        (None, _) => "fits, was not tried".to_owned(),
        (Some(own), _) if own.basis == Basis::Sensitivities && chosen.was_tried() => {
            "fits, was not tried".to_owned()
        }
        (Some(own), Some(best)) if own.kl > best.kl && best.kl > 0.0 => {
            format!("fits, {:.1} times the loss", own.kl / best.kl)
        }
        (Some(own), Some(best)) if own.kl > best.kl => "fits, and loses more".to_owned(),
        _ => "fits, and is slower or larger".to_owned(),
    }
}

/// The name of a limit that is missed, with how far.
pub fn told(miss: &Miss) -> String {
    match miss.limit {
        Limit::Quality => "quality too low".to_owned(),
        limit => format!("{} {:.2}×", limit.name(), miss.times),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Floor;

    const MB: u64 = 1_000_000;

    fn candidate(name: &str, memory: u64, per_token: f64, kl: Option<f64>) -> Candidate {
        Candidate {
            name: name.to_owned(),
            recipe: Recipe::default(),
            bits_per_weight: 4.0,
            costs: Costs { memory, per_token, ..Costs::default() },
            expected: kl.map(|kl| Expected { kl, quality: None, basis: Basis::Trial }),
            misses: Vec::new(),
            on_front: false,
        }
    }

    #[test]
    fn what_was_only_reckoned_is_scaled_by_the_median_of_trials() {
        let reckoned = |kl: f64| Some(Expected { kl, quality: None, basis: Basis::Sensitivities });
        let mut all = [candidate("tried", 1, 1.0, Some(0.5)), candidate("reckoned", 1, 1.0, None)];
        all[1].expected = reckoned(0.1);
        scale_reckoned(all.iter_mut(), &[f64::NAN, 0.0]);
        assert_eq!(all[1].expected, reckoned(0.1), "nothing is known");
        scale_reckoned(all.iter_mut(), &[9.0, 2.0, 1.0, f64::INFINITY]);
        assert_eq!(all[1].expected, reckoned(0.2));
        assert_eq!(all[0].expected.map(|it| it.kl), Some(0.5));
    }

    #[test]
    fn the_best_that_fits_is_taken_and_the_front_is_what_nothing_beats() {
        let mut all = [
            candidate("original", 1000 * MB, 1.0, Some(0.0)),
            candidate("eight", 500 * MB, 0.5, Some(0.01)),
            candidate("bad eight", 500 * MB, 0.6, Some(0.02)),
            candidate("four", 250 * MB, 0.3, Some(0.1)),
            candidate("unknown", 100 * MB, 0.2, None),
        ];
        let budget = Budget { memory: Some(600 * MB), ..Budget::default() };
        all.iter_mut().for_each(|it| it.judge(&budget));
        mark_front(&mut all);
        assert_eq!(all.each_ref().map(|it| it.on_front), [true, true, false, true, false]);
        assert_eq!(choose(&all), Some(1));
        assert_eq!(reason(&all[0], Some(&all[1]), told), "memory 1.67×");
        assert_eq!(reason(&all[3], Some(&all[1]), told), "fits, 10.0 times the loss");
        let reckoned = Expected { kl: 1e-9, quality: None, basis: Basis::Sensitivities };
        let guess = Candidate { expected: Some(reckoned), ..candidate("guess", 300 * MB, 0.4, None) };
        let both = [all[1].clone(), guess];
        assert_eq!(choose(&both), Some(0), "measured before reckoned");
        assert_eq!(reason(&both[1], Some(&both[0]), told), "fits, was not tried");
        let none = Budget { memory: Some(10 * MB), ..Budget::default() };
        all.iter_mut().for_each(|it| it.judge(&none));
        assert_eq!(choose(&all), None);
        assert_eq!(nearest(&all), Some(4));
        assert_eq!(trainable(&all), None, "all are too large");
        let lossy = Budget { memory: Some(600 * MB), quality: Some(Floor::Kl(0.005)), ..Budget::default() };
        for candidate in &mut all {
            if let Some(expected) = &mut candidate.expected {
                expected.quality = Some(Quality { kl: expected.kl, ..Quality::ORIGINAL });
            }
            candidate.judge(&lossy);
        }
        assert_eq!(choose(&all[..4]), None);
        assert_eq!(trainable(&all[..4]), Some(1), "of those that are small enough the one that loses least");
    }
}
