//! Runs that are done: in memory, or in a file of one line a run that grows as runs end, so that what is stopped goes on.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use ounce_model::storage::FolderLock;

use super::cell::{Cell, Outcome};
use crate::{Error, Result};

/// Larger files are not read.
const MAX_BYTES: u64 = 256 << 20;

/// Runs that are done.
#[derive(Debug, Default)]
pub struct Results {
    file: Option<PathBuf>,
    all: Vec<Outcome>,
    _lock: Option<FolderLock>,
}

impl Results {
    /// In `results.jsonl` of a folder, which is made if need be.
    ///
    /// # Errors
    /// If another process writes there, or a line is damaged.
    pub fn open(folder: &Path) -> Result<Results> {
        fs::create_dir_all(folder).map_err(ounce_model::Error::io(folder))?;
        let Some(lock) = FolderLock::take(folder)? else {
            return Err(Error::folder(
                folder,
                "another process works there; wait for it, or choose another folder",
            ));
        };
        let file = folder.join("results.jsonl");
        let mut all = Vec::new();
        if file.exists() {
            let bytes = fs::metadata(&file).map_err(ounce_model::Error::io(&file))?.len();
            if bytes > MAX_BYTES {
                return Err(Error::folder(
                    &file,
                    "is too large for results of a grid; choose another folder",
                ));
            }
            let text = fs::read_to_string(&file).map_err(ounce_model::Error::io(&file))?;
            for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
                match serde_json::from_str(line) {
                    Ok(outcome) => all.push(outcome),
                    // The end of a line that was being written when the machine stopped.
                    Err(_) if at + 1 == text.lines().count() && !text.ends_with('\n') => {
                        let whole = text.len() - line.len();
                        fs::write(&file, &text[..whole]).map_err(ounce_model::Error::io(&file))?;
                    }
                    Err(error) => {
                        let what = format!(
                            "line {} is no result ({error}); without the line the run is done again",
                            at + 1
                        );
                        return Err(Error::folder(&file, what));
                    }
                }
            }
        }
        Ok(Results { file: Some(file), all, _lock: Some(lock) })
    }

    /// What came of a run, if it was done.
    pub fn of(&self, cell: &Cell) -> Option<&Outcome> {
        self.all.iter().find(|outcome| outcome.cell.is(cell))
    }

    /// Adds what came of a run.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn add(&mut self, outcome: Outcome) -> Result<()> {
        if let Some(path) = &self.file {
            let mut line = serde_json::to_string(&outcome)
                .map_err(|error| Error::folder(path, format!("a result can't be written ({error})")))?;
            line.push('\n');
            let mut file = fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .map_err(ounce_model::Error::io(path))?;
            file.write_all(line.as_bytes()).map_err(ounce_model::Error::io(path))?;
        }
        self.all.push(outcome);
        Ok(())
    }
}
