//! Matrix products: weights repacked once into the order in which the kernels read them, activations brought to the
//! form that goes with them.
//!
//! Sixteen rows form a *panel*. A panel stores its rows' values interleaved, four values of one row after four of
//! the next: 64 bytes hold four columns of sixteen rows, one 512-bit register whose 32-bit lanes are rows. A kernel
//! multiplies such a register with four activations that are the same for all lanes. (Two columns of bf16, one of
//! f32 or f16 take the place of four of int8.) The layout is the same for every instruction set, and a kernel for one
//! token and one for many read it alike.
//!
//! | Format | Activations | Bytes per 256 values (as stored in files) |
//! |---|---|---|
//! | F32 | f32 | 1024 (1024) |
//! | F16 | f32 | 512 (512) |
//! | BF16 | bf16 | 512 (512) |
//! | Q8_0 | int8, a scale for 32 values | 272 (272) |
//! | Q4_0 | int8, a scale for 32 values | 144 (144) |
//! | Q4_K | int8, a scale for 256 values | 148 (144) |
//! | Q6_K | int8, a scale for 256 values | 210 (210) |
//!
//! The products of one block are summed exactly in 32-bit integers, blocks in f32 in the order of columns. What a
//! kernel gives depends on the instruction set only by the rounding of fused multiply-adds, and not at all on the
//! number of tokens or threads.

mod activations;
mod buffer;
mod dispatch;
mod float;
mod planes;
mod scaled;
mod simd;
mod super_blocks;

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::DType;
use crate::isa::Isa;
use crate::pool::{Pool, SharedOut, part};
use crate::quant::{self, QuantError};

pub use activations::{Activations, Form};
use buffer::Buffer;
use dispatch::Kernel;

/// Rows of a panel.
pub(crate) const PANEL: usize = 16;

/// Tokens that a kernel multiplies with a panel at once, at most: their sums fit the registers.
pub(crate) const TILE: usize = 8;

/// Tokens whose activations stay in the second-level cache while all panels of a thread pass by.
const TOKEN_BLOCK: usize = 64;

/// Sums of one panel with some tokens: `[token][row]`.
pub(crate) type Sums = [[f32; PANEL]; TILE];

/// A weight matrix `[rows, columns]` in panels.
#[derive(Debug)]
pub struct PackedMatrix {
    dtype: DType,
    rows: usize,
    columns: usize,
    panel_bytes: usize,
    data: Buffer,
}

impl PackedMatrix {
    /// Whether a matrix of this format and row length has a kernel here.
    pub fn supports(dtype: DType, columns: usize) -> bool {
        layout(dtype).is_some_and(|layout| columns > 0 && columns.is_multiple_of(layout.block))
    }

    /// Repacks stored rows. `bytes` holds `rows` rows of `columns` values in `dtype`.
    ///
    /// # Errors
    /// If there is no kernel for the format, the byte count does not fit the shape, a block's scale is not finite, or
    /// there is no memory.
    pub fn pack(dtype: DType, bytes: &[u8], rows: usize, columns: usize) -> Result<PackedMatrix, QuantError> {
        let layout = layout(dtype).filter(|layout| columns > 0 && columns.is_multiple_of(layout.block));
        let layout = layout.ok_or(QuantError::Unsupported { dtype, what: "packed for the fast kernels" })?;
        let row_bytes = dtype.bytes_for(columns).unwrap_or(0);
        let expected = rows.saturating_mul(row_bytes);
        if expected != bytes.len() {
            let values = rows.saturating_mul(columns);
            return Err(QuantError::Size { dtype, values, expected, found: bytes.len() });
        }
        let panel_bytes = layout.bytes * (columns / layout.block);
        let mut data = Buffer::zeroed(panel_bytes.saturating_mul(rows.div_ceil(PANEL)))
            .map_err(|error| QuantError::Memory { bytes: expected, reason: error.to_string() })?;
        let damaged = AtomicUsize::new(usize::MAX);
        Pool::global().split_chunks(data.as_mut_slice(), panel_bytes, |panel, out| {
            let first = panel * PANEL * row_bytes;
            let stored = &bytes[first..bytes.len().min(first + PANEL * row_bytes)];
            // Rows that a last panel lacks stay zero: scale 0 makes their sums 0.
            (layout.pack)(stored, row_bytes, out);
            if let Some(offset) = quant::check_scales(dtype, stored) {
                damaged.fetch_min(first + offset, Ordering::Relaxed);
            }
        });
        match damaged.into_inner() {
            usize::MAX => {}
            offset => return Err(QuantError::Scale { dtype, offset }),
        }
        Ok(PackedMatrix { dtype, rows, columns, panel_bytes, data })
    }

    /// The stored format it was packed from.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Rows: the length of a product.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns: the length of an activation vector.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Bytes of memory it takes.
    pub fn bytes(&self) -> usize {
        self.data.as_slice().len()
    }

    /// The form in which this matrix's kernel wants activations.
    pub fn form(&self) -> Form {
        layout(self.dtype).expect("a packed matrix has a layout").form
    }

    /// Brings activations `[tokens, columns]` to the form that this matrix's kernel wants.
    pub fn prepare(&self, x: &[f32], pool: &Pool, out: &mut Activations) {
        out.fill(x, self.columns, self.form(), pool);
    }

    /// Multiplies every token's activations with the matrix: `out` is `[tokens, rows]`.
    ///
    /// # Panics
    /// If the activations are in another matrix's form, or `out` has another length.
    pub fn multiply(&self, x: &Activations, pool: &Pool, out: &mut [f32]) {
        self.multiply_with(Isa::current(), x, pool, out);
    }

    /// As [`PackedMatrix::multiply`], on a given path; for tests and benchmarks.
    ///
    /// # Panics
    /// As [`PackedMatrix::multiply`], and if this processor does not have the path.
    pub fn multiply_with(&self, isa: Isa, x: &Activations, pool: &Pool, out: &mut [f32]) {
        multiply_all(isa, [(self, out)], x, pool);
    }
}

/// Multiplies the same activations with several matrices of one form in one piece of work for the pool; what comes out
/// is what each matrix gives alone.
///
/// # Panics
/// As [`PackedMatrix::multiply_with`].
pub fn multiply_all<const N: usize>(
    isa: Isa,
    products: [(&PackedMatrix, &mut [f32]); N],
    x: &Activations,
    pool: &Pool,
) {
    let jobs = products.map(|(matrix, out)| (matrix, matrix.check(isa, x, out), SharedOut::new(out)));
    let threads = pool.threads();
    pool.run(&|thread| {
        for (matrix, kernel, out) in &jobs {
            matrix.multiply_panels(part(matrix.rows.div_ceil(PANEL), 1, thread, threads), *kernel, x, out);
        }
    });
}

impl PackedMatrix {
    /// Checks that activations and output fit, and gives the kernel.
    fn check(&self, isa: Isa, x: &Activations, out: &[f32]) -> Kernel {
        assert!(isa.is_available(), "the processor has the path");
        let layout = layout(self.dtype).expect("a packed matrix has a layout");
        assert_eq!(x.columns(), self.columns, "activations as long as the matrix is wide");
        assert_eq!(x.form(), layout.form, "activations in this format's form");
        assert_eq!(out.len(), x.tokens() * self.rows, "one sum for every token and row");
        (layout.kernel)(isa)
    }

    /// One thread's panels.
    fn multiply_panels(&self, part: Range<usize>, kernel: Kernel, x: &Activations, out: &SharedOut<'_>) {
        let mut sums: Sums = [[0.0; PANEL]; TILE];
        for block in (0..x.tokens()).step_by(TOKEN_BLOCK) {
            let block_end = (block + TOKEN_BLOCK).min(x.tokens());
            for panel in part.clone() {
                let data = &self.data.as_slice()[panel * self.panel_bytes..(panel + 1) * self.panel_bytes];
                let first_row = panel * PANEL;
                let rows = PANEL.min(self.rows - first_row);
                for token in (block..block_end).step_by(TILE) {
                    let tokens = TILE.min(block_end - token);
                    kernel(data, x, token, tokens, &mut sums);
                    for (index, sums) in sums[..tokens].iter().enumerate() {
                        // SAFETY: these rows are this panel's, and each panel is one thread's own.
                        unsafe { out.write((token + index) * self.rows + first_row, &sums[..rows]) };
                    }
                }
            }
        }
    }
}

/// How a format is packed and multiplied.
struct Layout {
    /// Columns of a block.
    block: usize,
    /// Bytes of a block of a whole panel.
    bytes: usize,
    /// The form of the activations.
    form: Form,
    /// Packs up to sixteen rows of the given length in bytes.
    pack: fn(rows: &[u8], row_bytes: usize, out: &mut [u8]),
    /// The kernel of a path.
    kernel: fn(Isa) -> Kernel,
}

fn layout(dtype: DType) -> Option<&'static Layout> {
    match dtype {
        DType::F32 => Some(&float::F32),
        DType::F16 => Some(&float::F16),
        DType::BF16 => Some(&float::BF16),
        DType::Q8_0 => Some(&scaled::Q8_0),
        DType::Q4_0 => Some(&scaled::Q4_0),
        DType::Q4_1 => Some(&scaled::Q4_1),
        DType::Q5_0 => Some(&scaled::Q5_0),
        DType::Q5_1 => Some(&scaled::Q5_1),
        DType::IQ4NL => Some(&scaled::IQ4_NL),
        DType::MXFP4 => Some(&scaled::MXFP4),
        DType::Q2K => Some(&super_blocks::Q2_K),
        DType::Q3K => Some(&super_blocks::Q3_K),
        DType::Q4K => Some(&super_blocks::Q4_K),
        DType::Q5K => Some(&super_blocks::Q5_K),
        DType::Q6K => Some(&super_blocks::Q6_K),
        DType::IQ4XS => Some(&super_blocks::IQ4_XS),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
