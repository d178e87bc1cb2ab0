//! Effective size and density of models, with intervals.

use ounce_eval::stats::quantile;
use ounce_train::laws::scaling::Run;
use ounce_train::{Error, Result};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::law::LossLaw;
use super::score::Sigmoid;
use super::table::{Rated, Table};
use super::trend::{Trend, days, trend};

/// How models are rated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Whether the law has a constant besides its two terms.
    pub irreducible: bool,
    /// Bootstrap samples.
    pub samples: usize,
    /// Random numbers are drawn from it.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { irreducible: false, samples: 200, seed: 0 }
    }
}

/// The size of a reference model that would equal a model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effective {
    /// So many parameters.
    Size(f64),
    /// So many at most: the score is not above guessing, and the smallest member is better.
    AtMost(f64),
    /// So many at least: no score, or no size, is as good, and the largest member is not.
    AtLeast(f64),
}

impl Effective {
    /// The size, or its bound.
    pub fn value(self) -> f64 {
        match self {
            Effective::Size(size) | Effective::AtMost(size) | Effective::AtLeast(size) => size,
        }
    }

    /// The size, if it is one.
    pub fn size(self) -> Option<f64> {
        match self {
            Effective::Size(size) => Some(size),
            _ => None,
        }
    }
}

/// What a model is measured by.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Yardstick {
    /// The family's law.
    pub law: LossLaw,
    /// From loss to score; none where nobody needs it.
    pub sigmoid: Option<Sigmoid>,
    /// Tokens that the reference models would have seen.
    pub tokens: f64,
    /// Size of the smallest member.
    pub smallest: f64,
    /// Size of the largest.
    pub largest: f64,
}

impl Yardstick {
    /// Fits the family, and the way from loss to score if some model has only a score.
    ///
    /// # Errors
    /// If the law or the curve can't be fitted.
    pub fn fit(table: &Table, options: &Options) -> Result<Yardstick> {
        let runs: Vec<Run> = table.reference.iter().map(super::table::Member::run).collect();
        let law = LossLaw::fit(&runs, options.irreducible)?;
        let links = table.links();
        let needed = table.models.iter().any(|model| model.loss.is_none());
        let sigmoid = match Sigmoid::fit(&links, table.chance) {
            Ok(sigmoid) => Some(sigmoid),
            Err(error) if needed => return Err(error),
            Err(_) => None,
        };
        let sizes = runs.iter().map(|run| run.params);
        let (smallest, largest) = (sizes.clone().fold(f64::INFINITY, f64::min), sizes.fold(0.0, f64::max));
        Ok(Yardstick { law, sigmoid, tokens: table.tokens(), smallest, largest })
    }

    /// The effective size of a loss.
    pub fn of_loss(&self, loss: f64) -> Effective {
        match self.law.size(loss, self.tokens) {
            Some(size) => Effective::Size(size),
            None => Effective::AtLeast(self.largest),
        }
    }

    /// The effective size of a score; none where the way from loss to score is not known.
    pub fn of_score(&self, score: f64) -> Option<Effective> {
        let sigmoid = self.sigmoid.as_ref()?;
        Some(match sigmoid.loss(score) {
            Some(loss) => self.of_loss(loss),
            None if score <= sigmoid.floor => Effective::AtMost(self.smallest),
            None => Effective::AtLeast(self.largest),
        })
    }

    fn of(&self, model: &Rated) -> Option<Effective> {
        match (model.loss, model.score) {
            (Some(loss), _) => Some(self.of_loss(loss)),
            (None, Some(score)) => self.of_score(score),
            (None, None) => None,
        }
    }
}

/// A model's rating.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rating {
    /// Its name.
    pub name: String,
    /// The effective size.
    pub effective: Effective,
    /// Whether that lies outside of the family's sizes, where the law was not seen.
    pub extrapolated: bool,
    /// Effective size by its parameters.
    pub density: f64,
    /// The middle 95 % of the density's bootstrap samples; none if most of them give no size.
    pub interval: Option<(f64, f64)>,
    /// By the parameters that a token uses.
    pub density_active: Option<f64>,
    /// By half of its bytes.
    pub density_bytes: Option<f64>,
}

/// All ratings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// What they are by.
    pub yardstick: Yardstick,
    /// One a model.
    pub models: Vec<Rating>,
    /// How density grows with time; none where too few models have a date.
    pub trend: Option<Trend>,
}

/// Rates the models of a table.
///
/// # Errors
/// If the yardstick can't be fitted, or a number is out of its range.
pub fn rate(table: &Table, options: &Options) -> Result<Report> {
    table.check().map_err(Error::Fit)?;
    let yardstick = Yardstick::fit(table, options)?;
    let samples = samples(table, &yardstick, options);
    let mut models = Vec::new();
    for (at, model) in table.models.iter().enumerate() {
        let Some(effective) = yardstick.of(model) else { continue };
        let size = effective.value();
        let mut drawn: Vec<f64> =
            samples.iter().filter_map(|sample| sample[at]).map(|it| it / model.size).collect();
        drawn.sort_by(f64::total_cmp);
        let enough = !drawn.is_empty() && drawn.len() * 2 >= options.samples;
        models.push(Rating {
            name: model.name.clone(),
            effective,
            extrapolated: !(yardstick.smallest..=yardstick.largest).contains(&size),
            density: size / model.size,
            interval: enough.then(|| (quantile(&drawn, 0.025), quantile(&drawn, 0.975))),
            density_active: model.active.map(|active| size / active),
            density_bytes: model.bytes.map(|bytes| size / (bytes / 2.0)),
        });
    }
    let dated: Vec<(f64, f64)> = (table.models.iter().zip(&models))
        .filter_map(|(model, rating)| {
            let day = days(model.date.as_deref()?).ok()?;
            Some((day, rating.effective.size()? / model.size))
        })
        .collect();
    // Too few dated models are no fault of the table.
    let trend = trend(&dated, options.samples, options.seed).ok();
    Ok(Report { yardstick, models, trend })
}

/// Effective sizes of the models in each sample: the family's and the curve's deviations come with random signs, and scores
/// are drawn anew from as many instances.
fn samples(table: &Table, fitted: &Yardstick, options: &Options) -> Vec<Vec<Option<f64>>> {
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    let numbers = 3 + 2 * usize::from(fitted.law.tokens_scale > 0.0);
    let members = table.reference.len();
    // Deviations of fitted points are smaller than those of new ones.
    let widen = (members as f64 / members.saturating_sub(numbers).max(1) as f64).sqrt();
    let links = table.links();
    let mut found = Vec::new();
    for _ in 0..options.samples {
        let mut sign = || if rng.random::<bool>() { 1.0 } else { -1.0 };
        let runs: Vec<Run> = (table.reference.iter())
            .map(|it| {
                let line = fitted.law.at(it.size, it.tokens);
                Run { loss: line * (sign() * widen * (it.loss / line).ln()).exp(), ..it.run() }
            })
            .collect();
        let sigmoid = fitted.sigmoid.and_then(|curve| {
            let moved =
                |&(loss, score): &(f64, f64)| (loss, curve.at(loss) + sign() * (score - curve.at(loss)));
            Sigmoid::fit(&links.iter().map(moved).collect::<Vec<_>>(), table.chance).ok()
        });
        let Ok(law) = LossLaw::fit(&runs, options.irreducible) else { continue };
        let drawn = Yardstick { law, sigmoid, ..*fitted };
        let mut sizes = Vec::new();
        for model in &table.models {
            let mut model = model.clone();
            if let (None, Some(score), Some(count)) = (model.loss, model.score, table.instances) {
                let deviation = (score * (1.0 - score) / count).sqrt();
                // A sum of twelve uniform draws is normal enough.
                let normal: f64 = (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
                model.score = Some(score + deviation * normal);
            }
            sizes.push(drawn.of(&model).and_then(Effective::size));
        }
        found.push(sizes);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::table::Member;
    use super::*;

    fn table() -> Table {
        let law = |size: f64| 3.0 * size.powf(-0.2) + 0.1;
        let score = |loss: f64| 0.75 / (1.0 + f64::exp(5.0 * (loss - 0.4))) + 0.25;
        let member = |size: f64| Member {
            name: format!("{size}"),
            size,
            tokens: 1e9,
            loss: law(size),
            score: Some(score(law(size))),
        };
        let model = |name: &str, size: f64, like: f64| Rated {
            name: name.into(),
            size,
            score: Some(score(law(like))),
            ..Rated::default()
        };
        let mut models =
            vec![model("as the family", 1e5, 1e5), model("denser", 1e5, 3e5), model("sparser", 2e5, 5e4)];
        models.push(Rated { bytes: Some(1e5), ..model("bytes", 1e5, 1e5) });
        models.push(Rated { score: Some(0.2), ..model("guessing", 1e5, 1e5) });
        models.push(Rated { score: Some(1.0), ..model("solved", 1e5, 1e5) });
        Table {
            chance: 0.25,
            instances: Some(2000.0),
            reference: [5e3, 2e4, 6e4, 2e5, 6e5].map(member).to_vec(),
            models,
            ..Table::default()
        }
    }

    #[test]
    fn densities_are_those_that_made_the_scores() {
        let report = rate(&table(), &Options { samples: 60, ..Options::default() }).expect("rated");
        let density = |name: &str| report.models.iter().find(|it| it.name == name).expect("rated");
        for (name, expected) in [("as the family", 1.0), ("denser", 3.0), ("sparser", 0.25)] {
            let found = density(name);
            assert!((found.density / expected - 1.0).abs() < 0.02, "{found:?}");
            let (low, high) = found.interval.expect("an interval");
            assert!(low < expected && expected < high, "{found:?}");
        }
        let bytes = density("bytes").density_bytes.expect("has bytes");
        assert!((bytes - 2.0).abs() < 0.04, "{bytes}");
        assert_eq!(density("guessing").effective, Effective::AtMost(5e3));
        assert_eq!(density("solved").effective, Effective::AtLeast(6e5));
        assert_eq!(density("solved").interval, None);
    }

    #[test]
    fn a_slope_over_time_is_recovered() {
        let law = |size: f64| 3.0 * size.powf(-0.2) + 0.1;
        let mut table = table();
        table.models = (0..10)
            .map(|month| Rated {
                name: month.to_string(),
                size: 2e4,
                loss: Some(law(2e4 * f64::exp(0.007 * 30.0 * f64::from(month)))),
                date: Some(format!("2024-{:02}-01", month + 1)),
                ..Rated::default()
            })
            .collect();
        let trend = rate(&table, &Options { samples: 20, ..Options::default() }).expect("rated").trend;
        let trend = trend.expect("dated");
        assert!((trend.per_day / 0.007 - 1.0).abs() < 0.05, "{trend:?}");
    }

    #[test]
    fn flaws_are_named() {
        let spoil = |change: fn(&mut Table)| {
            let mut table = table();
            change(&mut table);
            rate(&table, &Options::default()).expect_err("flawed").to_string()
        };
        assert!(spoil(|it| it.reference.truncate(2)).contains("needs as many"));
        assert!(spoil(|it| it.models[0].score = None).contains("neither loss nor score"));
        assert!(spoil(|it| it.models[0].score = Some(1.2)).contains("from 0 to 1"));
        assert!(spoil(|it| it.models[0].date = Some("soon".into())).contains("no date"));
        assert!(spoil(|it| it.chance = 1.0).contains("chance"));
    }
}
