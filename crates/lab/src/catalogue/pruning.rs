//! Fewer weights.

use ounce_eval::method::{Family, Method};

const FAMILY: Family = Family::Pruning;

pub(super) const PLANNED: &[Method] = &[
    Method::planned(
        8,
        "PST",
        FAMILY,
        "Parameter-Efficient Sparsity for Large Language Models Fine-Tuning",
        Some("2205.11005"),
        "A model is fine-tuned and made up to 90 % sparse in the same run, while only a few small matrices are trained.",
        "1.5 % trainable parameters match full sparse training of BERT-base at 50 % and 90 % sparsity.",
    ),
    Method::planned(
        43,
        "Pruning Stable Diffusion",
        FAMILY,
        "Efficient Pruning of Text-to-Image Models: Insights from Pruning Stable Diffusion",
        Some("2411.15113"),
        "A sweep prunes each part of a model of several parts by several criteria and shows where quality suddenly falls.",
        "Stable Diffusion 2 stands 38.5 % sparsity (text encoder 47.5 %, generator 35 %), and plain magnitude beats cleverer criteria.",
    ),
];
