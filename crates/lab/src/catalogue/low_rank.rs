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
    Method::planned(
        104,
        "STABLE-RPS",
        FAMILY,
        "In defense of parameter sharing for model-compression",
        Some("2310.11611"),
        "The number of stored weights is fixed before training: every layer reads its weights from one small shared array by a hash.",
        "Random sharing matches or beats smaller models and pruning at initialisation at every compression and doesn't diverge.",
    ),
    Method::planned(
        116,
        "Greenformers",
        FAMILY,
        "Greenformers: Improving Computation and Memory Efficiency in Transformer Models via Low-Rank Approximation",
        Some("2108.10808"),
        "Linear layers are factorised to a rank or a budget, and the tool says at which text length low rank or linear attention pays.",
        "Low rank wins up to 512 tokens and Linformer above, and BERT-base costs over 30 % less energy to pretrain.",
    ),
];
