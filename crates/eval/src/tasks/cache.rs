//! What a model said before: kept on disk, so that an interrupted or repeated run asks only what is new.
//!
//! A file a model and task, one answer a line. An answer is found by a hash of what was asked, in token ids with all
//! options; so a task that is changed asks again only where its questions are others.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ounce_model::{Error, Model};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Response, Result};

/// Answers are written at least this often.
const PATIENCE: Duration = Duration::from_secs(2);

/// Answers of one model in one task.
#[derive(Debug)]
pub struct Cache {
    file: Option<PathBuf>,
    known: HashMap<String, Response>,
    unsaved: String,
    saved: Instant,
}

#[derive(Serialize, Deserialize)]
struct Line<R> {
    asked: String,
    #[serde(flatten)]
    response: R,
}

impl Cache {
    /// A cache that forgets.
    pub fn none() -> Cache {
        Cache { file: None, known: HashMap::new(), unsaved: String::new(), saved: Instant::now() }
    }

    /// The answers in `folder`, which need not exist, to the task of that name.
    ///
    /// # Errors
    /// If there is a file of answers that can't be read, or the folder can't be made.
    pub fn open(folder: &Path, task: &str) -> Result<Cache> {
        fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let file = folder.join(format!("{task}.jsonl"));
        let text = match fs::read(&file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(Error::io(&file)(error).into()),
        };
        // A run that was cut off may have left half a line; what can't be read is asked again.
        let lines = text.split(|byte| *byte == b'\n');
        let known = lines.filter_map(|line| serde_json::from_slice::<Line<Response>>(line).ok());
        let known = known.map(|line| (line.asked, line.response)).collect();
        let unsaved = if text.is_empty() || text.ends_with(b"\n") { String::new() } else { "\n".to_string() };
        Ok(Cache { file: Some(file), known, unsaved, saved: Instant::now() })
    }

    pub(super) fn get(&self, asked: &str) -> Option<&Response> {
        self.known.get(asked)
    }

    /// Keeps an answer; it is written within seconds.
    pub(super) fn put(&mut self, asked: &str, response: Response) -> Result<()> {
        if self.file.is_some()
            && let Ok(line) = serde_json::to_string(&Line { asked: asked.to_string(), response: &response })
        {
            self.unsaved.push_str(&line);
            self.unsaved.push('\n');
        }
        self.known.insert(asked.to_string(), response);
        if self.saved.elapsed() > PATIENCE { self.save() } else { Ok(()) }
    }

    /// Writes what is not written yet.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn save(&mut self) -> Result<()> {
        self.saved = Instant::now();
        let Some(file) = self.file.as_ref().filter(|_| !self.unsaved.is_empty()) else { return Ok(()) };
        // Whole lines at once, so that two runs may write to one file.
        let write =
            || OpenOptions::new().create(true).append(true).open(file)?.write_all(self.unsaved.as_bytes());
        write().map_err(Error::io(file))?;
        self.unsaved.clear();
        Ok(())
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        if let Err(error) = self.save() {
            tracing::warn!("answers could not be kept: {error}");
        }
    }
}

/// Stands for a model and the way it computes: a hash of all of its weights, its spec and tokenizer, and of `computing`.
/// Reads all weights.
///
/// # Errors
/// If a tensor can't be read.
pub fn model_key(model: &Model, computing: &str) -> ounce_model::Result<String> {
    let mut names: Vec<&str> = model.weights.names().collect();
    names.sort_unstable();
    let tensors: Vec<_> = names
        .par_iter()
        .map(|name| {
            let tensor = model.weights.get(name)?;
            let mut hash = Sha256::new();
            hash.update(format!("{name}\0{:?}\0{:?}\0", tensor.dtype, tensor.shape));
            (0..tensor.rows()).for_each(|row| hash.update(tensor.row(row)));
            Ok(hash.finalize())
        })
        .collect::<ounce_model::Result<_>>()?;
    let mut hash = Sha256::new();
    let tokenizer = model.tokenizer.as_ref().map(|it| it.to_json()).transpose()?;
    hash.update(format!("{}\0{computing}\0{:?}\0", env!("CARGO_PKG_VERSION"), model.spec));
    hash.update(tokenizer.unwrap_or_default());
    tensors.iter().for_each(|tensor| hash.update(tensor));
    Ok(short(hash))
}

/// The first half of a hash, in hexadecimal digits.
pub(super) fn short(hash: Sha256) -> String {
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_found_again_even_behind_half_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let likelihood = Response::Likelihood { log_likelihood: -0.1 - 0.2, greedy: true };
        let mut cache = Cache::open(folder.path(), "t").unwrap();
        cache.put("a", likelihood.clone()).unwrap();
        cache.put("b", Response::Text { text: "x\n\"y".into() }).unwrap();
        drop(cache);
        let file = folder.path().join("t.jsonl");
        let whole = fs::read_to_string(&file).unwrap();
        fs::write(&file, &whole[..whole.len() - 5]).unwrap();
        let mut cache = Cache::open(folder.path(), "t").unwrap();
        assert_eq!((cache.get("a"), cache.get("b")), (Some(&likelihood), None));
        cache.put("c", likelihood.clone()).unwrap();
        drop(cache);
        let cache = Cache::open(folder.path(), "t").unwrap();
        assert_eq!((cache.get("a"), cache.get("c")), (Some(&likelihood), Some(&likelihood)));
        assert!(Cache::none().get("a").is_none());
    }
}
