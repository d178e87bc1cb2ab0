//! Measures FrALBERT on two generated languages: shared against separate layers of the same width, and what questions
//! translated by a machine or learned in the other language add, each over several seeds.

use std::time::Instant;

use ounce_engine::{Engine, Mode};
use ounce_eval::method::{DemonstrationError, Evidence, Lab, Row};
use ounce_model::Model;

use super::study::{Scale, Strategy, Study};
use crate::Result;
use crate::data::labelled::judge::Judge;

const METHOD: u16 = 103;
const F1: &str = "F1, mean";
const DEVIATION: &str = "F1, standard deviation";
const SIZES: [usize; 2] = [50, 200];

const SCALE: Scale =
    Scale { hidden: 64, layers: 4, pretraining: 3000, transfer: 300, tuning: 150, seeds: 5, questions: 200 };

/// The demonstration of the catalogue's entry.
pub(super) fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    measure(lab, SCALE).map_err(DemonstrationError::step(METHOD, "training on the generated languages"))
}

fn label(shared: bool, questions: usize, strategy: Strategy) -> String {
    let layers = if shared { "shared" } else { "separate" };
    let strategy = match strategy {
        Strategy::Plain => "plain",
        Strategy::Augmented => "with translations",
        Strategy::Transferred => "after the other language",
    };
    format!("{layers} layers, {questions} questions, {strategy}")
}

/// F1 and exact match of several runs, in percent.
struct Runs {
    f1: Vec<f64>,
    exact: Vec<f64>,
}

impl Runs {
    fn row(&self, label: String, blind: f64) -> Row {
        let (mean, deviation) = spread(&self.f1);
        let worst = self.f1.iter().copied().fold(f64::INFINITY, f64::min);
        // No better than who does not read the question.
        let collapsed = self.f1.iter().filter(|&&f1| f1 < blind + 5.0).count();
        Row::new(label)
            .with(F1, mean, "%")
            .with(DEVIATION, deviation, "points")
            .with("F1, worst", worst, "%")
            .with("exact match, mean", spread(&self.exact).0, "%")
            .with("collapsed runs", collapsed as f64, "")
    }
}

/// Mean and standard deviation of a sample.
fn spread(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0).max(1.0)).sqrt())
}

fn measure(lab: &dyn Lab, scale: Scale) -> Result<Evidence> {
    let study = Study::new(scale, lab.seed())?;
    let judge = study.judge()?;
    let blind = 100.0 * study.blind(&judge);
    let mut evidence = Evidence::new(METHOD, lab.seed(), label(true, SIZES[0], Strategy::Plain));
    lab.progress("pretraining, shared layers", 0.0);
    let shared = study.pretrained(1)?;
    lab.progress("pretraining, separate layers", 0.2);
    let separate = study.pretrained(scale.layers)?;
    let mut done = 0.4;
    for (is_shared, encoder, strategy) in [
        (true, &shared, Strategy::Plain),
        (false, &separate, Strategy::Plain),
        (true, &shared, Strategy::Augmented),
        (true, &shared, Strategy::Transferred),
    ] {
        let mut sizes = SIZES.to_vec();
        if strategy == Strategy::Transferred {
            // What it knows before it has seen a question of the second language.
            sizes.insert(0, 0);
        }
        let mut runs: Vec<Runs> = sizes.iter().map(|_| Runs { f1: Vec::new(), exact: Vec::new() }).collect();
        for seed in 1..=scale.seeds {
            lab.progress(&format!("{}, seed {seed}", label(is_shared, SIZES[0], strategy)), done);
            done += 0.6 / (4 * scale.seeds) as f64;
            one(&study, encoder, strategy, seed, &judge, &sizes, &mut runs)?;
        }
        for (size, runs) in sizes.iter().zip(runs) {
            evidence.rows.push(runs.row(label(is_shared, *size, strategy), blind));
        }
    }
    evidence.rows.push(Row::new("the first thing, unread").with(F1, blind, "%"));
    expect_quality(&mut evidence);
    expect_sizes(&study, &shared, &separate, &mut evidence)?;
    evidence.notes = vec![
        format!(
            "Encoders of width {} with {} layers, pretrained once each for {} steps on text of both generated languages \
             (hidden words only: the task of sentence order was left out), then tuned for {} steps of 16 questions from \
             {} seeds, which draw questions, order and head. Learning rates were not searched.",
            scale.hidden, scale.layers, scale.pretraining, scale.tuning, scale.seeds
        ),
        format!(
            "Language B has A's names, other words for everything else and another order. Translations have A's order and \
             one word in ten wrong. Transfer costs {} steps more than the other ways, and needs as many questions of A.",
            scale.transfer
        ),
        "A shared model of as many parameters as the one with separate layers, 800 questions, paraphrases and noise were \
         not measured."
            .to_string(),
    ];
    lab.progress("done", 1.0);
    Ok(evidence)
}

/// The runs of one seed, one a size.
fn one(
    study: &Study,
    encoder: &Model,
    strategy: Strategy,
    seed: u64,
    judge: &Judge,
    sizes: &[usize],
    runs: &mut [Runs],
) -> Result<()> {
    let base = match strategy {
        Strategy::Transferred => Some(study.transferred(encoder, seed)?.model()?),
        Strategy::Plain | Strategy::Augmented => None,
    };
    for (&size, runs) in sizes.iter().zip(runs) {
        let mut net = match &base {
            Some(model) => crate::net::Net::from_model(model, crate::net::Options::default())?,
            None => study.answering(encoder, seed)?,
        };
        let metrics = match size {
            0 => judge.judge(&mut net, 64)?,
            _ => study.tuned(net, size, strategy, seed, judge)?,
        };
        runs.f1.push(100.0 * metrics.f1.unwrap_or(0.0));
        runs.exact.push(100.0 * metrics.exact_match.unwrap_or(0.0));
    }
    Ok(())
}

fn expect_quality(evidence: &mut Evidence) {
    let of = |evidence: &Evidence, shared, size, strategy, what: &str| {
        evidence.row(&label(shared, size, strategy)).and_then(|row| row.get(what)).unwrap_or(f64::NAN)
    };
    for size in SIZES {
        let shared = of(evidence, true, size, Strategy::Plain, F1);
        let separate = of(evidence, false, size, Strategy::Plain, F1);
        evidence.expect(
            format!("shared layers lose at most 5 points of F1 to separate ones, {size} questions"),
            format!("{shared:.1} against {separate:.1} %"),
            shared >= separate - 5.0,
        );
        let deviation = of(evidence, true, size, Strategy::Plain, DEVIATION);
        for (strategy, what) in [
            (Strategy::Augmented, "translated questions"),
            (Strategy::Transferred, "transfer from the other language"),
        ] {
            let better = of(evidence, true, size, strategy, F1);
            evidence.expect(
                format!("{what} raises the mean F1, {size} questions"),
                format!("{better:.1} against {shared:.1} %"),
                better > shared,
            );
            let steadier = of(evidence, true, size, strategy, DEVIATION);
            evidence.expect(
                format!("{what} lowers the standard deviation of F1, {size} questions"),
                format!("{steadier:.1} against {deviation:.1} points"),
                steadier < deviation,
            );
        }
    }
}

/// Parameters, bytes and time of both encoders.
fn expect_sizes(study: &Study, shared: &Model, separate: &Model, evidence: &mut Evidence) -> Result<()> {
    let layers = |model: &Model| -> u64 {
        let own = model.spec.tensors().into_iter().filter(|tensor| tensor.name.starts_with("layers."));
        own.map(|tensor| tensor.shape.iter().product::<usize>() as u64).sum()
    };
    let load = |model: &Model| {
        Engine::load(model, Mode::Reference).map_err(|error| crate::Error::Unsupported(error.to_string()))
    };
    let engines = [load(shared)?, load(separate)?];
    let ids = study.some_ids();
    let mut seconds = [f64::INFINITY; 2];
    // In turn, so that both meet the same machine.
    for _ in 0..40 {
        for (engine, seconds) in engines.iter().zip(&mut seconds) {
            let start = Instant::now();
            for _ in 0..10 {
                let hidden =
                    engine.encode(&ids, &[]).map_err(|error| crate::Error::Unsupported(error.to_string()))?;
                std::hint::black_box(hidden);
            }
            *seconds = seconds.min(start.elapsed().as_secs_f64() / 10.0);
        }
    }
    for (name, model, seconds) in [("shared", shared, seconds[0]), ("separate", separate, seconds[1])] {
        evidence.rows.push(
            Row::new(format!("size, {name} layers"))
                .with("parameters", model.spec.parameters() as f64, "")
                .with("parameters of layers", layers(model) as f64, "")
                .with("bytes of weights", model.weight_bytes() as f64, "B")
                .with("time of a text of 64 tokens", 1e3 * seconds, "ms"),
        );
    }
    let ratio = layers(separate) as f64 / layers(shared) as f64;
    let wanted = study.scale.layers as f64;
    evidence.expect(
        format!("{wanted} shared layers have the parameters of one"),
        format!("{ratio:.2} times fewer"),
        ratio == wanted,
    );
    let ratio = seconds[0] / seconds[1];
    evidence.expect(
        "sharing saves memory, not time: a forward pass takes the same within 15 %",
        format!("{ratio:.2} times the time"),
        (ratio - 1.0).abs() <= 0.15,
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use ounce_eval::method::{Fixture, Text};

    use super::*;

    struct Bench;

    impl Lab for Bench {
        fn seed(&self) -> u64 {
            1
        }

        fn text(&self, _: Text, _: usize) -> String {
            String::new()
        }

        fn model(&self, _: Fixture) -> ounce_model::Result<Model> {
            Err(ounce_model::Error::unsupported("none is needed"))
        }

        fn progress(&self, _: &str, _: f64) {}
    }

    /// Everything at a minute scale: that it runs, what follows from the architecture alone, and that tuning learns.
    #[test]
    fn the_demonstration_runs_and_its_sizes_hold() {
        let scale =
            Scale { hidden: 16, layers: 3, pretraining: 4, transfer: 2, tuning: 3, seeds: 2, questions: 6 };
        let evidence = measure(&Bench, scale).unwrap();
        evidence.check().unwrap();
        let fewer = evidence.expectations.iter().find(|it| it.text.contains("parameters of one")).unwrap();
        assert!(fewer.holds, "{}", fewer.measured);
        assert_eq!(evidence.rows.len(), 9 + 1 + 2);
    }

    #[test]
    fn spreads_are_those_of_samples() {
        let (mean, deviation) = spread(&[1.0, 3.0, 5.0]);
        assert!((mean - 3.0).abs() < 1e-12 && (deviation - 2.0).abs() < 1e-12);
    }

    /// A few examples by heart, by a network with shared layers.
    #[test]
    fn tuning_learns_its_questions() {
        let scale =
            Scale { hidden: 32, layers: 2, pretraining: 1, transfer: 1, tuning: 250, seeds: 1, questions: 8 };
        let study = Study::new(scale, 1).unwrap();
        let encoder = study.pretrained(1).unwrap();
        let judge = study.judge().unwrap();
        let net = study.answering(&encoder, 1).unwrap();
        let f1 = study.learned(net, 8, 1).unwrap();
        assert!(f1 > 0.9, "{f1}");
        assert!(study.blind(&judge) < 0.9);
    }
}
