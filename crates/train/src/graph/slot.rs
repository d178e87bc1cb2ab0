//! The places of linear layers.

use candle_core::Tensor;

use super::ops::{self, Factor, Kernels};
use super::weight::Weight;
use crate::Result;

/// A linear layer of a network, whatever computes it.
pub trait Slot: Send {
    /// From `[rows, in]` to `[rows, out]`.
    ///
    /// # Errors
    /// If the input does not fit.
    fn forward(&self, x: &Tensor) -> Result<Tensor>;

    /// Every weight that it computes with, frozen ones included. The same one again if another slot has it too.
    fn vars(&self) -> Vec<Weight>;

    /// The one matrix `[out, in]` by which a plain layer would give the same results, if that is another than the
    /// weight the layer came with; how [`super::GraphNet::model`] writes it. Called in a pass.
    ///
    /// # Errors
    /// If there is no such matrix.
    fn merged(&self) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// The layer itself, if it is a plain one: for faster ways than [`Slot::forward`].
    fn plain(&self) -> Option<&Linear> {
        None
    }
}

/// Where a layer's matrix is.
#[derive(Debug, Clone)]
pub enum Matrix {
    /// Among the parameters.
    Weight(Weight),
    /// Frozen, in the format in which it was stored.
    Stored(ounce_model::Tensor),
}

/// A plain linear layer: what a slot is made of, and the default slot.
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[out, in]`.
    pub matrix: Matrix,
    /// `[out]`.
    pub bias: Option<Weight>,
    /// Width of what goes in.
    pub input: usize,
    /// Width of what comes out.
    pub output: usize,
    /// What to compute with.
    pub on: Kernels,
}

impl Linear {
    /// Stops training matrix and bias.
    pub fn freeze(&self) {
        if let Matrix::Weight(weight) = &self.matrix {
            weight.freeze();
        }
        self.bias.iter().for_each(Weight::freeze);
    }

    /// The matrix as a factor of products.
    ///
    /// # Errors
    /// Outside a pass.
    pub fn factor(&self) -> Result<Factor> {
        Ok(match &self.matrix {
            Matrix::Weight(weight) => Factor::Dense(weight.tensor()?),
            Matrix::Stored(stored) => Factor::Stored(stored.clone()),
        })
    }

    /// The matrix as a tensor `[out, in]`; a stored one is decoded.
    ///
    /// # Errors
    /// Outside a pass.
    pub fn dense(&self) -> Result<Tensor> {
        match &self.matrix {
            Matrix::Weight(weight) => weight.tensor(),
            Matrix::Stored(stored) => {
                let values = stored.to_f32().map_err(|error| {
                    crate::Error::Unsupported(format!("a matrix can't be decoded: {error}"))
                })?;
                Ok(ops::tensor(values, (self.output, self.input))?)
            }
        }
    }

    /// The bias.
    ///
    /// # Errors
    /// Outside a pass.
    pub fn bias(&self) -> Result<Option<Tensor>> {
        self.bias.as_ref().map(Weight::tensor).transpose()
    }

    /// `x · wᵀ` and the layer's bias, with another matrix in the place of its own: a masked or rounded one.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn with_matrix(&self, x: &Tensor, matrix: Tensor) -> Result<Tensor> {
        ops::linear(self.on, x, &Factor::Dense(matrix), self.bias()?.as_ref())
    }
}

impl Slot for Linear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::linear(self.on, x, &self.factor()?, self.bias()?.as_ref())
    }

    fn vars(&self) -> Vec<Weight> {
        let matrix = match &self.matrix {
            Matrix::Weight(weight) => Some(weight.clone()),
            Matrix::Stored(_) => None,
        };
        matrix.into_iter().chain(self.bias.clone()).collect()
    }

    fn plain(&self) -> Option<&Linear> {
        Some(self)
    }
}
