//! A hub in a few lines: the requests that `ounce pull` makes, answered from memory and written down.

#![allow(dead_code)] // each test file uses a part of this

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::json;
use sha2::{Digest, Sha256};

/// The commit of every repository here.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The token that opens `org/private`.
pub const TOKEN: &str = "hf_good";

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub path: String,
    pub host: String,
    pub authorization: Option<String>,
    pub range: Option<String>,
}

/// A file of every repository here. Large ones are called by their sha256 and come from another host.
#[derive(Debug, Clone)]
pub struct HubFile {
    pub name: String,
    pub content: Vec<u8>,
    pub large: bool,
}

impl HubFile {
    /// What the hub calls the content. Small ones have git's name, which nobody checks; any will do.
    pub fn content_name(&self) -> String {
        let hash: String = Sha256::digest(&self.content).iter().map(|byte| format!("{byte:02x}")).collect();
        if self.large { hash } else { hash[..40].to_string() }
    }
}

/// How the server misbehaves.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Times that a large file's transfer ends in the middle.
    pub drops: usize,
    /// Ranges are ignored.
    pub no_ranges: bool,
    /// Large files come with other bytes than announced.
    pub corrupt: bool,
    /// Answers of 503 before any other.
    pub busy: usize,
}

struct State {
    files: Vec<HubFile>,
    faults: Faults,
    requests: Vec<Request>,
}

/// The server; it ends with the test process.
#[derive(Clone)]
pub struct FakeHub {
    state: Arc<Mutex<State>>,
    port: u16,
}

impl FakeHub {
    pub fn start(files: Vec<HubFile>, faults: Faults) -> FakeHub {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("address").port();
        let hub =
            FakeHub { state: Arc::new(Mutex::new(State { files, faults, requests: Vec::new() })), port };
        let server = hub.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that hangs up is part of the tests.
                let _ = server.serve(stream);
            }
        });
        hub
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What was asked since the last call.
    pub fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().expect("lock").requests)
    }

    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let first = lines.next().transpose()?.unwrap_or_default();
        let mut request = Request {
            path: first.split(' ').nth(1).unwrap_or_default().to_string(),
            host: String::new(),
            authorization: None,
            range: None,
        };
        for line in lines {
            let line = line?;
            let Some((name, value)) = line.split_once(": ") else { break };
            match name.to_ascii_lowercase().as_str() {
                "host" => request.host = value.to_string(),
                "authorization" => request.authorization = Some(value.to_string()),
                "range" => request.range = Some(value.to_string()),
                _ => {}
            }
        }
        let mut state = self.state.lock().expect("lock");
        state.requests.push(request.clone());
        if state.faults.busy > 0 {
            state.faults.busy -= 1;
            return answer(&mut stream, "503 Service Unavailable", &[], b"");
        }
        self.route(&mut state, &request, &mut stream)
    }

    fn route(&self, state: &mut State, request: &Request, stream: &mut TcpStream) -> std::io::Result<()> {
        let path = request.path.as_str();
        if let Some(name) = path.strip_prefix("/cdn/") {
            return send_large(state, name, request.range.as_deref(), stream);
        }
        let repo = if path.contains("/org/private") { "org/private" } else { "org/name" };
        let allowed = match (&request.authorization, repo) {
            (None, "org/name") => true,
            (given, _) => *given == Some(format!("Bearer {TOKEN}")),
        };
        if !allowed {
            return answer(stream, "401 Unauthorized", &[("X-Error-Code", "RepoNotFound")], b"{}");
        }
        let api = format!("/api/models/{repo}");
        match path.strip_prefix(api.as_str()) {
            Some("/revision/main" | "/revision/refs%2Fpr%2F7") => {
                answer(stream, "200 OK", &[], json!({"id": repo, "sha": COMMIT}).to_string().as_bytes())
            }
            Some(rest) if rest.starts_with("/revision/") => {
                answer(stream, "404 Not Found", &[("X-Error-Code", "RevisionNotFound")], b"{}")
            }
            // Two pages, to see that the second is asked for.
            Some(rest) if *rest == format!("/tree/{COMMIT}?recursive=true") => {
                let next =
                    format!("<{}{api}/tree/{COMMIT}?recursive=true&cursor=2>; rel=\"next\"", self.endpoint());
                answer(stream, "200 OK", &[("Link", &next)], entries(&state.files[..2]).as_bytes())
            }
            Some(rest) if *rest == format!("/tree/{COMMIT}?recursive=true&cursor=2") => {
                answer(stream, "200 OK", &[], entries(&state.files[2..]).as_bytes())
            }
            _ => match path.strip_prefix(&format!("/{repo}/resolve/{COMMIT}/")) {
                Some(name) => self.resolve(state, name, stream),
                None => answer(stream, "404 Not Found", &[], b"{}"),
            },
        }
    }

    fn resolve(&self, state: &State, name: &str, stream: &mut TcpStream) -> std::io::Result<()> {
        let Some(file) = state.files.iter().find(|file| file.name == name) else {
            return answer(stream, "404 Not Found", &[("X-Error-Code", "EntryNotFound")], b"");
        };
        let etag = format!("\"{}\"", file.content_name());
        if file.large {
            let location = format!("http://localhost:{}/cdn/{name}", self.port);
            let headers =
                [("Location", location.as_str()), ("X-Linked-Etag", &etag), ("X-Repo-Commit", COMMIT)];
            return answer(stream, "302 Found", &headers, b"");
        }
        answer(stream, "200 OK", &[("ETag", &etag), ("X-Repo-Commit", COMMIT)], &file.content)
    }
}

fn entries(files: &[HubFile]) -> String {
    let entry = |file: &HubFile| {
        let (size, name) = (file.content.len(), file.content_name());
        if file.large {
            json!({"type": "file", "path": file.name, "size": size, "oid": "0".repeat(40), "lfs": {"oid": name, "size": size}})
        } else {
            json!({"type": "file", "path": file.name, "size": size, "oid": name})
        }
    };
    json!(files.iter().map(entry).collect::<Vec<_>>()).to_string()
}

fn send_large(
    state: &mut State,
    name: &str,
    range: Option<&str>,
    stream: &mut TcpStream,
) -> std::io::Result<()> {
    let mut content = state.files.iter().find(|file| file.name == name).expect("a file").content.clone();
    if state.faults.corrupt {
        content[0] ^= 1;
    }
    let from: usize =
        range.and_then(|it| it.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()).unwrap_or(0);
    let from = if state.faults.no_ranges { 0 } else { from };
    let (status, total) = (if from > 0 { "206 Partial Content" } else { "200 OK" }, content.len());
    let length = (total - from).to_string();
    let place = format!("bytes {from}-{}/{total}", total - 1);
    let mut end = total;
    if state.faults.drops > 0 {
        state.faults.drops -= 1;
        end = from + (total - from) / 2;
    }
    head(stream, status, &[("Content-Length", &length), ("Content-Range", &place)])?;
    stream.write_all(&content[from..end])
}

fn answer(
    stream: &mut TcpStream,
    status: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<()> {
    let length = body.len().to_string();
    head(stream, status, &[&[("Content-Length", length.as_str())], headers].concat())?;
    stream.write_all(body)
}

fn head(stream: &mut TcpStream, status: &str, headers: &[(&str, &str)]) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\n")?;
    headers.iter().try_for_each(|(name, value)| write!(stream, "{name}: {value}\r\n"))?;
    write!(stream, "\r\n")
}
