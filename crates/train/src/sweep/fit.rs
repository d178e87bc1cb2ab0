//! From a sweep's outcomes to each size's best settings, and from these to laws.
//!
//! For each model size and number of tokens the losses near the least are fitted by a quadratic in the logarithms of
//! learning rate and batch. Where it is convex, and its minimum inside of the grid, that minimum counts, elsewhere the
//! grid's best run; a best run on the grid's edge says only that the sweep should be extended, and no law uses it. Then
//! `η = c N^α D^β` and `B = d D^γ` by least squares of logarithms (Step Law, arXiv 2503.04715), and
//! `L(N, D) = E + A / N^α + B / D^β` of the least losses.

use serde::Serialize;

use super::Outcome;
use crate::laws::bootstrap::{Interval, intervals};
use crate::laws::parabola::Parabola;
use crate::laws::power::PowerLaw;
use crate::laws::scaling::{Run, ScalingLaw, Split};
use crate::laws::surface::{Surface, Trial};

/// How outcomes are fitted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// A run is near the least loss if its own is at most this part of it above.
    pub near: f64,
    /// The part of the least loss that settings on the plateau may cost.
    pub tolerance: f64,
    /// Samples drawn for intervals.
    pub samples: usize,
    /// The part of them that lies in an interval.
    pub confidence: f64,
    /// Decides the samples.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { near: 0.05, tolerance: 0.005, samples: 1000, confidence: 0.95, seed: 1 }
    }
}

/// Where the grid's best run lies on its edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Edge {
    /// Smaller learning rates may be better.
    LowestRate,
    /// Larger ones may be.
    HighestRate,
    /// Smaller batches may be better.
    SmallestBatch,
    /// Larger ones may be.
    LargestBatch,
}

impl Edge {
    /// Whether it is the learning rate's.
    pub fn is_rate(self) -> bool {
        matches!(self, Edge::LowestRate | Edge::HighestRate)
    }
}

/// The best settings of one model size and number of tokens.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Size {
    /// Width of the model.
    pub hidden: usize,
    /// Parameters without embeddings and head.
    pub params: f64,
    /// Tokens.
    pub tokens: f64,
    /// Runs that ended with a loss.
    pub runs: Vec<Trial>,
    /// Runs that diverged.
    pub diverged: usize,
    /// The best run.
    pub best: Trial,
    /// Where it lies on the grid's edge.
    pub edges: Vec<Edge>,
    /// Whether the quadratic has a minimum; none if there are too few runs to tell.
    pub convex: Option<bool>,
    /// The quadratic's minimum if it has one inside of the grid.
    pub minimum: Option<Trial>,
    /// Learning rates and batches that cost at most the tolerance, each with the other chosen well.
    pub plateau: Option<[(f64, f64); 2]>,
}

impl Size {
    /// What laws are fitted to.
    pub fn optimum(&self) -> Trial {
        self.minimum.unwrap_or(self.best)
    }

    /// Whether the best learning rate is known.
    pub fn knows_rate(&self) -> bool {
        let fitted = self.minimum.is_some() && values(&self.runs, |it| it.rate).len() >= 3;
        fitted || !self.edges.iter().any(|edge| edge.is_rate())
    }

    /// Whether the best batch is known.
    pub fn knows_batch(&self) -> bool {
        let fitted = self.minimum.is_some() && values(&self.runs, |it| it.batch).len() >= 3;
        fitted || self.edges.iter().all(|edge| edge.is_rate())
    }
}

/// What a law depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variable {
    /// Parameters without embeddings and head.
    Params,
    /// Tokens.
    Tokens,
}

/// A power law.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Law {
    /// What it depends on.
    pub variables: Vec<Variable>,
    /// Its numbers.
    pub law: PowerLaw,
    /// Of the factor, then of each exponent.
    pub intervals: Option<Vec<Interval>>,
}

impl Law {
    /// Its value.
    pub fn at(&self, params: f64, tokens: f64) -> f64 {
        let value = |variable: &Variable| match variable {
            Variable::Params => params,
            Variable::Tokens => tokens,
        };
        self.law.at(&self.variables.iter().map(value).collect::<Vec<f64>>())
    }

    /// The exponent of a variable.
    pub fn exponent(&self, of: Variable) -> Option<f64> {
        self.variables.iter().position(|&variable| variable == of).map(|at| self.law.exponents[at])
    }

    /// The interval of a variable's exponent.
    pub fn interval(&self, of: Variable) -> Option<Interval> {
        let at = self.variables.iter().position(|&variable| variable == of)?;
        Some(self.intervals.as_ref()?[at + 1])
    }
}

/// The law of the least losses.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LossLaw {
    /// Its numbers.
    pub law: ScalingLaw,
    /// Of `E`, `A`, `α`, `B` and `β`.
    pub intervals: Option<Vec<Interval>>,
    /// The best use of the largest run's compute.
    pub split: Option<Split>,
}

/// All that a sweep tells. A law is missing where too few sizes are known.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Laws {
    /// By width, then tokens.
    pub sizes: Vec<Size>,
    /// The best learning rate.
    pub rate: Option<Law>,
    /// The best batch, in tokens, by tokens alone.
    pub batch: Option<Law>,
    /// The same with parameters, whose exponent should not differ from 0.
    pub batch_and_params: Option<Law>,
    /// The least loss.
    pub loss: Option<LossLaw>,
}

/// Fits everything that the outcomes allow.
pub fn fit(outcomes: &[Outcome], settings: &Settings) -> Laws {
    let sizes = sizes(outcomes, settings);
    use Variable::{Params, Tokens};
    let rate = law(&sizes, settings, &[Params, Tokens], Size::knows_rate, |it| it.rate);
    let batch = law(&sizes, settings, &[Tokens], Size::knows_batch, |it| it.batch);
    let batch_and_params = law(&sizes, settings, &[Params, Tokens], Size::knows_batch, |it| it.batch)
        .filter(|law| law.variables.len() == 2);
    let loss = loss_law(&sizes, settings);
    Laws { sizes, rate, batch, batch_and_params, loss }
}

/// The outcomes by size.
fn sizes(outcomes: &[Outcome], settings: &Settings) -> Vec<Size> {
    let mut keys: Vec<(usize, u64)> = outcomes.iter().map(|it| (it.cell.hidden, it.cell.tokens)).collect();
    keys.sort_unstable();
    keys.dedup();
    let size = |(hidden, tokens): (usize, u64)| {
        let own = || outcomes.iter().filter(move |it| (it.cell.hidden, it.cell.tokens) == (hidden, tokens));
        let trial = |it: &Outcome| {
            let loss = it.loss.filter(|loss| loss.is_finite())?;
            Some(Trial { rate: it.cell.lr, batch: it.cell.batch_tokens as f64, loss })
        };
        let mut runs: Vec<Trial> = own().filter_map(trial).collect();
        // Workers end in any order, and a bootstrap draws by place.
        runs.sort_by(|a, b| a.rate.total_cmp(&b.rate).then(a.batch.total_cmp(&b.batch)));
        let params = own().next()?.params as f64;
        let diverged = own().count() - runs.len();
        size_of(hidden, params, tokens as f64, runs, diverged, settings)
    };
    keys.into_iter().filter_map(size).collect()
}

fn size_of(
    hidden: usize,
    params: f64,
    tokens: f64,
    runs: Vec<Trial>,
    diverged: usize,
    settings: &Settings,
) -> Option<Size> {
    let best = runs.iter().copied().min_by(|a, b| a.loss.total_cmp(&b.loss))?;
    let (rates, batches) = (values(&runs, |it| it.rate), values(&runs, |it| it.batch));
    let mut edges = Vec::new();
    let ends = [
        (&rates, best.rate, Edge::LowestRate, Edge::HighestRate),
        (&batches, best.batch, Edge::SmallestBatch, Edge::LargestBatch),
    ];
    for (values, best, low, high) in ends {
        if values.len() > 1 {
            edges.extend((values.first() == Some(&best)).then_some(low));
            edges.extend((values.last() == Some(&best)).then_some(high));
        }
    }
    // Too large a rate may be missing because it diverged; then the best is no edge.
    if diverged > 0 {
        edges.retain(|&edge| edge != Edge::HighestRate);
    }
    let within = settings.near * best.loss;
    let mut size = Size {
        hidden,
        params,
        tokens,
        diverged,
        best,
        edges,
        convex: None,
        minimum: None,
        plateau: None,
        runs: Vec::new(),
    };
    if rates.len() >= 3 && batches.len() >= 3 {
        if let Ok(surface) = Surface::fit(&runs, within) {
            size.convex = Some(surface.convex);
            if surface.convex && !surface.outside {
                let Surface { rate, batch, loss, .. } = surface;
                size.minimum = Some(Trial { rate, batch, loss });
                size.plateau = Some(surface.plateau(settings.tolerance));
            }
        }
    } else if rates.len() >= 3 || batches.len() >= 3 {
        let by_rate = rates.len() >= 3;
        let same = |it: &&Trial| if by_rate { it.batch == best.batch } else { it.rate == best.rate };
        let point = |it: &Trial| (if by_rate { it.rate } else { it.batch }, it.loss);
        let points: Vec<(f64, f64)> = runs.iter().filter(same).map(point).collect();
        if let Ok(found) = Parabola::fit(&points, within) {
            size.convex = Some(found.convex);
            if found.convex && !found.outside {
                let (own, loss) = (found.plateau(settings.tolerance), found.loss);
                let Trial { rate, batch, .. } = best;
                (size.minimum, size.plateau) = if by_rate {
                    (Some(Trial { rate: found.best, batch, loss }), Some([own, (batch, batch)]))
                } else {
                    (Some(Trial { rate, batch: found.best, loss }), Some([(rate, rate), own]))
                };
            }
        }
    }
    size.runs = runs;
    Some(size)
}

/// The different values of a setting, smallest first.
fn values(runs: &[Trial], of: impl Fn(&Trial) -> f64) -> Vec<f64> {
    let mut values: Vec<f64> = runs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.dedup();
    values
}

/// The law of one of the best settings, over those variables that vary.
fn law(
    sizes: &[Size],
    settings: &Settings,
    wanted: &[Variable],
    knows: fn(&Size) -> bool,
    of: fn(&Trial) -> f64,
) -> Option<Law> {
    let known: Vec<&Size> = sizes.iter().filter(|size| knows(size)).collect();
    let value = |size: &Size, variable: Variable| match variable {
        Variable::Params => size.params,
        Variable::Tokens => size.tokens,
    };
    let varies =
        |&variable: &Variable| known.iter().any(|it| value(it, variable) != value(known[0], variable));
    let variables: Vec<Variable> = wanted.iter().copied().filter(varies).collect();
    // A setting that was not swept follows no law.
    let swept = known.iter().any(|size| values(&size.runs, of).len() > 1);
    if variables.is_empty() || !swept {
        return None;
    }
    let point = |size: &Size| {
        let at: Vec<f64> = variables.iter().map(|&variable| value(size, variable)).collect();
        (at, of(&size.optimum()))
    };
    let found = PowerLaw::fit(&known.iter().map(|size| point(size)).collect::<Vec<_>>()).ok()?;
    let near = |size: &Size, it: &Trial| it.loss <= size.best.loss * (1.0 + settings.near);
    let trials: Vec<(usize, Trial)> = known
        .iter()
        .enumerate()
        .flat_map(|(at, size)| size.runs.iter().filter(move |it| near(size, it)).map(move |it| (at, *it)))
        .collect();
    let again = |sample: &[(usize, Trial)]| {
        let of_size = |(at, size): (usize, &&Size)| {
            let runs: Vec<Trial> = sample.iter().filter(|it| it.0 == at).map(|it| it.1).collect();
            size_of(size.hidden, size.params, size.tokens, runs, 0, settings)
        };
        let sizes: Vec<Size> = known.iter().enumerate().filter_map(of_size).collect();
        let fit = PowerLaw::fit(&sizes.iter().map(point).collect::<Vec<_>>()).ok()?;
        Some([fit.scale].into_iter().chain(fit.exponents).collect())
    };
    let intervals = intervals(&trials, settings.samples, settings.confidence, settings.seed, again);
    Some(Law { variables, law: found, intervals })
}

fn loss_law(sizes: &[Size], settings: &Settings) -> Option<LossLaw> {
    let run = |it: &Size| Run { params: it.params, tokens: it.tokens, loss: it.optimum().loss };
    let runs: Vec<Run> = sizes.iter().map(run).collect();
    let law = ScalingLaw::fit(&runs).ok()?;
    let numbers = |law: ScalingLaw| {
        vec![law.irreducible, law.params_scale, law.params_exponent, law.tokens_scale, law.tokens_exponent]
    };
    // Each sample is a search of its own.
    let samples = settings.samples.min(200);
    let again = |sample: &[Run]| law.refit(sample).ok().map(numbers);
    let intervals = intervals(&runs, samples, settings.confidence, settings.seed, again);
    let compute = runs.iter().map(|run| 6.0 * run.params * run.tokens).fold(0.0, f64::max);
    Some(LossLaw { intervals, split: law.best_split(compute), law })
}

#[cfg(test)]
mod tests {
    use super::super::Cell;
    use super::*;

    const RATE: [f64; 3] = [0.8, -0.5, 0.2];
    const BATCH: [f64; 2] = [0.6, 0.6];

    /// What a sweep would give if the laws held exactly.
    fn outcomes(rates: i32, noise: f64) -> Vec<Outcome> {
        let mut all = Vec::new();
        for (hidden, params) in [(32usize, 2e4), (64, 1e5), (128, 4e5)] {
            for tokens in [1e5, 4e5, 1.6e6] {
                let rate = RATE[0] * f64::powf(params, RATE[1]) * f64::powf(tokens, RATE[2]);
                let batch = BATCH[0] * f64::powf(tokens, BATCH[1]);
                let least = 1.0 + 20.0 * f64::powf(params, -0.4) + 60.0 * f64::powf(tokens, -0.35);
                for i in 0..rates {
                    for j in 0..4 {
                        let lr = 0.01 * 2f64.powi(i);
                        let batch_tokens = 512 << j;
                        let (x, y) = ((lr / rate).ln(), (f64::from(batch_tokens) / batch).ln());
                        let wave = noise * ((all.len() * 7 % 11) as f64 - 5.0);
                        let loss = least * (1.0 + 0.01 * x * x + 0.006 * y * y - 0.004 * x * y + wave);
                        let cell =
                            Cell { lr, batch_tokens: batch_tokens as u64, hidden, tokens: tokens as u64 };
                        let (params, steps, targets) = (params as u64, 10, cell.tokens);
                        let loss = Some(loss);
                        all.push(Outcome {
                            cell,
                            params,
                            steps,
                            targets,
                            loss,
                            validation: None,
                            seconds: 0.0,
                        });
                    }
                }
            }
        }
        all
    }

    #[test]
    fn the_order_of_the_outcomes_changes_nothing() {
        let settings = Settings { near: 0.2, samples: 50, ..Settings::default() };
        let mut outcomes = outcomes(5, 0.001);
        let laws = fit(&outcomes, &settings);
        assert!(laws.rate.as_ref().is_some_and(|law| law.interval(Variable::Params).is_some()), "{laws:?}");
        outcomes.reverse();
        assert_eq!(fit(&outcomes, &settings), laws);
    }

    #[test]
    fn the_laws_that_made_a_sweep_are_found() {
        let laws = fit(&outcomes(5, 0.0), &Settings { near: 0.2, samples: 50, ..Settings::default() });
        assert_eq!(laws.sizes.len(), 9);
        let known = laws.sizes.iter().filter(|size| size.knows_rate()).count();
        assert!(known >= 7, "{known} of 9 minima are inside");
        let rate = laws.rate.as_ref().expect("a law");
        assert!((rate.exponent(Variable::Params).expect("N") - RATE[1]).abs() < 0.02, "{rate:?}");
        assert!((rate.exponent(Variable::Tokens).expect("D") - RATE[2]).abs() < 0.02, "{rate:?}");
        let batch = laws.batch.as_ref().expect("a law");
        assert!((batch.exponent(Variable::Tokens).expect("D") - BATCH[1]).abs() < 0.02, "{batch:?}");
        let with = laws.batch_and_params.as_ref().expect("a law");
        assert!(with.exponent(Variable::Params).expect("N").abs() < 0.02, "{with:?}");
        let loss = laws.loss.as_ref().expect("a law");
        assert!((loss.law.params_exponent - 0.4).abs() < 0.02, "{loss:?}");
        assert!(loss.split.is_some());
        let middle = &laws.sizes[4];
        let [(low, high), _] = middle.plateau.expect("a plateau");
        assert!(middle.convex == Some(true) && low < middle.optimum().rate && middle.optimum().rate < high);
    }

    #[test]
    fn intervals_hold_the_truth_of_a_noisy_sweep_and_are_no_points() {
        let laws = fit(&outcomes(5, 2e-4), &Settings { near: 0.2, samples: 200, ..Settings::default() });
        let rate = laws.rate.expect("a law");
        for (variable, truth) in [(Variable::Params, RATE[1]), (Variable::Tokens, RATE[2])] {
            let Interval { low, high, .. } = rate.interval(variable).expect("an interval");
            assert!(low - 0.02 < truth && truth < high + 0.02 && high > low, "{variable:?}: {low} to {high}");
        }
    }

    #[test]
    fn minima_on_the_edge_are_told_and_left_out() {
        let few: Vec<Outcome> = outcomes(5, 0.0).into_iter().filter(|it| it.cell.lr < 0.015).collect();
        let laws = fit(&few, &Settings::default());
        assert!(laws.rate.is_none(), "one learning rate is no sweep: {:?}", laws.rate);
        let two: Vec<Outcome> = outcomes(5, 0.0).into_iter().filter(|it| it.cell.lr < 0.025).collect();
        let laws = fit(&two, &Settings { samples: 10, ..Settings::default() });
        let small = laws.sizes.iter().find(|it| it.hidden == 32 && it.tokens > 1e6).expect("a size");
        assert!(small.edges.contains(&Edge::HighestRate) && !small.knows_rate(), "{small:?}");
        // Where all larger ones diverged, the largest that did not is no edge.
        let mut diverged = two.clone();
        let more = two.iter().filter(|it| it.cell.lr > 0.015).map(|it| Outcome {
            cell: Cell { lr: 0.04, ..it.cell },
            loss: None,
            ..*it
        });
        diverged.extend(more.collect::<Vec<_>>());
        let laws = fit(&diverged, &Settings { samples: 10, ..Settings::default() });
        assert!(laws.sizes.iter().all(|it| !it.edges.contains(&Edge::HighestRate) && it.diverged == 4));
    }

    #[test]
    fn a_sweep_of_rates_alone_gives_their_best() {
        let one: Vec<Outcome> =
            outcomes(5, 0.0).into_iter().filter(|it| it.cell.batch_tokens == 1024).collect();
        let laws = fit(&one, &Settings { near: 1.0, samples: 10, ..Settings::default() });
        assert!(laws.sizes.iter().all(|size| size.convex == Some(true)));
        assert!(laws.rate.is_some() && laws.batch.is_none());
        assert!(fit(&[], &Settings::default()).sizes.is_empty());
    }
}
