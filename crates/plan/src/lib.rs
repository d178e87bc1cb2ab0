//! What a model will cost on a machine, and which techniques meet a budget.
//!
//! - [`forecast`](mod@forecast): memory, time and energy of a model that need not exist, by a roofline of each operator.
//! - [`calibrate`]: how near the engine's kernels come to the machine's limits, measured.
//! - [`idealized_runtime`], [`roofline`], [`dissection`]: methods of the catalogue.
//! - [`shapes`]: models of real shapes with random weights, to measure speed.
//!
//! [`METHODS`] lists what is in the catalogue.

pub mod calibrate;
pub mod dissection;
pub mod error;
pub mod forecast;
pub mod idealized_runtime;
pub mod roofline;
pub mod shapes;

pub use error::{Error, Result};

use ounce_eval::method::Method;

/// The working methods of this crate.
pub const METHODS: &[Method] = &[idealized_runtime::METHOD, roofline::METHOD, dissection::METHOD];
