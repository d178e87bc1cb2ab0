//! DSEE (method 010): the change of fine-tuning is a low-rank part and a few free entries, and the weights below it get sparser or
//! narrower in the same frame.
//!
//! "DSEE: Dually Sparsity-embedded Efficient Tuning of Pre-trained Language Models", arXiv 2111.00160.
//!
//! - **Change**: `W x → (W ⊙ S₁) x + α (U V + S₂) x` for query and value matrices: `U V` of rank `r`, `S₂` with `N` entries at places that stay.
//! - **Places** ([`places`]): `W ≈ U₀ V₀ + S₀` with a sparse `S₀`, found by turns: the best matrix of the rank for `W − S₀`, then for `S₀` the `N` largest
//!   of what is left (the paper takes GreBsmo's solver). Only `N` values and their places exist, for the optimizer too.
//! - **I**: `U`, `V`, `S₂` and the head learn. A coefficient on each attention head and on each neuron of the feed-forward half learns with them where
//!   those are to leave, with `λ` times the sum of their sizes added to the loss.
//! - **II** ([`Adapted::prune_weights`]): `S₁` keeps the largest of `|W + α (U V + S₂)|` over all layers together; or ([`Adapted::prune_parts`]) in each
//!   layer the heads and neurons of the smallest coefficients leave, rows of `U` and entries of `S₂` with them.
//! - **III**: `U`, `V`, `S₂` and the head learn on.
//!
//! A sum of a sparse matrix and a dense product is dense: after `S₁` the parts are kept apart, and [`Adapted::bytes`] counts them so.

mod adapted;
mod demonstrate;
mod places;
mod slot;

use ounce_eval::method::{Family, Method};

pub use adapted::{Adapted, Options, Tuning};
pub use places::{Support, places};

const NUMBER: u16 = 10;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "DSEE",
    family: Family::Peft,
    paper: "DSEE: Dually Sparsity-embedded Efficient Tuning of Pre-trained Language Models",
    arxiv: Some("2111.00160"),
    gives: "The fine-tuning update is a low-rank part and a handful of free entries, and the base weights are thinned in the same run.",
    claim: "BERT with 0.5 % trainable parameters and about 25 % fewer inference FLOPs at comparable quality.",
    command: Some("ounce bench method 10"),
    demonstrate: Some(demonstrate::demonstrate),
};

#[cfg(test)]
mod tests;
