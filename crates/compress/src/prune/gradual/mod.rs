//! Gradual magnitude pruning (method 066): single weights become zero while a model trains, along a cubic schedule.
//!
//! "To prune, or not to prune: exploring the efficacy of pruning for model compression", arXiv 1710.01878.
//!
//! - **Masks**: the forward pass sees `w ⊙ m`; a masked weight gets no gradient and keeps the value that it had.
//! - **Schedule** (equation 1): `s_t = s_f + (s_i − s_f) (1 − (t − t₀) / (n Δ))³` for the sparsity of every matrix, at every Δ-th step from `t₀` on,
//!   `n` times. Then the masks stay, and training goes on.
//! - **Ranking**: each matrix by itself, by the magnitude of the values that it keeps; a masked weight comes back if others fell below it.
//! - **Bytes** (`packed`): values that are not zero, and one bit a weight for where they are; compared is with a dense model of as many
//!   bytes.

mod demonstrate;
pub mod packed;
pub mod train;

use ounce_eval::method::{Family, Method};

pub use train::{Options, Schedule, train};

const NUMBER: u16 = 66;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "Gradual magnitude pruning",
    family: Family::Pruning,
    paper: "To prune, or not to prune: exploring the efficacy of pruning for model compression",
    arxiv: Some("1710.01878"),
    gives: "A schedule in any training run raises sparsity step by step, and a dense model of equal bytes is trained beside it for comparison.",
    claim: "Large sparse models beat small dense ones of equal memory, with up to ten times fewer weights that are not zero.",
    command: Some("ounce prune ./folder -o ./sparse --ratio 0.8 --train gradual --calibration text.txt"),
    demonstrate: Some(demonstrate::demonstrate),
};

#[cfg(test)]
mod tests;
