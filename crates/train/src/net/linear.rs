//! A linear layer `y = x · Wᵀ + b` and its gradients: `dx = dy · W`, `dW = dyᵀ · x`, `db = Σ dy`.
//!
//! A frozen layer has no `dW`. One that is frozen and stored in a quantized format is multiplied from its packed rows,
//! forward and backward; its dense form never exists as a whole. The same holds where only step sizes are trained.

use ounce_kernels::gemm::{Operand, gemm};
use ounce_kernels::grad::bias::{add_bias, bias_backward};
use ounce_model::Tensor;

use super::beside::Beside;
use super::context::Context;
use super::steps;

/// Where a layer's matrix is.
#[derive(Debug)]
pub(crate) enum Matrix {
    /// Among the parameters.
    Param(usize),
    /// Frozen, in the format in which it was stored.
    Stored(Tensor),
    /// Among the packed matrices whose step sizes are trained.
    Steps(usize),
    /// The product of two thin matrices, the one that is used first before the other; the second has the bias.
    Factors(Box<[Linear; 2]>),
}

/// One linear layer.
#[derive(Debug)]
pub(crate) struct Linear {
    pub matrix: Matrix,
    pub bias: Option<usize>,
    pub input: usize,
    pub output: usize,
    /// What is trained beside it.
    pub beside: Option<Box<Beside>>,
}

impl Linear {
    /// `out = x · Wᵀ + b`, added to what `out` holds if `accumulate`. `x` is `[tokens, input]`, `out` `[tokens, output]`.
    pub fn forward(&self, x: &[f32], out: &mut [f32], accumulate: bool, cx: &mut Context<'_>) {
        self.own_forward(x, out, accumulate, cx);
        if let Some(beside) = &self.beside {
            beside.forward(x, out, cx);
        }
    }

    /// [`Linear::forward`] of the layer alone.
    fn own_forward(&self, x: &[f32], out: &mut [f32], accumulate: bool, cx: &mut Context<'_>) {
        let tokens = x.len() / self.input;
        let weights = match &self.matrix {
            Matrix::Factors(factors) => {
                let middle = factors[0].apply(x, cx);
                factors[1].forward(&middle, out, accumulate, cx);
                return cx.buffers.give(middle);
            }
            Matrix::Param(index) => Operand::Columns { data: &cx.params[*index].value, stride: self.input },
            Matrix::Stored(tensor) => {
                Operand::StoredColumns { dtype: tensor.dtype, bytes: &tensor.data, row_len: self.input }
            }
            Matrix::Steps(index) => {
                let packed = &cx.packed[*index];
                Operand::StoredColumns { dtype: packed.dtype, bytes: &packed.bytes, row_len: self.input }
            }
        };
        let x = Operand::Rows { data: x, stride: self.input };
        let size = (tokens, self.output, self.input);
        gemm(cx.pool, cx.compute, size, x, weights, accumulate, out, self.output, &mut cx.buffers.gemm);
        if let Some(bias) = self.bias {
            add_bias(cx.pool, out, &cx.params[bias].value);
        }
    }

    /// [`Linear::forward`] into a buffer of its own.
    pub fn apply(&self, x: &[f32], cx: &mut Context<'_>) -> Vec<f32> {
        let mut out = cx.buffers.take(x.len() / self.input * self.output);
        self.forward(x, &mut out, false, cx);
        out
    }

    /// Adds to the gradients of matrix and bias.
    pub fn backward_weights(&self, x: &[f32], dy: &[f32], cx: &mut Context<'_>) {
        if let Some(beside) = &self.beside {
            beside.backward_weights(x, dy, cx);
        }
        let tokens = x.len() / self.input;
        if let Matrix::Factors(factors) = &self.matrix {
            // What lies between is computed again: it is thin.
            let [reduce, expand] = &**factors;
            let middle = reduce.apply(x, cx);
            expand.backward_weights(&middle, dy, cx);
            let mut dmiddle = middle;
            expand.backward_input(dy, &mut dmiddle, false, cx);
            reduce.backward_weights(x, &dmiddle, cx);
            return cx.buffers.give(dmiddle);
        }
        if let Some(bias) = self.bias {
            let bias = &mut cx.params[bias];
            if bias.is_trainable() {
                bias_backward(cx.pool, dy, self.output, &mut bias.grad);
            }
        }
        let index = match self.matrix {
            Matrix::Param(index) => index,
            Matrix::Stored(_) | Matrix::Factors(_) => return,
            Matrix::Steps(index) => return steps::backward(index, x, dy, cx),
        };
        let param = &mut cx.params[index];
        if !param.is_trainable() {
            return;
        }
        let dy = Operand::Columns { data: dy, stride: self.output };
        let x = Operand::Rows { data: x, stride: self.input };
        let size = (self.output, self.input, tokens);
        let grad = &mut param.grad;
        gemm(cx.pool, cx.compute, size, dy, x, true, grad, self.input, &mut cx.buffers.gemm);
    }

    /// `dx = dy · W`, added to what `dx` holds if `accumulate`.
    pub fn backward_input(&self, dy: &[f32], dx: &mut [f32], accumulate: bool, cx: &mut Context<'_>) {
        self.own_backward_input(dy, dx, accumulate, cx);
        if let Some(beside) = &self.beside {
            beside.backward_input(dy, dx, cx);
        }
    }

    /// [`Linear::backward_input`] of the layer alone.
    fn own_backward_input(&self, dy: &[f32], dx: &mut [f32], accumulate: bool, cx: &mut Context<'_>) {
        let tokens = dy.len() / self.output;
        let weights = match &self.matrix {
            Matrix::Factors(factors) => {
                let [reduce, expand] = &**factors;
                let mut dmiddle = cx.buffers.take(tokens * expand.input);
                expand.backward_input(dy, &mut dmiddle, false, cx);
                reduce.backward_input(&dmiddle, dx, accumulate, cx);
                return cx.buffers.give(dmiddle);
            }
            Matrix::Param(index) => Operand::Rows { data: &cx.params[*index].value, stride: self.input },
            Matrix::Stored(tensor) => {
                Operand::StoredRows { dtype: tensor.dtype, bytes: &tensor.data, row_len: self.input }
            }
            Matrix::Steps(index) => {
                let packed = &cx.packed[*index];
                Operand::StoredRows { dtype: packed.dtype, bytes: &packed.bytes, row_len: self.input }
            }
        };
        let dy = Operand::Rows { data: dy, stride: self.output };
        let size = (tokens, self.input, self.output);
        gemm(cx.pool, cx.compute, size, dy, weights, accumulate, dx, self.input, &mut cx.buffers.gemm);
    }
}
