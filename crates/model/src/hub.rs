//! References to models on a hub, and where they lie in the cache that Hugging Face's tools share. No network.
//!
//! `org/name`, `org/name@revision`, `org/name:QUANT` (one quantization of a GGUF repository) and
//! `hf://org/name[@revision][/file]`. The cache is a folder of `models--org--name/` with `refs/` (names of
//! revisions), `blobs/` (contents) and `snapshots/<commit>/` (links to blobs under their names).

use std::fmt;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// A model on a hub, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubModel {
    /// `org/name`.
    pub repo: String,
    /// Branch, tag or commit; none for `main`.
    pub revision: Option<String>,
    /// What of it is meant.
    pub part: Part,
}

/// What of a repository is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// The model as a whole.
    Whole,
    /// The GGUF file of one quantization, such as `Q4_K_M`.
    Quant(String),
    /// A file or folder inside the repository.
    File(String),
}

impl HubModel {
    /// Reads a reference; `None` if the text is none. Looks at no file.
    pub fn parse(text: &str) -> Option<HubModel> {
        let (text, explicit) = match text.strip_prefix("hf://") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let slash = text.find('/')?;
        let end = text[slash + 1..].find(['@', ':', '/']).map_or(text.len(), |at| slash + 1 + at);
        let (repo, mut rest) = text.split_at(end);
        if !is_repo(repo) {
            return None;
        }
        let mut revision = None;
        if let Some(after) = rest.strip_prefix('@') {
            // A revision may hold slashes (`refs/pr/7`), so `hf://` references end it only before a file's name.
            let stop = after.find(':').unwrap_or(after.len());
            let stop =
                if explicit && !after.starts_with("refs/") { after.find('/').unwrap_or(stop) } else { stop };
            if !is_safe_path(&after[..stop]) {
                return None;
            }
            revision = Some(after[..stop].to_string());
            rest = &after[stop..];
        }
        let part = match rest.split_at_checked(1) {
            None => Part::Whole,
            Some((":", quant)) if is_word(quant) => Part::Quant(quant.to_string()),
            Some(("/", file)) if explicit && is_safe_path(file) => Part::File(file.to_string()),
            Some(_) => return None,
        };
        Some(HubModel { repo: repo.to_string(), revision, part })
    }

    /// The revision's name; `main` where none is given.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }
}

impl fmt::Display for HubModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let revision = self.revision.as_ref().map(|it| format!("@{it}")).unwrap_or_default();
        match &self.part {
            Part::Whole => write!(f, "{}{revision}", self.repo),
            Part::Quant(quant) => write!(f, "{}{revision}:{quant}", self.repo),
            Part::File(file) => write!(f, "hf://{}{revision}/{file}", self.repo),
        }
    }
}

/// Whether `text` names a repository as hubs allow it; such a name is safe as a part of a path.
pub fn is_repo(text: &str) -> bool {
    let part = |part: &str| {
        let ends = |c: char| c == '-' || c == '.';
        is_word(part) && !part.starts_with(ends) && !part.ends_with(ends)
    };
    let parts: Vec<&str> = text.split('/').collect();
    parts.len() == 2
        && parts.iter().all(|it| part(it))
        && text.len() <= 96
        && !text.contains("--")
        && !text.contains("..")
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// Whether a name from outside stays inside the folder that it is joined to.
pub fn is_safe_path(text: &str) -> bool {
    let part = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', ':', '\0']);
    !text.is_empty() && !text.chars().any(char::is_control) && text.split('/').all(part)
}

/// Whether `text` is a commit's full name.
pub fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c))
}

/// The cache folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache in that folder, which need not exist.
    pub fn new(root: impl Into<PathBuf>) -> Cache {
        Cache { root: root.into() }
    }

    /// The cache that the environment names: `HF_HUB_CACHE`, else `HUGGINGFACE_HUB_CACHE`, else `hub` in
    /// [`home`].
    pub fn from_env() -> Cache {
        let named = env_path("HF_HUB_CACHE").or_else(|| env_path("HUGGINGFACE_HUB_CACHE"));
        Cache::new(named.unwrap_or_else(|| home().join("hub")))
    }

    /// The cache's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of a repository, `models--org--name`.
    pub fn repo_folder(&self, repo: &str) -> PathBuf {
        self.root.join(Cache::repo_name(repo))
    }

    /// The name of that folder.
    pub fn repo_name(repo: &str) -> String {
        format!("models--{}", repo.replace('/', "--"))
    }

    /// The commit that a revision stood for when it was last fetched.
    pub fn commit(&self, repo: &str, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_string());
        }
        if !is_safe_path(revision) {
            return None;
        }
        let text = std::fs::read_to_string(self.repo_folder(repo).join("refs").join(revision)).ok()?;
        Some(text.trim().to_string()).filter(|commit| is_commit(commit))
    }

    /// The folder of a commit's files, whether it exists or not.
    pub fn snapshot(&self, repo: &str, commit: &str) -> PathBuf {
        self.repo_folder(repo).join("snapshots").join(commit)
    }

    /// Every repository of models in the cache.
    pub fn repos(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.root).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut repos: Vec<String> = names
            .filter_map(|name| Some(name.strip_prefix("models--")?.replacen("--", "/", 1)))
            .filter(|repo| is_repo(repo))
            .collect();
        repos.sort();
        repos
    }

    /// The folder or file of a model in the cache.
    ///
    /// # Errors
    /// If it was not fetched; the message says how to. If a quantization is not there or not unique.
    pub fn find(&self, model: &HubModel) -> Result<PathBuf> {
        let missing = |what: &str| {
            Error::unsupported(format!(
                "{model} is not in the cache {}{what}; fetch it with: ounce pull {model}",
                self.root.display()
            ))
        };
        let commit = self.commit(&model.repo, model.revision()).ok_or_else(|| missing(""))?;
        let snapshot = self.snapshot(&model.repo, &commit);
        if !snapshot.is_dir() {
            return Err(missing(&format!(" (commit {commit} of {} is missing)", model.repo)));
        }
        match &model.part {
            Part::Whole => Ok(snapshot),
            Part::File(file) => {
                let path = snapshot.join(file);
                if path.exists() { Ok(path) } else { Err(missing("")) }
            }
            Part::Quant(quant) => {
                let files = files_below(&snapshot);
                if gguf_tagged(&files, quant).is_empty() {
                    return Err(missing(""));
                }
                Ok(snapshot.join(choose_gguf(&files, quant)?))
            }
        }
    }
}

/// `HF_HOME`, else `huggingface` in the user's cache folder.
pub fn home() -> PathBuf {
    env_path("HF_HOME").unwrap_or_else(|| {
        let caches = env_path("XDG_CACHE_HOME");
        caches.unwrap_or_else(|| user_home().join(".cache")).join("huggingface")
    })
}

fn user_home() -> PathBuf {
    std::env::home_dir().unwrap_or_else(|| PathBuf::from("."))
}

fn env_path(name: &str) -> Option<PathBuf> {
    let value = std::env::var_os(name).filter(|value| !value.is_empty())?;
    let path = PathBuf::from(value);
    Some(match path.strip_prefix("~") {
        Ok(rest) => user_home().join(rest),
        Err(_) => path,
    })
}

/// Files below a folder, as paths with `/` relative to it, sorted.
fn files_below(folder: &Path) -> Vec<String> {
    // Deeper than any model's repository; a bound, because links could go round in circles.
    const DEPTH: usize = 4;
    fn collect(folder: &Path, prefix: &str, depth: usize, files: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = entry.path();
            if path.is_file() {
                files.push(format!("{prefix}{name}"));
            } else if depth > 1 && path.is_dir() {
                collect(&path, &format!("{prefix}{name}/"), depth - 1, files);
            }
        }
    }
    let mut files = Vec::new();
    collect(folder, "", DEPTH, &mut files);
    files.sort();
    files
}

/// The GGUF files whose path carries a quantization's tag as a word of its own. Projectors of image models
/// (`mmproj`) are no language models.
pub fn gguf_tagged(files: &[String], tag: &str) -> Vec<String> {
    let tag = tag.to_ascii_uppercase();
    let is_tagged = |file: &&String| {
        let text = file.to_ascii_uppercase();
        let Some(text) = text.strip_suffix(".GGUF") else { return false };
        !text.contains("MMPROJ")
            && text.match_indices(&tag).any(|(at, _)| {
                let before = text[..at].chars().next_back();
                let after = text[at + tag.len()..].chars().next();
                !before.is_some_and(|c| c.is_ascii_alphanumeric())
                    && !after.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_')
            })
    };
    files.iter().filter(is_tagged).cloned().collect()
}

/// The one GGUF file of a quantization, the first where it is split into shards.
///
/// # Errors
/// If there is none, or several that are no shards of one model.
pub fn choose_gguf(files: &[String], tag: &str) -> Result<String> {
    let tagged = gguf_tagged(files, tag);
    let stems: std::collections::BTreeSet<&str> = tagged.iter().map(|file| shard_stem(file)).collect();
    match (tagged.first(), stems.len()) {
        (Some(first), 1) => Ok(first.clone()),
        (Some(_), _) => Err(Error::unsupported(format!(
            "{tag} fits several GGUF files: {}; name one with hf://org/name/FILE",
            tagged.join(", ")
        ))),
        (None, _) => {
            let there: Vec<&str> =
                files.iter().filter(|file| file.ends_with(".gguf")).map(String::as_str).collect();
            Err(Error::unsupported(format!("no GGUF file is tagged {tag}; there are {}", there.join(", "))))
        }
    }
}

/// A GGUF file's name without the shard's number.
pub fn shard_stem(file: &str) -> &str {
    let stem = file.strip_suffix(".gguf").unwrap_or(file);
    let numbered = stem.rsplit_once("-of-").and_then(|(front, count)| {
        let digits = |text: &str| text.len() == 5 && text.chars().all(|c| c.is_ascii_digit());
        let (front, index) = front.rsplit_once('-')?;
        (digits(count) && digits(index)).then_some(front)
    });
    numbered.unwrap_or(stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn references_are_read_and_written_alike() {
        let good = [
            "org/name",
            "o/n-1.5_b@main",
            "org/name@refs/pr/7",
            "org/name:Q4_K_M",
            "org/name@v1:Q8_0",
            "hf://org/name/sub/model.gguf",
            "hf://org/name@v1/model.gguf",
        ];
        for text in good {
            assert_eq!(HubModel::parse(text).map(|it| it.to_string()).as_deref(), Some(text));
        }
        assert_eq!(HubModel::parse("hf://org/name").map(|it| it.to_string()).as_deref(), Some("org/name"));
    }

    #[test]
    fn other_texts_are_no_references() {
        let bad = [
            "name",
            "/abs/path",
            "./a",
            "../b",
            "a/b/c",
            "a//b",
            "org/na me",
            "org/name@",
            "org/name:",
            "org/..",
            "-a/b",
            "org/a--b",
            "org/name@../../etc",
            "hf://org/name/../x",
            "hf://org",
            "org/name:a/b",
            "what?/ever",
        ];
        for text in bad {
            assert_eq!(HubModel::parse(text), None, "{text}");
        }
    }

    fn cache() -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path());
        let snapshot = cache.snapshot("org/name", COMMIT);
        std::fs::create_dir_all(snapshot.join("Q8_0")).unwrap();
        std::fs::create_dir_all(cache.repo_folder("org/name").join("refs/pr")).unwrap();
        std::fs::write(cache.repo_folder("org/name").join("refs/main"), COMMIT).unwrap();
        for file in ["m-Q4_K_M.gguf", "m-IQ4_XS.gguf", "mmproj-Q4_K_M.gguf"] {
            std::fs::write(snapshot.join(file), "").unwrap();
        }
        for part in [1, 2] {
            std::fs::write(snapshot.join(format!("Q8_0/m-0000{part}-of-00002.gguf")), "").unwrap();
        }
        (folder, cache)
    }

    #[test]
    fn cached_models_are_found() {
        let (_folder, cache) = cache();
        let snapshot = cache.snapshot("org/name", COMMIT);
        let find = |text: &str| cache.find(&HubModel::parse(text).expect("a reference"));
        assert_eq!(find("org/name").unwrap(), snapshot);
        assert_eq!(find(&format!("org/name@{COMMIT}")).unwrap(), snapshot);
        assert_eq!(find("org/name:q4_k_m").unwrap(), snapshot.join("m-Q4_K_M.gguf"));
        assert_eq!(find("org/name:Q8_0").unwrap(), snapshot.join("Q8_0/m-00001-of-00002.gguf"));
        assert_eq!(find("hf://org/name/m-IQ4_XS.gguf").unwrap(), snapshot.join("m-IQ4_XS.gguf"));
        assert_eq!(cache.repos(), ["org/name"]);
    }

    #[test]
    fn missing_models_say_how_to_fetch_them() {
        let (_folder, cache) = cache();
        // Q4_K is a beginning of Q4_K_M and Q4_XS an end of IQ4_XS, but neither is a tag here.
        for text in ["org/other", "org/name@v2", "org/name:Q4_K", "org/name:Q4_XS", "hf://org/name/no.gguf"] {
            let error = cache.find(&HubModel::parse(text).expect("a reference")).unwrap_err().to_string();
            assert!(error.ends_with(&format!("ounce pull {text}")), "{error}");
        }
        std::fs::write(cache.repo_folder("org/name").join("refs/bad"), "../../..").unwrap();
        assert_eq!(cache.commit("org/name", "bad"), None);
    }

    #[test]
    fn tags_that_fit_several_files_are_refused() {
        let files = ["a-Q8_0.gguf", "b-Q8_0.gguf"].map(String::from);
        assert!(choose_gguf(&files, "Q8_0").unwrap_err().to_string().contains("several"));
        assert!(choose_gguf(&files, "Q2_K").unwrap_err().to_string().contains("a-Q8_0.gguf"));
    }
}
