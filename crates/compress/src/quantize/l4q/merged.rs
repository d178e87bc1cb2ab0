//! A matrix that is made of others for as long as it is looked at: base and adapter are added, and the sum is rounded.
//!
//! Everything is done for some rows at a time, forward and backward: `W`, `Ŵ` and `G = dL/dŴ` never exist as a whole.

use std::ops::Range;

use ounce_kernels::DType;
use ounce_kernels::gemm::{Operand, Workspace, gemm};
use ounce_kernels::matmul::add_scaled;
use ounce_model::Tensor;
use ounce_train::graph::ops::Kernels;

use super::lsq::Codes;
use crate::quantize::training::quantizer::{self, Quantized};
use crate::{Error, Result};

/// Values of some rows that exist at once, unless one row has more: 1 MiB.
const ROOM: usize = 1 << 18;

/// What a merged matrix is made of, besides its numbers that are trained.
#[derive(Debug, Clone)]
pub struct Merged {
    /// W₀, `[out, in]`, in the format in which it is stored.
    base: Tensor,
    /// What it is rounded to.
    dtype: DType,
    codes: Codes,
    group: usize,
    rank: usize,
    /// α/r.
    scale: f32,
}

/// The numbers that are trained, or their gradients.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Numbers<T> {
    /// A, `[r, in]`.
    pub a: T,
    /// B, `[out, r]`.
    pub b: T,
    /// s, `[out, in / group]`.
    pub steps: T,
    /// b, `[out, in / group]`.
    pub offsets: T,
}

/// Where steps and offsets begin.
#[derive(Debug, Clone, Copy)]
pub enum Start<'s> {
    /// Where every weight is in range: `s = max(|min W / Qn|, |max W / Qp|)`, `b = 0`. The paper's.
    Extremes,
    /// At those of blocks of the format.
    Blocks(&'s [u8]),
}

impl Merged {
    /// A matrix that will be rounded to groups, with an adapter of that rank and scale.
    ///
    /// # Errors
    /// If the format has no groups, or rows are no whole groups.
    pub fn new(name: &str, base: Tensor, dtype: DType, rank: usize, scale: f32) -> Result<Merged> {
        let (Some((_, group)), Some(codes)) = (dtype.group_shape(), Codes::of(dtype)) else {
            let what = format!("is to become {dtype}; only groups such as g3_32 can be trained");
            return Err(Error::matrix(name, what));
        };
        if !base.row_len().is_multiple_of(group) {
            let what = format!("rows of {} values are no whole groups of {group}", base.row_len());
            return Err(Error::matrix(name, what));
        }
        Ok(Merged { base, dtype, codes, group, rank, scale })
    }

    /// Rows and columns.
    pub fn size(&self) -> (usize, usize) {
        (self.base.rows(), self.base.row_len())
    }

    /// Groups of a row.
    pub fn groups(&self) -> usize {
        self.base.row_len() / self.group
    }

    /// Its codes.
    pub fn codes(&self) -> Codes {
        self.codes
    }

    /// How many there are of each kind of number.
    pub fn counts(&self) -> Numbers<usize> {
        let (output, input) = self.size();
        let groups = output * self.groups();
        Numbers { a: self.rank * input, b: output * self.rank, steps: groups, offsets: groups }
    }

    /// Steps and offsets to begin with.
    ///
    /// # Errors
    /// If the base can't be decoded, or blocks are not those of the matrix.
    pub fn begin(&self, name: &str, start: Start<'_>) -> Result<(Vec<f32>, Vec<f32>)> {
        let values = self.base.to_f32().map_err(|error| Error::matrix(name, error))?;
        let (mut steps, mut offsets) = match start {
            Start::Extremes => {
                let steps: Vec<f32> =
                    values.chunks_exact(self.group).map(|group| self.codes.widest(group)).collect();
                let offsets = vec![0.0; steps.len()];
                (steps, offsets)
            }
            Start::Blocks(blocks) => {
                if blocks.len() != values.len() / self.group * self.dtype.block_bytes() {
                    return Err(Error::matrix(name, "its blocks are not those of the matrix"));
                }
                let weights = quantizer::Start::Weights;
                let begun = Quantized::begin(self.dtype, blocks, &values, self.base.row_len(), weights);
                let (steps, zeros) =
                    begun.map(|it| (it.scales.factors, it.scales.minimums)).unwrap_or_default();
                let offset = |(&step, &zero): (&f32, &f32)| self.codes.offset(step, zero);
                let offsets = steps.iter().zip(&zeros).map(offset).collect();
                (steps, offsets)
            }
        };
        self.codes.confine(&mut steps, &mut offsets);
        Ok((steps, offsets))
    }

    /// Some rows of W with what rounds them.
    fn rows(
        &self,
        on: Kernels,
        numbers: &Numbers<&[f32]>,
        rows: Range<usize>,
        workspace: &mut Workspace,
    ) -> Result<Quantized> {
        let (_, input) = self.size();
        let (count, groups) = (rows.len(), self.groups());
        let mut weights = vec![0.0; count * input];
        for (row, out) in rows.clone().zip(weights.chunks_exact_mut(input)) {
            self.base.decode_row(row, out).map_err(|error| Error::Option(error.to_string()))?;
        }
        let b = self.scaled(numbers.b, rows.clone());
        let size = (count, input, self.rank);
        let (b, a) = (Operand::rows(&b, self.rank), Operand::rows(numbers.a, input));
        gemm(on.pool, on.compute, size, b, a, true, &mut weights, input, workspace);
        let own = rows.start * groups..rows.end * groups;
        let steps = numbers.steps[own.clone()].to_vec();
        let zeros = self.codes.zeros(&steps, &numbers.offsets[own]);
        Quantized::of_groups(self.dtype, input, weights, steps, zeros)
            .ok_or_else(|| Error::Option(format!("{} has no groups", self.dtype)))
    }

    /// Rows of α/r · B.
    fn scaled(&self, b: &[f32], rows: Range<usize>) -> Vec<f32> {
        b[rows.start * self.rank..rows.end * self.rank].iter().map(|value| value * self.scale).collect()
    }

    /// Ranges of rows that are worked on at once.
    fn parts(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (output, input) = self.size();
        let count = (ROOM / input).clamp(1, output);
        (0..output).step_by(count).map(move |first| first..(first + count).min(output))
    }

    /// `y = x Ŵᵀ`, `x [tokens, in]`, `y [tokens, out]`.
    ///
    /// # Errors
    /// If the base can't be decoded.
    pub fn forward(&self, on: Kernels, numbers: &Numbers<&[f32]>, x: &[f32], y: &mut [f32]) -> Result<()> {
        let (output, input) = self.size();
        let mut workspace = Workspace::default();
        for rows in self.parts() {
            let quantized = self.rows(on, numbers, rows.clone(), &mut workspace)?;
            let mut values = vec![0.0; rows.len() * input];
            quantized.values(&mut values);
            let size = (x.len() / input, rows.len(), input);
            let (x, values) = (Operand::rows(x, input), Operand::columns(&values, input));
            gemm(on.pool, on.compute, size, x, values, false, &mut y[rows.start..], output, &mut workspace);
        }
        Ok(())
    }

    /// Adds to the gradients of all numbers, and gives `dx = dy Ŵ` to `dx` if there is one; `dy [tokens, out]`.
    ///
    /// # Errors
    /// As [`Merged::forward`].
    pub fn backward(
        &self,
        on: Kernels,
        numbers: &Numbers<&[f32]>,
        (x, dy): (&[f32], &[f32]),
        mut dx: Option<&mut [f32]>,
        gradients: &mut Numbers<Vec<f32>>,
    ) -> Result<()> {
        let (output, input) = self.size();
        let (tokens, groups) = (x.len() / input, self.groups());
        let mut workspace = Workspace::default();
        for rows in self.parts() {
            let (first, count) = (rows.start, rows.len());
            let quantized = self.rows(on, numbers, rows.clone(), &mut workspace)?;
            // First Ŵ, then G.
            let mut values = vec![0.0; count * input];
            if let Some(dx) = dx.as_deref_mut() {
                quantized.values(&mut values);
                let size = (tokens, input, count);
                let (dy, values) = (Operand::rows(&dy[first..], output), Operand::rows(&values, input));
                gemm(on.pool, on.compute, size, dy, values, first > 0, dx, input, &mut workspace);
            }
            let size = (count, input, tokens);
            let (left, right) = (Operand::columns(&dy[first..], output), Operand::rows(x, input));
            gemm(on.pool, on.compute, size, left, right, false, &mut values, input, &mut workspace);
            let mut scales = quantized.scales.zeros();
            quantized.backward(&mut values, &mut scales);
            for (group, (of_step, of_offset)) in self.codes.gradients(&quantized, &scales).enumerate() {
                gradients.steps[first * groups + group] += of_step;
                gradients.offsets[first * groups + group] += of_offset;
            }
            let own = first * self.rank..(first + count) * self.rank;
            let mut of_b = vec![0.0; own.len()];
            let size = (count, self.rank, input);
            let (weights, a) = (Operand::rows(&values, input), Operand::columns(numbers.a, input));
            gemm(on.pool, on.compute, size, weights, a, false, &mut of_b, self.rank, &mut workspace);
            add_scaled(self.scale, &of_b, &mut gradients.b[own]);
            let b = self.scaled(numbers.b, rows);
            let size = (self.rank, input, count);
            let (b, weights) = (Operand::columns(&b, self.rank), Operand::rows(&values, input));
            gemm(on.pool, on.compute, size, b, weights, true, &mut gradients.a, input, &mut workspace);
        }
        Ok(())
    }

    /// Ŵ as it is stored.
    ///
    /// # Errors
    /// As [`Merged::forward`].
    pub fn pack(&self, numbers: &Numbers<&[f32]>) -> Result<Tensor> {
        let (on, mut workspace) = (Kernels::default(), Workspace::default());
        let mut bytes = Vec::new();
        for rows in self.parts() {
            bytes.extend(self.rows(on, numbers, rows, &mut workspace)?.pack());
        }
        Ok(Tensor { dtype: self.dtype, shape: self.base.shape.clone(), data: bytes.into() })
    }
}
