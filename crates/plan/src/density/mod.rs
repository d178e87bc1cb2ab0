//! Densing law (method 125): how large a reference model would have to be to equal a model, by the model's own size.
//!
//! "Densing Law of LLMs", arXiv 2412.04315.
//!
//! - [`law`]: the loss of a reference family by size and tokens;
//! - [`score`]: the way from loss to score;
//! - [`rate`](mod@rate): effective size `N̂` and density `ρ = N̂ / N`, with bounds where a score is saturated;
//! - [`trend`](mod@trend): how the best density grows with time;
//! - [`table`]: the file.

mod demonstrate;
pub mod law;
pub mod rate;
pub mod score;
pub mod table;
pub mod trend;

pub use rate::{Effective, Options, Rating, Report, rate};
pub use table::{Member, Rated, Table};

use ounce_eval::method::{Family, Method};

const NUMBER: u16 = 125;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "Densing law",
    family: Family::Planning,
    paper: "Densing Law of LLMs",
    arxiv: Some("2412.04315"),
    gives: "Any model, compressed or tuned, is rated by how large a reference model would have to be to equal it.",
    claim: "The best open models' density doubled about every 3.3 months, and pruning or distilling often lowers it.",
    command: Some("ounce density MODELS.json"),
    demonstrate: Some(demonstrate::demonstrate),
};
