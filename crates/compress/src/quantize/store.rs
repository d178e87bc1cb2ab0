//! Finished matrices on disk: what a run that was stopped need not do again, and what keeps a large model out of memory.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use ounce_kernels::DType;
use ounce_model::storage::{AtomicFile, Bytes, FolderLock};
use ounce_model::weights::bytes_of;
use ounce_model::{Error as ModelError, Tensor};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, Result};

/// Lists what a finished step stored.
const FINISHED: &str = "finished.json";

/// A folder of finished matrices.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    _lock: FolderLock,
}

/// What is noted beside a matrix.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Note {
    pub dtype: String,
    pub error: Option<f64>,
}

impl Store {
    /// Opens or begins the folder. `settings` is all that the matrices depend on.
    ///
    /// # Errors
    /// If what is there was made with other settings, another process works there, or the system refuses.
    pub fn open(folder: &Path, settings: &Value) -> Result<Store> {
        fs::create_dir_all(folder).map_err(ModelError::io(folder))?;
        let lock = FolderLock::take(folder)?.ok_or_else(|| {
            ModelError::format(
                folder,
                "another process quantizes into this file; wait for it, or choose another name",
            )
        })?;
        let path = folder.join("settings.json");
        match fs::read(&path) {
            Ok(known) if serde_json::from_slice::<Value>(&known).ok().as_ref() != Some(settings) => {
                let what = "holds a part of the same work with other settings; give the settings it was begun with, or \
                            remove this folder";
                return Err(ModelError::format(folder, what).into());
            }
            Ok(_) => {}
            Err(_) => write(&path, format!("{settings:#}\n").as_bytes())?,
        }
        Ok(Store { folder: folder.to_path_buf(), _lock: lock })
    }

    /// A folder within for a step of the work whose weights later steps depend on.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn part(&self, name: &str, settings: &Value) -> Result<Store> {
        Store::open(&self.folder.join(name), settings)
    }

    /// The names of all that a finished step stored.
    pub(super) fn finished(&self) -> Option<Vec<String>> {
        serde_json::from_slice(&fs::read(self.folder.join(FINISHED)).ok()?).ok()
    }

    /// Notes that a step is finished.
    pub(super) fn finish(&self, names: &[String]) -> Result<()> {
        let text = serde_json::to_string(names).map_err(|error| Error::matrix(FINISHED, error))?;
        write(&self.folder.join(FINISHED), text.as_bytes())
    }

    /// A matrix that was finished before.
    pub(super) fn get(&self, name: &str, dtype: DType, shape: &[usize]) -> Option<(Tensor, Note)> {
        let note: Note = self.note(name)?;
        let data = Bytes::map(self.folder.join(name)).ok()?;
        let whole = bytes_of(dtype, shape) == Some(data.len()) && note.dtype == dtype.name();
        whole.then(|| (Tensor { dtype, shape: shape.to_vec(), data }, note))
    }

    /// Stores a finished matrix and gives it back as a mapped one.
    pub(super) fn put(&self, name: &str, tensor: &Tensor, error: Option<f64>) -> Result<Tensor> {
        let path = self.folder.join(name);
        write(&path, &tensor.data)?;
        // The note comes last: with it the matrix counts as finished.
        let note = Note { dtype: tensor.dtype.name().to_owned(), error };
        self.put_note(name, &note)?;
        Ok(Tensor { data: Bytes::map(&path)?, ..tensor.clone() })
    }

    /// What was noted under a name.
    pub(super) fn note<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_slice(&fs::read(self.folder.join(format!("{name}.json"))).ok()?).ok()
    }

    /// Notes something under a name.
    pub(super) fn put_note<T: Serialize>(&self, name: &str, note: &T) -> Result<()> {
        let text = serde_json::to_string(note).map_err(|error| Error::matrix(name, error))?;
        write(&self.folder.join(format!("{name}.json")), text.as_bytes())
    }

    /// Removes the folder.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn remove(self) -> Result<()> {
        fs::remove_dir_all(&self.folder).map_err(ModelError::io(&self.folder))?;
        Ok(())
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes).map_err(ModelError::io(path))?;
    Ok(file.commit()?)
}
