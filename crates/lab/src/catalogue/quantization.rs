//! Fewer bits a number.

use ounce_eval::method::{Family, Method};

const FAMILY: Family = Family::Quantization;

pub(super) const PLANNED: &[Method] = &[
    Method::planned(
        11,
        "Compressed trust",
        FAMILY,
        "Decoding Compressed Trust: Scrutinizing the Trustworthiness of Efficient LLMs Under Compression",
        Some("2403.15447"),
        "A scorecard of toxicity, privacy, fairness and robustness, run on a model before and after it is compressed, shows what got worse and how sure that is.",
        "4-bit weights keep trust, 3-bit weights and 50 % pruning lose it although benign accuracy still looks acceptable.",
    ),
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
