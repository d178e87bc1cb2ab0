//! COD (method 022): the score of a larger model on a benchmark, from item scores of small ones.
//!
//! "Unveiling Downstream Performance Scaling of LLMs: A Clustering-Based Perspective", arXiv 2502.17262.
//!
//! The total score of a benchmark follows no simple law, because its items become solvable at different sizes. So:
//!
//! - [`cluster`](mod@cluster): items whose pass rates grow alike over small models are put together;
//! - [`curve`]: each cluster's pass rate follows `g + (1 − g) · exp(−a C^−b − c)`;
//! - [`forecast`](mod@forecast): clusters that rise as their curve says make the part that can be forecast;
//! - [`mapping`]: models whose items are known tie that part's score to the whole score;
//! - [`scores`]: the file of item scores.

pub mod cluster;
pub mod curve;
mod demonstrate;
pub mod forecast;
pub mod mapping;
pub mod scores;

pub use forecast::{Class, Cluster, Forecast, MappedBy, Options, forecast};
pub use scores::{ModelScores, Scores};

use ounce_eval::method::{Family, Method};

const NUMBER: u16 = 22;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "COD",
    family: Family::Planning,
    paper: "Unveiling Downstream Performance Scaling of LLMs: A Clustering-Based Perspective",
    arxiv: Some("2502.17262"),
    gives: "Some small models are evaluated, and a larger one's score is forecast with its uncertainty and with the part that can't be forecast.",
    claim: "Mean deviation of 1.36 % over eight benchmarks in forecasting a 70B model.",
    command: Some("ounce predict-scores SCORES.jsonl --target 1e21"),
    demonstrate: Some(demonstrate::demonstrate),
};
