//! Files of many kinds to records, one at a time: no file is ever in memory as a whole.
//!
//! The kind follows from the name: `.txt` and unknown names are text, `.jsonl`, `.ndjson` and `.json` (an array, or one
//! object a line) JSON, `.csv` and `.tsv` tables, `.parquet` Parquet; `.gz` behind any of them but Parquet is unpacked on
//! the fly.

mod array;
mod columns;
mod expand;
mod input;
mod lines;
mod table;
mod text;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use expand::expand;
use input::Input;

use crate::Result;

/// The most bytes a record may have; what is longer is a file of another kind.
pub const MAX_RECORD: u64 = 256 << 20;

/// What is between two documents of a text file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Separator {
    /// A line with exactly this text, spaces at its ends aside.
    Line(String),
    /// One or more blank lines.
    BlankLines,
    /// Nothing: a file is a document.
    Never,
}

impl Default for Separator {
    /// The line `<|endoftext|>`, which files without it don't mind.
    fn default() -> Separator {
        Separator::Line("<|endoftext|>".into())
    }
}

/// How a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Plain text.
    Text,
    /// JSON: one object a line, or an array of objects.
    Json,
    /// A table with a line of column names, and commas.
    Csv,
    /// The same with tabs.
    Tsv,
    /// Parquet.
    Parquet,
}

/// How files are read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadOptions {
    /// What is between two documents of a text file.
    pub separator: Separator,
    /// The kind of all files; by default it follows from their names.
    pub kind: Option<Kind>,
    /// Names of a table's columns where no file has a line with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
    /// How texts are encoded, by a name such as `latin-1`, where not as UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
}

/// Where a record is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: Arc<Path>,
    /// Its line, row or number in the file, from 1.
    pub record: u64,
    /// What `record` counts.
    pub unit: Unit,
}

/// What a [`Place`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Lines of the file.
    Line,
    /// Documents of a text, items of an array, rows of a Parquet file.
    Item,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unit {
            Unit::Line => write!(f, "{}:{}", self.file.display(), self.record),
            Unit::Item => write!(f, "{}, record {}", self.file.display(), self.record),
        }
    }
}

/// One record of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Where it stands.
    pub place: Place,
    /// What it holds.
    pub content: Content,
}

/// What a record holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// A document of a text file.
    Text(String),
    /// Columns or keys with their values.
    Fields(Map<String, Value>),
}

/// The records of several files, in order.
pub struct Records {
    files: std::vec::IntoIter<PathBuf>,
    options: ReadOptions,
    current: Option<Box<dyn Iterator<Item = Result<Record>> + Send>>,
    read: Arc<AtomicU64>,
    total: u64,
    failed: bool,
}

impl Records {
    /// The records of these files, folders and patterns; see [`expand`].
    ///
    /// # Errors
    /// If one doesn't exist, or there is no file at all.
    pub fn open(paths: &[PathBuf], options: &ReadOptions) -> Result<Records> {
        Records::of_files(expand(paths)?, options)
    }

    /// The records of these files.
    ///
    /// # Errors
    /// If the system doesn't tell a file's size.
    pub fn of_files(files: Vec<PathBuf>, options: &ReadOptions) -> Result<Records> {
        let mut total = 0;
        for file in &files {
            total += std::fs::metadata(file).map_err(ounce_model::Error::io(file))?.len();
        }
        Ok(Records {
            files: files.into_iter(),
            options: options.clone(),
            current: None,
            read: Arc::default(),
            total,
            failed: false,
        })
    }

    /// Bytes read of all files, as they are on disk.
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed).min(self.total)
    }

    /// Bytes of all files together.
    pub fn bytes_total(&self) -> u64 {
        self.total
    }

    fn start(&self, path: &Path) -> Result<Box<dyn Iterator<Item = Result<Record>> + Send>> {
        let kind = self.options.kind.unwrap_or_else(|| kind_of(path));
        let input = || Input::open(path, &self.read)?.decoded(self.options.encoding.as_deref());
        Ok(match kind {
            Kind::Text => Box::new(text::Texts::new(input()?, self.options.separator.clone())),
            Kind::Json => lines::json(input()?)?,
            Kind::Csv => Box::new(table::Rows::new(input()?, b',', self.options.columns.as_deref())?),
            Kind::Tsv => Box::new(table::Rows::new(input()?, b'\t', self.options.columns.as_deref())?),
            Kind::Parquet => Box::new(columns::Rows::open(path, &self.read)?),
        })
    }
}

impl Iterator for Records {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Result<Record>> {
        while !self.failed {
            if let Some(current) = &mut self.current {
                match current.next() {
                    None => self.current = None,
                    Some(record) => {
                        self.failed = record.is_err();
                        return Some(record);
                    }
                }
            }
            if self.current.is_none() {
                let path = self.files.next()?;
                match self.start(&path) {
                    Ok(records) => self.current = Some(records),
                    Err(error) => {
                        self.failed = true;
                        return Some(Err(error));
                    }
                }
            }
        }
        None
    }
}

/// The content of one file, unpacked.
///
/// # Errors
/// If it can't be read, or has more than `most` bytes.
pub(crate) fn whole(path: &Path, most: u64) -> Result<Vec<u8>> {
    Input::open(path, &Arc::default())?.whole(most)
}

/// The kind that a name stands for.
pub(crate) fn kind_of(path: &Path) -> Kind {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("json" | "jsonl" | "ndjson") => Kind::Json,
        Some("csv") => Kind::Csv,
        Some("tsv" | "tab") => Kind::Tsv,
        Some("parquet") => Kind::Parquet,
        _ => Kind::Text,
    }
}

#[cfg(test)]
mod tests;
