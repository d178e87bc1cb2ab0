//! Fewer bits a number.

use ounce_eval::method::{Family, Method};

const FAMILY: Family = Family::Quantization;

pub(super) const PLANNED: &[Method] = &[
    Method::planned(
        30,
        "L4Q",
        FAMILY,
        "L4Q: Parameter Efficient Quantization-Aware Fine-Tuning on Large Language Models",
        Some("2402.04902"),
        "Fine-tuning and quantization happen in one run, and what comes out is a plain 3- or 4-bit model without an adapter beside it.",
        "At 3 and 4 bits it beats quantize-then-adapt methods on LLaMA 7B to 33B with about the training memory of LoRA.",
    ),
];
