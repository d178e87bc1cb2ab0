//! The file of API keys.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use ounce_serve::Key;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    key: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    secret: String,
    requests_per_minute: Option<u32>,
    concurrent: Option<u32>,
    max_tokens: Option<usize>,
    #[serde(default)]
    models: Vec<String>,
    #[serde(default)]
    admin: bool,
}

/// Reads the keys of a file.
///
/// # Errors
/// If it is none, or two keys have one name.
pub fn read(path: &Path) -> anyhow::Result<Vec<Key>> {
    let name = || path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(name)?;
    let file: File = toml::from_str(&text).with_context(name)?;
    let mut keys: Vec<Key> = Vec::new();
    for entry in file.key {
        if keys.iter().any(|key| key.name == entry.name) {
            bail!("{}: two keys are called {}", name(), entry.name);
        }
        keys.push(Key {
            name: entry.name,
            secret: entry.secret,
            requests_per_minute: entry.requests_per_minute,
            concurrent: entry.concurrent,
            max_tokens: entry.max_tokens,
            models: entry.models,
            admin: entry.admin,
        });
    }
    Ok(keys)
}

/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// A file of keys that may change.
#[derive(Debug)]
pub struct Watched {
    path: PathBuf,
    /// Its time and size when it was read.
    known: Option<(SystemTime, u64)>,
    looked: Instant,
}

impl Watched {
    /// As it is now.
    pub fn new(path: PathBuf) -> Watched {
        let known = Watched::stamp(&path);
        Watched { path, known, looked: Instant::now() }
    }

    fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
        let facts = std::fs::metadata(path).ok()?;
        Some((facts.modified().ok()?, facts.len()))
    }

    /// The keys, if the file is another one than when it was read; a file that is gone changes nothing.
    pub fn changed(&mut self) -> Option<anyhow::Result<Vec<Key>>> {
        if self.looked.elapsed() < LOOK {
            return None;
        }
        self.looked = Instant::now();
        let now = Watched::stamp(&self.path).filter(|now| Some(*now) != self.known)?;
        self.known = Some(now);
        Some(read(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_limits_and_mistakes_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        std::fs::write(&path, "[[key]]\nname = \"a\"\nsecret = \"s\"\nconcurrent = 2\n").unwrap();
        assert_eq!(read(&path).unwrap(), [Key { concurrent: Some(2), ..Key::new("a", "s") }]);
        std::fs::write(&path, "[[key]]\nname = \"a\"\nsecrets = \"s\"\n").unwrap();
        let error = format!("{:#}", read(&path).unwrap_err());
        assert!(error.contains("keys.toml") && error.contains("secrets"), "{error}");
    }
}
