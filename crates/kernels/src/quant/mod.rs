//! Decoding and encoding of the stored formats, a row at a time.
//!
//! Whole blocks of bytes go in and `f32` comes out ([`decode`], every weight format), or the reverse ([`encode`],
//! the formats ounce writes: [`can_encode`]). The files below hold one family of formats each: its layout, its
//! equation and, where it is written, its error bound. Values and bytes are the same bit by bit as those of ggml's
//! reference code, but for [`groups`], which are ounce's own. Byte slices need no alignment. Integer and boolean types are no weights and are refused.
//!
//! Nothing here multiplies: products on packed weights are other modules' work and are tested against this one.

mod block;
mod fit;
mod float;
pub mod grid;
pub mod groups;
mod iq4;
pub mod lattice;
mod mxfp4;
mod q2_k;
mod q3_k;
mod q4;
mod q4_k;
mod q5;
mod q5_k;
mod q6_k;
mod q8_0;
mod ternary;

/// What the packed products must know of the formats besides their bytes.
pub(crate) mod tables {
    /// What the codes of IQ4_NL and IQ4_XS stand for.
    pub(crate) const IQ4: [i8; 16] = super::iq4::TABLE;
    /// Formats of few levels with odd scales.
    pub(crate) use super::lattice;

    /// Twice what the codes of MXFP4 stand for.
    pub(crate) const E2M1_DOUBLED: [i8; 16] = super::mxfp4::DOUBLED;

    /// The sixteen scales of a Q3_K block, from their twelve bytes.
    #[inline]
    pub(crate) fn q3_k_scales(packed: &[u8]) -> [i8; 16] {
        super::q3_k::scales(packed)
    }

    /// Scale and minimum of a part of Q4_K or Q5_K, from the block's twelve bytes.
    #[inline]
    pub(crate) fn q4_k_scale(packed: &[u8], part: usize) -> (u8, u8) {
        super::q4_k::group_scale(packed, part)
    }
}

use rayon::prelude::*;

use crate::DType;
use block::{decode_blocks, encode_blocks};

/// What can go wrong in decoding or encoding a row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantError {
    /// The byte count does not fit the value count.
    #[error("{dtype}: {values} values need {expected} bytes, found {found}")]
    Size {
        /// The format.
        dtype: DType,
        /// Values asked for.
        values: usize,
        /// Bytes they take.
        expected: usize,
        /// Bytes there are.
        found: usize,
    },
    /// A row is no whole number of blocks.
    #[error("{dtype} packs {block} values in a block; a row of {values} is no whole number of blocks")]
    Partial {
        /// The format.
        dtype: DType,
        /// Values in a block.
        block: usize,
        /// Values of the row.
        values: usize,
    },
    /// A block has a scale that is NaN or infinite; one such block ruins every result.
    #[error(
        "the {dtype} block at byte {offset} has a scale that is not finite; the file is damaged or was converted badly"
    )]
    Scale {
        /// The format.
        dtype: DType,
        /// Where the block begins, from the start of the tensor.
        offset: usize,
    },
    /// A matrix of ounce's own group formats that does not hold together.
    #[error("a matrix in groups can't be packed: {0}")]
    Groups(&'static str),
    /// The system has no memory for a repacked matrix.
    #[error("no memory for a matrix of {bytes} bytes: {reason}")]
    Memory {
        /// Bytes of the matrix as stored.
        bytes: usize,
        /// What the system says.
        reason: String,
    },
    /// ounce reads this format but does not write it (or the reverse).
    #[error("{dtype} can't be {what}")]
    Unsupported {
        /// The format.
        dtype: DType,
        /// `decoded to numbers` or `written`.
        what: &'static str,
    },
    /// Values that the format can't hold.
    #[error(
        "{dtype} can't hold values {first}..{end}: one is NaN, infinite or too large; \
         repair the weights or choose BF16 or F32"
    )]
    Range {
        /// The format.
        dtype: DType,
        /// Index of the first value of the block, counted from the start of the input.
        first: usize,
        /// Index after the block's last value.
        end: usize,
    },
}

/// Values that one task of [`decode_rows`] or [`encode_rows`] handles, rounded up to whole rows.
const TASK_VALUES: usize = 1 << 15;

/// Decodes `out.len()` values, one row or several, from exactly as many blocks.
///
/// # Errors
/// [`QuantError::Partial`] if the values are no whole number of blocks, [`QuantError::Size`] if `bytes` has
/// another length, [`QuantError::Unsupported`] for integers and booleans.
pub fn decode(dtype: DType, bytes: &[u8], out: &mut [f32]) -> Result<(), QuantError> {
    check_sizes(dtype, out.len(), bytes.len())?;
    match dtype {
        DType::F64 => float::decode_f64(bytes, out),
        DType::F32 => float::decode_f32(bytes, out),
        DType::F16 => float::decode_f16(bytes, out),
        DType::BF16 => float::decode_bf16(bytes, out),
        DType::F8E4M3 => float::decode_f8_e4m3(bytes, out),
        DType::F8E5M2 => float::decode_f8_e5m2(bytes, out),
        DType::Q4_0 => decode_blocks(bytes, out, q4::decode_q4_0),
        DType::Q4_1 => decode_blocks(bytes, out, q4::decode_q4_1),
        DType::Q5_0 => decode_blocks(bytes, out, q5::decode_q5_0),
        DType::Q5_1 => decode_blocks(bytes, out, q5::decode_q5_1),
        DType::Q8_0 => decode_blocks(bytes, out, q8_0::decode),
        DType::Q2K => decode_blocks(bytes, out, q2_k::decode),
        DType::Q3K => decode_blocks(bytes, out, q3_k::decode),
        DType::Q4K => decode_blocks(bytes, out, q4_k::decode),
        DType::Q5K => decode_blocks(bytes, out, q5_k::decode),
        DType::Q6K => decode_blocks(bytes, out, q6_k::decode),
        DType::IQ4NL => decode_blocks(bytes, out, iq4::decode_nl),
        DType::IQ4XS => decode_blocks(bytes, out, iq4::decode_xs),
        DType::MXFP4 => decode_blocks(bytes, out, mxfp4::decode),
        other if lattice::facts(other).is_some() => lattice::decode(other, bytes, out),
        other => match other.group_shape() {
            Some((bits, group)) => groups::decode(bits, group, bytes, out),
            None => return Err(QuantError::Unsupported { dtype, what: "decoded to numbers" }),
        },
    }
    Ok(())
}

/// Like [`decode`] for a whole matrix, rows in parallel. `row_len` is the number of values of a row; `out` holds
/// whole rows. The result does not depend on the number of threads.
///
/// # Errors
/// As [`decode`]; also [`QuantError::Partial`] if `row_len` is no whole number of blocks.
pub fn decode_rows(dtype: DType, bytes: &[u8], row_len: usize, out: &mut [f32]) -> Result<(), QuantError> {
    let row_bytes = row_bytes(dtype, row_len)?;
    check_sizes(dtype, out.len(), bytes.len())?;
    let rows = TASK_VALUES.div_ceil(row_len.max(1));
    out.par_chunks_mut((rows * row_len).max(1))
        .zip(bytes.par_chunks((rows * row_bytes).max(1)))
        .try_for_each(|(out, bytes)| decode(dtype, bytes, out))
}

/// Whether ounce writes this format.
pub fn can_encode(dtype: DType) -> bool {
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 | DType::F8E4M3 | DType::F8E5M2 => true,
        DType::Q4_0 | DType::Q4_1 | DType::Q5_0 | DType::Q5_1 | DType::Q8_0 => true,
        DType::Q2K | DType::Q3K | DType::Q4K | DType::Q5K | DType::Q6K => true,
        DType::IQ4NL | DType::IQ4XS | DType::MXFP4 => true,
        DType::IQ2XXS | DType::IQ2XS | DType::IQ2S | DType::TQ1_0 | DType::TQ2_0 => true,
        other => other.group_shape().is_some(),
    }
}

/// Encodes `values`, one row or several, and appends the blocks to `out`.
///
/// Rounding is to nearest. Plain formats keep NaN and infinities; the block formats have no room for them.
///
/// # Errors
/// [`QuantError::Partial`] if the values are no whole number of blocks, [`QuantError::Unsupported`] where
/// [`can_encode`] says no, [`QuantError::Range`] for a finite value that the format can't hold and, in block
/// formats, for every value that is not finite. `out` is unchanged then.
pub fn encode(dtype: DType, values: &[f32], out: &mut Vec<u8>) -> Result<(), QuantError> {
    let bytes = row_bytes(dtype, values.len())?;
    let start = out.len();
    out.resize(start + bytes, 0);
    encode_into(dtype, values, 0, &mut out[start..]).inspect_err(|_| out.truncate(start))
}

/// Like [`encode`] for a whole matrix, rows in parallel. `row_len` is the number of values of a row; `values`
/// holds whole rows. The result does not depend on the number of threads.
///
/// # Errors
/// As [`encode`]; also [`QuantError::Partial`] if `row_len` is no whole number of blocks.
pub fn encode_rows(
    dtype: DType,
    values: &[f32],
    row_len: usize,
    out: &mut Vec<u8>,
) -> Result<(), QuantError> {
    let row_bytes = row_bytes(dtype, row_len)?;
    let bytes = self::row_bytes(dtype, values.len())?;
    let start = out.len();
    out.resize(start + bytes, 0);
    let rows = TASK_VALUES.div_ceil(row_len.max(1));
    let task_len = (rows * row_len).max(1);
    let failures = out[start..]
        .par_chunks_mut((rows * row_bytes).max(1))
        .zip(values.par_chunks(task_len))
        .enumerate()
        .filter_map(|(task, (out, values))| encode_into(dtype, values, task * task_len, out).err());
    // The first in order, not the first in time: the message must not depend on the threads.
    match failures.collect::<Vec<_>>().into_iter().next() {
        Some(error) => {
            out.truncate(start);
            Err(error)
        }
        None => Ok(()),
    }
}

/// Encodes into bytes of the right length. `offset` is the place of `values` in the whole, for messages.
fn encode_into(dtype: DType, values: &[f32], offset: usize, out: &mut [u8]) -> Result<(), QuantError> {
    match dtype {
        DType::F32 => float::encode_f32(values, out),
        DType::F16 => float::encode_f16(values, out),
        DType::BF16 => float::encode_bf16(values, out),
        DType::F8E4M3 => float::encode_f8_e4m3(values, out),
        DType::F8E5M2 => float::encode_f8_e5m2(values, out),
        DType::Q4_0 => encode_blocks(values, out, q4::encode_q4_0),
        DType::Q4_1 => encode_blocks(values, out, q4::encode_q4_1),
        DType::Q5_0 => encode_blocks(values, out, q5::encode_q5_0),
        DType::Q5_1 => encode_blocks(values, out, q5::encode_q5_1),
        DType::Q8_0 => encode_blocks(values, out, q8_0::encode),
        DType::Q2K => encode_blocks(values, out, q2_k::encode),
        DType::Q3K => encode_blocks(values, out, q3_k::encode),
        DType::Q4K => encode_blocks(values, out, q4_k::encode),
        DType::Q5K => encode_blocks(values, out, q5_k::encode),
        DType::Q6K => encode_blocks(values, out, q6_k::encode),
        DType::IQ4NL => encode_blocks(values, out, iq4::encode_nl),
        DType::IQ4XS => encode_blocks(values, out, iq4::encode_xs),
        DType::MXFP4 => encode_blocks(values, out, mxfp4::encode),
        DType::TQ1_0 => encode_blocks(values, out, ternary::encode_tq1_0),
        DType::TQ2_0 => encode_blocks(values, out, ternary::encode_tq2_0),
        DType::IQ2XXS | DType::IQ2XS | DType::IQ2S => {
            grid::encode_lattice(dtype, values, dtype.block_len(), &[], out)
        }
        other => match other.group_shape() {
            Some((bits, group)) => groups::encode(bits, group, values, out),
            None => return Err(QuantError::Unsupported { dtype, what: "written" }),
        },
    }
    match first_lost(dtype, values, out) {
        Some(block) => {
            let first = offset + block * dtype.block_len();
            Err(QuantError::Range { dtype, first, end: first + dtype.block_len() })
        }
        None => Ok(()),
    }
}

/// The first block of which something did not survive: a NaN or infinity put into a block format, a finite
/// value that became infinite, a scale that did.
fn first_lost(dtype: DType, values: &[f32], bytes: &[u8]) -> Option<usize> {
    if dtype.is_block() {
        // But for MXFP4 no block format reaches further (Q6_K: F16 maximum times scale -128 times code -32), and no weight is
        // that large. Far beyond, the sums of the scale search would overflow and the scale would not show it.
        const REACH: f32 = 65_504.0 * 128.0 * 32.0;
        let lost = |x: &f32| x.is_nan() || x.abs() > REACH;
        let input = values.iter().position(lost).map(|index| index / dtype.block_len());
        let scale = check_scales(dtype, bytes).map(|offset| offset / dtype.block_bytes());
        return input.into_iter().chain(scale).min();
    }
    // A finite value is lost only past half a step above the format's largest number.
    let limit = match dtype {
        DType::F16 => 65_520.0,
        DType::BF16 => f32::from_bits(0x7f7f_8000),
        DType::F8E4M3 => 464.0f32.next_up(),
        DType::F8E5M2 => 61_440.0,
        _ => return None,
    };
    values.iter().position(|x| x.is_finite() && x.abs() >= limit)
}

/// Offset in bytes of the first block whose scale (or minimum) is NaN or infinite: such a file is damaged or was
/// converted badly, and one block would spoil every output. `None` if all are finite, and for plain types, which
/// have no scale. Bytes after the last whole block are not looked at.
pub fn check_scales(dtype: DType, bytes: &[u8]) -> Option<usize> {
    let mut blocks = bytes.chunks_exact(dtype.block_bytes());
    let bad = match dtype {
        DType::Q4_0 | DType::Q5_0 | DType::Q8_0 | DType::IQ4NL | DType::IQ4XS => {
            blocks.position(|block| !is_finite_f16(block, 0))
        }
        DType::Q4_1 | DType::Q5_1 | DType::Q4K | DType::Q5K => {
            blocks.position(|block| !is_finite_f16(block, 0) || !is_finite_f16(block, 2))
        }
        DType::Q2K => blocks.position(|block| !is_finite_f16(block, 80) || !is_finite_f16(block, 82)),
        DType::Q3K => blocks.position(|block| !is_finite_f16(block, 108)),
        DType::Q6K => blocks.position(|block| !is_finite_f16(block, 208)),
        DType::MXFP4 => blocks.position(|block| block[0] == 0xff),
        other if lattice::facts(other).is_some() => {
            blocks.position(|block| !lattice::is_finite(other, block))
        }
        other if other.group_shape().is_some() => blocks.position(|block| !is_finite_f16(block, 0)),
        _ => None,
    };
    bad.map(|block| block * dtype.block_bytes())
}

fn is_finite_f16(block: &[u8], at: usize) -> bool {
    block[at + 1] & 0x7c != 0x7c
}

/// Bytes of a row, or why there is no such row.
fn row_bytes(dtype: DType, values: usize) -> Result<usize, QuantError> {
    dtype.bytes_for(values).ok_or(QuantError::Partial { dtype, block: dtype.block_len(), values })
}

fn check_sizes(dtype: DType, values: usize, found: usize) -> Result<(), QuantError> {
    let expected = row_bytes(dtype, values)?;
    if expected != found {
        return Err(QuantError::Size { dtype, values, expected, found });
    }
    Ok(())
}
