//! What a model will cost on a machine, and which techniques meet a budget.
//!
//! [`METHODS`] lists what is in the catalogue.

pub mod cod;
pub mod density;
#[cfg(test)]
mod desk;
mod training;

use ounce_eval::method::Method;

/// The working methods of this crate.
pub const METHODS: &[Method] = &[cod::METHOD, density::METHOD];
