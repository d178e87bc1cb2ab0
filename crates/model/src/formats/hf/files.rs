//! The small files of a model's folder: read whole, never more than a limit, never from outside the folder.

use std::io::{ErrorKind, Read};
use std::path::{Component, Path};

use crate::{Error, Result};

/// Largest file of settings that is read; the largest in use, with a name for every class, has 1 MB.
pub(crate) const MAX_SETTINGS_BYTES: u64 = 16 << 20;

/// Largest index of shards that is read; one of 100,000 tensors has 10 MB.
pub(crate) const MAX_INDEX_BYTES: u64 = 64 << 20;

/// The bytes of a file; none if there is no such file.
///
/// # Errors
/// If it can't be read, is no regular file (a pipe would be waited for without end), or is longer than
/// `limit` bytes.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    let facts = match std::fs::metadata(path) {
        Ok(facts) => facts,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(Error::io(path)(error)),
    };
    if !facts.is_file() {
        return Err(Error::format(path, "is no regular file; put the model's own file in its place"));
    }
    let too_long = |bytes: u64| {
        let what = format!("has {bytes} bytes or more, where {limit} are enough; is it the right file?");
        Error::format(path, what)
    };
    if facts.len() > limit {
        return Err(too_long(facts.len()));
    }
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    let mut bytes = Vec::new();
    // The file may have grown since it was measured.
    file.take(limit + 1).read_to_end(&mut bytes).map_err(Error::io(path))?;
    if bytes.len() as u64 > limit { Err(too_long(bytes.len() as u64)) } else { Ok(Some(bytes)) }
}

/// Whether a path found in a file stays inside the folder it is relative to.
pub(crate) fn stays_inside(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

/// Whether a file name found in a file is just that: no folder in front, nothing behind.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_out_of_the_folder() {
        for inside in ["1_Pooling", "a/b", "model..safetensors", "..."] {
            assert!(stays_inside(inside), "{inside}");
        }
        for outside in ["", "..", "a/../b", "/etc", "./../x", "../x"] {
            assert!(!stays_inside(outside), "{outside}");
        }
        assert!(is_plain_name("model-00001-of-00002.safetensors"));
        for no_name in ["", ".", "..", "a/b", "/a", "./a", "a/", "a/."] {
            assert!(!is_plain_name(no_name), "{no_name}");
        }
    }

    #[test]
    fn files_longer_than_the_limit_and_folders_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        assert!(read(&path, 8).unwrap().is_none());
        assert!(read(&path.join("below"), 8).unwrap().is_none());
        std::fs::write(&path, b"12345678").unwrap();
        assert_eq!(read(&path, 8).unwrap().unwrap(), b"12345678");
        assert!(read(&path.join("below"), 8).unwrap().is_none());
        assert!(read(&path, 7).unwrap_err().to_string().contains("where 7 are enough"));
        assert!(read(folder.path(), 8).unwrap_err().to_string().contains("no regular file"));
    }
}
