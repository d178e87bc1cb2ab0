//! The run's log: one JSON object a line, appended. It is cut back to where a checkpoint stands when that is resumed.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use crate::{Error, Result};

/// An open log.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Log {
    /// Opens or makes the log, and drops what is behind the first `bytes`.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn open(path: &Path, bytes: u64) -> Result<Log> {
        let mut options = OpenOptions::new();
        let mut file =
            options.create(true).write(true).truncate(false).open(path).map_err(Error::io(path))?;
        let length = file.metadata().map_err(Error::io(path))?.len();
        let bytes = bytes.min(length);
        file.set_len(bytes).map_err(Error::io(path))?;
        file.seek(SeekFrom::Start(bytes)).map_err(Error::io(path))?;
        Ok(Log { path: path.to_path_buf(), file, bytes })
    }

    /// Its length.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes an object as a line, with its kind as `event`.
    ///
    /// # Errors
    /// If the disk is full.
    pub fn write(&mut self, event: &str, value: &impl Serialize) -> Result<()> {
        let failed = |error: serde_json::Error| Error::Settings(format!("the log can't be written: {error}"));
        let mut line = json!({"event": event});
        if let (Value::Object(line), Value::Object(value)) =
            (&mut line, serde_json::to_value(value).map_err(failed)?)
        {
            line.extend(value);
        }
        let text = format!("{line}\n");
        self.file.write_all(text.as_bytes()).map_err(Error::io(&self.path))?;
        self.bytes += text.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_behind_a_checkpoint_is_dropped() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("log.jsonl");
        let mut log = Log::open(&path, 0).expect("log");
        log.write("step", &json!({"step": 1})).expect("written");
        let mark = log.bytes();
        log.write("step", &json!({"step": 2})).expect("written");
        drop(log);
        let mut log = Log::open(&path, mark).expect("log");
        log.write("note", &json!({"text": "resumed"})).expect("written");
        let text = std::fs::read_to_string(&path).expect("log");
        assert_eq!(text, "{\"event\":\"step\",\"step\":1}\n{\"event\":\"note\",\"text\":\"resumed\"}\n");
    }
}
