//! EfficientLLM (method 126): pretraining goes on while structure leaves a larger model, until what is left has the wished size.
//!
//! "EfficientLLM: Scalable Pruning-Aware Pretraining for Architecture-Agnostic Edge Language Models", arXiv 2502.06663.
//!
//! - **Minimal groups** (section 3.1): key/value heads, channels of feed-forward halves, and channels of the stream, each with all the weights
//!   that must leave with it ([`structured::groups`](super::structured::groups)).
//! - **Saliency** (section 3.2, `fisher`): to second order, from running averages of what training computes anyhow. [`Choice::Fisher`] is the
//!   paper's, `|Σ g w − ½ F w²|` over the weights with which a unit enters the stream, `g` the gradient and `F` the diagonal of the empirical Fisher
//!   matrix; the default, [`Choice::Factors`], takes the Fisher information of one factor on all of them, which doesn't suppose that they are independent. All kinds compete by worth
//!   a weight, so the architecture is found, not drawn.
//! - **Correction** (section 3.2): the Hessian that mends is another than the one that chooses: layer by layer,
//!   `H = E[x xᵀ]` of a matrix's inputs, by which the columns that stay answer for those that leave
//!   ([`compensate`](super::structured::compensate)).
//! - **Shrinking** (`shrink`): units leave every few steps along a cubic schedule; weights, moments and averages are sliced, not masked, so
//!   that training gets faster as it goes.

mod demonstrate;
pub mod fisher;
pub mod shrink;

use ounce_eval::method::{Family, Method};

pub use shrink::{Choice, Event, Options, shrink};

const NUMBER: u16 = 126;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "EfficientLLM",
    family: Family::Pruning,
    paper: "EfficientLLM: Scalable Pruning-Aware Pretraining for Architecture-Agnostic Edge Language Models",
    arxiv: Some("2502.06663"),
    gives: "Pretraining continues from a larger checkpoint while structure is pruned away, until the model has the wanted size and a shape that was found, not drawn.",
    claim: "Models of 100M to 1B parameters beat MobileLLM, SmolLM, Qwen2.5-0.5B, OLMo-1B and Llama3.2-1B on common-sense tasks.",
    command: Some("ounce prune ./folder -o ./small --ratio 0.5 --train efficient-llm --calibration text.txt"),
    demonstrate: Some(demonstrate::demonstrate),
};

#[cfg(test)]
mod tests;
