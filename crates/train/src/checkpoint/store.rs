//! The checkpoints of a run: written, found again, thinned out.

use std::fs;
use std::path::{Path, PathBuf};

use ounce_model::storage::FolderLock;

use super::manifest::{Manifest, sync_folder};
use super::{State, read_state, write};
use crate::optim::Optimizer;
use crate::{Error, Result, Trainable};

/// Which checkpoints stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// The newest so many; one at least.
    pub last: usize,
    /// The one with the best validation loss.
    pub best: bool,
}

/// A complete checkpoint.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Its folder.
    pub folder: PathBuf,
    /// Its step.
    pub step: u64,
}

/// A run's folder `checkpoints`, which one process at a time may write to.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    keep: Keep,
    _lock: FolderLock,
}

impl Store {
    /// Opens or makes the folder `checkpoints` in `output`, and clears away what an interrupted run left half-written.
    ///
    /// # Errors
    /// If another process writes there, or the system refuses.
    pub fn open(output: &Path, keep: Keep) -> Result<Store> {
        let folder = output.join("checkpoints");
        fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let Some(lock) = FolderLock::take(&folder)? else {
            return Err(Error::checkpoint(
                output,
                "is being written by another training run; choose another folder",
            ));
        };
        for entry in fs::read_dir(&folder).map_err(Error::io(&folder))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(".step-") && name.ends_with(".tmp") {
                fs::remove_dir_all(entry.path()).map_err(Error::io(entry.path()))?;
            }
        }
        Ok(Store { folder, keep, _lock: lock })
    }

    /// All complete checkpoints, oldest first.
    pub fn all(&self) -> Vec<Kept> {
        complete(&self.folder)
    }

    /// Writes a checkpoint, whole or not at all, then removes those that need not stay. Gives its folder.
    ///
    /// # Errors
    /// If it can't be written; older ones stand as they were then.
    pub fn save(&self, net: &dyn Trainable, optimizer: &Optimizer, state: &State) -> Result<PathBuf> {
        let name = format!("step-{}", state.step);
        let folder = self.folder.join(&name);
        let draft = tempfile::Builder::new()
            .prefix(&format!(".{name}."))
            .suffix(".tmp")
            .tempdir_in(&self.folder)
            .map_err(Error::io(&self.folder))?;
        let new = draft.path().join("new");
        write(&new, net, optimizer, state)?;
        if folder.exists() {
            let old = draft.path().join("old");
            fs::rename(&folder, &old).map_err(Error::io(&folder))?;
        }
        fs::rename(&new, &folder).map_err(Error::io(&folder))?;
        sync_folder(&self.folder)?;
        drop(draft);
        if let Err(error) = self.thin_out() {
            tracing::warn!("an old checkpoint could not be removed: {error}");
        }
        Ok(folder)
    }

    fn thin_out(&self) -> Result<()> {
        let all = self.all();
        let states: Vec<Option<State>> = all.iter().map(|kept| read_state(&kept.folder).ok()).collect();
        let losses =
            states.iter().enumerate().filter_map(|(at, state)| Some((state.as_ref()?.validation?, at)));
        let best = losses.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, at)| at).filter(|_| self.keep.best);
        let newest = all.len().saturating_sub(self.keep.last.max(1));
        for (at, kept) in all.iter().enumerate().take(newest) {
            // One whose state can't be read is left for a person to look at.
            let permanent = states[at].as_ref().is_none_or(|state| state.permanent);
            if permanent || best == Some(at) {
                continue;
            }
            Manifest::remove(&kept.folder)?;
            fs::remove_dir_all(&kept.folder).map_err(Error::io(&kept.folder))?;
        }
        Ok(())
    }
}

/// The newest complete checkpoint of a run's output folder.
pub(crate) fn latest(output: &Path) -> Option<Kept> {
    complete(&output.join("checkpoints")).pop()
}

fn complete(folder: &Path) -> Vec<Kept> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut all: Vec<Kept> = entries
        .filter_map(|entry| {
            let step = entry.file_name().to_str()?.strip_prefix("step-")?.parse().ok()?;
            Some(Kept { folder: entry.path(), step })
        })
        .filter(|kept| Manifest::is_complete(&kept.folder))
        .collect();
    all.sort_by_key(|kept| kept.step);
    all
}

impl Kept {
    /// The newest complete checkpoint of a run's output folder, if there is one.
    pub fn latest(output: &Path) -> Option<Kept> {
        latest(output)
    }
}
