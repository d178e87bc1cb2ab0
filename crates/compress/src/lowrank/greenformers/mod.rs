//! Greenformers (method 116): transformers made cheaper by factors of their matrices (LRT) or by attention over projected keys
//! (Linformer), and which of both suits a text length.
//!
//! "Greenformers: Improving Computation and Memory Efficiency in Transformer Models via Low-Rank Approximation", arXiv 2108.10808.
//!
//! - **LRT** (section 3.1): matrices of layers as products, by [`factorise_by`](super::factorise_by): the singular value decomposition,
//!   semi-NMF, or random numbers by design with the variance of whole matrices.
//! - **Linformer** (section 3.2): `K' = E K`, `V' = F V` with `E`, `F` `[k, s]`, attention over `k` keys in place of `s`: `linformer`. It is for
//!   encoders of one length.
//! - **Which of both**: a layer has about `24 s d² + 4 s² d` operations; factors with the share `ρ` of the weights save `24 s d² (1 − ρ)`,
//!   Linformer `4 s² d − 8 s k d`. Both are equal at [`crossover`].

mod demonstrate;
mod encoder;
mod linformer;
mod task;

use ounce_eval::method::{Family, Method};
use serde::Serialize;

const NUMBER: u16 = 116;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "Greenformers",
    family: Family::LowRank,
    paper: "Greenformers: Improving Computation and Memory Efficiency in Transformer Models via Low-Rank Approximation",
    arxiv: Some("2108.10808"),
    gives: "Linear layers are factorised to a rank or a budget, and the tool says at which text length low rank or linear attention pays.",
    claim: "Low rank wins up to 512 tokens and Linformer above, and BERT-base costs over 30 % less energy to pretrain.",
    command: Some("ounce factorize MODEL --ratio 0.5 --tokens 512 --linformer-keys 256 -o THIN"),
    demonstrate: Some(demonstrate::demonstrate),
};

/// The number of tokens from which on Linformer's attention with `keys` projected keys saves more operations than factors with the share
/// `share` of the weights: `s* = 6 d (1 − share) + 2 k`.
pub fn crossover(width: usize, share: f64, keys: usize) -> f64 {
    6.0 * width as f64 * (1.0 - share) + 2.0 * keys as f64
}

/// Operations of one layer on a text, by the ways to build it; a multiplication and an addition count as two.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Operations {
    /// Whole matrices, attention over all tokens: `24 s d² + 4 s² d`.
    pub dense: f64,
    /// Factors: `24 s d² ρ + 4 s² d`.
    pub factors: f64,
    /// Projected keys and values: `24 s d² + 8 s k d`.
    pub linformer: f64,
    /// Both at once: `24 s d² ρ + 8 s k d`.
    pub both: f64,
}

impl Operations {
    /// For `tokens` tokens of vectors `width` wide.
    pub fn of(tokens: usize, width: usize, share: f64, keys: usize) -> Operations {
        let (s, d, k) = (tokens as f64, width as f64, keys as f64);
        let (matrices, attention, projected) = (24.0 * s * d * d, 4.0 * s * s * d, 8.0 * s * k * d);
        Operations {
            dense: matrices + attention,
            factors: matrices * share + attention,
            linformer: matrices + projected,
            both: matrices * share + projected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_the_crossover_both_save_as_much() {
        for (width, share, keys) in [(128, 0.375, 64), (768, 0.5, 256), (64, 0.9, 8)] {
            let length = crossover(width, share, keys);
            assert_eq!(length, 6.0 * width as f64 * (1.0 - share) + 2.0 * keys as f64);
            let [below, above] =
                [0.5, 2.0].map(|factor| Operations::of((length * factor) as usize, width, share, keys));
            assert!(below.factors < below.linformer && above.linformer < above.factors);
            let at = Operations::of(length.round() as usize, width, share, keys);
            assert!((at.factors / at.linformer - 1.0).abs() < 0.02, "{at:?}");
            let spared = (at.dense - at.factors) + (at.dense - at.linformer);
            assert!((at.dense - at.both - spared).abs() < 1e-6 * at.dense);
        }
    }
}
