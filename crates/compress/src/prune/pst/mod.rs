//! PST (method 008): a model is fine-tuned and becomes sparse in the same run, while only a few small matrices learn, those of its
//! change and those of how much each weight matters.
//!
//! "Parameter-Efficient Sparsity for Large Language Models Fine-Tuning", arXiv 2205.11005.
//!
//! Of each frozen matrix `W` `[n, k]`:
//!
//! - **Change**: `W' = W + U V`, of rank `r₁`; `V` begins at 0.
//! - **Importance**: `S = |W'| + A B + R 1ᵀ + 1 Cᵀ`, `A B` of rank `r₂`; `B`, `R`, `C` begin at 0, so that magnitudes decide first. That the scores that
//!   data gives (movement: the sum of `−gradient · weight`) have low rank and belong to rows and columns is what the paper observed.
//! - **Mask** ([`masked`]): all but the lowest `⌊v n k⌋` scores stay, and the product is `M ⊙ W'`. Backward, the gradient goes straight through the
//!   ranking: `∂L/∂S = ∂L/∂(M ⊙ W') ⊙ W'`, also where `M` is 0, so that weights come back.
//! - **Schedule**: the share `v` rises by a cubic, as in [`gradual`](crate::prune::gradual), then stays.
//! - **End**: `W ← M ⊙ W'`; the small matrices are gone.
//!
//! Beside it, for comparison: magnitudes with a low-rank change, at once and gradually, and movement pruning (Sanh et al., 2020), where all weights and
//! a score for each learn.

mod demonstrate;
pub mod slot;
pub mod train;

use ounce_eval::method::{Family, Method};

pub use slot::masked;
pub use train::{Options, Way, prune};

const NUMBER: u16 = 8;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "PST",
    family: Family::Pruning,
    paper: "Parameter-Efficient Sparsity for Large Language Models Fine-Tuning",
    arxiv: Some("2205.11005"),
    gives: "A model is fine-tuned and made up to 90 % sparse in the same run, while only a few small matrices are trained.",
    claim: "1.5 % trainable parameters match full sparse training of BERT-base at 50 % and 90 % sparsity.",
    command: Some("ounce bench method 8"),
    demonstrate: Some(demonstrate::demonstrate),
};

#[cfg(test)]
mod tests;
