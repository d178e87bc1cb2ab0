//! What a model will cost on a machine, and which techniques meet a budget.
//!
//! [`METHODS`] lists what is in the catalogue.

pub mod advisor;
pub mod cod;
pub mod density;
#[cfg(test)]
mod desk;
pub mod footprint;
mod training;

use ounce_eval::method::Method;

/// The working methods of this crate.
pub const METHODS: &[Method] =
    &[advisor::RESOURCES, advisor::CLASSES, advisor::LIMITS, cod::METHOD, density::METHOD, footprint::METHOD];
