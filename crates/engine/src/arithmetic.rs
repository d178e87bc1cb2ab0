//! Which product the inner products use: the seam for techniques that replace multiplication.

use ounce_kernels::matmul;

/// How two vectors are multiplied and summed.
#[derive(Debug, Clone, Copy, Default)]
pub enum Product {
    /// f32 multiply and add.
    #[default]
    Exact,
    /// Any other inner product of two vectors of one length (an emulation: expect it to be slow).
    Emulated(fn(&[f32], &[f32]) -> f32),
}

impl Product {
    /// The inner product of two vectors of one length.
    #[inline]
    pub fn dot(self, x: &[f32], y: &[f32]) -> f32 {
        match self {
            Product::Exact => matmul::dot(x, y),
            Product::Emulated(dot) => dot(x, y),
        }
    }
}

/// The products of the parts of a model. Norms, softmax, rotations and the embedding stay exact.
#[derive(Debug, Clone, Copy, Default)]
pub struct Arithmetic {
    /// Scores `q · k` and the weighted sum of values.
    pub attention: Product,
    /// Projections, feed-forward parts, routers and the head.
    pub linear: Product,
}
