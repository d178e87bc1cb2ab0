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
    Method::planned(
        42,
        "MixDQ",
        FAMILY,
        "MixDQ: Memory-Efficient Few-Step Text-to-Image Diffusion Models with Metric-Decoupled Mixed Precision Quantization",
        Some("2405.17873"),
        "From a byte budget and measured sensitivities, an exact solver decides how many bits each layer gets, which beats giving all layers the same.",
        "One-step SDXL-turbo at W8A8 without loss and W4A8 nearly so: 3 to 4 times smaller and 1.45 times faster than FP16.",
    ),
    Method::planned(
        98,
        "Quantizer choices",
        FAMILY,
        "A Survey of Quantization Methods for Efficient Neural Network Inference",
        Some("2103.13630"),
        "Every decision in a quantizer (grid, granularity, calibration, rounding) is an option of its own whose cost and error can be compared on a given model.",
        "Four bits or fewer promise up to 16 times less memory and latency in theory and 4 to 8 times in practice.",
    ),
];
