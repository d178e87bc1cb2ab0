//! Dissection of a runtime: which technique pays on this machine, in which phase (arXiv 2311.03687).
//!
//! The paper switches techniques on and off, alone and together, and splits the time of a training step and of an answer
//! into parts. Here: a training step with and without checkpointing, with products in bf16, and with all weights but the last
//! layers frozen, in the parts forward, backward and optimizer; a prompt and a token with each weight format and cache type, in the
//! kinds of work that the engine's meter counts. Beside each measured memory stands what the accountant says.

mod demonstrate;
pub mod inference;
pub mod training;

use ounce_eval::method::{Family, Method};

/// The entry in the catalogue.
pub const METHOD: Method = Method {
    number: 102,
    name: "Runtime dissection",
    family: Family::Runtime,
    paper: "Dissecting the Runtime Performance of the Training, Fine-tuning, and Inference of Large Language Models",
    arxiv: Some("2311.03687"),
    gives: "One bench measures each memory and speed technique, phase by phase and operator by operator, on the machine at hand.",
    claim: "Matrix products take over 60 % of a step, and LoRA trains about twice as fast as QLoRA, which needs half its memory.",
    command: Some("ounce bench method 102"),
    demonstrate: Some(demonstrate::demonstrate),
};
