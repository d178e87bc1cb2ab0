//! safetensors files written from slices, without a copy of them.

use std::io::Write;
use std::path::Path;

use ounce_model::storage::AtomicFile;
use serde_json::{Map, Value, json};

use crate::{Error, Result};

/// A tensor to be written.
#[derive(Debug)]
pub struct Piece<'s> {
    /// Its name.
    pub name: String,
    /// safetensors' name of the type.
    pub dtype: &'static str,
    /// Row-major.
    pub shape: Vec<usize>,
    /// Little-endian values.
    pub bytes: &'s [u8],
}

/// Writes a file, whole or not at all.
///
/// # Errors
/// If the disk refuses.
pub fn write(path: &Path, pieces: &[Piece<'_>]) -> Result<()> {
    let mut header = Map::new();
    let mut offset = 0;
    for piece in pieces {
        let end = offset + piece.bytes.len();
        let entry = json!({"dtype": piece.dtype, "shape": piece.shape, "data_offsets": [offset, end]});
        header.insert(piece.name.clone(), entry);
        offset = end;
    }
    let mut text = Value::Object(header).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut file = AtomicFile::create(path)?;
    let mut put = |bytes: &[u8]| file.write_all(bytes).map_err(Error::io(path));
    put(&(text.len() as u64).to_le_bytes())?;
    put(&text)?;
    pieces.iter().try_for_each(|piece| put(piece.bytes))?;
    Ok(file.commit()?)
}
