//! One run of a grid.

use serde::{Deserialize, Serialize};

use crate::Settings;

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The task.
    pub task: String,
    /// The model's name.
    pub model: String,
    /// What data and model hang on.
    pub identity: String,
    /// The way, as a user writes it.
    pub way: String,
    /// The method's settings; none without a method.
    pub settings: Option<Settings>,
    /// The highest learning rate; 0 where nothing is trained.
    pub rate: f64,
    /// Steps.
    pub steps: u64,
    /// What is random begins with it.
    pub seed: u64,
    /// Whether the run was to choose a rate: it is not judged.
    pub choosing: bool,
}

impl Cell {
    /// Whether another is the same run; rates that were written and read again may be off by a digit.
    pub fn is(&self, other: &Cell) -> bool {
        let near = (self.rate - other.rate).abs() <= 1e-12 * self.rate.abs();
        near && Cell { rate: other.rate, ..self.clone() } == *other
    }
}

/// A measured number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Value {
    /// What it measures.
    pub name: String,
    /// The number.
    pub value: f64,
    /// Its unit.
    pub unit: String,
}

impl Value {
    /// A number with its name and unit.
    pub fn new(name: &str, value: f64, unit: &str) -> Value {
        Value { name: name.to_owned(), value, unit: unit.to_owned() }
    }
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The run.
    pub cell: Cell,
    /// The loss by which rates are chosen; none if the run diverged.
    pub loss: Option<f64>,
    /// How good the model is; empty if that was not asked, or the run diverged.
    pub values: Vec<Value>,
    /// Numbers trained, new heads not counted.
    pub trained: u64,
    /// Numbers of a new head.
    pub head: u64,
    /// Numbers that the method trains by its formula.
    pub formula: u64,
    /// Numbers of the model without a new head.
    pub of: u64,
    /// Seconds of a step: the median.
    pub step_seconds: f64,
    /// Bytes of the base as it is stored.
    pub base_bytes: u64,
    /// Bytes by the forecast: base, what is decoded, gradients, optimizer, buffers.
    pub predicted_bytes: u64,
    /// The base and the most bytes that were held above it at a time; none where nothing counts allocations.
    pub measured_bytes: Option<u64>,
    /// Bytes of what the optimizer keeps.
    pub optimizer_bytes: u64,
    /// Bytes of the weights that are kept of what was learned.
    pub adapter_bytes: u64,
    /// How many times as long a forward pass takes as without what was learned, merged where that can be; none if not asked.
    pub delay: Option<f64>,
    /// How far logits of the merged model are from those of the adapter beside its base, as a part of the largest; none if not asked,
    /// or nothing merges.
    pub merged_error: Option<f64>,
}

impl Outcome {
    /// The value that counts most.
    pub fn quality(&self) -> Option<f64> {
        self.values.first().map(|it| it.value)
    }

    /// A value by its name.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.values.iter().find(|it| it.name == name).map(|it| it.value)
    }

    /// Trained numbers as a part of the model's.
    pub fn share(&self) -> f64 {
        self.trained as f64 / self.of.max(1) as f64
    }
}
