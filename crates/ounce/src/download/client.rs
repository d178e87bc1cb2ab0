//! The hub's HTTP interface: which commit, which files, and the bytes of a file from an offset on.

use std::time::Duration;

use anyhow::{Context, bail};
use ounce_model::hub;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use ureq::http::header::{AUTHORIZATION, LINK, LOCATION, RANGE};
use ureq::http::{Response, StatusCode, Uri};
use ureq::{Agent, Body};

use super::RemoteFile;

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// What stays as it is in a URL's path segment.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Answers of the interface, lists of files, are not larger; weights are streamed and have no limit.
const MAX_JSON_BYTES: u64 = 64 << 20;

/// Pages of a list of files at most.
const MAX_PAGES: usize = 1000;

/// Attempts without any progress before a request is given up.
pub const ATTEMPTS: u32 = 4;

/// The pause before the second attempt; it doubles with each.
const PAUSE: Duration = Duration::from_millis(400);

/// Redirects of one request at most.
const MAX_REDIRECTS: usize = 8;

/// A hub and who asks it.
#[derive(Debug)]
pub struct Hub {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

impl Hub {
    /// The hub that the environment names: `HF_ENDPOINT`; token from `HF_TOKEN`, else the file `HF_TOKEN_PATH`,
    /// else the file `token` in `HF_HOME`.
    pub fn from_env() -> Hub {
        let set =
            |name: &str| std::env::var(name).ok().map(|it| it.trim().to_string()).filter(|it| !it.is_empty());
        let token_file = set("HF_TOKEN_PATH").map_or_else(|| hub::home().join("token"), Into::into);
        let stored = || std::fs::read_to_string(token_file).ok().map(|it| it.trim().to_string());
        let token = set("HF_TOKEN").or_else(stored).filter(|token| !token.is_empty());
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.to_string());
        let config = Agent::config_builder()
            .user_agent(concat!("ounce/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            // Redirects are followed by hand, so that the token goes to the hub only.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_per_read(Some(Duration::from_secs(60)));
        Hub { agent: config.build().into(), endpoint: endpoint.trim_end_matches('/').to_string(), token }
    }

    /// The commit that a revision stands for.
    ///
    /// # Errors
    /// If the hub can't be reached, refuses, or has no such model or revision.
    pub fn commit(&self, repo: &str, revision: &str) -> anyhow::Result<String> {
        let url = format!("{}/api/models/{repo}/revision/{}", self.endpoint, segment(revision));
        let (info, _) = self.ask(&url, repo, revision)?;
        let commit = info.get("sha").and_then(Value::as_str).filter(|sha| hub::is_commit(sha));
        commit.map(String::from).with_context(|| format!("{url}: the answer names no commit"))
    }

    /// All files of a commit.
    ///
    /// # Errors
    /// If the hub can't be reached, refuses, or answers something else than a list of files.
    pub fn files(&self, repo: &str, commit: &str) -> anyhow::Result<Vec<RemoteFile>> {
        let mut url = format!("{}/api/models/{repo}/tree/{commit}?recursive=true", self.endpoint);
        let mut files = Vec::new();
        for _ in 0..MAX_PAGES {
            let (page, next) = self.ask(&url, repo, commit)?;
            let page = page.as_array().with_context(|| format!("{url}: the answer is no list of files"))?;
            files.extend(page.iter().filter_map(remote_file));
            match next {
                Some(next) if self.is_own(&next) => url = next,
                Some(next) => bail!("{url}: the next page is elsewhere, at {next}"),
                None => return Ok(files),
            }
        }
        bail!("{url}: the list of files does not end")
    }

    /// The answer to a request for a file from byte `from` on.
    ///
    /// # Errors
    /// If the hub can't be reached or refuses.
    pub fn open(&self, repo: &str, commit: &str, file: &str, from: u64) -> anyhow::Result<Response<Body>> {
        let path: Vec<String> = file.split('/').map(segment).collect();
        let url = format!("{}/{repo}/resolve/{commit}/{}", self.endpoint, path.join("/"));
        self.get(&url, (from > 0).then_some(from), repo, commit)
    }

    /// Follows redirects; the token stays with the hub.
    fn get(
        &self,
        url: &str,
        from: Option<u64>,
        repo: &str,
        revision: &str,
    ) -> anyhow::Result<Response<Body>> {
        let mut url = url.to_string();
        for _ in 0..MAX_REDIRECTS {
            let mut request = self.agent.get(&url);
            if let Some(token) = self.token.as_ref().filter(|_| self.is_own(&url)) {
                request = request.header(AUTHORIZATION, format!("Bearer {token}"));
            }
            if let Some(from) = from {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            tracing::debug!(url, from, "GET");
            let response = request.call().with_context(|| format!("{} can't be reached", host(&url)))?;
            let status = response.status();
            if status.is_redirection() {
                let location = header(&response, LOCATION.as_str());
                let location = location.with_context(|| format!("{url}: a redirect without a target"))?;
                url = absolute(&url, location)?;
            } else if status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE {
                return Ok(response);
            } else {
                return Err(self.refusal(&response, repo, revision));
            }
        }
        bail!("{url}: too many redirects")
    }

    /// An answer of the interface and the address of its next page; trouble that may pass is waited for.
    fn ask(&self, url: &str, repo: &str, revision: &str) -> anyhow::Result<(Value, Option<String>)> {
        let once = || {
            let mut response = self.get(url, None, repo, revision)?;
            let next = header(&response, LINK.as_str()).and_then(next_page);
            let text = response.body_mut().with_config().limit(MAX_JSON_BYTES).read_to_vec()?;
            let value =
                serde_json::from_slice(&text).with_context(|| format!("{url}: the answer is no JSON"))?;
            Ok((value, next))
        };
        let mut attempt = 1;
        loop {
            match once() {
                Err(error) if attempt < ATTEMPTS && may_pass(&error) => wait(attempt, &error),
                answer => return answer,
            }
            attempt += 1;
        }
    }

    fn is_own(&self, url: &str) -> bool {
        url.strip_prefix(&self.endpoint).is_some_and(|rest| rest.starts_with('/'))
    }

    /// What a refusal means and what to do about it.
    fn refusal(&self, response: &Response<Body>, repo: &str, revision: &str) -> anyhow::Error {
        let status = response.status();
        let endpoint = &self.endpoint;
        let reason = header(response, "x-error-code").unwrap_or_default();
        let what = match (status, reason, &self.token) {
            (_, "RevisionNotFound", _) => format!("{repo} has no revision {revision}; see {endpoint}/{repo}"),
            (_, "GatedRepo", _) | (StatusCode::FORBIDDEN, _, _) => {
                format!(
                    "{repo} is gated; accept its conditions at {endpoint}/{repo} and set HF_TOKEN to your token"
                )
            }
            (StatusCode::UNAUTHORIZED, _, Some(_)) => {
                format!("{endpoint} refuses your token; make a new one and set HF_TOKEN to it")
            }
            (StatusCode::UNAUTHORIZED, _, None) => {
                format!(
                    "{repo} does not exist on {endpoint} or is not public; check its name or set HF_TOKEN"
                )
            }
            (StatusCode::NOT_FOUND, _, _) => {
                format!("{endpoint} has no model {repo} with revision {revision}; check the name")
            }
            _ => return Refused(status.as_u16(), format!("{endpoint} answers {status} for {repo}")).into(),
        };
        anyhow::anyhow!(what)
    }
}

/// The hub refused for a reason that may pass.
#[derive(Debug, thiserror::Error)]
#[error("{1}; try again later")]
struct Refused(u16, String);

/// A transfer that ended before its end.
#[derive(Debug, thiserror::Error)]
#[error("{0}; run the command again to go on")]
pub struct Broken(pub String);

/// Whether a failure may be gone at the next attempt.
pub fn may_pass(error: &anyhow::Error) -> bool {
    let refused = |it: &Refused| matches!(it.0, 408 | 429 | 500..=599);
    let unreached = |it: &ureq::Error| !matches!(it, ureq::Error::BadUri(_) | ureq::Error::Tls(_));
    error.chain().any(|cause| {
        cause.is::<Broken>()
            || cause.downcast_ref().is_some_and(refused)
            || cause.downcast_ref().is_some_and(unreached)
    })
}

/// Waits before the attempt that follows attempt number `attempt`.
pub fn wait(attempt: u32, error: &anyhow::Error) {
    tracing::warn!("{error:#}; trying again");
    std::thread::sleep(PAUSE * 2u32.pow(attempt - 1));
}

fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// A header's value as text.
pub fn header<'r>(response: &'r Response<Body>, name: &str) -> Option<&'r str> {
    response.headers().get(name)?.to_str().ok()
}

fn host(url: &str) -> String {
    url.parse::<Uri>().ok().and_then(|uri| uri.host().map(String::from)).unwrap_or_else(|| url.to_string())
}

/// The target of a redirect, which may lack scheme and host.
fn absolute(url: &str, location: &str) -> anyhow::Result<String> {
    if location.starts_with("https://") || location.starts_with("http://") {
        return Ok(location.to_string());
    }
    let base: Uri = url.parse()?;
    match (base.scheme_str(), base.authority()) {
        (Some(scheme), Some(authority)) if location.starts_with('/') => {
            Ok(format!("{scheme}://{authority}{location}"))
        }
        _ => bail!("{url}: redirects to {location:?}, which is no address"),
    }
}

/// The `next` address of a `Link` header.
fn next_page(link: &str) -> Option<String> {
    let next = link.split(',').find(|part| part.contains("rel=\"next\""))?;
    Some(next.split_once('<')?.1.split_once('>')?.0.to_string())
}

/// An entry of a list of files; folders, and names that would leave the snapshot's folder, are no files.
fn remote_file(entry: &Value) -> Option<RemoteFile> {
    let text = |value: &Value, key: &str| value.get(key)?.as_str().map(String::from);
    if text(entry, "type")? != "file" {
        return None;
    }
    let name = text(entry, "path").filter(|name| hub::is_safe_path(name))?;
    let hex = |content: &String| content.len() >= 40 && content.chars().all(|c| c.is_ascii_hexdigit());
    match entry.get("lfs").filter(|lfs| !lfs.is_null()) {
        Some(lfs) => {
            let content = text(lfs, "oid")?.trim_start_matches("sha256:").to_string();
            let size = lfs.get("size").or_else(|| entry.get("size"))?.as_u64()?;
            Some(RemoteFile { name, size, is_sha256: content.len() == 64, content })
                .filter(|it| hex(&it.content))
        }
        None => {
            let (content, size) = (text(entry, "oid")?, entry.get("size")?.as_u64()?);
            Some(RemoteFile { name, size, is_sha256: false, content }).filter(|it| hex(&it.content))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn redirects_and_pages_are_resolved() {
        assert_eq!(absolute("http://h:1/a/b", "/c?d").unwrap(), "http://h:1/c?d");
        assert_eq!(absolute("http://h:1/a", "https://cdn/x").unwrap(), "https://cdn/x");
        assert!(absolute("http://h/a", "ftp://x").is_err());
        assert_eq!(next_page("<https://h/x?c=2>; rel=\"next\"").as_deref(), Some("https://h/x?c=2"));
        assert_eq!(segment("refs/pr/7 ü"), "refs%2Fpr%2F7%20%C3%BC");
    }

    #[test]
    fn only_honest_entries_become_files() {
        let (small, large) = ("a".repeat(40), "b".repeat(64));
        let file =
            remote_file(&json!({"type": "file", "path": "a/b.json", "size": 3, "oid": small})).unwrap();
        assert_eq!((file.name.as_str(), file.size, file.is_sha256), ("a/b.json", 3, false));
        let lfs =
            json!({"type": "file", "path": "m", "size": 9, "oid": small, "lfs": {"oid": large, "size": 9}});
        assert!(remote_file(&lfs).unwrap().is_sha256);
        for bad in [
            json!({"type": "directory", "path": "a", "size": 0, "oid": small}),
            json!({"type": "file", "path": "../a", "size": 3, "oid": small}),
            json!({"type": "file", "path": "a", "size": 3, "oid": "../../x"}),
            json!({"type": "file", "path": "a", "size": -3, "oid": small}),
        ] {
            assert_eq!(remote_file(&bad), None, "{bad}");
        }
    }
}
