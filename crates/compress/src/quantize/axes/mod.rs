//! The choices of a quantizer as options that don't depend on each other (method 098).
//!
//! "A Survey of Quantization Methods for Efficient Neural Network Inference", arXiv 2103.13630, orders the field by axes;
//! each has a file here, and [`Options`] holds one choice of each:
//!
//! | axis | choices | where |
//! |---|---|---|
//! | mapping | uniform; power of two, k-means; binary, ternary | [`grid`], [`codebook`] |
//! | symmetry | symmetric with the full or the restricted range, asymmetric | [`grid`] |
//! | range | min–max, percentile, least squares, entropy, learned (LSQ, PACT) | [`range`](mod@range), [`learned`] |
//! | when | static (an [`Observer`]) or dynamic ([`Grid::of`] at run time) | [`observer`] |
//! | granularity | tensor, channel, groups of a channel | [`simulate`] |
//! | rounding | nearest, stochastic, AdaRound | [`rounding`] |
//! | after training | bias correction, equalization | [`repair`] |
//! | execution | simulated, or integers with a dyadic multiplier | [`integer`] |
//! | mixed precision | bits by Hessian traces (HAWQ) within a size | [`hessian`] |
//!
//! What this folder computes is simulated: values are rounded and computed with in f32. It tells what a choice costs, not
//! how fast it is. Formats that files store, and kernels that are faster, stand beside it.

pub mod codebook;
pub mod grid;
pub mod hessian;
pub mod integer;
pub mod learned;
pub mod observer;
pub mod range;
pub mod repair;
pub mod rounding;

mod simulate;

pub use codebook::Codebook;
pub use grid::{Grid, Symmetry};
pub use observer::Observer;
pub use range::Calibration;
pub use rounding::Rounding;
pub use simulate::{Granularity, Mapping, Options, Simulated, channels, simulate};

#[cfg(test)]
pub(crate) mod random {
    //! Numbers for tests.

    /// Evenly spread in −1 to 1.
    pub fn even(seed: u64) -> impl FnMut() -> f32 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        }
    }

    /// About normal, of variance 1.
    pub fn normal(seed: u64) -> impl FnMut() -> f32 {
        let mut next = even(seed);
        move || (0..12).map(|_| next()).sum::<f32>() / 2.0
    }
}
