//! What a model will cost on a machine, and which techniques meet a budget.
//!
//! - [`forecast`](mod@forecast): memory, time and energy of a model that need not exist, by a roofline of each operator.
//! - [`budget`], [`recipe`], [`search`]: limits, ways to a model that keeps them, and which one is taken.
//! - [`calibrate`]: how near the engine's kernels come to the machine's limits, measured.
//! - [`idealized_runtime`], [`roofline`], [`dissection`]: methods of the catalogue.
//! - [`cod`], [`density`]: scores of models that are not there, from those that are; [`footprint`]: energy, carbon and cost of runs.
//! - [`advisor`]: which techniques save what, and what was measured of them.
//! - [`shapes`]: models of real shapes with random weights, to measure speed.
//!
//! [`METHODS`] lists what is in the catalogue.

pub mod advisor;
pub mod budget;
pub mod calibrate;
pub mod cod;
pub mod density;
#[cfg(test)]
mod desk;
pub mod dissection;
pub mod error;
pub mod footprint;
pub mod forecast;
pub mod idealized_runtime;
pub mod recipe;
pub mod roofline;
pub mod search;
pub mod shapes;
mod training;

pub use error::{Error, Result};

use ounce_eval::method::Method;

/// The working methods of this crate.
pub const METHODS: &[Method] = &[
    advisor::RESOURCES,
    advisor::CLASSES,
    advisor::LIMITS,
    cod::METHOD,
    density::METHOD,
    footprint::METHOD,
    idealized_runtime::METHOD,
    roofline::METHOD,
    dissection::METHOD,
];
