//! Measures a model: perplexity, divergence from an original, answers, trust, and the evidence types of the catalogue.

pub mod answers;
pub mod divergence;
pub mod method;
pub mod perplexity;
pub mod speed;
pub mod trust;
mod walk;
