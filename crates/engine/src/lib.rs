//! Runs a model: the one forward pass over any [`Spec`](ounce_model::Spec), the KV cache, sampling and the
//! generation loop. It takes and gives token ids; [`text`] is the thin layer that turns a stream of ids
//! into a stream of text.
//!
//! This is the reference engine: plain f32 arithmetic on weights that stay in their stored format and are
//! decoded a row at a time, so a model needs little more memory than its file.

pub mod arithmetic;
mod attention;
pub mod cache;
pub mod engine;
pub mod error;
mod feed_forward;
pub mod generate;
mod layer;
mod linear;
mod norm;
pub mod sample;
pub mod session;
pub mod text;

pub use arithmetic::{Arithmetic, Product};
pub use engine::Engine;
pub use error::{Error, Result};
pub use generate::{Finish, Generation, Step};
pub use sample::{Sampler, Sampling};
pub use session::Session;
