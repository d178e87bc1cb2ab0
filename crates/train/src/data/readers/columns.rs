//! Parquet files, a row at a time; values become what JSON has for them.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use serde_json::Value;

use super::{Content, Place, Record, Unit};
use crate::{Error, Result};

/// The rows of a Parquet file.
pub(super) struct Rows {
    file: Arc<Path>,
    rows: RowIter<'static>,
    row: u64,
    /// How many rows and bytes the file has.
    total: u64,
    bytes: u64,
    read: Arc<AtomicU64>,
}

impl Rows {
    pub(super) fn open(path: &Path, read: &Arc<AtomicU64>) -> Result<Rows> {
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz")) {
            return Err(Error::file(
                path,
                "Parquet files pack their columns themselves; unpack the file first",
            ));
        }
        let file = File::open(path).map_err(ounce_model::Error::io(path))?;
        let bytes = file.metadata().map_err(ounce_model::Error::io(path))?.len();
        let reader = guarded(|| SerializedFileReader::new(file)).map_err(|what| {
            Error::file(path, format!("not a readable Parquet file ({what}); download it again"))
        })?;
        let total = reader.metadata().file_metadata().num_rows();
        Ok(Rows {
            file: path.into(),
            rows: reader.into_iter(),
            row: 0,
            total: u64::try_from(total).unwrap_or(0).max(1),
            bytes,
            read: Arc::clone(read),
        })
    }

    fn place(&self) -> Place {
        Place { file: Arc::clone(&self.file), record: self.row, unit: Unit::Item }
    }

    /// Bytes of the file that so many rows stand for.
    fn share(&self, rows: u64) -> u64 {
        (u128::from(self.bytes) * u128::from(rows.min(self.total)) / u128::from(self.total)) as u64
    }
}

impl Iterator for Rows {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Result<Record>> {
        self.read.fetch_add(self.share(self.row + 1) - self.share(self.row), Ordering::Relaxed);
        self.row += 1;
        let row = guarded(|| self.rows.next().transpose()).map(|row| row.map(|row| row.to_json_value()));
        match row {
            Ok(None) => None,
            Ok(Some(Value::Object(fields))) => {
                Some(Ok(Record { place: self.place(), content: Content::Fields(fields) }))
            }
            Ok(Some(_)) => Some(Err(Error::data(self.place(), "the row has no columns"))),
            Err(what) => Some(Err(Error::data(
                self.place(),
                format!(
                    "the Parquet file is damaged or packed in an unknown way ({what}); download it again"
                ),
            ))),
        }
    }
}

/// Runs the `parquet` crate, which on some damaged files panics.
fn guarded<T>(work: impl FnOnce() -> parquet::errors::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("its parts contradict each other".into()),
    }
}
