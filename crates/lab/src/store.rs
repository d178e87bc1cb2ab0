//! The evidence store: one JSON file a method, `020.json`, in a folder that the caller names.
//!
//! Evidence is checked before it is written and after it is read, so what [`Store::read`] returns is sound. A file
//! is written beside its target and renamed, so a reader sees the old one or the new one and never half of it.

use ounce_eval::method::{DemonstrationError, Evidence};
use std::io;
use std::path::{Path, PathBuf};

/// The largest evidence file that is read; a table of measurements has some kilobytes.
const LARGEST_FILE_BYTES: u64 = 4 << 20;

/// What can go wrong with stored evidence.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file or its folder can't be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file isn't evidence.
    #[error("{}: not evidence: {source}; run the demonstration again to replace it", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the JSON reader says, with line and column.
        source: serde_json::Error,
    },
    /// The file is larger than any evidence.
    #[error("{}: {bytes} bytes is too large for evidence; run the demonstration again to replace it", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The file holds evidence of another method than its name says.
    #[error("{}: holds evidence of method {found}; rename it or run the demonstration again", path.display())]
    WrongMethod {
        /// The file.
        path: PathBuf,
        /// The method it is about.
        found: u16,
    },
    /// The evidence contradicts itself.
    #[error("{}: {source}", path.display())]
    Flawed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: DemonstrationError,
    },
}

/// A folder of evidence; it need not exist before something is written.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// The store in that folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The file of a method's evidence.
    pub fn path(&self, method: u16) -> PathBuf {
        self.folder.join(format!("{method:03}.json"))
    }

    /// Writes the evidence in place of what its method had before, and returns the file.
    ///
    /// # Errors
    /// If the evidence contradicts itself or the folder can't be written.
    pub fn write(&self, evidence: &Evidence) -> Result<PathBuf, Error> {
        let path = self.path(evidence.method);
        evidence.check().map_err(|source| Error::Flawed { path: path.clone(), source })?;
        let mut text = serde_json::to_string_pretty(evidence)
            .map_err(|source| Error::Json { path: path.clone(), source })?;
        text.push('\n');
        // The process id keeps two runs apart that write at the same moment; the later rename wins.
        let temporary = self.folder.join(format!(".{:03}.{}.new", evidence.method, std::process::id()));
        let written = std::fs::create_dir_all(&self.folder)
            .and_then(|()| std::fs::write(&temporary, text))
            .and_then(|()| std::fs::rename(&temporary, &path));
        if let Err(source) = written {
            // Nothing is left to report if the temporary file can't be removed either.
            let _ = std::fs::remove_file(&temporary);
            return Err(Error::Io { path, source });
        }
        Ok(path)
    }

    /// The evidence of a method; none if it was never demonstrated.
    ///
    /// # Errors
    /// If the file is there and can't be read, is too large, or isn't sound evidence of that method.
    pub fn read(&self, method: u16) -> Result<Option<Evidence>, Error> {
        let path = self.path(method);
        let Some(text) = read_limited(&path)? else { return Ok(None) };
        let evidence: Evidence =
            serde_json::from_str(&text).map_err(|source| Error::Json { path: path.clone(), source })?;
        if evidence.method != method {
            return Err(Error::WrongMethod { path, found: evidence.method });
        }
        evidence.check().map_err(|source| Error::Flawed { path, source })?;
        Ok(Some(evidence))
    }
}

fn read_limited(path: &Path) -> Result<Option<String>, Error> {
    let failed = |source| Error::Io { path: path.to_owned(), source };
    let bytes = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed(source)),
    };
    if bytes > LARGEST_FILE_BYTES {
        return Err(Error::TooLarge { path: path.to_owned(), bytes });
    }
    std::fs::read_to_string(path).map(Some).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ounce_eval::method::Row;

    fn evidence(method: u16) -> Evidence {
        let mut evidence = Evidence::new(method, 1, "f32");
        evidence.rows.push(Row::new("f32").with("perplexity", 1.0 / 3.0, ""));
        evidence.expect("it is a third", "0.333", true);
        evidence
    }

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().expect("temporary folder");
        let store = Store::new(folder.path().join("deep/evidence"));
        (folder, store)
    }

    #[test]
    fn what_was_written_is_read_back_and_replaced() {
        let (_folder, store) = store();
        assert_eq!(store.read(20).expect("absent is fine"), None);
        store.write(&evidence(20)).expect("writes");
        let mut second = evidence(20);
        second.seed = 2;
        let path = store.write(&second).expect("writes again");
        assert_eq!(store.read(20).expect("reads"), Some(second));
        let files = std::fs::read_dir(path.parent().expect("a folder")).expect("lists").count();
        assert_eq!(files, 1, "no temporary file may stay");
    }

    #[test]
    fn flawed_evidence_is_neither_written_nor_read() {
        let (_folder, store) = store();
        let mut flawed = evidence(20);
        flawed.baseline = "bf16".into();
        assert!(matches!(store.write(&flawed), Err(Error::Flawed { .. })));
        assert!(!store.path(20).exists());

        store.write(&evidence(20)).expect("writes");
        std::fs::rename(store.path(20), store.path(21)).expect("renames");
        assert!(matches!(store.read(21), Err(Error::WrongMethod { found: 20, .. })));

        let text = serde_json::to_string(&flawed).expect("serialises");
        std::fs::write(store.path(20), text).expect("writes");
        assert!(matches!(store.read(20), Err(Error::Flawed { .. })));
    }

    #[test]
    fn damaged_and_huge_files_are_refused_with_their_name() {
        let (_folder, store) = store();
        store.write(&evidence(20)).expect("writes");
        for text in ["", "{", "[]", "{\"method\": 20}", "\u{0}"] {
            std::fs::write(store.path(20), text).expect("writes");
            let error = store.read(20).expect_err(text);
            assert!(matches!(error, Error::Json { .. }) && error.to_string().contains("020.json"), "{error}");
        }
        let file = std::fs::File::create(store.path(20)).expect("creates");
        file.set_len(LARGEST_FILE_BYTES + 1).expect("grows");
        assert!(matches!(store.read(20), Err(Error::TooLarge { .. })));
    }
}
