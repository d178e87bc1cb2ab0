//! Compresso (method 015): which heads, channels and widths of the stream leave is learned by gates, while adapters heal.
//!
//! "Compresso: Structured Pruning with Collaborative Prompting Learns Compact Large Language Models", arXiv 2310.05015.
//!
//! - **Gates** (section 3.2, `gates`): a hard concrete factor for each head, each channel of a feed-forward half, each channel of the stream.
//!   They are drawn anew each step.
//! - **Size** (equation 4, `size`): the expected share of weights that is gone, from the chances that gates are open.
//! - **Loss** (equation 5, `train`): `L + λ₁ (ŝ − t) + λ₂ (ŝ − t)²`, minimised over gates and adapters, maximised over both λ, so that the size is
//!   met exactly in the end; the wished sparsity `t` rises from 0.
//! - **Adapters** (section 3.2, `lora`): the model's own weights are frozen; query and value matrices get `B A` of rank 8.
//! - **Collaborative prompt** (section 3.3): tokens before each sequence, `Options::prompt`.
//!
//! - Not from the paper: gates that begin apart by a Taylor score (`Options::head_start`), least squares
//!   when gates are read (`answer`), and healing of all weights (`heals`).
//!
//! A factor on a head, a channel or a channel of the stream is a factor on columns or rows of the matrices with which they enter
//! the stream, so an ordinary network is all that is trained: its weights are written anew each step.

mod demonstrate;
mod gated;
pub mod gates;
mod heal;
pub mod lora;
pub mod size;
pub mod train;

use ounce_eval::method::{Family, Method};

pub use heal::adapt;
pub use train::{Heals, Options, Outcome, prune};

const NUMBER: u16 = 15;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "Compresso",
    family: Family::Pruning,
    paper: "Compresso: Structured Pruning with Collaborative Prompting Learns Compact Large Language Models",
    arxiv: Some("2310.05015"),
    gives: "Training itself picks which heads, neurons and channels go, down to a chosen sparsity, and the file that is left is really smaller.",
    claim: "LLaMA-7B cut to 5.4B keeps its quality and beats one-shot pruning by up to 11.43 % in reading comprehension.",
    command: Some("ounce prune ./folder -o ./small --ratio 0.3 --train compresso --calibration text.txt"),
    demonstrate: Some(demonstrate::demonstrate),
};

#[cfg(test)]
mod tests;
