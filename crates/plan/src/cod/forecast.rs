//! The forecast: cluster, fit, classify, sum up, map, and ask how sure that is.

use ounce_eval::stats::quantile;
use ounce_train::{Error, Result};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::cluster::{self, cluster};
use super::curve::Curve;
use super::mapping::Mapping;
use super::scores::{ModelScores, Scores, mean};

/// A rise of the pass rate that is one.
const RISE: f64 = 0.05;
/// A pass rate above which there is little left to rise.
const SOLVED: f64 = 0.9;
/// The most that a curve may miss its points by, root mean square.
const RESIDUAL: f64 = 0.06;
/// The least exponent of a rising curve.
const FLOOR: f64 = 0.02;
/// The most by which the curve of the smaller models may miss the largest one.
const HINDSIGHT: f64 = 0.1;

/// How a forecast is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// The largest distance of an item from its cluster's mean.
    pub radius: f64,
    /// Items of a cluster at least; none for 2 % of all, and 5 at least.
    pub least: Option<usize>,
    /// Bootstrap samples.
    pub samples: usize,
    /// The share of samples that the interval holds.
    pub confidence: f64,
    /// Random numbers are drawn from it.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { radius: 0.12, least: None, samples: 200, confidence: 0.95, seed: 0 }
    }
}

/// What can be said of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// It rises as the curve says, or is solved.
    Extrapolatable,
    /// It does something else.
    NotExtrapolatable,
    /// No model is better than guessing yet.
    NonEmergent,
}

/// A cluster and its curve.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cluster {
    /// Its items' places in the scores.
    pub items: Vec<usize>,
    /// What can be said of it.
    pub class: Class,
    /// Mean pass rates, in the order of compute.
    pub rates: Vec<f64>,
    /// The curve through them.
    pub curve: Curve,
    /// What the curve says for the target.
    pub predicted: f64,
}

/// Which models tied the subset to the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MappedBy {
    /// Only those whose compute is known: beyond the best of them the mapping is a guess between its anchors.
    SameFamily,
    /// Models of other families too.
    OtherFamilies,
}

/// What others would forecast.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Baselines {
    /// One curve through the total scores.
    pub end_to_end: Option<f64>,
    /// A power law of the loss, and a line from its logit to the score's; needs losses.
    pub by_loss: Option<f64>,
    /// The subset's forecast taken for the whole.
    pub without_mapping: f64,
    /// All clusters' curves, of whatever class, without a mapping.
    pub without_classes: f64,
}

/// The forecast of a score.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Forecast {
    /// Operations of training it is for.
    pub target: f64,
    /// The score.
    pub score: f64,
    /// Ends of the bootstrap interval; none if most samples could not be fitted.
    pub interval: Option<(f64, f64)>,
    /// The forecast of the part that can be forecast.
    pub subset: f64,
    /// Its share of the items.
    pub share: f64,
    /// All clusters, the largest first.
    pub clusters: Vec<Cluster>,
    /// Items of no cluster.
    pub outliers: Vec<usize>,
    /// Which models the mapping is from.
    pub mapped_by: MappedBy,
    /// Whether the subset's forecast is higher than what any model of the mapping has.
    pub beyond_mapping: bool,
    /// Other ways to a forecast.
    pub baselines: Baselines,
    /// How far the target is from the largest model: the ratio of compute.
    pub ratio: f64,
    /// The mapping that was used.
    pub mapping: Mapping,
    /// The models whose items were clustered, by compute.
    pub models: Vec<String>,
}

/// Forecasts the score at a target of compute from models with less.
///
/// Models of as much compute or more take no part, neither in clusters nor in curves nor in the mapping.
///
/// # Errors
/// If there are fewer than four smaller models, or no part of the benchmark can be forecast.
pub fn forecast(scores: &Scores, target: f64, options: &Options) -> Result<Forecast> {
    let problem = Problem::new(scores, target, options)?;
    let clusters = problem.clusters()?;
    let subset: Vec<usize> = chosen(&clusters, |it| it.class == Class::Extrapolatable);
    if subset.is_empty() {
        return Err(Error::Fit(
            "no part of the benchmark can be forecast: no cluster of items rises in a way that a curve follows; \
             evaluate more models, or larger ones"
                .to_string(),
        ));
    }
    let weights = vec![1.0; scores.chance.len()];
    let whole = Fit::new(&problem, &clusters, &weights, None)?;
    let mut intervals = problem.bootstrap(&clusters, &whole);
    intervals.sort_by(f64::total_cmp);
    let tail = (1.0 - options.confidence) / 2.0;
    let enough = !intervals.is_empty() && intervals.len() * 2 >= options.samples;
    let interval = enough.then(|| (quantile(&intervals, tail), quantile(&intervals, 1.0 - tail)));
    let all = |it: &Cluster| it.items.len() as f64;
    let count: f64 = clusters.iter().map(all).sum();
    let baselines = Baselines {
        end_to_end: problem.end_to_end(),
        by_loss: problem.by_loss(),
        without_mapping: whole.subset,
        without_classes: clusters.iter().map(|it| all(it) * it.predicted).sum::<f64>() / count,
    };
    let others = problem.others.is_empty();
    let largest = problem.own.last().and_then(|model| model.compute).unwrap_or(target);
    let clustered: Vec<bool> = inside(&clusters, scores.chance.len());
    Ok(Forecast {
        target,
        score: whole.score,
        interval,
        subset: whole.subset,
        share: subset.len() as f64 / scores.chance.len() as f64,
        outliers: (0..clustered.len()).filter(|&at| !clustered[at]).collect(),
        mapped_by: if others { MappedBy::SameFamily } else { MappedBy::OtherFamilies },
        beyond_mapping: whole.subset > whole.mapping.highest,
        baselines,
        ratio: target / largest,
        mapping: whole.mapping,
        models: problem.own.iter().map(|model| model.model.clone()).collect(),
        clusters,
    })
}

/// Places of the items of some clusters.
fn chosen(clusters: &[Cluster], which: impl Fn(&Cluster) -> bool) -> Vec<usize> {
    clusters.iter().filter(|it| which(it)).flat_map(|it| it.items.iter().copied()).collect()
}

fn inside(clusters: &[Cluster], items: usize) -> Vec<bool> {
    let mut found = vec![false; items];
    clusters.iter().flat_map(|it| &it.items).for_each(|&at| found[at] = true);
    found
}

/// Models on either side.
struct Problem<'s> {
    scores: &'s Scores,
    target: f64,
    options: &'s Options,
    /// Smaller ones, by compute.
    own: Vec<&'s ModelScores>,
    /// Of other families.
    others: Vec<&'s ModelScores>,
}

impl<'s> Problem<'s> {
    fn new(scores: &'s Scores, target: f64, options: &'s Options) -> Result<Problem<'s>> {
        if !(target > 0.0 && target.is_finite()) {
            return Err(Error::Fit(format!(
                "the target should be a number of operations above 0, found {target}"
            )));
        }
        if !(options.radius > 0.0 && options.radius < 1.0) {
            return Err(Error::Fit(format!(
                "the radius should be between 0 and 1, found {}",
                options.radius
            )));
        }
        let mut own: Vec<&ModelScores> =
            scores.models.iter().filter(|model| model.compute.is_some_and(|it| it < target)).collect();
        own.sort_by(|a, b| a.compute.unwrap_or(0.0).total_cmp(&b.compute.unwrap_or(0.0)));
        if own.len() < 4 {
            return Err(Error::Fit(format!(
                "a forecast for {target:e} operations needs four models at least with fewer, found {}",
                own.len()
            )));
        }
        let others = scores.models.iter().filter(|model| model.compute.is_none()).collect();
        Ok(Problem { scores, target, options, own, others })
    }

    fn compute(&self) -> impl Iterator<Item = f64> + '_ {
        self.own.iter().filter_map(|model| model.compute)
    }

    /// Clusters of the own models' pass rates, with their curves and classes.
    fn clusters(&self) -> Result<Vec<Cluster>> {
        let items = self.scores.chance.len();
        let points: Vec<Vec<f64>> =
            (0..items).map(|item| self.own.iter().map(|model| model.scores[item]).collect()).collect();
        let least = self.options.least.unwrap_or((items / 50).max(5));
        let of = cluster(&points, &cluster::Options { radius: self.options.radius, least });
        let count = of.iter().flatten().max().map_or(0, |most| most + 1);
        (0..count)
            .map(|number| self.cluster((0..items).filter(|&at| of[at] == Some(number)).collect()))
            .collect()
    }

    fn cluster(&self, items: Vec<usize>) -> Result<Cluster> {
        let rates: Vec<f64> =
            self.own.iter().map(|model| mean(items.iter().map(|&at| model.scores[at]))).collect();
        let chance = mean(items.iter().map(|&at| self.scores.chance[at]));
        let points: Vec<(f64, f64)> = self.compute().zip(rates.iter().copied()).collect();
        let curve = Curve::fit(&points, chance)?;
        let class = classify(&points, &curve)?;
        Ok(Cluster { items, class, predicted: curve.at(self.target), rates, curve })
    }

    /// The score of each sample: items are drawn with replacement, and models' deviations from the curves with random signs.
    fn bootstrap(&self, clusters: &[Cluster], whole: &Fit) -> Vec<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.options.seed);
        let items = self.scores.chance.len();
        let mut found = Vec::with_capacity(self.options.samples);
        for _ in 0..self.options.samples {
            let mut weights = vec![0.0; items];
            (0..items).for_each(|_| weights[rng.random_range(0..items)] += 1.0);
            let signs: Vec<f64> =
                self.own.iter().map(|_| if rng.random::<bool>() { 1.0 } else { -1.0 }).collect();
            if let Ok(fit) = Fit::new(self, clusters, &weights, Some((whole, &signs))) {
                let beside: f64 = rng.random_range(-1.0..1.0);
                // A uniform draw of the same deviation as the mapping's residuals.
                found.push((fit.score + beside * whole.mapping.residual * 3f64.sqrt()).clamp(0.0, 1.0));
            }
        }
        found
    }

    fn end_to_end(&self) -> Option<f64> {
        let points: Vec<(f64, f64)> =
            self.own.iter().filter_map(|it| Some((it.compute?, mean(it.scores.iter().copied())))).collect();
        Curve::fit(&points, self.scores.guessing()).ok().map(|curve| curve.at(self.target))
    }

    /// `ln L` by a line in `ln C`; the score's logit, above guessing, by a line in `L`.
    fn by_loss(&self) -> Option<f64> {
        let guessing = self.scores.guessing();
        let mut losses = Vec::new();
        let mut links = Vec::new();
        for model in &self.own {
            let (compute, loss) = (model.compute?, model.loss?);
            let share = (mean(model.scores.iter().copied()) - guessing) / (1.0 - guessing);
            let share = share.clamp(1e-3, 1.0 - 1e-3);
            losses.push((vec![compute], loss));
            links.push((vec![1.0, loss], (share / (1.0 - share)).ln()));
        }
        let law = ounce_train::laws::power::PowerLaw::fit(&losses).ok()?;
        let (rows, values): (Vec<Vec<f64>>, Vec<f64>) = links.into_iter().unzip();
        let link = ounce_train::laws::least_squares::fit(&rows, &values).ok()?.coefficients;
        let place = link[0] + link[1] * law.at(&[self.target]);
        Some(guessing + (1.0 - guessing) * super::curve::sigmoid(place))
    }
}

/// Whether a curve may be followed.
fn classify(points: &[(f64, f64)], curve: &Curve) -> Result<Class> {
    let rates = points.iter().map(|point| point.1);
    let highest = rates.clone().fold(f64::NEG_INFINITY, f64::max);
    let lowest = rates.fold(f64::INFINITY, f64::min);
    if highest < curve.chance + RISE {
        return Ok(Class::NonEmergent);
    }
    let Some(((largest, last), smaller)) = points.split_last() else { return Ok(Class::NotExtrapolatable) };
    let rises = last - points[0].1 >= RISE && curve.b >= FLOOR && *last >= highest - RISE;
    let follows = curve.residual <= RESIDUAL && (rises || lowest >= SOLVED);
    // The largest model is known: what the others say of it shows whether they may be asked about larger ones.
    let hindsight = || -> Result<bool> {
        Ok(smaller.len() < 3 || (Curve::fit(smaller, curve.chance)?.at(*largest) - last).abs() <= HINDSIGHT)
    };
    Ok(if follows && hindsight()? { Class::Extrapolatable } else { Class::NotExtrapolatable })
}

/// The forecast with items of given weights.
struct Fit {
    subset: f64,
    score: f64,
    mapping: Mapping,
}

impl Fit {
    /// With `from`, curves and mapping are searched from those of all items on, and pass rates moved by their deviations
    /// with these signs.
    fn new(
        problem: &Problem<'_>,
        clusters: &[Cluster],
        weights: &[f64],
        from: Option<(&Fit, &[f64])>,
    ) -> Result<Fit> {
        let (mut sum, mut count) = (0.0, 0.0);
        // Three numbers are fitted, which makes residuals smaller than deviations are.
        let models = problem.own.len() as f64;
        let widen = (models / (models - 3.0)).sqrt();
        let mut subset = vec![0.0; weights.len()];
        for cluster in clusters.iter().filter(|it| it.class == Class::Extrapolatable) {
            let own: f64 = cluster.items.iter().map(|&at| weights[at]).sum();
            if own == 0.0 {
                continue;
            }
            cluster.items.iter().for_each(|&at| subset[at] = weights[at]);
            let predicted = match from {
                None => cluster.predicted,
                Some((_, signs)) => {
                    let rate = |(place, compute): (usize, f64)| {
                        let scores = &problem.own[place].scores;
                        let rate =
                            cluster.items.iter().map(|&at| weights[at] * scores[at]).sum::<f64>() / own;
                        let off = cluster.rates[place] - cluster.curve.at(compute);
                        // The deviation that is there is taken away before it comes back with its sign.
                        (compute, (rate - off + signs[place] * widen * off).clamp(0.0, 1.0))
                    };
                    let points: Vec<(f64, f64)> = problem.compute().enumerate().map(rate).collect();
                    cluster.curve.refit(&points)?.at(problem.target)
                }
            };
            sum += own * predicted;
            count += own;
        }
        if count == 0.0 {
            return Err(Error::Fit("no item that can be forecast was drawn".to_string()));
        }
        let total: f64 = weights.iter().sum();
        let pair = |scores: &[f64]| -> (f64, f64) {
            let part = subset.iter().zip(scores).map(|(weight, score)| weight * score).sum::<f64>() / count;
            let full = weights.iter().zip(scores).map(|(weight, score)| weight * score).sum::<f64>() / total;
            (part, full)
        };
        let pairs: Vec<(f64, f64)> =
            problem.own.iter().chain(&problem.others).map(|model| pair(&model.scores)).collect();
        let mapping = match from {
            None => Mapping::fit(&pairs, pair(&problem.scores.chance)),
            Some((whole, _)) => whole.mapping.refit(&pairs),
        };
        let predicted = sum / count;
        Ok(Fit { subset: predicted, score: mapping.at(predicted), mapping })
    }
}

#[cfg(test)]
mod tests {
    use super::super::demonstrate::synthetic::{Kind, benchmark};
    use super::*;

    #[test]
    fn classes_are_told_apart() {
        let points =
            |rates: [f64; 6]| -> Vec<(f64, f64)> { (0..6).map(|at| 4f64.powi(at)).zip(rates).collect() };
        let class = |rates: [f64; 6]| {
            let points = points(rates);
            classify(&points, &Curve::fit(&points, 0.0).expect("fits")).expect("classified")
        };
        assert_eq!(class([0.1, 0.18, 0.28, 0.39, 0.5, 0.6]), Class::Extrapolatable);
        assert_eq!(class([0.97, 0.98, 0.98, 0.99, 0.99, 0.99]), Class::Extrapolatable);
        assert_eq!(class([0.01, 0.0, 0.01, 0.02, 0.0, 0.01]), Class::NonEmergent);
        assert_eq!(class([0.6, 0.5, 0.45, 0.4, 0.3, 0.25]), Class::NotExtrapolatable);
        assert_eq!(class([0.5, 0.2, 0.7, 0.3, 0.6, 0.4]), Class::NotExtrapolatable);
        // A jump of the last model that nothing announced.
        assert_eq!(class([0.01, 0.01, 0.02, 0.02, 0.03, 0.6]), Class::NotExtrapolatable);
    }

    #[test]
    fn the_target_itself_takes_no_part() {
        let made = benchmark(5, 300);
        let options = Options { samples: 20, ..Options::default() };
        let found = forecast(&made.scores, made.target, &options).expect("forecast");
        let mut with = made.scores.clone();
        let model = |name: &str, score: f64| ModelScores {
            model: name.into(),
            compute: Some(made.target),
            loss: None,
            scores: vec![score; with.chance.len()],
        };
        let (low, high) = (model("as large", 0.0), model("also", 1.0));
        with.models.extend([low, high]);
        assert_eq!(forecast(&with, made.target, &options).expect("forecast"), found);
        let (low, high) = found.interval.expect("an interval");
        assert!(low < found.score && found.score < high, "{low} {} {high}", found.score);
        assert!(low < made.truth + 0.03 && made.truth < high + 0.03, "{} in {low} to {high}", made.truth);
    }

    #[test]
    fn late_items_are_no_part_of_the_subset() {
        let made = benchmark(6, 300);
        let found = forecast(&made.scores, made.target, &Options { samples: 1, ..Options::default() });
        let found = found.expect("forecast");
        let subset = chosen(&found.clusters, |it| it.class == Class::Extrapolatable);
        let late = subset.iter().filter(|&&at| made.kinds[at] == Kind::Late).count();
        assert!((late as f64) < 0.05 * subset.len() as f64, "{late} of {}", subset.len());
        assert!(found.share > 0.3, "{}", found.share);
    }

    #[test]
    fn what_can_t_be_forecast_is_refused() {
        let made = benchmark(7, 60);
        let few = Scores { models: made.scores.models[..3].to_vec(), ..made.scores.clone() };
        let error = forecast(&few, made.target, &Options::default()).expect_err("three models");
        assert!(error.to_string().contains("four models"), "{error}");
        let mut flat = made.scores.clone();
        flat.models.iter_mut().for_each(|model| model.scores.fill(0.0));
        let error = forecast(&flat, made.target, &Options::default()).expect_err("nothing rises");
        assert!(error.to_string().contains("no part"), "{error}");
        assert!(forecast(&flat, f64::NAN, &Options::default()).is_err());
    }
}
