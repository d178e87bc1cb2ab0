//! Measures a model: perplexity, and the evidence types of the catalogue.

pub mod method;
pub mod perplexity;
pub mod speed;
