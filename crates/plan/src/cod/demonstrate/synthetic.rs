//! A benchmark drawn from the law, of items of four kinds: the truth is known.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::scores::{ModelScores, Scores};

/// Answers sampled for each item.
const ANSWERS: usize = 100;
/// What guessing scores.
const CHANCE: f64 = 0.0;
/// Small models; each takes twice as much compute as the one before.
const MODELS: i32 = 8;
/// How much more compute than the largest of them the target takes.
pub(in super::super) const RATIO: f64 = 16.0;
/// The least compute of a model.
const UNIT: f64 = 1e15;

/// Kinds of items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Kind {
    /// Half solved by the smallest model.
    Easy,
    /// Solved by few small models.
    Medium,
    /// No small model is better than guessing; the target solves more than half of them.
    Late,
    /// Falls with compute, or goes up and down.
    Odd,
}

/// A made benchmark.
pub(in super::super) struct Benchmark {
    pub scores: Scores,
    pub kinds: Vec<Kind>,
    pub target: f64,
    /// The expected score of a model of the target's compute.
    pub truth: f64,
}

/// An item's own curve.
struct Item {
    kind: Kind,
    a: f64,
    b: f64,
    c: f64,
}

impl Item {
    fn new(kind: Kind, rng: &mut ChaCha8Rng) -> Item {
        let mut near = |value: f64, spread: f64| value * (spread * normal(rng)).exp();
        let (a, b, c) = match kind {
            Kind::Easy => (near(0.9, 0.1), near(0.35, 0.05), near(0.02, 0.3)),
            Kind::Medium => (near(3.2, 0.08), near(0.3, 0.05), near(0.05, 0.3)),
            Kind::Late => (near(223.0, 0.05), near(0.8, 0.01), near(0.05, 0.3)),
            // A level, and how far one model is from the next.
            Kind::Odd => (near(0.35, 0.2), near(0.05, 0.4), near(0.1, 0.3)),
        };
        Item { kind, a, b, c }
    }

    /// The chance that it is solved with so many units of compute.
    fn rate(&self, units: f64, rng: &mut ChaCha8Rng) -> f64 {
        let rate = match self.kind {
            Kind::Odd => self.a - self.b * (units.ln() / 8.0) + self.c * normal(rng),
            _ => (-self.a * units.powf(-self.b) - self.c).exp(),
        };
        CHANCE + (1.0 - CHANCE) * rate.clamp(0.0, 1.0)
    }
}

/// A benchmark of so many items, small models, and five models of another family, two of them stronger than the target.
pub(in super::super) fn benchmark(seed: u64, items: usize) -> Benchmark {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let kind = |at: usize| match at * 20 / items {
        0..6 => Kind::Easy,
        6..13 => Kind::Medium,
        13..17 => Kind::Late,
        _ => Kind::Odd,
    };
    let all: Vec<Item> = (0..items).map(|at| Item::new(kind(at), &mut rng)).collect();
    let kinds = all.iter().map(|item| item.kind).collect();
    let answered = |model: String, compute: Option<f64>, units: f64, rng: &mut ChaCha8Rng| {
        // What no two trainings have in common: a model is as good as one of somewhat more or less compute.
        let units = units * (0.06 * normal(rng)).exp();
        let scores = all.iter().map(|item| {
            let rate = item.rate(units, rng);
            (0..ANSWERS).filter(|_| rng.random::<f64>() < rate).count() as f64 / ANSWERS as f64
        });
        ModelScores { model, compute, loss: None, scores: scores.collect() }
    };
    let mut models: Vec<ModelScores> = (0..MODELS)
        .map(|step| 2f64.powi(step))
        .map(|units| answered(format!("small {units}"), Some(UNIT * units), units, &mut rng))
        .collect();
    for units in [16.0, 100.0, 700.0, 4000.0, 20_000.0] {
        models.push(answered(format!("other {units}"), None, units, &mut rng));
    }
    let target = 2f64.powi(MODELS - 1) * RATIO;
    let truth = all.iter().map(|item| item.rate(target, &mut rng)).sum::<f64>() / items as f64;
    let scores = Scores { models, chance: vec![CHANCE; items] };
    Benchmark { scores, kinds, target: target * UNIT, truth }
}

/// A draw of the standard normal distribution (Box–Muller).
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
}
