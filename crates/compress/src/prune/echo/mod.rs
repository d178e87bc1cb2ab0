//! EchoAtt (method 025): layers that attend alike share one attention matrix, and the model relearns from its own original.
//!
//! "EchoAtt: Attend, Copy, then Adjust for More Efficient Large Language Models", arXiv 2409.14595.
//!
//! - **Attend** (`similarity`): the attention matrices `A = softmax(Q Kᵀ s + mask)` of all layers on calibration text, compared head by head and
//!   row by row: the mean cosine.
//! - **Copy** (`student`): the first and last layers stay as they are; of those between, some drop their query and key matrices and
//!   weigh their values by the `A` of the nearest layer before them that has its own, `out = (A V) W_O`. Which ones is found exactly, by dynamic
//!   programming: the given number of copies with the greatest sum of similarities to what they copy.
//! - **Adjust** (`heal`): first by distillation, `½ CE + ½ T² KL + Σ MSE` of the streams behind the last layer of each block; then
//!   by the text alone.
//!
//! [`Student::model`] is the model that is written and run. Kernels never hold a matrix of attention, so a shared one is computed again from
//! the shared queries and keys in every layer, in training and in the engine; what is spared are the two projections, their norms and
//! rotations, and the cache of keys.

mod demonstrate;
pub mod heal;
pub mod similarity;
pub mod student;

use ounce_eval::method::{Family, Method};

pub use heal::{Options, heal};
pub use similarity::{similarity, sources};
pub use student::{Student, said};

const NUMBER: u16 = 25;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "EchoAtt",
    family: Family::Distillation,
    paper: "EchoAtt: Attend, Copy, then Adjust for More Efficient Large Language Models",
    arxiv: Some("2409.14595"),
    gives: "Layers that attend alike are found and made to share one attention matrix, then the model relearns from its own original.",
    claim: "TinyLLaMA-1.1B runs 15 % and trains 25 % faster with about 4 % fewer parameters and better zero-shot scores.",
    command: Some("ounce prune ./folder -o small.gguf --copies 4 --train echo-att --calibration text.txt"),
    demonstrate: Some(demonstrate::demonstrate),
};

#[cfg(test)]
mod tests;
