//! Tables separated by commas or tabs, with a line of column names, or without one where names are given.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value};

use super::input::{Input, Limited};
use super::{Content, MAX_RECORD, Place, Record, Unit};
use crate::{Error, Result};

/// The rows of a table.
pub(super) struct Rows {
    file: Arc<Path>,
    reader: csv::Reader<Limited>,
    allowance: Arc<AtomicU64>,
    columns: Vec<String>,
    row: csv::StringRecord,
}

impl Rows {
    pub(super) fn new(input: Input, delimiter: u8, names: Option<&[String]>) -> Result<Rows> {
        let file = Arc::clone(input.file());
        let (limited, allowance) = input.limited()?;
        let mut reader = csv::ReaderBuilder::new();
        // Rows of another length than the names are told apart below, where no line of the file has the names.
        reader.delimiter(delimiter).has_headers(names.is_none()).flexible(names.is_some());
        let mut reader = reader.from_reader(limited);
        let columns: Vec<String> = match names {
            Some(names) => names.to_vec(),
            None => {
                let columns = reader.headers().map_err(|error| explain(&file, &error))?;
                columns.iter().map(|name| name.trim().to_string()).collect()
            }
        };
        if columns.is_empty() {
            return Err(Error::file(&file, "the table is empty; its first line names the columns"));
        }
        if let Some(name) =
            columns.iter().enumerate().find_map(|(i, name)| columns[..i].iter().find(|it| *it == name))
        {
            return Err(Error::file(&file, format!("two columns are called {name:?}; rename one")));
        }
        Ok(Rows { file, reader, allowance, columns, row: csv::StringRecord::new() })
    }

    fn row(&mut self) -> Result<Option<Record>> {
        self.allowance.store(MAX_RECORD, Ordering::Relaxed);
        if !self.reader.read_record(&mut self.row).map_err(|error| explain(&self.file, &error))? {
            return Ok(None);
        }
        let line = self.row.position().map_or(0, csv::Position::line);
        let place = Place { file: Arc::clone(&self.file), record: line, unit: Unit::Line };
        if self.row.len() != self.columns.len() {
            return Err(Error::data(place, unequal(self.row.len(), self.columns.len(), "the task names")));
        }
        let values = self.row.iter().map(|value| Value::String(value.to_string()));
        let fields: Map<String, Value> = self.columns.iter().cloned().zip(values).collect();
        Ok(Some(Record { place, content: Content::Fields(fields) }))
    }
}

impl Iterator for Rows {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Result<Record>> {
        self.row().transpose()
    }
}

fn unequal(values: usize, columns: usize, whence: &str) -> String {
    format!("{values} values where {whence} {columns} columns; quote values with separators in them")
}

fn explain(file: &Arc<Path>, error: &csv::Error) -> Error {
    let line = error.position().map_or(1, csv::Position::line);
    let place = Place { file: Arc::clone(file), record: line, unit: Unit::Line };
    match error.kind() {
        csv::ErrorKind::Utf8 { err, .. } => {
            Error::data(place, format!("column {} is not UTF-8; convert the file to UTF-8", err.field() + 1))
        }
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            Error::data(place, unequal(*len as usize, *expected_len as usize, "the first line names"))
        }
        _ => Error::file(file, format!("the table can't be read ({error})")),
    }
}
