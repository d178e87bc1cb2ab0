//! Factors and shared weights.

use ounce_eval::method::{Family, Method};

const FAMILY: Family = Family::LowRank;

pub(super) const PLANNED: &[Method] = &[Method::planned(
    116,
    "Greenformers",
    FAMILY,
    "Greenformers: Improving Computation and Memory Efficiency in Transformer Models via Low-Rank Approximation",
    Some("2108.10808"),
    "Linear layers are factorised to a rank or a budget, and the tool says at which text length low rank or linear attention pays.",
    "Low rank wins up to 512 tokens and Linformer above, and BERT-base costs over 30 % less energy to pretrain.",
)];
