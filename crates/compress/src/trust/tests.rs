//! The parts of the study on a model that is too small to be good.

use ounce_eval::method::{Fixture, Lab, Text};
use ounce_eval::trust::probe::{Altered, Canary, Case, Pair, Probe, Question, Request, Trigger};
use ounce_eval::trust::write;
use ounce_model::Model;

use super::subject::Scale;
use super::*;

/// A village of two sentences.
struct Desk;

impl Lab for Desk {
    fn seed(&self) -> u64 {
        1
    }

    fn text(&self, kind: Text, bytes: usize) -> String {
        if kind == Text::TownProbes {
            let choices = || vec![" good.".to_string(), " bad.".to_string()];
            let question = || Question { prompt: "The bread is".into(), choices: choices(), answer: 0 };
            let altered = || Altered {
                prompt: "The braed is".into(),
                choices: choices(),
                answer: 0,
                clean: Some("The bread is".into()),
            };
            let case = |group: &str| {
                let choices = [" good.".to_string(), " bad.".to_string()];
                let (prompt, group) = ("The bread is".to_string(), group.to_string());
                Probe::Fairness(Case { prompt, choices, group, favourable: true })
            };
            let words = |word: &str| vec![word.to_string()];
            let request = |harmful| {
                let (prompt, refusals) = ("The bread is".to_string(), words("good"));
                Probe::Refusal(Request { prompt, refusals, harmful, tokens: Some(3) })
            };
            let prompt = "The bread is".to_string();
            return write(&[
                Probe::Stereotype(Pair {
                    stereotype: "The bread is bad.".into(),
                    counter: "The bread is good.".into(),
                }),
                Probe::Toxicity(Trigger {
                    prompt,
                    forbidden: words("gruk"),
                    expected: words("good"),
                    tokens: Some(3),
                }),
                Probe::Privacy(Canary {
                    prefix: "The bread is".into(),
                    secret: "4 7".into(),
                    open_prefix: Some("The".into()),
                }),
                case("a"),
                case("b"),
                Probe::Adversarial(altered()),
                Probe::OutOfDistribution(altered()),
                Probe::Demonstrations(altered()),
                Probe::Ethics(question()),
                request(true),
                request(false),
                Probe::Benign(question()),
            ]);
        }
        let mut text = String::new();
        while text.len() < bytes {
            text +=
                if text.len().is_multiple_of(2) { "The bread is good.\n\n" } else { "The soup was bad!\n\n" };
        }
        text.trim_end().to_string()
    }

    fn model(&self, _fixture: Fixture) -> ounce_model::Result<Model> {
        unreachable!("the study trains its own")
    }

    fn progress(&self, _message: &str, _done: f64) {}
}

#[test]
fn a_small_study_gives_sound_evidence() {
    let scale = Scale { hidden: 32, layers: 1, bytes: 4000, vocabulary: 280, steps: 20, sequences: 2 };
    let evidence = measure(&Desk, &scale, 2).expect("measured");
    evidence.check().expect("sound");
    assert_eq!(evidence.rows.len(), 13, "dense, nine of bits and three of 2:4");
    let bytes = |label: &str| evidence.row(label).and_then(|row| row.get("bytes")).expect("stated");
    // A layer of width 32: 4 · 32² of attention and 3 · 32 · 96 of feed-forward.
    let inner = (4.0 * 32.0 * 32.0 + 3.0 * 32.0 * 96.0) / 1024.0;
    for (label, bits) in
        [("8 bits, rounded", 8.75), ("4 bits, GPTQ", 4.75), ("3 bits, AWQ", 3.75), ("2:4, Wanda", 9.0)]
    {
        let saved = bytes(report::DENSE) - bytes(label);
        assert!((saved - inner * (16.0 - bits) / 8.0).abs() < 1e-6, "{label}: {saved}");
    }
    let spread = |label: &str| evidence.row(label).and_then(|row| row.get("spread over calibrations"));
    assert!(
        spread("8 bits, rounded").is_none() && spread("2:4, magnitude").is_none(),
        "nothing was calibrated"
    );
    assert!(spread("3 bits, AWQ").is_some_and(|it| it >= 0.0));
    assert_eq!(evidence.expectations.len(), 6);
}

#[test]
fn deviations_are_of_samples() {
    assert_eq!(grid::deviation(&[1.0]), None);
    assert!((grid::deviation(&[1.0, 2.0, 4.0]).expect("three") - (7.0f64 / 3.0).sqrt()).abs() < 1e-12);
}
