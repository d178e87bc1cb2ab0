//! MixDQ (method 042): bits for each layer of a few-step text-to-image model, by sensitivities that tell what an image shows
//! from how it looks.
//!
//! "MixDQ: Memory-Efficient Few-Step Text-to-Image Diffusion Models with Metric-Decoupled Mixed Precision Quantization", arXiv
//! 2405.17873.
//!
//! - [`simulate`]: the quantizers, and the rule for the first token of a prompt (section 3.1).
//! - [`table`]: sensitivities by two measures, one a group of layers (section 3.2).
//! - [`search`]: splits of a budget, each allocated exactly, and the best of them (section 3.3).
//! - [`plan`], [`file`](mod@file): what was decided, and what it comes to in a file.
//! - [`subject`]: the denoiser of `ounce_train::diffusion` as such a network.
//!
//! [`table`] and [`search`] know of no particular network: whatever gives an output and images ([`table::Subject`]) can be
//! measured. For language models `ounce quantize --bits-per-weight` does the same with one measure, the KL divergence of
//! predictions ([`super::sensitivity`]), and the same solver ([`super::allocate`]).

pub mod file;
pub mod plan;
pub mod search;
pub mod simulate;
pub mod subject;
pub mod table;

mod demonstrate;
mod expectations;

use ounce_eval::method::{Family, Method};

const NUMBER: u16 = 42;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "MixDQ",
    family: Family::Quantization,
    paper: "MixDQ: Memory-Efficient Few-Step Text-to-Image Diffusion Models with Metric-Decoupled Mixed Precision Quantization",
    arxiv: Some("2405.17873"),
    gives: "From a byte budget and measured sensitivities, an exact solver decides how many bits each layer gets, which beats giving all layers the same.",
    claim: "One-step SDXL-turbo at W8A8 without loss and W4A8 nearly so: 3 to 4 times smaller and 1.45 times faster than FP16.",
    command: Some("ounce quantize MODEL -o OUT --bits-per-weight 3.5"),
    demonstrate: Some(demonstrate::demonstrate),
};

#[cfg(test)]
mod tests;
