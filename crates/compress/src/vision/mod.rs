//! Networks of images brought to a small board: one engine in f32 and in bytes, calibration, quantization-aware training.
//!
//! - [`engine`]: norms folded, ReLU fused, the same steps in f32 and in int8.
//! - [`calibrate`]: grids from weights and from pictures. [`qat`]: grids that learn with the weights.
//! - [`task`]: fire in pictures from above: does it burn, and where.
//! - [`wildfire`]: method 073, what each of these brings.

pub mod calibrate;
pub mod engine;
pub mod qat;
pub mod task;
pub mod wildfire;

#[cfg(test)]
mod tests;
