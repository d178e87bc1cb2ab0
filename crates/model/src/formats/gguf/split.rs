//! Split GGUF files: `NAME-00001-of-00003.gguf` and its siblings, as one model.
//!
//! The first part holds the metadata, every part its own tensors and the keys `split.no` (from 0), `split.count`
//! and `split.tensors.count` (of all parts together).

use std::path::{Path, PathBuf};

use super::{GgufFile, Metadata, read, taken};
use crate::storage::Bytes;
use crate::{Error, Result};

/// What a part says about the whole.
#[derive(Debug, PartialEq)]
pub(super) struct Split {
    /// This part's number, from 0.
    pub number: u64,
    /// The number of parts, at least 2.
    pub count: u64,
    /// Tensors in all parts.
    pub tensors: Option<u64>,
}

impl Split {
    /// What the metadata says; `None` for a file that is complete by itself.
    pub fn of(metadata: &Metadata, path: &Path) -> Result<Option<Split>> {
        let number = |key: &str| metadata.get(key).map(|value| taken::<u64>(value, key, path)).transpose();
        let count = number("split.count")?.unwrap_or(0);
        if count < 2 {
            return Ok(None);
        }
        let tensors = number("split.tensors.count")?;
        match number("split.no")? {
            Some(number) if number < count => Ok(Some(Split { number, count, tensors })),
            Some(number) => {
                let what = format!("metadata key split.no is {number}, but there are only {count} parts");
                Err(Error::format(path, what))
            }
            None => {
                let what =
                    format!("is one of {count} parts but metadata key split.no, saying which, is missing");
                Err(Error::format(path, what))
            }
        }
    }
}

/// Opens all parts of the file of which `path` is the part described by `split`.
pub(super) fn open_all(split: &Split, path: &Path) -> Result<GgufFile> {
    let prefix = name_prefix(split, path)?;
    let mut parts = Vec::new();
    for number in 0..split.count {
        let part_path = part_path(path, &prefix, number, split.count);
        if !part_path.exists() {
            let what = format!(
                "part {} of {} is missing; put all parts into one folder under their original names",
                number + 1,
                split.count
            );
            return Err(Error::format(part_path, what));
        }
        let part = read::parse(Bytes::map(&part_path)?, &part_path)?;
        match Split::of(&part.metadata, &part_path)? {
            Some(found) if found.number == number && found.count == split.count => {}
            _ => {
                let what = format!(
                    "does not say that it is part {} of {}; it belongs to another model or was renamed",
                    number + 1,
                    split.count
                );
                return Err(Error::format(part_path, what));
            }
        }
        parts.push((part_path, part));
    }
    let found: usize = parts.iter().map(|(_, part)| part.tensors.len()).sum();
    if let Some(expected) = split.tensors.filter(|&expected| expected != found as u64) {
        let what = format!("the parts should hold {expected} tensors but hold {found}; fetch them again");
        return Err(Error::format(path, what));
    }
    GgufFile::join(parts)
}

/// The name before the part number; an error if the name does not fit what the part says about itself.
fn name_prefix(split: &Split, path: &Path) -> Result<String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let ending = part_ending(split.number, split.count);
    match name.strip_suffix(&ending) {
        Some(prefix) => Ok(prefix.to_owned()),
        None => {
            let what = format!(
                "is part {} of {}; its name must end in {ending} so that the other parts can be found",
                split.number + 1,
                split.count
            );
            Err(Error::format(path, what))
        }
    }
}

fn part_ending(number: u64, count: u64) -> String {
    format!("-{:05}-of-{count:05}.gguf", number + 1)
}

fn part_path(path: &Path, prefix: &str, number: u64, count: u64) -> PathBuf {
    path.with_file_name(format!("{prefix}{}", part_ending(number, count)))
}
