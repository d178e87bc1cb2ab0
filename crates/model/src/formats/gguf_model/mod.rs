//! Models in GGUF files: which metadata keys and tensor names an architecture uses.

use std::path::Path;

use super::{Progress, WriteOptions};
use crate::model::Model;
use crate::{Error, Result};

/// Opens the model in a GGUF file or its shards.
pub fn open_model(path: &Path) -> Result<Model> {
    Err(Error::format(path, "GGUF models are not read yet"))
}

/// Whether a file name is that of the first shard of several (`…-00001-of-00003.gguf`).
pub fn is_first_shard(path: &Path) -> bool {
    path.to_string_lossy().contains("-00001-of-")
}

/// Writes `model` as one GGUF file.
pub fn write_model(_: &Model, path: &Path, _: &WriteOptions, _: Progress<'_>) -> Result<u64> {
    Err(Error::format(path, "GGUF models are not written yet"))
}
