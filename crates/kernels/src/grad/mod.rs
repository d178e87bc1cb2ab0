//! What training computes beside the matrix products: forward passes that keep what their gradient needs, and the
//! gradients.
//!
//! All of it works on rows of f32 that lie one behind another, and shares them among the threads of a pool. Sums
//! over rows (the gradients of weights) are taken in blocks of a fixed size and then in the blocks' order, so that
//! no result depends on the number of threads, to the last bit.
//!
//! - [`norm`], [`activation`], [`rope`], [`bias`], [`embedding`]: one part of a layer each.
//! - [`attention`]: over sequences that lie one behind another, forward and backward, in memory linear in length.
//! - [`cross_entropy`]: the loss of a language model with its gradient in the place of the logits.

pub mod activation;
pub mod attention;
pub mod bias;
pub mod cross_entropy;
pub mod embedding;
pub mod norm;
pub mod rope;
mod rows;
#[cfg(test)]
mod tests;

pub(crate) use rows::{join, split_blocks, split_values};
#[cfg(test)]
pub(crate) use tests::{assert_threads_agree, noise};
