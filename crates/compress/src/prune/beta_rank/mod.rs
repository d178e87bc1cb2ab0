//! Beta-Rank (method 002): whole filters leave a convolutional network, those whose weights are small and that make little of the spread
//! of what they are given.
//!
//! "Beta-Rank: A Robust Convolutional Filter Pruning Method For Imbalanced Medical Image Analysis", arXiv 2304.07461.
//!
//! - **Rank** ([`rank()`]): of filter `k` of a layer `R_k = ‖f_k‖₁ · β_k`, with `β_k` the mean over output positions of `σ(Y_k) / σ(X)`: the deviation of
//!   what the filter gives there, before norm and ReLU, over a batch, by that of the window it reads, over the batch, channels and window.
//!   Positions whose window has none are left out. Ranks are brought to 0…1 within a layer.
//! - **Batch** ([`lesions::Set::balanced`]): one, with as many pictures of each class.
//! - **Surgery** ([`cut`]): filters, their norms, and the channels of whatever reads them; the result is a smaller network that
//!   computes what the whole one does with those filters' values at zero.
//! - **After**: the small network learns on, all rankings by the same schedule.
//!
//! Beside it, for comparison: the L1 norm alone, HRank (the mean matrix rank of what a filter gives behind its ReLU), chance. Pictures of
//! lesions of four classes, most of them of one, are generated ([`lesions`]).

mod demonstrate;
pub mod lesions;
pub mod rank;
pub mod surgery;
pub mod train;

use ounce_eval::method::{Family, Method};

pub use rank::{Ranking, rank};
pub use surgery::{cut, lowest_of_layers};

const NUMBER: u16 = 2;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "Beta-Rank",
    family: Family::Pruning,
    paper: "Beta-Rank: A Robust Convolutional Filter Pruning Method For Imbalanced Medical Image Analysis",
    arxiv: Some("2304.07461"),
    gives: "Whole filters of a convolutional net are removed without the rare classes of a small, uneven data set being forgotten.",
    claim: "58 % (IDRiD) and 45 % (ISIC) of the FLOPs of ResNet-110 removed at accuracy equal to or above the unpruned net.",
    command: Some("ounce bench method 2"),
    demonstrate: Some(demonstrate::demonstrate),
};

#[cfg(test)]
mod tests;
