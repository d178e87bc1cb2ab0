//! Runs a model: the one forward pass over any [`Spec`](ounce_model::Spec), the KV cache, sampling and the
//! generation loop. It takes and gives token ids; [`text`] is the thin layer that turns a stream of ids
//! into a stream of text.
//!
//! A [`Mode`] says how: as a reference, in f32 on weights that stay in their file's mapping; or fast, on weights that
//! are repacked at load for the kernels. The forward pass is the same code for both.

pub mod arithmetic;
mod attention;
pub mod batch;
pub mod beside;
pub mod cache;
mod classifier;
pub mod draft;
pub mod engine;
pub mod error;
mod feed_forward;
pub mod generate;
mod layer;
mod linear;
mod norm;
pub mod profile;
mod rotation;
pub mod sample;
mod scratch;
pub mod session;
pub mod tap;
pub mod text;
pub mod walk;

pub use arithmetic::{Arithmetic, Mode, Product};
pub use batch::{Batch, Turn, Want};
pub use beside::{Adapter, Around, Changes, Front, Look, LowRank, Narrow};
pub use engine::Engine;
pub use error::{Error, Result};
pub use generate::{Finish, Generation, Step};
pub use profile::{Cost, Operator, Profile};
pub use sample::{Sampler, Sampling};
pub use session::Session;
pub use tap::{SharedTap, Tap};
pub use walk::Walk;
