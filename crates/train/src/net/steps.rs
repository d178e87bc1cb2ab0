//! Matrices in blocks whose codes are frozen while their step sizes are trained.
//!
//! A value is `d · a − d' · b`, where a block's factor `d` and, where there is one, its factor of minimums `d'` are trained: the
//! gradients are `Σ a dL/dw` and `−Σ b dL/dw` over the block. In ounce's groups `a = c − z` and there is no `d'`; in ggml's
//! super-blocks `a` is the level times the part's whole-numbered scale, and `b` the part's minimum.
//!
//! `dL/dW` exists for some rows at a time only, and no weight is ever held as a float.

use half::f16;
use ounce_kernels::DType;
use ounce_kernels::gemm::{Operand, gemm};
use ounce_kernels::quant::grid::{Grid, LARGEST_BLOCK};
use ounce_model::{Model, Tensor};

use super::build::Builder;
use super::context::Context;
use super::{Net, Options};
use crate::{Error, Param, ParamKind, Result};

/// Values of `dL/dW` that exist at once, unless one row has more: 1 MiB.
const GRADIENT: usize = 1 << 18;

/// A packed matrix, and which parameters its step sizes are.
#[derive(Debug)]
pub(crate) struct Packed {
    pub name: String,
    pub dtype: DType,
    grid: &'static Grid,
    shape: Vec<usize>,
    pub bytes: Vec<u8>,
    /// The index of the parameter with d.
    steps: usize,
    /// The same for d'.
    minimums: Option<usize>,
}

impl Packed {
    /// Takes a matrix; its step sizes become the parameters from that index on.
    pub fn take(name: &str, tensor: &Tensor, grid: &'static Grid, index: usize) -> (Packed, Vec<Param>) {
        let bytes = tensor.data.to_vec();
        let blocks = bytes.chunks_exact(tensor.dtype.block_bytes());
        let (factors, seconds): (Vec<f32>, Vec<f32>) =
            blocks.map(|block| grid.scales(block)).map(|it| (it.factor, it.second)).unzip();
        let shape = [tensor.rows(), tensor.row_len() / grid.block_len()];
        let stem = name.strip_suffix(".weight").unwrap_or(name);
        let param =
            |what: &str, values| Param::new(format!("{stem}.{what}"), &shape, ParamKind::Steps, values);
        let mut params = vec![param("steps", factors)];
        if grid.has_second_factor() {
            params.push(param("minimum_steps", seconds));
        }
        let minimums = grid.has_second_factor().then_some(index + 1);
        let (dtype, shape) = (tensor.dtype, tensor.shape.clone());
        (Packed { name: name.to_owned(), dtype, grid, shape, bytes, steps: index, minimums }, params)
    }

    /// The matrix with the step sizes last stored.
    pub fn tensor(&self) -> Tensor {
        Tensor { dtype: self.dtype, shape: self.shape.clone(), data: self.bytes.clone().into() }
    }

    /// Puts the parameters' step sizes, rounded, into the blocks.
    pub fn store(&mut self, params: &[Param]) {
        let round = |x: f32| f16::from_f32(x).to_f32();
        for (index, block) in self.bytes.chunks_exact_mut(self.dtype.block_bytes()).enumerate() {
            let mut scales = self.grid.scales(block);
            scales.factor = round(params[self.steps].value[index]);
            if let Some(minimums) = self.minimums {
                scales.second = round(params[minimums].value[index]);
            }
            self.grid.put_scales(&scales, block);
        }
    }
}

impl Net {
    /// Takes a model whose matrices in blocks keep their codes while their step sizes are trained; all else is frozen. The
    /// step sizes are parameters `….steps` and `….minimum_steps`, `[out, in / block]`; [`Net::store_steps`] puts them, rounded
    /// to F16, where the forward pass takes them from.
    ///
    /// # Errors
    /// If a weight can't be read, or no matrix is stored in blocks with a free scale.
    pub fn with_steps(model: &Model, options: Options) -> Result<Net> {
        let net =
            Net::build(model, options, Builder { steps: true, ..Builder::new(&model.weights, &|_| false) })?;
        if net.packed.is_empty() {
            let what = "no matrix of this model is stored in blocks with scales, so there are no step sizes to train";
            return Err(Error::Unsupported(what.to_string()));
        }
        Ok(net)
    }

    /// Rounds trained step sizes to F16 and puts them where the next pass takes them from; to be called whenever they have
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
    let Packed { dtype, grid, ref shape, ref bytes, steps, minimums, .. } = cx.packed[index];
    let [output, input] = shape[..] else { unreachable!("a matrix") };
    let tokens = x.len() / input;
    if !cx.params[steps].is_trainable() || tokens == 0 {
        return;
    }
    let (len, part) = (grid.block_len(), grid.part());
    let blocks = input / len;
    let rows = (GRADIENT / input).clamp(1, output);
    let mut dw = cx.buffers.take(rows * input);
    // Of each block: of d, then of d'.
    let mut sums = cx.buffers.take(rows * blocks * 2);
    for first in (0..output).step_by(rows) {
        let rows = rows.min(output - first);
        let dw = &mut dw[..rows * input];
        let size = (rows, input, tokens);
        let left = Operand::columns(&dy[first..], output);
        let right = Operand::rows(x, input);
        gemm(cx.pool, cx.compute, size, left, right, false, dw, input, &mut cx.buffers.gemm);
        let bytes = &bytes[first * blocks * dtype.block_bytes()..];
        let dw = &*dw;
        let sums = &mut sums[..rows * blocks * 2];
        cx.pool.split_chunks(sums, 2 * blocks, |row, sums| {
            let mut levels = [0.0; LARGEST_BLOCK];
            let levels = &mut levels[..len];
            let stored = bytes[row * blocks * dtype.block_bytes()..].chunks_exact(dtype.block_bytes());
            let slopes = dw[row * input..].chunks_exact(len);
            for ((sums, block), slopes) in sums.as_chunks_mut::<2>().0.iter_mut().zip(stored).zip(slopes) {
                grid.block_levels(block, levels);
                let scales = grid.scales(block);
                *sums = [0.0; 2];
                for (at, (levels, slopes)) in levels.chunks(part).zip(slopes.chunks(part)).enumerate() {
                    let (scale, minimum) = (f32::from(scales.scales[at]), f32::from(scales.minimums[at]));
                    let along: f32 = levels.iter().zip(slopes).map(|(level, slope)| level * slope).sum();
                    let below = minimum * slopes.iter().sum::<f32>();
                    sums[0] += scale * along;
                    // A zero point goes with the one factor there is.
                    sums[usize::from(minimums.is_some())] -= below;
                }
            }
        });
        let own = first * blocks..(first + rows) * blocks;
        let pairs = sums.as_chunks::<2>().0;
        cx.params[steps].grad[own.clone()].iter_mut().zip(pairs).for_each(|(sum, pair)| *sum += pair[0]);
        if let Some(minimums) = minimums {
            let grad = &mut cx.params[minimums].grad[own];
            grad.iter_mut().zip(pairs).for_each(|(sum, pair)| *sum += pair[1]);
        }
    }
    cx.buffers.give(dw);
    cx.buffers.give(sums);
}
