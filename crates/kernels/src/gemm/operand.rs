//! The factors of a product, and how their values are reached: as lines that lie in one piece.

use std::ops::Range;

use crate::DType;
use crate::quant;

/// A matrix operand as `[rows, columns]` of the product, however it lies in memory.
#[derive(Clone, Copy)]
pub enum Operand<'a> {
    /// Row-major f32 values with `stride` values from one row to the next.
    Rows {
        /// The values.
        data: &'a [f32],
        /// Values from one row to the next, at least the number of columns.
        stride: usize,
    },
    /// The transpose of row-major values: element `(r, c)` is `data[c · stride + r]`.
    Columns {
        /// The values.
        data: &'a [f32],
        /// Values from one column to the next, at least the number of rows.
        stride: usize,
    },
    /// Stored rows of a weight: element `(r, c)` is value `c` of row `r`.
    StoredRows {
        /// The format, one that weights can be read from.
        dtype: DType,
        /// The rows, one behind the other.
        bytes: &'a [u8],
        /// Values of a row: whole blocks, at least the number of columns.
        row_len: usize,
    },
    /// The same, transposed: element `(r, c)` is value `r` of row `c`.
    StoredColumns {
        /// The format, one that weights can be read from.
        dtype: DType,
        /// The rows, one behind the other.
        bytes: &'a [u8],
        /// Values of a row: whole blocks, at least the number of rows of the operand.
        row_len: usize,
    },
}

impl<'a> Operand<'a> {
    /// [`Operand::Rows`].
    pub fn rows(data: &'a [f32], stride: usize) -> Operand<'a> {
        Operand::Rows { data, stride }
    }

    /// [`Operand::Columns`].
    pub fn columns(data: &'a [f32], stride: usize) -> Operand<'a> {
        Operand::Columns { data, stride }
    }

    /// [`Operand::StoredRows`].
    pub fn stored_rows(dtype: DType, bytes: &'a [u8], row_len: usize) -> Operand<'a> {
        Operand::StoredRows { dtype, bytes, row_len }
    }

    /// [`Operand::StoredColumns`].
    pub fn stored_columns(dtype: DType, bytes: &'a [u8], row_len: usize) -> Operand<'a> {
        Operand::StoredColumns { dtype, bytes, row_len }
    }

    /// Whether what lies in one piece is a row of the operand; else a column.
    pub(super) fn by_rows(&self) -> bool {
        matches!(self, Operand::Rows { .. } | Operand::StoredRows { .. })
    }

    /// Checks that there are `rows × columns` values.
    ///
    /// # Panics
    /// If there are not; `name` says of which factor.
    pub(super) fn check(&self, name: &str, rows: usize, columns: usize) {
        let (lines, length) = if self.by_rows() { (rows, columns) } else { (columns, rows) };
        match *self {
            Operand::Rows { data, stride } | Operand::Columns { data, stride } => {
                let needed = (lines - 1).checked_mul(stride).and_then(|start| start.checked_add(length));
                assert!(lines == 1 || stride >= length, "{name}: a stride of {stride} for {length} values");
                assert!(
                    needed.is_some_and(|needed| needed <= data.len()),
                    "{name}: {rows} x {columns} values with stride {stride} in a slice of {}",
                    data.len()
                );
            }
            Operand::StoredRows { dtype, bytes, row_len }
            | Operand::StoredColumns { dtype, bytes, row_len } => {
                assert!(dtype.is_weight(), "{name}: {dtype} holds no weights");
                assert!(row_len >= length, "{name}: stored rows of {row_len} values, {length} are used");
                let needed = dtype.bytes_for(row_len).and_then(|row| row.checked_mul(lines));
                assert!(
                    needed.is_some_and(|needed| needed <= bytes.len()),
                    "{name}: {lines} rows of {row_len} values as {dtype} in {} bytes",
                    bytes.len()
                );
            }
        }
    }

    /// Values `range` of line `line`; `scratch` takes those that must be decoded, and up to two blocks beside them.
    pub(super) fn line<'s>(&self, line: usize, range: Range<usize>, scratch: &'s mut [f32]) -> &'s [f32]
    where
        'a: 's,
    {
        match *self {
            Operand::Rows { data, stride } | Operand::Columns { data, stride } => {
                &data[line * stride..][range.start..range.end]
            }
            Operand::StoredRows { dtype, bytes, row_len }
            | Operand::StoredColumns { dtype, bytes, row_len } => {
                let (block, size) = (dtype.block_len(), dtype.block_bytes());
                let blocks = range.start / block..range.end.div_ceil(block);
                let row = line * (row_len / block) * size;
                let stored = &bytes[row + blocks.start * size..row + blocks.end * size];
                let decoded = &mut scratch[..blocks.len() * block];
                quant::decode(dtype, stored, decoded)
                    .expect("whole blocks of a weight format, as was checked");
                let skip = range.start - blocks.start * block;
                &decoded[skip..skip + range.len()]
            }
        }
    }

    /// Where these pieces of lines lie, and the values between lines, if they are f32 in memory.
    pub(super) fn in_place(&self, lines: Range<usize>, range: Range<usize>) -> Option<(&'a [f32], usize)> {
        match *self {
            Operand::Rows { data, stride } | Operand::Columns { data, stride } => {
                let (first, last) = (lines.start * stride, (lines.end - 1) * stride);
                Some((&data[first + range.start..last + range.end], stride))
            }
            _ => None,
        }
    }
}
