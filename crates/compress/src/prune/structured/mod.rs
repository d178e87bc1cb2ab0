//! Smaller shapes: whole heads, channels, layers and widths of the stream leave a model, and what is left is faster on any
//! machine, with no sparse kernel.
//!
//! - `groups`: which weights must leave together.
//! - `cut`: what stays, and the model that is left: its spec, weights and configuration.
//! - `saliency`, `influence`: what is needed least.
//! - `choose`: a cut of a wished size.
//! - `compensate`: what stays answers for what left, by least squares.
//!
//! Everything that trains while it cuts stands on the first two.

pub mod choose;
pub mod compensate;
pub mod cut;
pub mod groups;
pub mod influence;
pub mod saliency;
mod source;

pub use choose::{Limits, Target, choose, choose_layers};
pub use cut::{Cut, LayerCut};
pub use groups::{Axis, Slice, Unit};
pub use saliency::Scores;

#[cfg(test)]
pub(crate) mod tests;
