//! Measures a model: perplexity, divergence from an original (of predictions, of sentence vectors), answers, tasks as
//! lm-evaluation-harness runs them, trust, similarity of images, and the evidence types of the catalogue.

pub mod answers;
pub mod bm25;
pub mod bootstrap;
pub mod divergence;
pub mod method;
pub mod perplexity;
pub mod programs;
pub mod ranking;
pub mod similarity;
pub mod speed;
pub mod ssim;
pub mod stats;
pub mod tasks;
pub mod trust;
mod walk;
