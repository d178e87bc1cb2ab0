//! What came of the runs: `settings.json` and `results.jsonl` in the sweep's folder.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use ounce_model::storage::{AtomicFile, FolderLock};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Cell;
use crate::{Error, Result};

/// Larger files are not read.
const MAX_BYTES: u64 = 64 << 20;

/// What came of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The run.
    #[serde(flatten)]
    pub cell: Cell,
    /// The model's parameters without embeddings and head.
    pub params: u64,
    /// Steps done.
    pub steps: u64,
    /// Targets learned from.
    pub targets: u64,
    /// Mean training loss over the last tenth of the run, nats a target; none if it diverged.
    pub loss: Option<f64>,
    /// Loss on text that was held out, nats a target.
    pub validation: Option<f64>,
    /// Seconds spent training.
    pub seconds: f64,
}

/// Outcomes in a folder that one process at a time may write to.
#[derive(Debug)]
pub struct Results {
    folder: PathBuf,
    all: Vec<Outcome>,
    _lock: FolderLock,
}

impl Results {
    /// Opens or begins a sweep in `folder`. `settings` are all that its runs have in common.
    ///
    /// # Errors
    /// If the sweep there was begun with other settings, another process writes to it, or a file is damaged.
    pub fn open(folder: &Path, settings: &Value) -> Result<Results> {
        fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let Some(lock) = FolderLock::take(folder)? else {
            let what = "another process works on this sweep; wait for it, or choose another folder";
            return Err(Error::file(folder, what));
        };
        let path = folder.join("settings.json");
        if path.exists() {
            let known: Value = serde_json::from_slice(&read(&path)?)
                .map_err(|error| Error::file(&path, format!("the file is damaged ({error})")))?;
            if let Some((key, old, new)) = difference("", &known, settings) {
                return Err(Error::file(
                    folder,
                    format!(
                        "this sweep was begun with {key} = {old}, not {new}; its runs would not compare; give the settings \
                         it was begun with, or choose another folder"
                    ),
                ));
            }
        } else {
            write(&path, format!("{settings:#}\n").as_bytes())?;
        }
        let all = Results::read(folder)?;
        Ok(Results { folder: folder.to_path_buf(), all, _lock: lock })
    }

    /// The outcomes of a sweep's folder; none if no run has ended yet.
    ///
    /// # Errors
    /// If the folder is no sweep's, or a line is damaged.
    pub fn read(folder: &Path) -> Result<Vec<Outcome>> {
        let path = folder.join("results.jsonl");
        if !path.exists() {
            if folder.join("settings.json").exists() {
                return Ok(Vec::new());
            }
            return Err(Error::file(folder, "is no sweep's folder; ounce sweep RUN.toml --output makes one"));
        }
        let text = read(&path)?;
        let lines = text.split(|&byte| byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
        lines
            .map(|(number, line)| {
                serde_json::from_slice(line).map_err(|error| {
                    let place = format!("{}, line {}", path.display(), number + 1);
                    Error::data(
                        place,
                        format!("this is no result ({error}); without the line the run is done again"),
                    )
                })
            })
            .collect()
    }

    /// The sweep's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// All outcomes, in the order in which runs ended.
    pub fn all(&self) -> &[Outcome] {
        &self.all
    }

    /// What came of a run, if it was done.
    pub fn of(&self, cell: &Cell) -> Option<&Outcome> {
        self.all.iter().find(|outcome| outcome.cell == *cell)
    }

    /// Adds an outcome. The file has it, or is as it was.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn add(&mut self, outcome: Outcome) -> Result<()> {
        self.all.push(outcome);
        let mut text = String::new();
        for outcome in &self.all {
            let line = serde_json::to_string(outcome)
                .map_err(|error| Error::Settings(format!("a result can't be written: {error}")))?;
            text.push_str(&line);
            text.push('\n');
        }
        write(&self.folder.join("results.jsonl"), text.as_bytes()).inspect_err(|_| {
            self.all.pop();
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    if fs::metadata(path).map_err(Error::io(path))?.len() > MAX_BYTES {
        return Err(Error::file(path, "is too large to be a sweep's"));
    }
    fs::read(path).map_err(Error::io(path))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes).map_err(Error::io(path))?;
    Ok(file.commit()?)
}

/// The first key whose value differs, with both values.
fn difference(key: &str, old: &Value, new: &Value) -> Option<(String, String, String)> {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let null = Value::Null;
            let names = old.keys().chain(new.keys().filter(|name| !old.contains_key(*name)));
            names.into_iter().find_map(|name| {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                difference(&key, old.get(name).unwrap_or(&null), new.get(name).unwrap_or(&null))
            })
        }
        _ if old == new => None,
        _ => Some((key.to_string(), old.to_string(), new.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn outcome(lr: f64) -> Outcome {
        let cell = Cell { lr, batch_tokens: 64, hidden: 16, tokens: 640 };
        Outcome {
            cell,
            params: 1,
            steps: 10,
            targets: 640,
            loss: Some(1.0 / 3.0),
            validation: None,
            seconds: 1.0,
        }
    }

    #[test]
    fn outcomes_are_found_again_and_other_settings_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let settings = json!({"model": {"layers": 2, "preset": "llama"}, "seed": 1});
        let mut results = Results::open(folder.path(), &settings).expect("new");
        results.add(outcome(1e-3)).expect("written");
        results.add(Outcome { loss: None, ..outcome(0.1 + 0.2) }).expect("written");
        let busy = Results::open(folder.path(), &settings).expect_err("locked").to_string();
        assert!(busy.contains("another process"), "{busy}");
        drop(results);
        let results = Results::open(folder.path(), &settings).expect("again");
        assert_eq!(results.all(), [outcome(1e-3), Outcome { loss: None, ..outcome(0.1 + 0.2) }]);
        assert!(results.of(&outcome(1e-3).cell).is_some() && results.of(&outcome(2e-3).cell).is_none());
        drop(results);
        let other = json!({"model": {"layers": 3, "preset": "llama"}, "seed": 1});
        let error = Results::open(folder.path(), &other).expect_err("refused").to_string();
        assert!(error.contains("model.layers = 2, not 3"), "{error}");
    }

    #[test]
    fn damage_is_named_and_other_folders_are_refused() {
        let folder = tempfile::tempdir().expect("folder");
        assert!(Results::read(folder.path()).expect_err("empty").to_string().contains("no sweep"));
        drop(Results::open(folder.path(), &json!({})).expect("new"));
        assert_eq!(Results::read(folder.path()).expect("begun"), []);
        fs::write(folder.path().join("results.jsonl"), "{}\n").expect("written");
        let error = Results::read(folder.path()).expect_err("damaged").to_string();
        assert!(error.contains("line 1"), "{error}");
    }
}
