//! Matrices in groups whose codes and zero points are frozen while their step sizes are trained: `w = d (c − z)`, so that
//! the gradient of a group's step size is `Σ (c − z) dL/dw` over the group.
//!
//! `dL/dW` exists for some rows at a time only, and no weight is ever held as a float.

use half::f16;
use ounce_kernels::DType;
use ounce_kernels::gemm::{Operand, gemm};
use ounce_kernels::quant::groups::read_block;
use ounce_model::{Model, Tensor};

use super::build::Builder;
use super::context::Context;
use super::{Net, Options};
use crate::{Error, Param, ParamKind, Result};

/// Values of `dL/dW` that exist at once, unless one row has more: 1 MiB.
const GRADIENT: usize = 1 << 18;

/// The most values of a group.
const LARGEST_GROUP: usize = 256;

/// A packed matrix, and which parameter its step sizes are.
#[derive(Debug)]
pub(crate) struct Packed {
    pub name: String,
    pub dtype: DType,
    shape: Vec<usize>,
    pub bytes: Vec<u8>,
    /// The index of the step sizes' parameter.
    steps: usize,
    bits: usize,
    group: usize,
}

impl Packed {
    /// Takes a matrix in groups of that shape; its step sizes become the parameter of that index.
    pub fn take(name: &str, tensor: &Tensor, (bits, group): (usize, usize), index: usize) -> (Packed, Param) {
        let bytes = tensor.data.to_vec();
        let scale = |block: &[u8]| f16::from_le_bytes([block[0], block[1]]).to_f32();
        let steps: Vec<f32> = bytes.chunks_exact(tensor.dtype.block_bytes()).map(scale).collect();
        let shape = [tensor.rows(), tensor.row_len() / group];
        let param_name = format!("{}.steps", name.strip_suffix(".weight").unwrap_or(name));
        let param = Param::new(param_name, &shape, ParamKind::Steps, steps);
        let (dtype, shape) = (tensor.dtype, tensor.shape.clone());
        (Packed { name: name.to_owned(), dtype, shape, bytes, steps: index, bits, group }, param)
    }

    /// The matrix with the step sizes last stored.
    pub fn tensor(&self) -> Tensor {
        Tensor { dtype: self.dtype, shape: self.shape.clone(), data: self.bytes.clone().into() }
    }

    /// Puts the parameter's step sizes, rounded, into the blocks.
    pub fn store(&mut self, params: &[Param]) {
        let blocks = self.bytes.chunks_exact_mut(self.dtype.block_bytes());
        for (block, step) in blocks.zip(&params[self.steps].value) {
            block[..2].copy_from_slice(&f16::from_f32(*step).to_le_bytes());
        }
    }
}

impl Net {
    /// Takes a model whose matrices in groups keep their codes and zero points while their step sizes are trained; all
    /// else is frozen. The step sizes are parameters `….steps`, `[out, in / group]`; [`Net::store_steps`] puts them, rounded
    /// to f16, where the forward pass takes them from.
    ///
    /// # Errors
    /// If a weight can't be read, or no matrix is stored in groups.
    pub fn with_steps(model: &Model, options: Options) -> Result<Net> {
        let net =
            Net::build(model, options, Builder { steps: true, ..Builder::new(&model.weights, &|_| false) })?;
        if net.packed.is_empty() {
            let what = "no matrix of this model is stored in groups, so there are no step sizes to train";
            return Err(Error::Unsupported(what.to_string()));
        }
        Ok(net)
    }

    /// Rounds trained step sizes to f16 and puts them where the next pass takes them from; to be called whenever they have
    /// changed.
    pub fn store_steps(&mut self) {
        self.packed.iter_mut().for_each(|packed| packed.store(&self.params));
    }

    /// Bytes of packed matrices whose step sizes are trained.
    pub fn stored_bytes(&self) -> usize {
        self.packed.iter().map(|packed| packed.bytes.len()).sum()
    }

    /// A weight that is no parameter, as it is stored now.
    pub(super) fn frozen(&self, name: &str) -> Result<Tensor> {
        match self.packed.iter().find(|packed| packed.name == name) {
            Some(packed) => Ok(packed.tensor()),
            None => Ok(self.model.weights.get(name)?),
        }
    }
}

/// Adds the gradients of the step sizes of packed matrix `index`, from its layer's input and its output's gradient.
pub(super) fn backward(index: usize, x: &[f32], dy: &[f32], cx: &mut Context<'_>) {
    let Packed { dtype, ref shape, ref bytes, steps, bits, group, .. } = cx.packed[index];
    let [output, input] = shape[..] else { unreachable!("a matrix") };
    let tokens = x.len() / input;
    if !cx.params[steps].is_trainable() || tokens == 0 {
        return;
    }
    let rows = (GRADIENT / input).clamp(1, output);
    let mut dw = cx.buffers.take(rows * input);
    for first in (0..output).step_by(rows) {
        let rows = rows.min(output - first);
        let dw = &mut dw[..rows * input];
        let size = (rows, input, tokens);
        let left = Operand::columns(&dy[first..], output);
        let right = Operand::rows(x, input);
        gemm(cx.pool, cx.compute, size, left, right, false, dw, input, &mut cx.buffers.gemm);
        let groups = input / group;
        let grad = &mut cx.params[steps].grad[first * groups..][..rows * groups];
        let bytes = &bytes[first * groups * dtype.block_bytes()..];
        let dw = &*dw;
        cx.pool.split_chunks(grad, groups, |row, grad| {
            let mut codes = [0; LARGEST_GROUP];
            let codes = &mut codes[..group];
            let blocks = bytes[row * groups * dtype.block_bytes()..].chunks_exact(dtype.block_bytes());
            for ((sum, block), dw) in grad.iter_mut().zip(blocks).zip(dw[row * input..].chunks_exact(group)) {
                let (_, zero) = read_block(bits, block, codes);
                let zero = f32::from(zero);
                *sum += codes.iter().zip(dw).map(|(&code, dw)| (f32::from(code) - zero) * dw).sum::<f32>();
            }
        });
    }
    cx.buffers.give(dw);
}
