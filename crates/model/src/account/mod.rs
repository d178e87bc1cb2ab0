//! The accountant: what a model of any spec needs, computed from its architecture and formats alone. All of ounce asks here, so
//! that no figure is computed in two ways.
//!
//! - [`Formats`]: which format each weight is stored in.
//! - [`sizes`]: parameters, bytes of weights by group, as stored and as the fast mode packs them.
//! - [`cache`]: bytes of keys and values, and what of them a pass reads.
//! - [`pass`]: a forward pass as a list of its pieces, with the operations and bytes of each.
//! - [`buffers`]: memory of a forward pass besides weights and cache.
//! - [`training`]: memory and operations of a training step.

pub mod buffers;
pub mod cache;
mod formats;
mod operator;
pub mod pass;
pub mod sizes;
pub mod training;

pub use formats::Formats;
pub use operator::Operator;
