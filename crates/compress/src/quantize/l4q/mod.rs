//! L4Q (method 030): fine-tuning and quantizing at once, with what comes out being quantized and nothing else.
//!
//! "L4Q: Parameter Efficient Quantization-Aware Fine-Tuning on Large Language Models", arXiv 2402.04902.
//!
//! An adapter of low rank is added to the weights **before** they are rounded, so that rounding is part of what is trained, and
//! nothing is left beside the codes in the end. With `W₀ [out, in]`, `A [r, in]`, `B [out, r]`, `α/r` the adapter's scale, and for
//! each group along a row a step `s` and an offset `b` (LSQ's):
//!
//! `W = W₀ + α/r · B A`, `v = (W − b) / s`, `w = round(clamp(v, Qn, Qp))`, `Ŵ = s w + b`, `y = x Ŵᵀ`,
//!
//! `Qn = −2^(N−1)`, `Qp = 2^(N−1) − 1`. Rounding is taken for the identity on the way back. With `G = dL/dŴ = dyᵀ x`:
//!
//! | | dL/dW | dL/ds | dL/db |
//! |---|---|---|---|
//! | Qn ≤ v ≤ Qp | `G` | `G (w − v)` | 0 |
//! | below | 0 | `G Qn` | `G` |
//! | above | 0 | `G Qp` | `G` |
//!
//! and `dL/dA = α/r · Bᵀ dL/dW`, `dL/dB = α/r · dL/dW Aᵀ`. Only `A`, `B`, `s` and `b` have gradients and moments that are kept:
//! neither `W`, `Ŵ` nor `G` lasts beyond the layer's turn, and here no more than some rows of them exist at once ([`merged`]).
//!
//! ounce's groups have whole zero points, so offsets are multiples of their steps: a pass sees `b` as it will be stored, and
//! its rounding, like that of `s` to f16, is taken for the identity too. What is packed is thus exactly what was trained.

pub mod adapter;
pub mod lsq;
pub mod merged;
pub mod slot;
pub mod train;

mod demonstrate;

pub use train::{Options, Trained, train};

use ounce_eval::method::{Family, Method};

const NUMBER: u16 = 30;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "L4Q",
    family: Family::Quantization,
    paper: "L4Q: Parameter Efficient Quantization-Aware Fine-Tuning on Large Language Models",
    arxiv: Some("2402.04902"),
    gives: "Fine-tuning and quantization happen in one run, and what comes out is a plain 3- or 4-bit model without an adapter beside it.",
    claim: "At 3 and 4 bits it beats quantize-then-adapt methods on LLaMA 7B to 33B with about the training memory of LoRA.",
    command: Some("ounce quantize MODEL -o FOLDER --bits 3 --group 32 --train l4q"),
    demonstrate: Some(demonstrate::demonstrate),
};

#[cfg(test)]
mod tests;
