//! Text-to-image diffusion at the size of a demonstration: words, drawings, a network that takes noise away, few steps from
//! noise to a drawing, and a reader that says which words a drawing shows.
//!
//! - [`glyphs`]: prompts and drawings of them.
//! - [`Denoiser`]: the network, whose products others may compute; [`Pass`] runs it.
//! - [`Request`]: drawings from prompts in two steps.
//! - [`Reader`]: words from drawings.
//! - [`fit`]: training of both.

mod denoiser;
pub mod fit;
pub mod glyphs;
mod pass;
mod reader;
mod request;

pub use candle_core::Tensor;
pub use denoiser::{Denoiser, Layer, Options, Part, Plain, Products, TOKENS};
pub use glyphs::Prompt;
pub use pass::Pass;
pub use reader::{Read, Reader, Reading};
pub use request::{Request, STEPS};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Normally distributed numbers (Box and Muller's transform).
pub(crate) fn normal(random: &mut ChaCha8Rng, count: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        let (u, v): (f32, f32) = (1.0 - random.random::<f32>(), random.random());
        let (sin, cos) = (std::f32::consts::TAU * v).sin_cos();
        let radius = (-2.0 * u.ln()).sqrt();
        values.extend([radius * cos, radius * sin]);
    }
    values.truncate(count);
    values
}

#[cfg(test)]
mod tests;
