//! `y = x · Wᵀ + b` with `dx = dy · W`, `dW = dyᵀ · x`, `db = Σ dy`.

use candle_core::Tensor;
use ounce_kernels::gemm::Operand;
use ounce_kernels::grad::bias::{add_bias, bias_backward};

use super::{Kernels, check_last, node, read, tensor, with_last};
use crate::{Error, Result};

/// The matrix of a product, `[out, in]`.
#[derive(Debug, Clone)]
pub enum Factor {
    /// Any tensor; it gets a gradient if something trainable led to it.
    Dense(Tensor),
    /// Frozen, in the format in which it is stored: multiplied from there forward and backward, its dense form never
    /// exists as a whole.
    Stored(ounce_model::Tensor),
}

impl Factor {
    /// Outputs and inputs.
    ///
    /// # Errors
    /// If it is no matrix.
    pub fn size(&self) -> Result<(usize, usize)> {
        match self {
            Factor::Dense(weight) => Ok(weight.dims2()?),
            Factor::Stored(stored) if stored.shape.len() == 2 => Ok((stored.shape[0], stored.shape[1])),
            Factor::Stored(stored) => Err(Error::Unsupported(format!(
                "a product needs a matrix, not a weight of shape {:?}",
                stored.shape
            ))),
        }
    }

    /// The tensor, if it is one.
    pub fn dense(&self) -> Option<&Tensor> {
        match self {
            Factor::Dense(weight) => Some(weight),
            Factor::Stored(_) => None,
        }
    }

    /// The same with its values in one piece.
    pub(super) fn contiguous(&self) -> candle_core::Result<Factor> {
        Ok(match self {
            Factor::Dense(weight) => Factor::Dense(weight.contiguous()?),
            Factor::Stored(stored) => Factor::Stored(stored.clone()),
        })
    }

    /// `out = x · Wᵀ`; `x` is `[rows, in]`.
    pub(super) fn forward(
        &self,
        on: Kernels,
        (output, input): (usize, usize),
        x: &[f32],
        out: &mut [f32],
    ) -> candle_core::Result<()> {
        let size = (x.len() / input, output, input);
        let x = Operand::rows(x, input);
        match self {
            Factor::Dense(weight) => {
                read([weight], |[weight]| on.product(size, x, Operand::columns(weight, input), false, out))
            }
            Factor::Stored(stored) => {
                on.product(size, x, Operand::stored_columns(stored.dtype, &stored.data, input), false, out);
                Ok(())
            }
        }
    }

    /// `dx = dy · W`; `dy` is `[rows, out]`.
    pub(super) fn backward(
        &self,
        on: Kernels,
        (output, input): (usize, usize),
        dy: &[f32],
        dx: &mut [f32],
    ) -> candle_core::Result<()> {
        let size = (dy.len() / output, input, output);
        let dy = Operand::rows(dy, output);
        match self {
            Factor::Dense(weight) => {
                read([weight], |[weight]| on.product(size, dy, Operand::rows(weight, input), false, dx))
            }
            Factor::Stored(stored) => {
                on.product(size, dy, Operand::stored_rows(stored.dtype, &stored.data, input), false, dx);
                Ok(())
            }
        }
    }
}

/// `dW += dyᵀ · x` for rows of `x` and `dy`.
pub(super) fn add_weight_gradient(
    on: Kernels,
    (output, input): (usize, usize),
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
) {
    let size = (output, input, x.len() / input);
    on.product(size, Operand::columns(dy, output), Operand::rows(x, input), true, dw);
}

/// `x · Wᵀ + b`: `[.., in]` to `[.., out]`.
///
/// # Errors
/// If the shapes do not fit each other.
pub fn linear(on: Kernels, x: &Tensor, factor: &Factor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (output, input) = factor.size()?;
    check_last("linear", x, input)?;
    if let Some(bias) = bias {
        check_last("linear's bias", bias, output)?;
    }
    let (x, factor) = (x.contiguous()?, factor.contiguous()?);
    let bias = bias.map(Tensor::contiguous).transpose()?;
    let mut out = vec![0.0; x.elem_count() / input * output];
    read([&x], |[x]| factor.forward(on, (output, input), x, &mut out))??;
    if let Some(bias) = &bias {
        read([bias], |[bias]| add_bias(on.pool, &mut out, bias))?;
    }
    let shape = with_last(&x, output);
    let inputs: Vec<&Tensor> = [Some(&x), factor.dense(), bias.as_ref()].into_iter().flatten().collect();
    let (own, dense, biased) = (x.clone(), factor.dense().is_some(), bias.is_some());
    let weights = factor.clone();
    Ok(node("linear", &inputs, out, shape, move |behind| {
        let mut gradients = Vec::with_capacity(3);
        read([&own, &behind.gradient], |[x, dy]| {
            let dx = behind.wanted[0].then(|| {
                let mut dx = vec![0.0; x.len()];
                weights.backward(on, (output, input), dy, &mut dx)?;
                tensor(dx, own.shape())
            });
            gradients.push(dx.transpose()?);
            if dense {
                let dw = behind.wanted[1].then(|| {
                    let mut dw = vec![0.0; output * input];
                    add_weight_gradient(on, (output, input), x, dy, &mut dw);
                    tensor(dw, (output, input))
                });
                gradients.push(dw.transpose()?);
            }
            if biased {
                let db = behind.wanted[gradients.len()].then(|| {
                    let mut db = vec![0.0; output];
                    bias_backward(on.pool, dy, output, &mut db);
                    tensor(db, output)
                });
                gradients.push(db.transpose()?);
            }
            Ok::<_, candle_core::Error>(())
        })??;
        Ok(gradients)
    })?)
}
