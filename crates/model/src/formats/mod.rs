//! File formats: one folder or file each. Each checks everything it reads before it allocates.

pub mod gguf;
pub mod gguf_model;
pub mod hf;
pub mod imatrix;
pub mod llama2c;
pub mod safetensors;

use std::path::Path;

use ounce_kernels::DType;

/// What a writer is told of a model's new file.
#[derive(Debug, Clone, Copy, Default)]
pub struct WriteOptions {
    /// Format of the matrices; none keeps each as it is where the target has that format.
    pub dtype: Option<DType>,
    /// Largest weight file in bytes before it is split; none never splits.
    pub shard_bytes: Option<u64>,
    /// Whether something already there is replaced.
    pub overwrite: bool,
    /// How a folder stores linear layers in few bits: those in ounce's group formats, where none is compressed-tensors; in
    /// [`DType::F8E4M3`], where none is without scales; or in NF4. GGUF files have no such choice.
    pub packing: Option<Packing>,
}

/// How linear layers in few bits are stored in a folder, so that other tools read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// compressed-tensors: `pack-quantized` for group formats ([`DType::groups`]), `float-quantized` with a scale for each row for
    /// [`DType::F8E4M3`], `mxfp4-pack-quantized` for [`DType::MXFP4`].
    CompressedTensors,
    /// GPTQ: `gptq`, or `gptq_v2` where a zero point is 0.
    Gptq,
    /// compressed-tensors' `float-quantized` with one scale for each matrix, for [`DType::F8E4M3`].
    MatrixFloats,
    /// bitsandbytes' NF4, in blocks of 64 without double quantization, whatever linear layers were.
    Nf4,
}

/// A tensor as it will lie in a new file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedTensor {
    /// Its name there.
    pub name: String,
    /// Its format there.
    pub dtype: DType,
    /// Its row-major shape there.
    pub shape: Vec<usize>,
    /// Its bytes.
    pub bytes: u64,
}

/// What writing a model would give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forecast {
    /// The tensors, in file order.
    pub tensors: Vec<PlannedTensor>,
    /// What the writer would return.
    pub bytes: u64,
}

/// Told the bytes done and the bytes in all while a model is written; an error stops the writing.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64) -> crate::Result<()>;

/// Refuses a target that exists, unless it may be replaced.
pub(crate) fn check_target(path: &Path, overwrite: bool) -> crate::Result<()> {
    if !overwrite && path.symlink_metadata().is_ok() {
        return Err(crate::Error::format(path, "exists already; choose another name or add --force"));
    }
    Ok(())
}
