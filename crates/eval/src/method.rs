//! The types of the catalogue: a method of the literature, and the evidence that it does here what it promises.
//!
//! A technique crate fills in one [`Method`] a paper; the `lab` crate lists them, runs [`Method::demonstrate`] and
//! keeps the [`Evidence`]. A technique reaches fixtures only through the small trait [`Lab`], so it doesn't depend on
//! the crate that holds them. Nothing here knows a particular method.

use ounce_model::Model;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Number of methods of the catalogue; they are numbered from 1.
pub const METHOD_COUNT: u16 = 130;

/// One published method.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// Number in the catalogue, 1 to [`METHOD_COUNT`].
    pub number: u16,
    /// Short name, as the literature uses it.
    pub name: &'static str,
    /// What kind of method it is.
    pub family: Family,
    /// Title of the paper.
    pub paper: &'static str,
    /// The paper's arXiv identifier, such as `2410.00907`.
    pub arxiv: Option<&'static str>,
    /// What a user gets, in one sentence.
    pub gives: &'static str,
    /// What the paper claims, with its figures.
    pub claim: &'static str,
    /// The command that uses the method; none while it is planned.
    pub command: Option<&'static str>,
    /// Runs the method on generated fixtures and measures it against a baseline; none while it is planned.
    pub demonstrate: Option<Demonstration>,
}

/// A measured run of a method.
pub type Demonstration = fn(&dyn Lab) -> Result<Evidence, DemonstrationError>;

impl Method {
    /// A method that is listed and not yet built.
    pub const fn planned(
        number: u16,
        name: &'static str,
        family: Family,
        paper: &'static str,
        arxiv: Option<&'static str>,
        gives: &'static str,
        claim: &'static str,
    ) -> Self {
        Self { number, name, family, paper, arxiv, gives, claim, command: None, demonstrate: None }
    }

    /// Whether the method can be used.
    pub fn state(&self) -> State {
        if self.demonstrate.is_some() { State::Working } else { State::Planned }
    }
}

/// Whether a method of the catalogue can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Listed, without code.
    Planned,
    /// Has a command and a demonstration.
    Working,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Planned => "planned",
            State::Working => "working",
        })
    }
}

/// Kinds of methods, in the order in which the catalogue shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)] // each variant is named by its title
pub enum Family {
    Quantization,
    Pruning,
    LowRank,
    Distillation,
    Peft,
    Moe,
    Runtime,
    Training,
    Planning,
    Federated,
    Retrieval,
    DomainLanguage,
    Multimodal,
    Vision,
    GenerativeVision,
    Speech,
}

impl Family {
    /// Every family, in order.
    pub const ALL: [Family; 16] = [
        Family::Quantization,
        Family::Pruning,
        Family::LowRank,
        Family::Distillation,
        Family::Peft,
        Family::Moe,
        Family::Runtime,
        Family::Training,
        Family::Planning,
        Family::Federated,
        Family::Retrieval,
        Family::DomainLanguage,
        Family::Multimodal,
        Family::Vision,
        Family::GenerativeVision,
        Family::Speech,
    ];

    /// The family's heading.
    pub fn title(self) -> &'static str {
        match self {
            Family::Quantization => "Quantization",
            Family::Pruning => "Pruning",
            Family::LowRank => "Low rank and shared weights",
            Family::Distillation => "Distillation",
            Family::Peft => "Parameter-efficient fine-tuning",
            Family::Moe => "Mixture of experts",
            Family::Runtime => "Runtime",
            Family::Training => "Training",
            Family::Planning => "Planning and measuring",
            Family::Federated => "Federated learning",
            Family::Retrieval => "Routing and retrieval",
            Family::DomainLanguage => "Domains and languages",
            Family::Multimodal => "Multimodal",
            Family::Vision => "Vision",
            Family::GenerativeVision => "Generative vision",
            Family::Speech => "Speech",
        }
    }
}

/// What a demonstration may use. Implemented by the `lab` crate; a test can implement it in a few lines.
pub trait Lab {
    /// The seed of this run; a demonstration draws every random number from it.
    fn seed(&self) -> u64;

    /// Generated English text, stories separated by blank lines, about `bytes` bytes long.
    fn text(&self, kind: Text, bytes: usize) -> String;

    /// A model to work on, opened.
    ///
    /// # Errors
    /// If its files are damaged.
    fn model(&self, fixture: Fixture) -> ounce_model::Result<Model>;

    /// Reports how far the demonstration is: `done` goes from 0 to 1.
    fn progress(&self, message: &str, done: f64);
}

/// Which generated text a demonstration asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    /// Text a model may learn from.
    Train,
    /// Text that no model has learnt from; for measuring.
    HeldOut,
    /// Documents of a made-up town that show all that [`Text::TownProbes`] ask for. Short, with blank lines between them.
    Town,
    /// Trust probes on that town, as [`crate::trust::read`] reads them; all of them, however many bytes are asked for.
    TownProbes,
}

/// Which model a demonstration asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fixture {
    /// The small language model that is part of the program; it was trained on [`Text::Train`].
    Builtin,
    /// The same with a twelfth of the weights, for experiments that need many runs.
    Tiny,
    /// A small encoder of the same text, trained to find hidden words.
    Encoder,
}

/// What a demonstration measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// The method's number in the catalogue.
    pub method: u16,
    /// The seed everything was drawn from.
    pub seed: u64,
    /// The label of the row the others are compared with.
    pub baseline: String,
    /// Measurements, one row a variant.
    pub rows: Vec<Row>,
    /// What was expected beforehand, each with what came out.
    pub expectations: Vec<Expectation>,
    /// What a reader must know to read the numbers rightly, such as parts that weren't measured.
    pub notes: Vec<String>,
    /// What the demonstration cost; filled in by whoever runs it.
    pub cost: Cost,
}

/// One variant's measurements.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// What was measured.
    pub label: String,
    /// Its values, in the order of the table's columns.
    pub values: Vec<Value>,
}

/// One measured number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Value {
    /// What it measures.
    pub name: String,
    /// The number; always finite.
    pub value: f64,
    /// Its unit; empty for a plain ratio or count.
    pub unit: String,
}

/// A statement that was made before measuring, and whether it holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    /// The statement, with its tolerance.
    pub text: String,
    /// What was measured for it.
    pub measured: String,
    /// Whether the measurement agrees.
    pub holds: bool,
}

/// What a demonstration cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Wall time in seconds.
    pub seconds: f64,
    /// The process's largest resident memory in bytes, where the system tells.
    pub peak_bytes: Option<u64>,
}

impl Row {
    /// A row without values.
    pub fn new(label: impl Into<String>) -> Self {
        Self { label: label.into(), values: Vec::new() }
    }

    /// The row with one more value.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: f64, unit: impl Into<String>) -> Self {
        self.values.push(Value { name: name.into(), value, unit: unit.into() });
        self
    }

    /// The value of that name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.iter().find(|value| value.name == name).map(|value| value.value)
    }
}

impl DemonstrationError {
    /// Names the step of a demonstration that failed; for `map_err`.
    pub fn step<E>(method: u16, step: &str) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let step = step.to_owned();
        move |source| DemonstrationError::Step { method, step, source: source.into() }
    }
}

impl Evidence {
    /// Evidence without rows; the baseline's row must be among those pushed later.
    pub fn new(method: u16, seed: u64, baseline: impl Into<String>) -> Self {
        Self {
            method,
            seed,
            baseline: baseline.into(),
            rows: Vec::new(),
            expectations: Vec::new(),
            notes: Vec::new(),
            cost: Cost::default(),
        }
    }

    /// Adds an expectation and what came of it.
    pub fn expect(&mut self, text: impl Into<String>, measured: impl Into<String>, holds: bool) {
        self.expectations.push(Expectation { text: text.into(), measured: measured.into(), holds });
    }

    /// Whether every expectation holds.
    pub fn holds(&self) -> bool {
        self.expectations.iter().all(|expectation| expectation.holds)
    }

    /// The row with that label.
    pub fn row(&self, label: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.label == label)
    }

    /// Checks what the types can't express: a known method, a baseline that is a row, an expectation, finite numbers.
    ///
    /// # Errors
    /// The first flaw, as a sentence.
    pub fn check(&self) -> Result<(), DemonstrationError> {
        let flaw = |what: String| Err(DemonstrationError::Flawed { method: self.method, what });
        if !(1..=METHOD_COUNT).contains(&self.method) {
            return flaw(format!("methods are numbered from 1 to {METHOD_COUNT}"));
        }
        if self.row(&self.baseline).is_none() {
            return flaw(format!("no row is labelled {:?}, which it names as its baseline", self.baseline));
        }
        if self.expectations.is_empty() {
            return flaw("it states no expectation; say what was expected before measuring".into());
        }
        for (at, row) in self.rows.iter().enumerate() {
            if row.label.is_empty() || row.values.is_empty() {
                return flaw(format!("row {} has no label or no value", at + 1));
            }
            if self.rows[..at].iter().any(|earlier| earlier.label == row.label) {
                return flaw(format!("two rows are labelled {:?}", row.label));
            }
            if let Some(value) = row.values.iter().find(|value| !value.value.is_finite()) {
                return flaw(format!("{:?} of row {:?} isn't a finite number", value.name, row.label));
            }
        }
        if !self.cost.seconds.is_finite() || self.cost.seconds < 0.0 {
            return flaw("its cost in seconds isn't a finite number from 0 up".into());
        }
        Ok(())
    }
}

/// Why a demonstration gave no evidence.
#[derive(Debug, thiserror::Error)]
pub enum DemonstrationError {
    /// The evidence contradicts itself.
    #[error("evidence of method {method}: {what}")]
    Flawed {
        /// The method's number.
        method: u16,
        /// What is wrong.
        what: String,
    },
    /// A step of the demonstration failed.
    #[error("demonstration of method {method}: {step} failed: {source}")]
    Step {
        /// The method's number.
        method: u16,
        /// What was being done.
        step: String,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Evidence {
        let mut evidence = Evidence::new(20, 7, "f32");
        evidence.rows.push(Row::new("f32").with("error", 0.0, ""));
        evidence.rows.push(Row::new("3 bits").with("error", 0.07, ""));
        evidence.expect("error of 3 bits below 0.1", "0.07", true);
        evidence
    }

    #[test]
    fn sound_evidence_passes_and_each_flaw_is_named() {
        good().check().expect("sound");
        type Spoil = fn(&mut Evidence);
        let flaws: [(&str, Spoil); 8] = [
            ("numbered", |e| e.method = 0),
            ("numbered", |e| e.method = METHOD_COUNT + 1),
            ("baseline", |e| e.baseline = "bf16".into()),
            ("expectation", |e| e.expectations.clear()),
            ("no value", |e| e.rows[1].values.clear()),
            ("two rows", |e| e.rows[1].label = "f32".into()),
            ("finite", |e| e.rows[0].values[0].value = f64::NAN),
            ("seconds", |e| e.cost.seconds = -1.0),
        ];
        for (word, spoil) in flaws {
            let mut evidence = good();
            spoil(&mut evidence);
            let message = evidence.check().expect_err(word).to_string();
            assert!(message.contains(word), "{message:?} should mention {word:?}");
        }
    }

    #[test]
    fn evidence_holds_when_every_expectation_does() {
        let mut evidence = good();
        assert!(evidence.holds());
        evidence.expect("error of 3 bits below 0.01", "0.07", false);
        assert!(!evidence.holds());
    }

    #[test]
    fn evidence_survives_json_and_unknown_fields_are_refused() {
        let text = serde_json::to_string(&good()).expect("writes");
        assert_eq!(serde_json::from_str::<Evidence>(&text).expect("reads"), good());
        let strange = text.replacen("\"seed\"", "\"sead\"", 1);
        assert!(serde_json::from_str::<Evidence>(&strange).is_err());
    }

    #[test]
    fn families_are_listed_in_their_order() {
        assert!(Family::ALL.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
