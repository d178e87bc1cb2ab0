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
