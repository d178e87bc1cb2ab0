//! Techniques that make a model smaller or cheaper, one file a method, grouped by what they change.
//!
//! - [`quantize`]: fewer bits a number, or cheaper arithmetic on them.
//! - [`lowrank`]: two thin matrices in the place of one.
//! - [`prune`]: fewer numbers.
//! - [`runtime`]: how a model runs.
//! - [`trust`]: what both do to a model's trust.
//! - [`vision`]: networks of images for small boards.
//!
//! A technique comes with options, the change itself, tests, and a demonstration that measures it against a baseline.
//! [`METHODS`] lists them for the catalogue.

#[cfg(test)]
mod desk;
pub mod error;
pub mod lowrank;
pub mod prune;
pub mod quantize;
pub mod runtime;
mod stages;
pub mod trust;
pub mod vision;

pub use error::{Error, Result};

use ounce_eval::method::Method;

/// The working methods of this crate.
pub const METHODS: &[Method] = &[
    lowrank::greenformers::METHOD,
    lowrank::ofa::METHOD,
    lowrank::pela::METHOD,
    prune::amoeba::METHOD,
    prune::beta_rank::METHOD,
    prune::components::METHOD,
    prune::compresso::METHOD,
    prune::dsee::METHOD,
    prune::dsl::METHOD,
    prune::echo::METHOD,
    prune::efficient_llm::METHOD,
    prune::gradual::METHOD,
    prune::pst::METHOD,
    quantize::axes::METHOD,
    quantize::efficient_qat::METHOD,
    quantize::l4q::METHOD,
    quantize::l_mul::METHOD,
    quantize::mixdq::METHOD,
    runtime::aded::METHOD,
    trust::METHOD,
    vision::wildfire::METHOD,
];
