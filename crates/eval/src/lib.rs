//! Measures a model: perplexity, answers, and the evidence types of the catalogue.

pub mod answers;
pub mod method;
pub mod perplexity;
pub mod speed;
