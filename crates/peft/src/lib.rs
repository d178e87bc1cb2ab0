//! Adapters: a few trained numbers beside frozen weights.
//!
//! - [`kind`]: which methods there are; [`settings`]: their options.
//! - [`adapter`]: what a method is made of; [`methods`]: one file each.
//! - [`net`]: a model with an adapter, as the training loop knows it.
//! - [`folder`], [`names`], [`foreign`], [`fused`]: adapters on disk, as Python's peft has them.
//! - [`labeller`]: labels of texts by a model with an adapter.
//! - [`retrieval`]: encoders that rank passages for queries.
//! - [`beside`]: what the engine runs beside the weights, by sequence.
//! - [`mod@merge`]: what was learned, as part of the base; [`export`]: the same as LoRA.
//! - [`grid`]: ways to adapt, side by side; [`studies`]: the literature's comparisons, in small; [`taxonomy`]: what surveys list.
//! - `svd`, `random`: what methods begin with; `core`: the network under an adapter; `study`, `few`: what demonstrations share.

pub mod adapter;
pub mod beside;
mod core;
#[cfg(test)]
mod desk;
pub mod error;
pub mod export;
mod few;
pub mod folder;
pub mod foreign;
pub mod fused;
pub mod grid;
pub mod kind;
pub mod labeller;
pub mod merge;
pub mod methods;
pub mod names;
pub mod net;
mod random;
pub mod retrieval;
pub mod settings;
pub mod studies;
mod study;
mod svd;
pub mod taxonomy;

pub use error::{Error, Result};
pub use folder::Folder;
pub use kind::Kind;
pub use labeller::Labeller;
pub use merge::{Merged, merge};
pub use net::Adapted;
pub use settings::{Settings, Targets};

use ounce_eval::method::Method;

/// The working methods of this crate.
pub const METHODS: &[Method] = &[
    methods::aside::METHOD,
    methods::cloze::METHOD,
    methods::compacter::METHOD,
    methods::crosstune::METHOD,
    methods::dylora::METHOD,
    methods::flora::METHOD,
    methods::gated_prefix::METHOD,
    methods::language::METHOD,
    methods::patterns::METHOD,
    methods::sherl::METHOD,
    methods::svfit::METHOD,
    studies::codegen::METHOD,
    studies::review::METHOD,
    studies::survey::METHOD,
    studies::unit_tests::METHOD,
];
