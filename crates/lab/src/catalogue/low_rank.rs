//! Factors and shared weights.

use ounce_eval::method::{Family, Method};

const FAMILY: Family = Family::LowRank;

pub(super) const PLANNED: &[Method] = &[
    Method::planned(
        87,
        "OFA embeddings",
        FAMILY,
        "OFA: A Framework of Initializing Unseen Subword Embeddings for Efficient Large-scale Multilingual Continued Pretraining",
        Some("2311.08849"),
        "New vocabulary entries start from aligned word vectors, and the grown embedding table is stored as two thin matrices.",
        "Faster continued pretraining and better zero-shot transfer over 400k entries with tables of only 100 to 400 dimensions.",
    ),
    Method::planned(
        90,
        "GradNormLoRP",
        FAMILY,
        "Gradient Weight-normalized Low-rank Projection for Efficient LLM Training",
        Some("2412.19616"),
        "All weights are trained although the optimizer only keeps state for small projections of the gradient.",
        "Up to 89.5 % less optimizer memory in 8 bits, LLaMA-7B pretraining on a 24 GB card, GLUE 80.65 against LoRA's 79.23 at rank 8.",
    ),
];
