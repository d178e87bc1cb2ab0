//! Measures how long encoders of whole matrices, of factors and with projected keys take by text length, and how well they learn.

use std::time::Instant;

use ounce_eval::method::{DemonstrationError, Evidence, Lab, Row};
use ounce_eval::stats::{mean_and_error, quantile};
use ounce_train::methods::workbench::cosine;

use super::encoder::{Encoder, Form, Shape};
use super::task::{Samples, draw};
use super::{NUMBER, Operations, crossover};
use crate::Result;
use crate::lowrank::{Factorised, Solver};

const DENSE: &str = "whole matrices, all keys";
const FACTORS: &str = "factors by design, corrected";
const NAIVE: &str = "factors by design, each as a whole matrix";
const LINFORMER: &str = "whole matrices, projected keys";
const SVD: &str = "trained, then factors by SVD, fine-tuned";
const SEMI_NMF: &str = "trained, then factors by semi-NMF, fine-tuned";
const RANDOM: &str = "trained, then random factors, fine-tuned";

/// How much is done.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub seeds: u64,
    /// Of encoders that are timed; the rank is a fourth.
    pub width: usize,
    pub keys: usize,
    pub lengths: Vec<usize>,
    pub repetitions: usize,
    /// Of encoders that are trained; the rank is a fourth of the width, keys are a fourth of the length.
    pub trained_width: usize,
    pub length: usize,
    pub steps: u64,
    pub tune: u64,
    pub batch: usize,
    pub test: usize,
    pub rate: f64,
}

impl Plan {
    fn full() -> Plan {
        Plan {
            seeds: 3,
            width: 128,
            keys: 64,
            lengths: vec![64, 256, 512, 1024, 2048],
            repetitions: 9,
            trained_width: 64,
            length: 64,
            steps: 150,
            tune: 50,
            batch: 16,
            test: 512,
            rate: 2e-3,
        }
    }
}

/// The demonstration of the catalogue's entry.
pub(super) fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    measure(lab, &Plan::full()).map_err(DemonstrationError::step(NUMBER, "measuring encoders"))
}

pub(super) fn measure(lab: &dyn Lab, plan: &Plan) -> Result<Evidence> {
    let mut evidence = Evidence::new(NUMBER, lab.seed(), DENSE);
    learn(lab, plan, &mut evidence)?;
    time(lab, plan, &mut evidence)?;
    evidence.notes = vec![
        format!(
            "Times: encoders of two layers, {} wide, four heads, rank {}, {} projected keys, random weights, forward only; 2048 words a run, ways by \
             turns, medians of {} ratios to whole matrices in the same turn. Attention of all ways is the same code, which keeps the probabilities \
             of 128 queries at a time.",
            plan.width,
            plan.width / 4,
            plan.keys,
            plan.repetitions
        ),
        format!(
            "Learning: two layers, {} wide, rank {}, sequences of {} words, {} projected keys, {} steps of {} sequences ({} of them to fine-tune where a trained \
             encoder is factorised); means of {} seeds on {} sequences that were not shown. The commonest label is right in 43.75 %.",
            plan.trained_width,
            plan.trained_width / 4,
            plan.length,
            plan.length / 4,
            plan.steps + plan.tune,
            plan.batch,
            plan.tune,
            plan.seeds,
            plan.test
        ),
        "A made-up task; BERT, its data and its energy are out of reach here.".into(),
    ];
    lab.progress("done", 1.0);
    Ok(evidence)
}

/// What training came to, by seed.
#[derive(Debug, Default)]
struct Found {
    label: &'static str,
    parameters: usize,
    loss: Vec<f64>,
    accuracy: Vec<f64>,
    lost: Vec<f64>,
}

fn learn(lab: &dyn Lab, plan: &Plan, evidence: &mut Evidence) -> Result<()> {
    let rank = plan.trained_width / 4;
    let shape = Shape {
        width: plan.trained_width,
        layers: 2,
        heads: 4,
        length: plan.length,
        form: Form::Whole,
        keys: None,
    };
    let factors = |corrected| Shape { form: Form::Factors { rank, corrected }, ..shape };
    let arms = [
        (DENSE, shape),
        (FACTORS, factors(true)),
        (NAIVE, factors(false)),
        (LINFORMER, Shape { keys: Some(plan.length / 4), ..shape }),
    ];
    let mut found: Vec<Found> = Vec::new();
    let mut note = |label, encoder: &Encoder, test: &Samples, lost: &[Factorised]| -> Result<()> {
        let (loss, accuracy) = encoder.judged(test)?;
        let at = found.iter().position(|it| it.label == label).unwrap_or(found.len());
        if at == found.len() {
            found.push(Found { label, parameters: encoder.parameters(), ..Found::default() });
        }
        found[at].loss.push(loss);
        found[at].accuracy.push(accuracy);
        found[at].lost.extend(lost.iter().map(|it| it.lost));
        Ok(())
    };
    for number in 0..plan.seeds {
        let seed = 1000 * lab.seed() + number;
        let test = draw(seed ^ 0x7E57, plan.test, plan.length);
        let share = |done: f64| 0.85 * (number as f64 + done / 6.0) / plan.seeds as f64;
        for (at, (label, shape)) in arms.into_iter().enumerate() {
            lab.progress(label, share(at as f64));
            let mut encoder = Encoder::random(shape, seed);
            train(&mut encoder, plan, plan.rate, plan.steps + plan.tune, seed)?;
            note(label, &encoder, &test, &[])?;
        }
        // As many steps in all: most of them whole.
        lab.progress(SVD, share(4.0));
        let mut whole = Encoder::random(shape, seed);
        train(&mut whole, plan, plan.rate, plan.steps, seed)?;
        for (label, solver) in
            [(SVD, Solver::Svd), (SEMI_NMF, Solver::SemiNmf), (RANDOM, Solver::Random(seed))]
        {
            let (mut thin, lost) = whole.factorised(rank, solver)?;
            train(&mut thin, plan, plan.rate / 2.0, plan.tune, seed ^ 0xF17E)?;
            note(label, &thin, &test, &lost)?;
        }
    }
    for it in &found {
        let ((loss, _), (accuracy, error)) = (mean_and_error(&it.loss), mean_and_error(&it.accuracy));
        let row = Row::new(it.label)
            .with("parameters", it.parameters as f64, "")
            .with("accuracy", 100.0 * accuracy, "%")
            .with("standard error", 100.0 * error, "points")
            .with("held-out loss", loss, "nats");
        evidence.rows.push(match it.lost.is_empty() {
            true => row,
            false => {
                row.with("lost by factors", 100.0 * mean_and_error(&it.lost).0, "% of the weights' square")
            }
        });
    }
    let of = |evidence: &Evidence, label: &str, what: &str| {
        evidence.row(label).and_then(|row| row.get(what)).unwrap_or(f64::NAN)
    };
    let accuracy = |evidence: &Evidence, label: &str| of(evidence, label, "accuracy");
    let dense = accuracy(evidence, DENSE);
    for (label, what) in [(FACTORS, "Factors by design are"), (LINFORMER, "Projected keys are")] {
        let own = accuracy(evidence, label);
        evidence.expect(
            format!("{what} within 2 points of whole matrices after as many steps."),
            format!("{own:.2} % against {dense:.2} %"),
            own + 2.0 >= dense,
        );
    }
    let [corrected, naive] = [FACTORS, NAIVE].map(|label| of(evidence, label, "held-out loss"));
    evidence.expect(
        "Factors by design with the variance of whole matrices learn better than without.",
        format!("held-out loss {corrected:.4} against {naive:.4} nats"),
        corrected < naive,
    );
    let [svd, random] = [SVD, RANDOM].map(|label| accuracy(evidence, label));
    evidence.expect(
        "Factors of a trained encoder by SVD, fine-tuned, are at least as accurate as random ones after as many steps.",
        format!("{svd:.2} % against {random:.2} %"),
        svd >= random,
    );
    Ok(())
}

fn train(encoder: &mut Encoder, plan: &Plan, rate: f64, steps: u64, seed: u64) -> Result<()> {
    let schedule = cosine(rate, steps);
    let mut optimizer = encoder.optimizer()?;
    for step in 0..steps {
        let samples = draw(seed.wrapping_mul(1_000_003).wrapping_add(step), plan.batch, plan.length);
        encoder.step(&mut optimizer, &samples, schedule.rate(step))?;
    }
    Ok(())
}

/// Names of ways that are timed.
const WAYS: [&str; 4] = ["whole", "factors", "projected keys", "both"];

fn time(lab: &dyn Lab, plan: &Plan, evidence: &mut Evidence) -> Result<()> {
    let Plan { width, keys, .. } = *plan;
    let rank = width / 4;
    let form = Form::Factors { rank, corrected: true };
    // Of the twelve `d²` of a layer; four matrices are `d × d`, two `4 d × d`.
    let share = (rank * (4 * 2 * width + 2 * 5 * width)) as f64 / (12 * width * width) as f64;
    // Times of factors and of projected keys as parts of the whole's, by length.
    let mut times: Vec<[f64; 3]> = Vec::new();
    for (index, &length) in plan.lengths.iter().enumerate() {
        lab.progress(
            &format!("timing {length} words"),
            0.85 + 0.15 * index as f64 / plan.lengths.len() as f64,
        );
        let whole = Shape { width, layers: 2, heads: 4, length, form: Form::Whole, keys: None };
        let shapes = [
            whole,
            Shape { form, ..whole },
            Shape { keys: Some(keys), ..whole },
            Shape { form, keys: Some(keys), ..whole },
        ];
        let encoders = shapes.map(|shape| Encoder::random(shape, lab.seed()));
        let samples = draw(lab.seed(), (2048 / length).max(1), length);
        let tensors = encoders.iter().map(Encoder::tensors).collect::<ounce_train::Result<Vec<_>>>()?;
        let mut ratios: [Vec<f64>; 3] = Default::default();
        // The first turn warms up.
        for turn in 0..=plan.repetitions {
            let mut seconds = [0.0; 4];
            for (seconds, with) in seconds.iter_mut().zip(&tensors) {
                let start = Instant::now();
                std::hint::black_box(with.logits(&samples.words)?);
                *seconds = start.elapsed().as_secs_f64();
            }
            if turn > 0 {
                ratios.iter_mut().zip(&seconds[1..]).for_each(|(all, own)| all.push(own / seconds[0]));
            }
        }
        let found = ratios.map(|ratios| quantile(&ratios, 0.5));
        let operations = Operations::of(length, width, share, keys);
        let counted = [operations.factors, operations.linformer, operations.both];
        let mut row = Row::new(format!("{length} words"));
        for ((way, time), counted) in WAYS[1..].iter().zip(&found).zip(counted) {
            row = row.with(format!("time of {way}"), *time, "of whole").with(
                format!("operations of {way}"),
                counted / operations.dense,
                "of whole",
            );
        }
        evidence.rows.push(row);
        times.push(found);
    }
    let said = |from: &dyn Fn(usize) -> bool, of: &dyn Fn(&[f64; 3]) -> String| -> String {
        let chosen = plan.lengths.iter().zip(&times).filter(|(length, _)| from(**length));
        chosen.map(|(length, time)| format!("{} at {length}", of(time))).collect::<Vec<_>>().join(", ")
    };
    let all = |from: &dyn Fn(usize) -> bool, holds: &dyn Fn(&[f64; 3]) -> bool| {
        plan.lengths.iter().zip(&times).filter(|(length, _)| from(**length)).all(|(_, time)| holds(time))
    };
    let (short, long) = (|length: usize| length <= 256, |length: usize| length >= 1024);
    evidence.expect(
        "Up to 256 words factors are at least 1.3 times as fast as whole matrices.",
        said(&short, &|time| format!("{:.2} times", 1.0 / time[0])),
        all(&short, &|time| time[0] * 1.3 <= 1.0),
    );
    let both = |time: &[f64; 3]| format!("{:.2} and {:.2} of the time", time[0], time[1]);
    evidence.expect(
        "Up to 256 words factors are faster than projected keys.",
        said(&short, &both),
        all(&short, &|time| time[0] < time[1]),
    );
    evidence.expect(
        "From 1024 words on projected keys are faster than factors.",
        said(&long, &both),
        all(&long, &|time| time[1] < time[0]),
    );
    let forecast = crossover(width, share, keys);
    let lengths: Vec<f64> = plan.lengths.iter().map(|&length| length as f64).collect();
    let measured = meeting(&lengths, &times);
    evidence.expect(
        "Both meet between half and twice the length that operations tell.",
        match measured {
            Some(length) => format!("at {length:.0} words; by operations at {forecast:.0}"),
            None => format!("nowhere between the lengths; by operations at {forecast:.0}"),
        },
        measured.is_some_and(|length| (0.5..=2.0).contains(&(length / forecast))),
    );
    Ok(())
}

/// The length at which factors and projected keys take as long, on a line between the logarithms of lengths.
fn meeting(lengths: &[f64], times: &[[f64; 3]]) -> Option<f64> {
    let far: Vec<f64> = times.iter().map(|time| time[0] - time[1]).collect();
    let at = (1..far.len()).find(|&at| far[at - 1] < 0.0 && far[at] >= 0.0)?;
    let part = far[at - 1] / (far[at - 1] - far[at]);
    Some(lengths[at - 1] * (lengths[at] / lengths[at - 1]).powf(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desk::Desk;

    #[test]
    fn a_small_run_gives_sound_evidence() {
        let plan = Plan {
            seeds: 1,
            width: 16,
            keys: 4,
            lengths: vec![16, 1024],
            repetitions: 1,
            trained_width: 16,
            length: 16,
            steps: 4,
            tune: 2,
            batch: 4,
            test: 16,
            rate: 1e-3,
        };
        let evidence = measure(&Desk, &plan).expect("measured");
        evidence.check().expect("sound");
        assert_eq!((evidence.rows.len(), evidence.expectations.len()), (9, 8));
        let rows =
            |label: &str, what: &str| evidence.row(label).and_then(|row| row.get(what)).expect("there");
        assert!(rows(FACTORS, "parameters") < rows(DENSE, "parameters"));
        assert!(rows(SVD, "lost by factors") < rows(SEMI_NMF, "lost by factors"));
    }

    #[test]
    fn the_meeting_lies_where_the_difference_changes_its_sign() {
        let times = [[0.4, 0.8, 0.0], [0.6, 0.7, 0.0], [0.9, 0.6, 0.0]];
        let found = meeting(&[100.0, 200.0, 400.0], &times).expect("there");
        assert!((found - 200.0 * 2f64.powf(0.25)).abs() < 1e-9, "{found}");
        assert_eq!(meeting(&[100.0, 200.0], &times[..2]), None);
    }
}
