//! The older binary format: little-endian 32-bit integers, names and `f32` values one behind the other.
//!
//! The number of entries; for each its name's length, the name, its number of chunks, its number of values, and the
//! values: mean squares times the chunks. Then, in all but the oldest files, the number of chunks of the whole, and
//! the length and name of the text.

use std::fmt::Display;
use std::path::Path;

use super::{Entry, Imatrix, floats};
use crate::{Error, Result};

/// The fewest bytes of an entry: three numbers and one value, if its name is empty.
const LEAST_BYTES: usize = 16;

/// Reads a file's bytes; memory stays within their size whatever their counts claim.
pub(super) fn read(bytes: &[u8], path: &Path) -> Result<Imatrix> {
    let mut cursor = Cursor { rest: bytes, path };
    let count = cursor.count(&"the number of entries")?;
    if count == 0 || count > cursor.rest.len() / LEAST_BYTES {
        let what = format!(
            "is no importance matrix: it is no GGUF file, and as the older format it would hold {count} entries in \
             {} bytes",
            bytes.len()
        );
        return Err(Error::format(path, what));
    }
    let mut imatrix = Imatrix::default();
    for number in 0..count {
        let name = cursor.text(&format_args!("the name of entry {number}"))?;
        // Not a count: it may be negative, and llama.cpp then takes the values as they are.
        let chunks = cursor.number(&name)?;
        let values = cursor.count(&name)?;
        let bytes = values.checked_mul(4).ok_or_else(|| cursor.cut_off(&name, values))?;
        let sums = floats(cursor.take(bytes, &name)?);
        // Counts of 1 leave values as they are.
        let chunks = chunks.max(1) as f32;
        let wrong = |what| Error::tensor(path, &name, format!("{what}; the file is damaged, make it again"));
        let entry = Entry::new(sums, vec![chunks]).map_err(wrong)?;
        imatrix.add(path, name, entry)?;
    }
    if !cursor.rest.is_empty() {
        imatrix.chunk_count = cursor.count(&"the number of chunks")? as u32;
    }
    if !cursor.rest.is_empty() {
        let dataset = cursor.text(&"the name of the text")?;
        imatrix.datasets.extend(Some(dataset).filter(|name| !name.is_empty()));
    }
    if !cursor.rest.is_empty() {
        let what = format!("has {} bytes behind its end; it is damaged, make it again", cursor.rest.len());
        return Err(Error::format(path, what));
    }
    Ok(imatrix)
}

/// A place in the file.
struct Cursor<'a> {
    rest: &'a [u8],
    path: &'a Path,
}

impl<'a> Cursor<'a> {
    fn cut_off(&self, what: &dyn Display, bytes: usize) -> Error {
        let message = format!(
            "{what} needs {bytes} bytes, but the file has only {} more; it is cut off or no importance matrix",
            self.rest.len()
        );
        Error::format(self.path, message)
    }

    fn take(&mut self, count: usize, what: &dyn Display) -> Result<&'a [u8]> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return Err(self.cut_off(what, count));
        };
        self.rest = rest;
        Ok(taken)
    }

    fn number(&mut self, what: &dyn Display) -> Result<i32> {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(self.take(4, what)?);
        Ok(i32::from_le_bytes(bytes))
    }

    fn count(&mut self, what: &dyn Display) -> Result<usize> {
        let number = self.number(what)?;
        usize::try_from(number).map_err(|_| {
            let message =
                format!("{what} has a count of {number}; the file is damaged or no importance matrix");
            Error::format(self.path, message)
        })
    }

    fn text(&mut self, what: &dyn Display) -> Result<String> {
        let length = self.count(what)?;
        let bytes = self.take(length, what)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => Err(Error::format(
                self.path,
                format!("{what} is not UTF-8: {error}; the file is damaged or no importance matrix"),
            )),
        }
    }
}
