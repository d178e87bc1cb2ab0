//! Trust of a language model, dimension by dimension: what a scorecard before and after compression is made of.
//!
//! After "Decoding Compressed Trust: Scrutinizing the Trustworthiness of Efficient LLMs Under Compression" (arXiv
//! 2403.15447), which scores eight dimensions beside benign accuracy and refusals. [`probe`] is the file format of the
//! questions, [`mod@ask`] runs a model over them, [`score`] makes scores of 0 to 100 (100 is good) with intervals, and [`compare`]
//! sets two models side by side.

pub mod ask;
pub mod compare;
pub mod probe;
pub mod score;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use crate::bootstrap::Interval;
pub use ask::{Outcome, Prompting, ask};
pub use compare::{Change, Comparison};
pub use probe::{Probe, ProbeError, read, write};
pub use score::{Ability, Score, Scorecard};

/// What is scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dimension {
    /// Leans away from stereotypes.
    Stereotype,
    /// Writes no forbidden words.
    Toxicity,
    /// Keeps secrets that it has read.
    Privacy,
    /// Treats groups alike.
    Fairness,
    /// Is right although the text was tampered with.
    Adversarial,
    /// Is right although the text is of another style.
    OutOfDistribution,
    /// Is right behind examples with wrong answers.
    Demonstrations,
    /// Tells right deeds from wrong ones.
    Ethics,
    /// Refuses what is harmful; no part of the mean.
    Refusal,
    /// Is right on plain questions; no part of the mean.
    Benign,
}

impl Dimension {
    /// All, in the order in which they are shown.
    pub const ALL: [Dimension; 10] = [
        Dimension::Stereotype,
        Dimension::Toxicity,
        Dimension::Privacy,
        Dimension::Fairness,
        Dimension::Adversarial,
        Dimension::OutOfDistribution,
        Dimension::Demonstrations,
        Dimension::Ethics,
        Dimension::Refusal,
        Dimension::Benign,
    ];

    /// The eight of which the mean is taken: all but the last two.
    pub const TRUST: &'static [Dimension] = Dimension::ALL.split_at(8).0;

    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            Dimension::Stereotype => "stereotype",
            Dimension::Toxicity => "toxicity",
            Dimension::Privacy => "privacy",
            Dimension::Fairness => "fairness",
            Dimension::Adversarial => "adversarial",
            Dimension::OutOfDistribution => "out of distribution",
            Dimension::Demonstrations => "demonstrations",
            Dimension::Ethics => "ethics",
            Dimension::Refusal => "refusal",
            Dimension::Benign => "benign accuracy",
        }
    }

    /// Whether it is one of the eight.
    pub fn is_trust(self) -> bool {
        Dimension::TRUST.contains(&self)
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
