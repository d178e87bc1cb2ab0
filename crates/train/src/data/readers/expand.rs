//! Files, folders and patterns to a list of files.

use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Extensions that are taken from folders; `.gz` may follow.
const KNOWN: [&str; 9] = ["txt", "text", "md", "json", "jsonl", "ndjson", "csv", "tsv", "parquet"];

/// The files that these paths mean: a file itself, the files with text in them of a folder and those below, whatever
/// fits a pattern with `*`, `?` or `[…]`. What comes from a folder or a pattern is sorted; hidden files are left out.
///
/// # Errors
/// If one doesn't exist, fits nothing, or holds no file.
pub fn expand(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        let text = path.to_string_lossy();
        if path.is_dir() {
            let before = files.len();
            folder(path, &mut files)?;
            if files.len() == before {
                return Err(Error::file(
                    path,
                    format!("the folder holds no file with data; known endings are {}", KNOWN.join(", ")),
                ));
            }
        } else if path.exists() || !text.contains(['*', '?', '[']) {
            // A file that does not exist is reported by whoever opens it, with what the system says.
            std::fs::metadata(path).map_err(ounce_model::Error::io(path))?;
            files.push(path.clone());
        } else {
            files.extend(pattern(path, &text)?);
        }
    }
    if files.is_empty() {
        return Err(Error::Settings("there is no file to read; name files, folders or patterns".into()));
    }
    Ok(files)
}

fn pattern(path: &Path, text: &str) -> Result<Vec<PathBuf>> {
    let options = glob::MatchOptions { require_literal_leading_dot: true, ..glob::MatchOptions::default() };
    let found =
        glob::glob_with(text, options).map_err(|e| Error::file(path, format!("not a pattern ({e})")))?;
    let mut files = Vec::new();
    for entry in found {
        let file = entry.map_err(|e| ounce_model::Error::io(e.path().to_path_buf())(e.into()))?;
        if file.is_file() {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(Error::file(path, "no file fits the pattern"));
    }
    files.sort();
    Ok(files)
}

fn folder(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path).map_err(ounce_model::Error::io(path))? {
        entries.push(entry.map_err(ounce_model::Error::io(path))?);
    }
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let inside = entry.path();
        let kind = entry.file_type().map_err(ounce_model::Error::io(&inside))?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        // Links to folders are not followed: they may lead in a circle.
        if kind.is_dir() {
            folder(&inside, files)?;
        } else if inside.is_file() && is_known(&inside) {
            files.push(inside);
        }
    }
    Ok(())
}

fn is_known(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    name.rsplit_once('.').is_some_and(|(_, extension)| KNOWN.contains(&extension))
}
