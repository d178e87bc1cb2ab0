//! Method 003: techniques side by side in all the figures that the survey asks for.

use std::time::Instant;

use ounce_compress::Result;
use ounce_eval::method::{Evidence, Fixture, Lab, Row, Text};
use ounce_kernels::attention::KvType;
use ounce_train::optim::Kind;

use super::super::NUMBER_RESOURCES;
use super::super::registry::{technique, techniques};
use super::super::technique::Resource;
use super::super::training::Settings;
use super::limits::{Step, steps};
use super::measure::{Candidate, Original, timed};
use super::variants::{make, stories, way};
use super::{AS_IT_IS, PLAIN_TRAINING};

/// How large everything is.
pub(super) struct Scale {
    /// Bytes of text to calibrate and to measure on.
    pub calibration: usize,
    pub held_out: usize,
    /// Tokens of a prompt and of an answer.
    pub tokens: usize,
    /// Training steps.
    pub training: Step,
    pub fixture: Fixture,
}

impl Scale {
    pub const FULL: Scale = Scale {
        calibration: 40_000,
        held_out: 16_000,
        tokens: 128,
        training: Step { hidden: 128, layers: 6, context: 128, sequences: 8, repetitions: 3 },
        fixture: Fixture::Builtin,
    };
}

/// Times that all are timed, one behind the other; the best counts.
const ROUNDS: usize = 6;

/// What is measured of the built-in model.
const COMPRESSED: [&str; 12] = [
    "8-bit",
    "6-bit",
    "4-bit-rounded",
    "4-bit-gptq",
    "4-bit-awq",
    "3-bit-gptq",
    "rotation",
    "smooth-w8a8",
    "magnitude",
    "wanda",
    "sparsegpt",
    "2-of-4",
];

/// What is measured of a training step.
fn trained() -> [(&'static str, Settings); 5] {
    let plain = Settings::PLAIN;
    [
        (PLAIN_TRAINING, plain),
        ("checkpointing", Settings { checkpointing: true, ..plain }),
        ("accumulation", Settings { accumulation: 8, ..plain }),
        ("adam-8bit", Settings { optimizer: Kind::AdamW8bit, ..plain }),
        ("lion", Settings { optimizer: Kind::Lion, ..plain }),
    ]
}

pub(super) fn measure(lab: &dyn Lab, scale: &Scale) -> Result<Evidence> {
    let mut evidence = Evidence::new(NUMBER_RESOURCES, lab.seed(), AS_IT_IS);
    let model = lab.model(scale.fixture)?;
    let length = 256;
    let texts = stories(&model, &lab.text(Text::HeldOut, scale.held_out), length)?;
    let calibration = stories(&model, &lab.text(Text::Train, scale.calibration), length)?;
    lab.progress("the model as it is", 0.0);
    let original = Original::of(&model, &texts)?;
    let candidate = |label: &str, model: &ounce_model::Model, kv, seconds| {
        Candidate::new(label, model, kv, &original, &texts, seconds)
    };
    let mut candidates = vec![candidate(AS_IT_IS, &model, KvType::F16, 0.0)?];
    candidates.push(candidate("kv-8bit", &model, KvType::Q8_0, 0.0)?);
    for (at, id) in COMPRESSED.into_iter().enumerate() {
        lab.progress(id, 0.1 + 0.6 * at as f64 / COMPRESSED.len() as f64);
        let Some(way) = way(id) else { continue };
        let start = Instant::now();
        let made = make(&model, &way, &calibration)?;
        candidates.push(candidate(id, &made, KvType::F16, start.elapsed().as_secs_f64())?);
    }
    lab.progress("speeds, in turn", 0.7);
    evidence.rows = timed(candidates, scale.tokens, ROUNDS)?;
    lab.progress("training steps", 0.82);
    for (label, settings) in trained() {
        let found = steps(&scale.training, &settings, lab.seed())?;
        evidence.rows.push(
            Row::new(label)
                .with("peak", found.bytes as f64, "bytes")
                .with("a step", found.seconds, "s")
                .with("loss behind it", found.loss, "nats"),
        );
    }
    judge(&mut evidence);
    evidence.notes = notes(&evidence, scale);
    lab.progress("done", 1.0);
    Ok(evidence)
}

/// The figures by which a technique must be below its baseline to spare memory or operations.
fn memory(row: &Row) -> Option<f64> {
    let weights = row.get("weights in memory").zip(row.get("cache")).map(|(weights, cache)| weights + cache);
    weights.or_else(|| row.get("peak"))
}

fn judge(evidence: &mut Evidence) {
    let of = |label: &str| evidence.row(label).and_then(memory).unwrap_or(f64::NAN);
    let plain = [of(AS_IT_IS), of(PLAIN_TRAINING)];
    let mut flagged = Vec::new();
    let mut without = Vec::new();
    let mut slow = Vec::new();
    for row in &evidence.rows {
        let Some(it) = technique(&row.label) else { continue };
        let base = if row.get("peak").is_some() { plain[1] } else { plain[0] };
        if it.saves(Resource::Memory) {
            let share = memory(row).map_or(f64::NAN, |bytes| bytes / base);
            flagged.push(it.id);
            if !(share < 1.0) {
                without.push(format!("{} ×{share:.2}", it.id));
            }
        }
        let speed = |row: Option<&Row>| row.and_then(|row| row.get("answer"));
        if it.saves(Resource::Latency) {
            let ratio = speed(Some(row)).zip(speed(evidence.row(AS_IT_IS))).map_or(f64::NAN, |(a, b)| a / b);
            if !(ratio > 1.0) {
                slow.push(format!("{} ×{ratio:.2}", it.id));
            }
        }
    }
    let told = |list: &[String]| {
        if list.is_empty() { "all".to_string() } else { format!("not {}", list.join(", ")) }
    };
    let (saves, faster) = (told(&without), told(&slow));
    evidence.expect(
        format!(
            "each of the {} measured techniques that are to spare memory shows fewer bytes",
            flagged.len()
        ),
        saves,
        without.is_empty() && !flagged.is_empty(),
    );
    evidence.expect("each that is to answer sooner writes more tokens a second", faster, slow.is_empty());
    let close = |id: &str| evidence.row(id).and_then(|row| row.get("loyalty").zip(row.get("fidelity")));
    let (eight, three) = (close("8-bit"), close("3-bit-gptq"));
    let held = eight.zip(three).is_some_and(|(a, b)| a.0 >= b.0 && a.1 >= b.1);
    let text = |it: Option<(f64, f64)>| it.map_or("-".into(), |(a, b)| format!("{a:.4} and {b:.4}"));
    evidence.expect(
        "8 bits are more loyal and more faithful to the original than 3 bits",
        format!("{} against {}", text(eight), text(three)),
        held,
    );
}

fn notes(evidence: &Evidence, scale: &Scale) -> Vec<String> {
    let measured = |id: &str| evidence.row(id).is_some();
    let not = |which: &dyn Fn(&str, bool) -> bool| -> String {
        let ids = techniques().filter(|it| !measured(it.id) && which(it.id, it.command.is_some()));
        ids.map(|it| it.id).collect::<Vec<_>>().join(", ")
    };
    vec![
        format!(
            "The built-in model, {} tokens of prompt and answer; bytes of weights are those the fast engine holds. Loyalty: the \
             share of tokens for which both models hold the same for the likeliest; fidelity: 1 less the Jensen-Shannon divergence in bits. \
             Energy is counted by the processor where it shows counters, else modelled as 10 to 65 W by use: no more than a time then. \
             Operations are not counted apart: a multiply-add would be two.",
            scale.tokens
        ),
        "Pruned weights are stored and computed as dense ones: they spare nothing here but what a compressing file system would find."
            .into(),
        format!("Here and not measured: {}.", not(&|_, built| built)),
        format!("Not built, so not measured: {}.", not(&|_, built| !built)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_the_registry() {
        for id in COMPRESSED.into_iter().chain(trained().iter().skip(1).map(|it| it.0)).chain(["kv-8bit"]) {
            assert!(technique(id).is_some(), "{id}");
        }
        assert!(COMPRESSED.iter().all(|id| way(id).is_some()));
    }

    #[test]
    fn what_spares_nothing_is_named() {
        let mut evidence = Evidence::new(NUMBER_RESOURCES, 1, AS_IT_IS);
        let row = |label: &str, bytes: f64, speed: f64| {
            let row = Row::new(label).with("weights in memory", bytes, "bytes").with("cache", 10.0, "bytes");
            row.with("answer", speed, "tokens/s").with("loyalty", 0.9, "").with("fidelity", 0.9, "")
        };
        evidence.rows =
            vec![row(AS_IT_IS, 100.0, 5.0), row("8-bit", 50.0, 4.0), row("4-bit-gptq", 120.0, 9.0)];
        judge(&mut evidence);
        let told: Vec<(&str, bool)> =
            evidence.expectations.iter().map(|it| (it.measured.as_str(), it.holds)).collect();
        assert_eq!(told[0], ("not 4-bit-gptq ×1.18", false));
        assert_eq!(told[1], ("not 8-bit ×0.80", false));
        assert!(!told[2].1, "3 bits were not measured");
    }
}
