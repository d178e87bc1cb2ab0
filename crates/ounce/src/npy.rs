//! NumPy's `.npy` files, version 1.0: float32 arrays in row-major order, written row by row.

use std::io::Write;
use std::path::Path;

use ounce_model::storage::AtomicFile;

/// A `.npy` file being written; it appears under its name with [`NpyFile::finish`].
pub struct NpyFile {
    file: AtomicFile,
    values_left: usize,
}

impl NpyFile {
    /// Starts a file for an array of this shape.
    ///
    /// # Errors
    /// If the file can't be made.
    pub fn create(path: &Path, shape: &[usize]) -> anyhow::Result<NpyFile> {
        let mut file = AtomicFile::create(path)?;
        file.write_all(&header(shape))?;
        Ok(NpyFile { file, values_left: shape.iter().product() })
    }

    /// Appends values.
    ///
    /// # Errors
    /// If writing fails.
    pub fn write(&mut self, values: &[f32]) -> std::io::Result<()> {
        self.values_left -= values.len();
        values.iter().try_for_each(|value| self.file.write_all(&value.to_le_bytes()))
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn finish(self) -> anyhow::Result<()> {
        debug_assert_eq!(self.values_left, 0, "the array is complete");
        Ok(self.file.commit()?)
    }
}

/// Magic, version, length of the text, and the text: a Python dictionary padded to 64 bytes in all.
fn header(shape: &[usize]) -> Vec<u8> {
    let numbers: Vec<String> = shape.iter().map(|n| format!("{n},")).collect();
    let mut text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}), }}", numbers.join(" "));
    let begin = 10;
    let padded = (begin + text.len() + 1).next_multiple_of(64);
    text.push_str(&" ".repeat(padded - begin - text.len() - 1));
    text.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(text.len() as u16).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_what_numpy_writes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        let mut file = NpyFile::create(&path, &[2, 1]).unwrap();
        file.write(&[1.0]).unwrap();
        file.write(&[-2.5]).unwrap();
        file.finish().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(&bytes[..10], b"\x93NUMPY\x01\x00\x76\x00");
        assert!(bytes[10..].starts_with(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1,), } "));
        assert_eq!((bytes.len(), bytes[127]), (128 + 8, b'\n'));
        assert_eq!(&bytes[128..], [1.0f32.to_le_bytes(), (-2.5f32).to_le_bytes()].concat());
    }
}
