//! Weights in 8-bit floats with a scale for the whole matrix or for each row.

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
