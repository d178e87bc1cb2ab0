//! Fetches models from a hub into the cache that Hugging Face's tools share, resuming what was begun.
//!
//! [`Hub`] asks which files there are, [`select`] chooses those that ounce needs, [`store`] writes them. Files
//! appear under their names complete and checked; a revision's name points to a commit only when all is there.

mod client;
mod select;
mod store;

use ounce_model::hub::{Cache, HubModel};
use serde::Serialize;
use std::path::PathBuf;

pub use client::Hub;
pub use select::Wanted;
pub use store::is_true;

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RemoteFile {
    /// Its path in the repository, with `/`.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// The name of its content: a sha256 for large files, git's sha1 for small ones.
    pub content: String,
    /// Whether that name is a sha256.
    pub is_sha256: bool,
}

/// What will be fetched.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The commit that the revision stands for.
    pub commit: String,
    /// The files, and whether each is in the cache already.
    pub files: Vec<(RemoteFile, bool)>,
    /// What the reference leads to when all is there.
    pub path: PathBuf,
}

impl Plan {
    /// Asks the hub what a model consists of.
    ///
    /// # Errors
    /// If the hub can't be reached, refuses, has no such model, or the model is none that ounce reads.
    pub fn new(hub: &Hub, cache: &Cache, model: &HubModel, wanted: &Wanted) -> anyhow::Result<Plan> {
        let commit = hub.commit(&model.repo, model.revision())?;
        let files = select::select(hub.files(&model.repo, &commit)?, model, wanted)?;
        let snapshot = cache.snapshot(&model.repo, &commit);
        let path = select::entry_point(&files, model).map_or(snapshot.clone(), |file| snapshot.join(file));
        let known = |file: RemoteFile| {
            let there = store::is_there(&snapshot.join(&file.name), file.size);
            (file, there)
        };
        Ok(Plan { commit, files: files.into_iter().map(known).collect(), path })
    }

    /// Bytes that are not in the cache.
    pub fn missing_bytes(&self) -> u64 {
        self.files.iter().filter(|(_, there)| !there).map(|(file, _)| file.size).sum()
    }

    /// Fetches what is missing. `progress` is told the file and the bytes of this call that are done.
    ///
    /// # Errors
    /// If the connection breaks for good, a file is not what the hub announced, or the disk refuses. What was
    /// fetched so far stays and is not fetched again.
    pub fn fetch(
        &self,
        hub: &Hub,
        cache: &Cache,
        model: &HubModel,
        mut progress: impl FnMut(&str, u64),
    ) -> anyhow::Result<()> {
        let store = store::Store::new(cache, &model.repo)?;
        let mut before = 0;
        for (file, _) in self.files.iter().filter(|(_, there)| !there) {
            store
                .add(hub, &model.repo, &self.commit, file, &mut |done| progress(&file.name, before + done))?;
            before += file.size;
        }
        store.set_revision(model.revision(), &self.commit)
    }
}
