//! Writes fetched files into the cache: a lock, an unfinished file that can be resumed, a check, a link.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use ounce_model::hub::Cache;
use sha2::{Digest, Sha256};
use ureq::http::StatusCode;
use ureq::http::header::CONTENT_RANGE;

use super::RemoteFile;
use super::client::{ATTEMPTS, Broken, Hub, header, may_pass, wait};

const BUFFER_BYTES: usize = 1 << 18;

/// Marks a folder that backups need not keep; see <https://bford.info/cachedir/>.
const CACHE_TAG: &str =
    "Signature: 8a477f597d28d172789f06886806bc55\n# This file is a cache directory tag.\n";

/// One repository's folder in the cache.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    locks: PathBuf,
}

/// Whether a file of that size is there; a link to a missing one is not.
pub fn is_there(path: &Path, size: u64) -> bool {
    fs::metadata(path).is_ok_and(|facts| facts.is_file() && facts.len() == size)
}

impl Store {
    /// The folder of `repo`; it is made.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn new(cache: &Cache, repo: &str) -> anyhow::Result<Store> {
        let store = Store {
            folder: cache.repo_folder(repo),
            locks: cache.root().join(".locks").join(Cache::repo_name(repo)),
        };
        for folder in [store.folder.join("blobs"), store.locks.clone()] {
            fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        }
        let tag = cache.root().join("CACHEDIR.TAG");
        if !tag.exists() {
            fs::write(&tag, CACHE_TAG).with_context(|| tag.display().to_string())?;
        }
        Ok(store)
    }

    /// Fetches a file and links it into the snapshot of `commit`. `progress` is told its bytes that are there.
    ///
    /// # Errors
    /// If the connection breaks for good, the content is not what was announced, or the disk refuses.
    pub fn add(
        &self,
        hub: &Hub,
        repo: &str,
        commit: &str,
        file: &RemoteFile,
        progress: &mut dyn FnMut(u64),
    ) -> anyhow::Result<()> {
        let blob = self.folder.join("blobs").join(&file.content);
        // Released when the file is closed; another process may fetch the same content meanwhile.
        let lock = self.locks.join(format!("{}.lock", file.content));
        let lock_file = File::create(&lock).with_context(|| lock.display().to_string())?;
        lock_file.lock().with_context(|| lock.display().to_string())?;
        if !is_there(&blob, file.size) {
            let unfinished = self.folder.join("blobs").join(format!("{}.incomplete", file.content));
            let done = Download { hub, repo, commit, file, path: &unfinished }.run(progress);
            done.with_context(|| format!("{} of {repo}", file.name))?;
            check(&unfinished, file)?;
            fs::rename(&unfinished, &blob).with_context(|| blob.display().to_string())?;
        }
        progress(file.size);
        let name = self.folder.join("snapshots").join(commit).join(&file.name);
        link(&blob, &name, file).with_context(|| name.display().to_string())
    }

    /// Lets a revision's name stand for `commit`.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn set_revision(&self, revision: &str, commit: &str) -> anyhow::Result<()> {
        if revision == commit {
            return Ok(());
        }
        let path = self.folder.join("refs").join(revision);
        let parent = path.parent().unwrap_or(&self.folder);
        let draft = parent.join(format!(".{commit}.{}", std::process::id()));
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&draft, commit))
            .and_then(|()| fs::rename(&draft, &path))
            .with_context(|| path.display().to_string())
    }
}

/// One file on its way.
struct Download<'a> {
    hub: &'a Hub,
    repo: &'a str,
    commit: &'a str,
    file: &'a RemoteFile,
    /// The unfinished file, which may hold a beginning from an earlier call.
    path: &'a Path,
}

impl Download<'_> {
    fn run(&self, progress: &mut dyn FnMut(u64)) -> anyhow::Result<()> {
        let mut out = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.path)
            .with_context(|| self.path.display().to_string())?;
        let mut attempt = 1;
        loop {
            let before = out.metadata()?.len();
            let failed = match self.attempt(&mut out, progress) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if out.metadata()?.len() > before {
                attempt = 1;
            }
            if attempt >= ATTEMPTS || !may_pass(&failed) {
                return Err(failed);
            }
            wait(attempt, &failed);
            attempt += 1;
        }
    }

    /// Asks for the rest of the file and appends it.
    fn attempt(&self, out: &mut File, progress: &mut dyn FnMut(u64)) -> anyhow::Result<()> {
        let size = self.file.size;
        let mut from = out.metadata()?.len();
        if from > size {
            out.set_len(0)?;
            from = 0;
        }
        if from == size {
            return Ok(());
        }
        let response = self.hub.open(self.repo, self.commit, &self.file.name, from)?;
        let starts = header(&response, CONTENT_RANGE.as_str()).and_then(range_start);
        if response.status() != StatusCode::PARTIAL_CONTENT || starts != Some(from) {
            // The server does not resume: everything comes again.
            out.set_len(0)?;
            from = 0;
            if response.status() != StatusCode::OK {
                bail!(Broken("the hub sends another part than was asked for".to_string()));
            }
        }
        out.seek(SeekFrom::Start(from))?;
        let mut body = response.into_body().into_with_config().limit(u64::MAX).reader();
        let mut buffer = vec![0; BUFFER_BYTES];
        while from < size {
            let read = match body.read(&mut buffer) {
                Ok(0) => bail!(Broken(format!("the connection ended {} bytes early", size - from))),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => bail!(Broken(format!("the connection broke ({error})"))),
            };
            let wanted = read.min(usize::try_from(size - from).unwrap_or(read));
            out.write_all(&buffer[..wanted]).with_context(|| self.path.display().to_string())?;
            from += wanted as u64;
            progress(from);
        }
        Ok(())
    }
}

/// `bytes 100-199/200` begins at 100.
fn range_start(header: &str) -> Option<u64> {
    header.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}

/// Compares a finished file with what the hub announced; a wrong one is removed.
fn check(path: &Path, file: &RemoteFile) -> anyhow::Result<()> {
    if !file.is_sha256 {
        return Ok(());
    }
    let failed = || path.display().to_string();
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path).with_context(failed)?, &mut hash).with_context(failed)?;
    let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if found != file.content {
        fs::remove_file(path).with_context(failed)?;
        bail!(
            "{}: the sha256 of what came is {found}, not {}; run the command again",
            file.name,
            file.content
        );
    }
    Ok(())
}

/// Puts a blob under its name in a snapshot: a relative link, or a copy where links can't be made.
fn link(blob: &Path, name: &Path, file: &RemoteFile) -> io::Result<()> {
    if is_there(name, file.size) {
        return Ok(());
    }
    if let Some(parent) = name.parent() {
        fs::create_dir_all(parent)?;
    }
    if fs::symlink_metadata(name).is_ok() {
        fs::remove_file(name)?;
    }
    // From snapshots/<commit>/a/b up to the repository's folder: two steps, and one for each folder of the name.
    let up = "../".repeat(2 + file.name.matches('/').count());
    let target = format!("{up}blobs/{}", file.content);
    let disabled = std::env::var("HF_HUB_DISABLE_SYMLINKS").is_ok_and(|it| is_true(&it));
    if !disabled && symlink(&target, name).is_ok() {
        return Ok(());
    }
    fs::copy(blob, name).map(|_| ())
}

#[cfg(unix)]
fn symlink(target: &str, name: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, name)
}

#[cfg(windows)]
fn symlink(target: &str, name: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target.replace('/', "\\"), name)
}

/// Whether an environment variable's value says yes, as Hugging Face's tools read it.
pub fn is_true(value: &str) -> bool {
    matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE")
}
