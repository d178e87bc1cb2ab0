//! STABLE-RPS (method 104): the number of stored weights is fixed before training; every matrix reads its weights from one small
//! array, at places and with signs that follow from a seed.
//!
//! "In defense of parameter sharing for model-compression", arXiv 2310.11611.
//!
//! - **Places** ([`Fold`]): all weights in a row are cut into parts as long as the array; each part is laid over it with a rotation of its own
//!   and a sign a weight. No place is read more than `⌈n / m⌉` times, and an array as long as the row gives every weight its own.
//! - **Weights**: `w_j = s_j λ_l ψ[h(j)]`, `λ_l` the deviation that layer `l` begins with over that of the array.
//! - **Gradients**: `∂L/∂ψ_i = Σ s_j λ_l g_j` over those that read place `i`, times `Γ_i = 1 / Σ λ_l²`: a step of SGD moves a weight by the mean of what its
//!   sharers ask for, whatever the array's deviation, and by its own gradient alone where nothing is shared. The paper's argument for
//!   a scaling is followed; its exact factor could not be compared. Adam divides any such factor out again.
//! - **[`SharedNet`]**: any network of ounce with such an array, for `ounce train` (`model.stored`).
//!
//! It spares memory of weights, gradients and optimizer states that are stored or sent, no operations. Model folders hold the weights
//! unfolded.

mod demonstrate;
mod fold;
mod mlp;
mod net;
mod scores;
mod study;

use ounce_eval::method::{Family, Method};

pub use fold::Fold;
pub use net::SharedNet;

const NUMBER: u16 = 104;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "STABLE-RPS",
    family: Family::LowRank,
    paper: "In defense of parameter sharing for model-compression",
    arxiv: Some("2310.11611"),
    gives: "The number of stored weights is fixed before training: every layer reads its weights from one small shared array by a hash.",
    claim: "Random sharing matches or beats smaller models and pruning at initialisation at every compression and doesn't diverge.",
    command: Some("ounce train run.toml --set model.stored=20000"),
    demonstrate: Some(demonstrate::demonstrate),
};
