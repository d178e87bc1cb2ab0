//! What a model will cost on a machine, and which techniques meet a budget.
//!
//! [`METHODS`] lists what is in the catalogue.

use ounce_eval::method::Method;

/// The working methods of this crate.
pub const METHODS: &[Method] = &[];
