//! Forecasts whose truth is known: of benchmarks drawn from the law, and of a suite that small models were trained on.

mod skills;
pub(super) mod synthetic;

use ounce_eval::method::{DemonstrationError, Evidence, Lab, Row};
use ounce_train::{Error, Result};

use super::forecast::{Class, Forecast, Options, forecast};
use super::{NUMBER, demonstrate::synthetic::Kind};

/// Made benchmarks.
const SEEDS: u64 = 20;
/// Items of each.
const ITEMS: usize = 400;
/// The label of the rows that others are compared with.
const BASELINE: &str = "made benchmarks: one curve through the total";
/// The largest share of late items in the part that is forecast.
const LATE: f64 = 0.05;
/// Points that the forecast of the trained models may be off.
const POINTS: f64 = 4.0;

pub(super) fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    measure(lab, SEEDS, ITEMS, &skills::Scale::FULL)
        .map_err(DemonstrationError::step(NUMBER, "forecasting small benchmarks"))
}

fn measure(lab: &dyn Lab, seeds: u64, items: usize, scale: &skills::Scale) -> Result<Evidence> {
    let mut evidence = Evidence::new(NUMBER, lab.seed(), BASELINE);
    synthetic_part(lab, seeds, items, &mut evidence)?;
    trained_part(lab, scale, &mut evidence)?;
    evidence.notes = vec![
        format!(
            "Made benchmarks: {items} items, 30 % easy, 35 % medium, 20 % that no small model solves and the target mostly does, 15 % that fall or go up and down; \
             eight models that take twice as much compute each, forecasts for {} times the largest, {seeds} seeds. \
             The mapping has five models of another family, two of them stronger than the target.",
            synthetic::RATIO
        ),
        "The trained suite: copying, reversing, adding, looking up and facts of unequal frequency, for networks of two layers; a score is the \
         probability of the right answer. The mapping has only models of the same family, and the target takes twice the \
         compute of the largest of them."
            .into(),
        "Not measured: the paper's eight benchmarks and models of up to 70B, and broken neural scaling laws as a baseline.".into(),
    ];
    lab.progress("done", 1.0);
    Ok(evidence)
}

/// The ways to a forecast, in points away from the truth.
fn errors(found: &Forecast, truth: f64) -> Vec<(&'static str, Option<f64>)> {
    let off = |value: f64| 100.0 * (value - truth).abs();
    let others = &found.baselines;
    vec![
        ("COD", Some(off(found.score))),
        ("one curve through the total", others.end_to_end.map(off)),
        ("by way of the loss", others.by_loss.map(off)),
        ("COD without mapping", Some(off(others.without_mapping))),
        ("COD without classes and mapping", Some(off(others.without_classes))),
    ]
}

fn synthetic_part(lab: &dyn Lab, seeds: u64, items: usize, evidence: &mut Evidence) -> Result<()> {
    let mut all: Vec<Vec<(&str, Option<f64>)>> = Vec::new();
    let (mut late, mut part, mut share, mut held) = (0, 0, 0.0, 0);
    for seed in 0..seeds {
        lab.progress(&format!("made benchmark {}", seed + 1), 0.3 * seed as f64 / seeds as f64);
        let made = synthetic::benchmark(lab.seed().wrapping_mul(1000) + seed, items);
        let found = forecast(&made.scores, made.target, &Options { seed, ..Options::default() })?;
        all.push(errors(&found, made.truth));
        for cluster in found.clusters.iter().filter(|it| it.class == Class::Extrapolatable) {
            late += cluster.items.iter().filter(|&&at| made.kinds[at] == Kind::Late).count();
            part += cluster.items.len();
        }
        share += found.share / seeds as f64;
        held += usize::from(found.interval.is_some_and(|(low, high)| (low..=high).contains(&made.truth)));
    }
    let mean = |way: usize| -> Option<f64> {
        let errors: Option<Vec<f64>> = all.iter().map(|it| it[way].1).collect();
        errors.map(|it| it.iter().sum::<f64>() / seeds as f64)
    };
    for (way, (name, _)) in all[0].iter().enumerate() {
        if let Some(error) = mean(way) {
            let most = all.iter().filter_map(|it| it[way].1).fold(0.0, f64::max);
            let row = Row::new(format!("made benchmarks: {name}"));
            evidence.rows.push(row.with("mean error", error, "points").with("largest", most, "points"));
        }
    }
    let rate = late as f64 / part.max(1) as f64;
    evidence.rows.push(
        Row::new("made benchmarks: the part that is forecast")
            .with("share of items", share, "")
            .with("of these late ones", rate, "")
            .with("95 % intervals that hold the truth", held as f64 / seeds as f64, ""),
    );
    let (cod, end) = (mean(0).unwrap_or(f64::NAN), mean(1).unwrap_or(f64::NAN));
    evidence.expect(
        format!(
            "at {} times the compute the mean error over seeds is at most half of one curve's",
            synthetic::RATIO
        ),
        format!("{cod:.2} against {end:.2} points"),
        cod <= 0.5 * end,
    );
    evidence.expect(
        format!(
            "less than {:.0} % of the part that is forecast are items that no small model solves",
            100.0 * LATE
        ),
        format!("{:.2} %", 100.0 * rate),
        rate < LATE,
    );
    Ok(())
}

fn trained_part(lab: &dyn Lab, scale: &skills::Scale, evidence: &mut Evidence) -> Result<()> {
    let (scores, largest) = skills::train(lab, scale, &|share| 0.3 + 0.7 * share)?;
    let mean = |scores: &[f64]| scores.iter().sum::<f64>() / scores.len() as f64;
    for model in &scores.models {
        let row = Row::new(format!("trained: {}", model.model));
        let row = row.with("compute", model.compute.unwrap_or(0.0), "operations");
        let row = row.with("loss of an answer", model.loss.unwrap_or(0.0), "nats");
        evidence.rows.push(row.with("score", 100.0 * mean(&model.scores), "points"));
    }
    let target = &scores.models[largest];
    let truth = mean(&target.scores);
    let options = Options { radius: 0.15, seed: lab.seed(), ..Options::default() };
    let within = format!("the largest trained model's score is forecast within {POINTS} points");
    let no_worse = "that forecast is no worse than one curve's through the total";
    let found = match forecast(&scores, target.compute.unwrap_or(f64::NAN), &options) {
        Ok(found) => found,
        // That nothing can be forecast is a result.
        Err(Error::Fit(what)) => {
            evidence.expect(within, what.clone(), false);
            evidence.expect(no_worse, what, false);
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    for (name, error) in errors(&found, truth) {
        if let Some(error) = error {
            evidence.rows.push(Row::new(format!("trained: {name}")).with("error", error, "points"));
        }
    }
    evidence.rows.push(
        Row::new("trained: the part that is forecast")
            .with("share of items", found.share, "")
            .with("clusters", found.clusters.len() as f64, "")
            .with("items of no cluster", found.outliers.len() as f64, ""),
    );
    let off = 100.0 * (found.score - truth).abs();
    let end = found.baselines.end_to_end.map_or(f64::NAN, |value| 100.0 * (value - truth).abs());
    evidence.expect(
        within,
        format!("{:.2} against {:.2} points", 100.0 * found.score, 100.0 * truth),
        off <= POINTS,
    );
    evidence.expect(no_worse, format!("{off:.2} against {end:.2} points away"), off <= end);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desk::Desk;

    #[test]
    fn small_parts_give_sound_evidence() {
        let evidence = measure(&Desk, 2, 120, &skills::Scale::SMALL).expect("measured");
        evidence.check().expect("sound");
        assert_eq!(evidence.expectations.len(), 4);
        let trained = evidence.rows.iter().filter(|row| row.label.starts_with("trained: width")).count();
        assert_eq!(trained, skills::Scale::SMALL.widths.len());
    }

    #[test]
    fn it_beats_one_curve_on_made_benchmarks() {
        let mut evidence = Evidence::new(NUMBER, 1, BASELINE);
        synthetic_part(&Desk, 4, 300, &mut evidence).expect("measured");
        assert!(evidence.holds(), "{:#?} {:#?}", evidence.expectations, evidence.rows);
    }
}
