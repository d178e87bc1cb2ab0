//! How an engine computes: on packed weights or on stored ones, and with which product.

use ounce_kernels::{DType, matmul};

/// How two vectors are multiplied and summed on stored weights.
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

/// How an engine holds its weights.
#[derive(Debug, Clone, Copy, Default)]
pub enum Mode {
    /// In their file's mapping, decoded to f32 a row at a time: exact, slow, little memory.
    #[default]
    Reference,
    /// Repacked at load for the fast kernels; activations go to int8 or bf16 where the format's kernel wants it.
    /// Formats without a kernel stay as in [`Mode::Reference`].
    Fast {
        /// A format to which matrices in F32, F16, BF16 or F8 are quantized at load.
        quantize: Option<DType>,
    },
    /// As [`Mode::Reference`], with other products in the inner products.
    Emulated(Arithmetic),
}

impl Mode {
    /// The fast mode with weights as they are.
    pub fn fast() -> Mode {
        Mode::Fast { quantize: None }
    }

    /// The products on weights that are not packed.
    pub(crate) fn arithmetic(self) -> Arithmetic {
        match self {
            Mode::Emulated(arithmetic) => arithmetic,
            Mode::Reference | Mode::Fast { .. } => Arithmetic::default(),
        }
    }
}
