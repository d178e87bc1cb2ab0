//! How far pruning goes, component by component (method 043): sweeps over the parts of a model, and where quality falls off a cliff.
//!
//! "Efficient Pruning of Text-to-Image Models: Insights from Pruning Stable Diffusion", arXiv 2411.15113.
//!
//! - `criterion`: what a weight is worth, five ways behind one trait, and masks of an exact size; biases, norms and tables stay.
//! - `subject`: a model of several components, named by patterns of its matrices' names, judged item by item; nothing is trained again.
//! - `cliff`: the largest sparsity at which quality falls by no more than `τ`, by bisection, with a bootstrap interval over items; and the
//!   pair of sparsities of two components that zeroes most weights within `τ`.
//! - `language`: a language model as such a subject. `pictures`: a text encoder with a denoiser.

pub mod cliff;
pub mod criterion;
mod demonstrate;
pub mod language;
mod pictures;
pub mod subject;

use ounce_eval::method::{Family, Method};

pub use cliff::{Bench, Cliff, Pair};
pub use criterion::{CRITERIA, Criterion, Matrix, Scope};
pub use subject::{Component, Subject, components};

const NUMBER: u16 = 43;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "Pruning Stable Diffusion",
    family: Family::Pruning,
    paper: "Efficient Pruning of Text-to-Image Models: Insights from Pruning Stable Diffusion",
    arxiv: Some("2411.15113"),
    gives: "A sweep prunes each part of a model of several parts by several criteria and shows where quality suddenly falls.",
    claim: "Stable Diffusion 2 stands 38.5 % sparsity (text encoder 47.5 %, generator 35 %), and plain magnitude beats cleverer criteria.",
    command: Some(
        "ounce bench sparsity MODEL --part 'attention=*.attention.*' --part 'feed-forward=*.feed_forward.*'",
    ),
    demonstrate: Some(demonstrate::demonstrate),
};

#[cfg(test)]
mod tests;
