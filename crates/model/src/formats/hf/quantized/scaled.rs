//! Weights in 8-bit floats with a scale for the whole matrix or for each row, and in 4-bit floats with a power of two for each
//! block of 32.

use ounce_kernels::{DType, quant};
use rayon::prelude::*;

use crate::storage::Bytes;

/// A matrix whose stored values are multiplied with a scale.
pub(super) struct Scaled {
    /// The format of the stored values.
    pub stored: DType,
    pub data: Bytes,
    /// One, or one a row.
    pub scales: Vec<f32>,
}

impl Scaled {
    /// Stores the rows in `dtype`, a plain format.
    pub fn build(&self, dtype: DType, row_bytes: usize, out: &mut [u8]) -> Result<(), String> {
        let columns = row_bytes / dtype.block_bytes();
        out.par_chunks_exact_mut(row_bytes.max(1)).enumerate().try_for_each_init(
            || (vec![0.0; columns], Vec::new()),
            |(values, bytes), (row, out)| {
                let stored = &self.data[row * columns..][..columns];
                quant::decode(self.stored, stored, values).map_err(|error| error.to_string())?;
                let scale = self.scales.get(row).or(self.scales.first()).copied().unwrap_or(1.0);
                values.iter_mut().for_each(|value| *value *= scale);
                bytes.clear();
                quant::encode(dtype, values, bytes).map_err(|error| error.to_string())?;
                out.copy_from_slice(bytes);
                Ok(())
            },
        )
    }
}

/// A matrix in MXFP4 as compressed-tensors has it: neighbours share a byte, the first in its low half, and powers lie apart.
pub(super) struct Microscaled {
    pub codes: Bytes,
    /// Exponents, one a block.
    pub powers: Bytes,
}

impl Microscaled {
    /// The blocks of [`DType::MXFP4`]: the power, then values 0..16 in low halves and 16..32 in high ones.
    pub fn build(&self, out: &mut [u8]) {
        let blocks = out.as_chunks_mut::<17>().0.iter_mut();
        for ((block, codes), power) in blocks.zip(self.codes.as_chunks::<16>().0).zip(&self.powers[..]) {
            let code = |at: usize| codes[at / 2] >> (4 * (at % 2)) & 15;
            block[0] = *power;
            for (at, byte) in block[1..].iter_mut().enumerate() {
                *byte = code(at) | code(at + 16) << 4;
            }
        }
    }
}
