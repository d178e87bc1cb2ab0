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
//! | Q5_1, Q5_0 | the same | 192 (192), 176 (176) |
//! | Q4_1, Q4_0, IQ4_NL | the same | 160 (160), 144 (144), 144 (144) |
//! | MXFP4 | the same | 136 (136) |
//! | Q6_K | int8, a scale for 256 values | 210 (210) |
//! | Q5_K, Q4_K | the same | 180 (176), 148 (144) |
//! | Q3_K, Q2_K | the same | 114 (110), 100 (84) |
//! | IQ4_XS | the same | 138 (136) |
//! | Gb_g: groups of g values, b bits | int8, a scale for g values | 32 b + 768 / g (the same) |
//!
//! A format is its bits and what its codes stand for: `scaled`, `super_blocks` and `groups` hold the three kinds,
//! `product` the kernel of the first two, `planes` and `panel` how codes and scales lie in a panel, `int8` how activations
//! do, `simd` the instruction sets; `float` holds F32, F16 and BF16, `sparse` leaves their zeros out.
//!
//! The products of one block are summed exactly in 32-bit integers, blocks in f32 in the order of columns. What a
//! kernel gives depends on the instruction set only by the rounding of fused multiply-adds, and not at all on the
//! number of tokens or threads.

mod activations;
pub(crate) mod buffer;
mod dispatch;
mod float;
mod groups;
mod int8;
mod panel;
mod planes;
mod product;
mod scaled;
pub(crate) mod simd;
mod sparse;
mod super_blocks;
#[cfg(target_arch = "x86_64")]
mod tiles;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::DType;
use crate::isa::Isa;
use crate::pool::{Pool, SharedOut, part};
use crate::quant::{self, QuantError};

pub use activations::{Activations, Form};
use buffer::Buffer;
use dispatch::Kernel;
pub use groups::Groups;
pub use int8::Int8;
use sparse::Sparse;

/// Rows of a panel.
pub(crate) const PANEL: usize = 16;

/// Tokens that a kernel multiplies with a panel at once, at most: their sums fit the registers.
pub(crate) const TILE: usize = 8;

/// Columns that AMX's kernels take at a time.
const TILE_COLUMNS: usize = 32;

/// Bytes of stored weights that are reported as packed together.
const DONE_BYTES: usize = 4 << 20;

/// Tokens whose activations stay in the second-level cache while all panels of a thread pass by.
const TOKEN_BLOCK: usize = 64;

/// A weight matrix `[rows, columns]` in panels.
#[derive(Debug)]
pub struct PackedMatrix {
    layout: &'static Layout,
    /// The kernel of AMX's tiles, if there is one for the format, the row length and the codes.
    tiles: Option<Tiles>,
    rows: usize,
    columns: usize,
    /// Bytes of a dense panel.
    panel_bytes: usize,
    /// Where panels lie that are kept without their zeros.
    sparse: Option<Sparse>,
    data: Buffer,
}

impl PackedMatrix {
    /// Whether a matrix of this format and row length has a kernel here.
    pub fn supports(dtype: DType, columns: usize) -> bool {
        layout(dtype).is_some_and(|layout| columns > 0 && columns.is_multiple_of(layout.block))
    }

    /// Bytes of memory that a matrix will take, if it has a kernel here.
    pub fn bytes_for(dtype: DType, rows: usize, columns: usize) -> Option<usize> {
        let layout = layout(dtype).filter(|_| PackedMatrix::supports(dtype, columns))?;
        layout.bytes.checked_mul(columns / layout.block)?.checked_mul(rows.div_ceil(PANEL))
    }

    /// Bytes of memory that a stored matrix will take if it is packed without its zeros: nothing if it will be packed with them,
    /// for want of zeros or of instructions that put values back fast, or if `bytes` are not those of the shape. A matrix with
    /// few zeros is only looked at here and there.
    pub fn sparse_bytes(dtype: DType, bytes: &[u8], rows: usize, columns: usize) -> Option<usize> {
        let layout = layout(dtype).filter(|_| PackedMatrix::supports(dtype, columns))?;
        let row_bytes = dtype.bytes_for(columns)?;
        let value = value_bytes(dtype).filter(|_| row_bytes.checked_mul(rows) == Some(bytes.len()))?;
        Sparse::plan(bytes, row_bytes, value, layout.bytes * (columns / layout.block)).map(|it| it.bytes())
    }

    /// As [`PackedMatrix::sparse_bytes`] of a matrix of which only the share of zeros is known: half a line a panel too many or few.
    pub fn sparse_bytes_for(dtype: DType, rows: usize, columns: usize, zeros: f64) -> Option<usize> {
        let layout = layout(dtype).filter(|_| PackedMatrix::supports(dtype, columns))?;
        let (value, values) = (value_bytes(dtype)?, rows.checked_mul(columns)?);
        let panel_bytes = layout.bytes * (columns / layout.block);
        Sparse::expected(rows.div_ceil(PANEL), values, value, panel_bytes, zeros)
    }

    /// Bytes of memory in use when matrices of these sizes have been packed one after the other: whole huge pages.
    pub fn resident_bytes(sizes: &[usize]) -> usize {
        buffer::resident_bytes(sizes)
    }

    /// The form in which the kernel of a format wants activations, if there is one.
    pub fn form_of(dtype: DType) -> Option<Form> {
        layout(dtype).map(|layout| layout.form)
    }

    /// Repacks stored rows. `bytes` holds `rows` rows of `columns` values in `dtype`.
    ///
    /// # Errors
    /// If there is no kernel for the format, the byte count does not fit the shape, a block's scale is not finite, or
    /// there is no memory.
    pub fn pack(dtype: DType, bytes: &[u8], rows: usize, columns: usize) -> Result<PackedMatrix, QuantError> {
        PackedMatrix::pack_and(dtype, bytes, rows, columns, |_| {})
    }

    /// As [`PackedMatrix::pack`]; `done` is told of ranges of `bytes` that were packed, some mebibytes at a time, so that
    /// mapped ones can leave memory while the rest is packed. It runs on any thread.
    ///
    /// # Errors
    /// As [`PackedMatrix::pack`].
    pub fn pack_and(
        dtype: DType,
        bytes: &[u8],
        rows: usize,
        columns: usize,
        done: impl Fn(Range<usize>) + Sync,
    ) -> Result<PackedMatrix, QuantError> {
        let layout = layout(dtype).filter(|layout| columns > 0 && columns.is_multiple_of(layout.block));
        let layout = layout.ok_or(QuantError::Unsupported { dtype, what: "packed for the fast kernels" })?;
        let row_bytes = dtype.bytes_for(columns).unwrap_or(0);
        let expected = rows.saturating_mul(row_bytes);
        if expected != bytes.len() {
            let values = rows.saturating_mul(columns);
            return Err(QuantError::Size { dtype, values, expected, found: bytes.len() });
        }
        let damaged = AtomicUsize::new(usize::MAX);
        let for_tiles = AtomicBool::new(true);
        let stored_bytes = PANEL * row_bytes;
        let together = (DONE_BYTES / stored_bytes).max(1);
        let pack = |panel: usize, out: &mut [u8]| {
            let range = panel * stored_bytes..bytes.len().min((panel + 1) * stored_bytes);
            let stored = &bytes[range.clone()];
            (layout.pack)(stored, row_bytes, out);
            if let Some(offset) = quant::check_scales(dtype, stored) {
                damaged.fetch_min(range.start + offset, Ordering::Relaxed);
            }
            if !groups::stored_differences_fit(dtype, stored) {
                for_tiles.store(false, Ordering::Relaxed);
            }
            if (panel + 1).is_multiple_of(together) || range.end == bytes.len() {
                done(panel / together * together * stored_bytes..range.end);
            }
        };
        let panel_bytes = layout.bytes * (columns / layout.block);
        let sparse = value_bytes(dtype).and_then(|value| Sparse::plan(bytes, row_bytes, value, panel_bytes));
        let mut matrix = PackedMatrix::new(layout, rows, columns, sparse, pack)?;
        matrix.tiles = matrix.tiles.filter(|_| for_tiles.into_inner());
        match damaged.into_inner() {
            usize::MAX => Ok(matrix),
            offset => Err(QuantError::Scale { dtype, offset }),
        }
    }

    /// Packs a matrix of ounce's own group formats whose codes, scales and zero points lie apart.
    ///
    /// # Errors
    /// If there is no kernel for the bits and the group size, the numbers of codes, scales or zero points do not fit the
    /// shape, a code or scale is out of range, or there is no memory.
    pub fn pack_groups(matrix: &Groups<'_>) -> Result<PackedMatrix, QuantError> {
        let Groups { bits, group, rows, columns, .. } = *matrix;
        let layout = groups::layout(bits, group).filter(|_| columns > 0 && columns.is_multiple_of(group));
        let layout =
            layout.ok_or(QuantError::Groups("bits should be 2, 3, 4 or 8, groups 32, 64, 128 or 256"))?;
        let counts = [matrix.codes.len(), matrix.scales.len() * group, matrix.zeros.len() * group];
        if counts.iter().any(|&count| Some(count) != rows.checked_mul(columns)) {
            return Err(QuantError::Groups("numbers of codes, scales or zero points do not fit the shape"));
        }
        if bits < 8 && matrix.codes.iter().any(|&code| code >> bits != 0) {
            return Err(QuantError::Groups("a code has more bits than the format"));
        }
        if matrix.scales.iter().any(|scale| !scale.is_finite()) {
            return Err(QuantError::Groups("a scale is not finite"));
        }
        let mut packed = PackedMatrix::new(layout, rows, columns, None, |panel, out| {
            groups::pack(matrix, panel * PANEL, out)
        })?;
        packed.tiles = packed.tiles.filter(|_| groups::differences_fit(matrix.zeros.iter().copied()));
        Ok(packed)
    }

    /// Packs panel by panel. Rows that a last panel lacks stay zero: scale 0 makes their sums 0.
    fn new(
        layout: &'static Layout,
        rows: usize,
        columns: usize,
        sparse: Option<Sparse>,
        pack: impl Fn(usize, &mut [u8]) + Sync,
    ) -> Result<PackedMatrix, QuantError> {
        let panel_bytes = layout.bytes * (columns / layout.block);
        let bytes = match &sparse {
            None => panel_bytes.saturating_mul(rows.div_ceil(PANEL)),
            Some(sparse) => sparse.bytes(),
        };
        let mut data =
            Buffer::zeroed(bytes).map_err(|error| QuantError::Memory { bytes, reason: error.to_string() })?;
        match &sparse {
            None => Pool::global().split_chunks(data.as_mut_slice(), panel_bytes, pack),
            Some(sparse) => sparse.pack(data.as_mut_slice(), panel_bytes, pack),
        }
        let tiles = layout.tiles.filter(|_| columns.is_multiple_of(TILE_COLUMNS));
        Ok(PackedMatrix { layout, tiles, rows, columns, panel_bytes, sparse, data })
    }

    /// Rows: the length of a product.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns: the length of an activation vector.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Whether zeros are left out in memory: for a dense format with many of them, where the processor puts values back fast.
    pub fn is_sparse(&self) -> bool {
        self.sparse.is_some()
    }

    /// Bytes of memory it takes.
    pub fn bytes(&self) -> usize {
        self.data.as_slice().len()
    }

    /// The form in which this matrix's kernel wants activations.
    pub fn form(&self) -> Form {
        self.layout.form
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

    /// As [`PackedMatrix::multiply`], on a given path; for tests and benchmarks, which take
    /// [`Activations::for_every_path`].
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
    let jobs = products.map(|(matrix, out)| {
        matrix.check(isa, x, out);
        (matrix, SharedOut::new(out))
    });
    let threads = pool.threads();
    pool.run(&|thread| {
        for (matrix, out) in &jobs {
            matrix.multiply_panels(part(matrix.rows.div_ceil(PANEL), 1, thread, threads), isa, x, out);
        }
    });
}

impl PackedMatrix {
    /// Checks that path, activations and output fit.
    fn check(&self, isa: Isa, x: &Activations, out: &[f32]) {
        assert!(isa.is_available(), "the processor has the path");
        assert_eq!(x.columns(), self.columns, "activations as long as the matrix is wide");
        assert_eq!(x.form(), self.layout.form, "activations in this format's form");
        assert_eq!(out.len(), x.tokens() * self.rows, "one sum for every token and row");
    }

    /// One thread's panels.
    fn multiply_panels(&self, part: Range<usize>, isa: Isa, x: &Activations, out: &SharedOut<'_>) {
        let mut sums = [[0.0; PANEL]; TOKEN_BLOCK];
        let tiles = self.tiles.filter(|tiles| isa == Isa::Amx && x.tokens() >= tiles.from);
        let kernel = tiles.map_or_else(|| (self.layout.kernel)(isa), |tiles| tiles.kernel);
        let fusable = self.sparse.is_some() && self.form() == Form::Bf16 && tiles.is_none();
        let fused = if fusable { float::fused(isa) } else { None };
        let mut part = part;
        if let (Some(sparse), Some(fused), 1) = (&self.sparse, fused, x.tokens()) {
            // Two panels at a time: one sum waits for its last product longer than putting values back takes.
            while part.len() >= 2 {
                let panels = [part.start, part.start + 1];
                let data = panels.map(|panel| sparse.panel(self.data.as_slice(), panel));
                (fused.pair)(data, x, &mut sums);
                for (panel, sums) in panels.into_iter().zip(&sums) {
                    let rows = PANEL.min(self.rows - panel * PANEL);
                    // SAFETY: as below.
                    unsafe { out.write(panel * PANEL, &sums[..rows]) };
                }
                part.start += 2;
            }
        }
        for block in (0..x.tokens()).step_by(TOKEN_BLOCK) {
            let block_end = (block + TOKEN_BLOCK).min(x.tokens());
            for panel in part.clone() {
                let first_row = panel * PANEL;
                let rows = PANEL.min(self.rows - first_row);
                let data = self.data.as_slice();
                match &self.sparse {
                    None => {
                        let data = &data[panel * self.panel_bytes..(panel + 1) * self.panel_bytes];
                        kernel(data, x, block, block_end - block, &mut sums);
                    }
                    Some(sparse) => {
                        let tokens = block_end - block;
                        let data = sparse.panel(data, panel);
                        match fused.filter(|_| tokens <= TILE) {
                            Some(fused) => (fused.one)(data, x, block, tokens, &mut sums),
                            None => sparse.expanded(data, self.panel_bytes, |data| {
                                kernel(data, x, block, tokens, &mut sums);
                            }),
                        }
                    }
                }
                for (token, sums) in (block..block_end).zip(&sums) {
                    // SAFETY: these rows are this panel's, and each panel is one thread's own.
                    unsafe { out.write(token * self.rows + first_row, &sums[..rows]) };
                }
            }
        }
    }
}

/// Bytes of a value in formats whose panels can leave out zeros.
fn value_bytes(dtype: DType) -> Option<usize> {
    match dtype {
        DType::F16 | DType::BF16 => Some(2),
        DType::F32 => Some(4),
        _ => None,
    }
}

/// How a format is packed and multiplied.
#[derive(Debug)]
struct Layout {
    /// Columns of a block.
    block: usize,
    /// Bytes of a block of a whole panel.
    bytes: usize,
    /// The form of the activations.
    form: Form,
    /// Packs up to sixteen rows of the given length in bytes.
    pack: fn(rows: &[u8], row_bytes: usize, out: &mut [u8]),
    /// The kernel of a path, for up to [`TOKEN_BLOCK`] tokens.
    kernel: fn(Isa) -> Kernel,
    /// The kernel of AMX's tiles, for up to [`TOKEN_BLOCK`] tokens.
    tiles: Option<Tiles>,
}

/// A kernel of AMX's tiles.
#[derive(Debug, Clone, Copy)]
struct Tiles {
    kernel: Kernel,
    /// Tokens from which on it is used. All of them, where other kernels round differently: a token's sums should not
    /// depend on its company.
    from: usize,
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
        DType::IQ1S => Some(&super_blocks::IQ1_S),
        DType::IQ1M => Some(&super_blocks::IQ1_M),
        DType::IQ2XXS => Some(&super_blocks::IQ2_XXS),
        DType::IQ2XS => Some(&super_blocks::IQ2_XS),
        DType::IQ2S => Some(&super_blocks::IQ2_S),
        DType::IQ3XXS => Some(&super_blocks::IQ3_XXS),
        DType::IQ3S => Some(&super_blocks::IQ3_S),
        DType::TQ1_0 => Some(&super_blocks::TQ1_0),
        DType::TQ2_0 => Some(&super_blocks::TQ2_0),
        _ => dtype.group_shape().and_then(|(bits, group)| groups::layout(bits, group)),
    }
}

#[cfg(test)]
mod tests;
