//! Green accounting (method 079): energy, CO2, water and money of runs, and when a run has paid for itself.
//!
//! "Efficient and Green Large Language Models for Software Engineering: Vision and the Road Ahead", arXiv 2404.04566.
//!
//! - [`meter`]: joules of a run, measured where the processor counts them, else modelled, and labelled so;
//! - [`site`]: what they come to at a place: CO2, water, the machine's own share, money, and the break-even.

mod demonstrate;
mod lora;
pub mod meter;
pub mod site;

pub use meter::{Meter, Power, Reading, Source};
pub use site::{Footprint, Site, break_even};

use ounce_eval::method::{Family, Method};

const NUMBER: u16 = 79;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "Green code models",
    family: Family::Planning,
    paper: "Efficient and Green Large Language Models for Software Engineering: Vision and the Road Ahead",
    arxiv: Some("2404.04566"),
    gives: "Each run reports time, memory, energy, water and CO2, with advice on what would lower them for work on code.",
    claim: "No experiments: code models are judged almost by accuracy alone, and a roadmap says how to change that.",
    command: Some("ounce footprint -- COMMAND"),
    demonstrate: Some(demonstrate::demonstrate),
};
