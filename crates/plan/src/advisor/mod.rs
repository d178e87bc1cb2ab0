//! The advisor (methods 003, 048 and 129): which techniques spare what is short, how they go together, and what stands behind
//! each claim.
//!
//! Three surveys sort the field by different things; one registry serves them all:
//!
//! - "Beyond Efficiency", arXiv 2401.00625: by resource and stage of a model's life;
//! - "Model Compression and Efficient Inference for Large Language Models", arXiv 2402.09748: by class and branch, tuning-free or not;
//! - "Achieving Peak Performance for Large Language Models", arXiv 2409.04833: by goal and limits.
//!
//! [`registry`] lists techniques, [`select`] chooses among them, [`claim`] looks for evidence, [`inference`] and [`training`] search for
//! settings that keep limits. Evidence is handed in: it lies in the crate above.

pub mod claim;
mod demonstrate;
pub mod inference;
pub mod registry;
pub mod select;
pub mod technique;
pub mod training;

pub use claim::Claim;
pub use registry::{technique, techniques};
pub use select::{Query, order, pipeline};
pub use technique::{Class, Resource, Risk, Stage, Technique};

use ounce_eval::method::{Family, Method};

const NUMBER_RESOURCES: u16 = 3;
const NUMBER_CLASSES: u16 = 48;
const NUMBER_LIMITS: u16 = 129;
/// The three surveys.
pub const NUMBERS: [u16; 3] = [NUMBER_RESOURCES, NUMBER_CLASSES, NUMBER_LIMITS];

/// "Beyond Efficiency" in the catalogue.
pub const RESOURCES: Method = Method {
    number: NUMBER_RESOURCES,
    name: "Beyond Efficiency",
    family: Family::Planning,
    paper: "Beyond Efficiency: A Systematic Survey of Resource-Efficient Large Language Models",
    arxiv: Some("2401.00625"),
    gives: "The catalogue can be asked which techniques save memory, compute, energy, money or network at a given stage, and how to use them.",
    claim: "A map from techniques to resources over the life of a model, with a standard set of measures.",
    command: Some("ounce advise --limit memory --stage inference"),
    demonstrate: Some(demonstrate::resources),
};

/// The compression survey in the catalogue.
pub const CLASSES: Method = Method {
    number: NUMBER_CLASSES,
    name: "Compression survey",
    family: Family::Planning,
    paper: "Model Compression and Efficient Inference for Large Language Models: A Survey",
    arxiv: Some("2402.09748"),
    gives: "Advice on which compression suits a model of this size, with this data and budget, limited to methods that exist here.",
    claim: "Large models favour methods without tuning, and generality has to be kept, not the score of one task.",
    command: Some("ounce advise MODEL --class quantization --tuning-free"),
    demonstrate: Some(demonstrate::classes),
};

/// The performance review in the catalogue.
pub const LIMITS: Method = Method {
    number: NUMBER_LIMITS,
    name: "Peak performance review",
    family: Family::Planning,
    paper: "Achieving Peak Performance for Large Language Models: A Systematic Review",
    arxiv: Some("2409.04833"),
    gives: "A goal and limits go in, and the classes of technique that apply come out with estimated gains and the commands to run.",
    claim: "65 papers out of 983 sorted into training, inference and serving, with two case studies.",
    command: Some("ounce advise MODEL --stage training --memory 2G"),
    demonstrate: Some(demonstrate::limits),
};
