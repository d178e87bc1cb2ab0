//! Adapters: a few trained numbers beside frozen weights.
//!
//! - [`kind`]: which methods there are; [`settings`]: their options.
//! - [`adapter`]: what a method is made of; [`methods`]: one file each.
//! - [`net`]: a model with an adapter, as the training loop knows it.
//! - [`folder`], [`names`], [`foreign`]: adapters on disk, as Python's peft has them.
//! - [`mod@merge`]: what was learned, as part of the base.
//! - `svd`, `random`: what methods begin with.

pub mod adapter;
pub mod error;
pub mod folder;
pub mod foreign;
pub mod kind;
pub mod merge;
pub mod methods;
pub mod names;
pub mod net;
mod random;
pub mod settings;
mod svd;

pub use error::{Error, Result};
pub use folder::Folder;
pub use kind::Kind;
pub use merge::{Merged, merge};
pub use net::Adapted;
pub use settings::{Settings, Targets};

use ounce_eval::method::Method;

/// The working methods of this crate.
pub const METHODS: &[Method] = &[];
