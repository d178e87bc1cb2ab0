//! A folder that one process at a time may write to.

use std::fs::{File, TryLockError};
use std::path::Path;

use crate::{Error, Result};

/// Keeps other writers out of a folder until it is dropped.
///
/// The lock is the system's, on a file `.lock`: it is gone with the process, however that ends.
#[derive(Debug)]
pub struct FolderLock(File);

impl FolderLock {
    /// Takes the lock of `folder`, or gives `None` if somebody else holds it.
    ///
    /// Some network file systems have no locks: there it warns and goes on, because working without one is better than
    /// not working.
    ///
    /// # Errors
    /// [`Error::Io`] if the file `.lock` can't be made.
    pub fn take(folder: &Path) -> Result<Option<FolderLock>> {
        let path = folder.join(".lock");
        let file = File::create(&path).map_err(Error::io(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => tracing::warn!("{}: no lock: {error}", path.display()),
        }
        Ok(Some(FolderLock(file)))
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // Closing alone is not enough: a child process that another thread has just forked shares the open file until
        // it executes its program, and would hold the lock for that long.
        if let Err(error) = self.0.unlock() {
            tracing::debug!("a lock could not be given back: {error}");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = FolderLock::take(folder.path()).unwrap().unwrap();
        assert!(FolderLock::take(folder.path()).unwrap().is_none());
        // What a forked child has until it executes: the same open file.
        let shared = first.0.try_clone().unwrap();
        drop(first);
        assert!(FolderLock::take(folder.path()).unwrap().is_some());
        drop(shared);
    }
}
