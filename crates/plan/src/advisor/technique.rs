//! What the registry says of a technique.

use serde::{Deserialize, Serialize};

/// Where in a model's life it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// How the model is built.
    Architecture,
    /// While it is trained from nothing.
    Pretraining,
    /// While it is adapted.
    FineTuning,
    /// Between training and use.
    Compression,
    /// While it answers one request.
    Decoding,
    /// While it answers many.
    Serving,
}

impl Stage {
    /// Every stage, in the order of a model's life.
    pub const ALL: [Stage; 6] = [
        Stage::Architecture,
        Stage::Pretraining,
        Stage::FineTuning,
        Stage::Compression,
        Stage::Decoding,
        Stage::Serving,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Architecture => "architecture",
            Stage::Pretraining => "pretraining",
            Stage::FineTuning => "fine-tuning",
            Stage::Compression => "compression",
            Stage::Decoding => "decoding",
            Stage::Serving => "serving",
        }
    }
}

/// What a technique spares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resource {
    /// Bytes of working memory.
    Memory,
    /// Operations.
    Compute,
    /// Time to an answer.
    Latency,
    /// Joules.
    Energy,
    /// Money.
    Money,
    /// Bytes sent.
    Network,
    /// Bytes stored.
    Disk,
    /// Training data, or labels.
    Data,
}

/// The algorithm class, as method 048 divides them; the last two are not of that survey.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)] // each is its name
pub enum Class {
    Quantization,
    Pruning,
    Distillation,
    LowRank,
    CompactArchitecture,
    DynamicNetwork,
    Framework,
    Peft,
    Training,
}

impl Class {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Class::Quantization => "quantization",
            Class::Pruning => "pruning",
            Class::Distillation => "distillation",
            Class::LowRank => "low-rank",
            Class::CompactArchitecture => "compact-architecture",
            Class::DynamicNetwork => "dynamic-network",
            Class::Framework => "framework",
            Class::Peft => "peft",
            Class::Training => "training",
        }
    }

    /// Where it stands in a pipeline: numbers are removed first, what is left learns from the original, and only then are
    /// its bits taken away.
    pub fn order(self) -> u8 {
        match self {
            Class::CompactArchitecture => 0,
            Class::Training => 1,
            Class::Pruning => 2,
            Class::LowRank => 3,
            Class::Distillation => 4,
            Class::Peft => 5,
            Class::Quantization => 6,
            Class::DynamicNetwork => 7,
            Class::Framework => 8,
        }
    }
}

/// How much quality is at stake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Risk {
    /// The results are the same.
    None,
    /// Seldom noticed.
    Low,
    /// Measure before use.
    Medium,
    /// Needs repair, or a model with room to spare.
    High,
}

impl Risk {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Risk::None => "none",
            Risk::Low => "low",
            Risk::Medium => "medium",
            Risk::High => "high",
        }
    }
}

/// A technique.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Technique {
    /// By which it is named in evidence and JSON.
    pub id: &'static str,
    /// What it is called.
    pub name: &'static str,
    /// Methods of the catalogue about it.
    pub numbers: &'static [u16],
    /// When it is applied.
    pub stage: Stage,
    /// Its class.
    pub class: Class,
    /// Its branch of the class.
    pub branch: &'static str,
    /// What it spares.
    pub saves: &'static [Resource],
    /// Whether weights are trained for it.
    pub needs_training: bool,
    /// Tokens of text that it looks at, without training; 0 for none.
    pub calibration: usize,
    /// What is at stake.
    pub risk: Risk,
    /// Only one technique of a slot can be in a pipeline: their gains don't multiply. Empty if it stands beside all.
    pub slot: &'static str,
    /// How to switch it on; none if it is not here yet.
    pub command: Option<&'static str>,
    /// What the literature says of it, in a few words.
    pub paper: &'static str,
}

impl Technique {
    /// Whether it needs no training.
    pub fn is_tuning_free(&self) -> bool {
        !self.needs_training
    }

    /// Whether it spares this.
    pub fn saves(&self, resource: Resource) -> bool {
        self.saves.contains(&resource)
    }
}
