//! Dynamic sparse learning (method 122): a recommender's embeddings hold a fixed number of weights from the first step on, and
//! learn where in their tables those are worth most.
//!
//! "Dynamic Sparse Learning: A Novel Paradigm for Efficient Recommendation", arXiv 2402.02855.
//!
//! - **Budget**: of a table `[rows, width]` exactly `n` weights exist, with their moments ([`table`]); at first they are anywhere.
//! - **Learning** ([`bpr`]): the BPR loss `−log σ(ŷ_ui − ŷ_uj)` of a user `u`, an item `i` that they chose and one `j` that
//!   they did not, with `ŷ` the product of two sparse vectors.
//! - **Exploration** ([`train`](mod@train)), every so many steps until `T`: the share `r_t = r₀/2 · (1 + cos(π t / T))` of each table's weights, the smallest,
//!   leaves; as many places with the largest gradients, summed over some batches, enter with the value 0. What left may come back. Weights
//!   are ranked over a whole table, so some users and items come to hold more of them than others.
//! - **Judging** ([`ranking`]): Recall@20, NDCG@20 and the hit rate over all items that a user has not seen.
//!
//! Data is generated ([`implicit`]); the model is matrix factorisation, or LightGCN ([`light_gcn`]), which spreads embeddings along the graph of
//! choices first.

pub mod bpr;
mod demonstrate;
mod graph_study;
pub mod implicit;
pub mod light_gcn;
pub mod ranking;
pub mod table;
pub mod train;

use ounce_eval::method::{Family, Method};

const NUMBER: u16 = 122;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "Dynamic sparse learning",
    family: Family::Pruning,
    paper: "Dynamic Sparse Learning: A Novel Paradigm for Efficient Recommendation",
    arxiv: Some("2402.02855"),
    gives: "A recommender's embeddings keep within a fixed number of stored weights from the first training step, by pruning and regrowing as it learns.",
    claim: "Ranking quality comparable with distillation, searched sizes and pruning on six data sets at far lower training and inference cost.",
    command: Some("ounce bench method 122"),
    demonstrate: Some(demonstrate::demonstrate),
};

#[cfg(test)]
mod tests;
