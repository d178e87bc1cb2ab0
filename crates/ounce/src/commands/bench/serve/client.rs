//! Clients that ask by OpenAI's completions and read what is streamed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// Bytes of one event of a stream, at most: a server that never ends a line is no server.
const MOST: usize = 1 << 20;

/// Who is asked.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub name: String,
    url: String,
    model: String,
    key: Option<String>,
    client: Client,
}

/// What came of one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    /// Tokens of the prompt and of the answer, as the server counts them.
    pub prompt: usize,
    pub tokens: usize,
    /// From asking to the first text, and to the end.
    pub first: Duration,
    pub whole: Duration,
}

impl Answer {
    /// Seconds between two of its tokens; none if it has one.
    pub fn between(&self) -> Option<f64> {
        (self.tokens > 1).then(|| (self.whole - self.first).as_secs_f64() / (self.tokens - 1) as f64)
    }
}

impl Server {
    /// A server by its address, `NAME=URL` or `URL`.
    ///
    /// # Errors
    /// If it does not answer, or lists no model.
    pub async fn find(address: &str, model: Option<String>, key: Option<String>) -> anyhow::Result<Server> {
        let (name, url) = match address.split_once('=') {
            Some((name, url)) if !name.contains("://") => (name.to_owned(), url),
            _ => (address.trim_start_matches("http://").to_owned(), address),
        };
        if !url.starts_with("http://") {
            bail!("{url}: servers are asked over http://, such as http://127.0.0.1:8080");
        }
        let url = url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        // A connection for each request: some servers close them behind an answer, and a client that finds out late has failed.
        let client = Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .connect_timeout(Duration::from_secs(10))
            .build()?;
        let mut server = Server { name, url, model: String::new(), key, client };
        server.model = match model {
            Some(model) => model,
            None => server.first_model().await?,
        };
        Ok(server)
    }

    async fn first_model(&self) -> anyhow::Result<String> {
        let url = format!("{}/v1/models", self.url);
        let request = self.keyed(self.client.get(&url).timeout(Duration::from_secs(30)));
        let answer =
            request.send().await.with_context(|| format!("{url} does not answer; is the server up?"))?;
        let status = answer.status();
        let listed: Value =
            answer.json().await.with_context(|| format!("{url}: {status}, and no list of models"))?;
        let first = listed.pointer("/data/0/id").and_then(Value::as_str);
        Ok(first
            .with_context(|| format!("{url}: {status}, and no model is listed; give --key or --model"))?
            .to_owned())
    }

    /// The model that is asked for.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://").split('/').next().unwrap_or_default()
    }

    /// The key that is sent.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    fn keyed(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// Sends bytes and gives the status and the whole answer.
    pub async fn post(&self, path: &str, body: Vec<u8>) -> anyhow::Result<(u16, String)> {
        let request =
            self.client.post(format!("{}{path}", self.url)).header("content-type", "application/json");
        let answer = self.keyed(request.body(body)).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// What Prometheus would read.
    pub async fn metrics(&self) -> anyhow::Result<String> {
        let request = self.client.get(format!("{}/metrics", self.url)).timeout(Duration::from_secs(30));
        Ok(self.keyed(request).send().await?.error_for_status()?.text().await?)
    }

    /// Asks and reads to the end.
    async fn ask(&self, prompt: &str, tokens: usize, temperature: f64) -> Result<Answer, String> {
        let body = json!({
            "model": self.model, "prompt": prompt, "max_tokens": tokens, "temperature": temperature, "ignore_eos": true,
            "stream": true, "stream_options": {"include_usage": true},
        });
        let request = self.keyed(self.client.post(format!("{}/v1/completions", self.url)).json(&body));
        let start = Instant::now();
        let mut answer = request.send().await.map_err(|error| chain(&error))?;
        if !answer.status().is_success() {
            let status = answer.status();
            let text: String = answer.text().await.unwrap_or_default().chars().take(200).collect();
            return Err(format!("{status}: {text}"));
        }
        let mut read = Reading::default();
        while let Some(bytes) = answer.chunk().await.map_err(|error| chain(&error))? {
            read.take(&bytes, start)?;
        }
        read.ended(start)
    }
}

/// An error with what led to it: reqwest's own words are few.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(inner) = next {
        text = format!("{text}: {inner}");
        next = inner.source();
    }
    text
}

/// What was read of a stream.
#[derive(Debug, Default)]
struct Reading {
    line: Vec<u8>,
    first: Option<Duration>,
    pieces: usize,
    usage: Option<(usize, usize)>,
}

impl Reading {
    fn take(&mut self, bytes: &[u8], start: Instant) -> Result<(), String> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if self.line.len() > MOST {
                return Err("a line of the stream never ends".to_owned());
            }
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                self.event(&line, start)?;
            }
        }
        Ok(())
    }

    fn event(&mut self, line: &[u8], start: Instant) -> Result<(), String> {
        let Some(data) = line.strip_prefix(b"data:") else { return Ok(()) };
        let data = data.trim_ascii();
        if data == b"[DONE]" {
            return Ok(());
        }
        let event: Value =
            serde_json::from_slice(data).map_err(|error| format!("an event is no JSON: {error}"))?;
        if let Some(error) = event.get("error").filter(|it| !it.is_null()) {
            return Err(error.to_string());
        }
        let text = event.pointer("/choices/0/text").and_then(Value::as_str);
        if text.is_some_and(|text| !text.is_empty()) {
            self.first.get_or_insert(start.elapsed());
            self.pieces += 1;
        }
        let count = |name: &str| event.pointer(&format!("/usage/{name}")).and_then(Value::as_u64);
        if let (Some(prompt), Some(tokens)) = (count("prompt_tokens"), count("completion_tokens")) {
            self.usage = Some((prompt as usize, tokens as usize));
        }
        Ok(())
    }

    fn ended(self, start: Instant) -> Result<Answer, String> {
        let whole = start.elapsed();
        if self.usage.is_none() && self.pieces == 0 {
            return Err("the answer has no text".to_owned());
        }
        // Tokens that are no whole letters have no text until the end.
        let first = self.first.unwrap_or(whole);
        // A server that does not count sends a piece a token, as far as one can tell.
        let (prompt, tokens) = self.usage.unwrap_or((0, self.pieces));
        Ok(Answer { prompt, tokens, first, whole })
    }
}

/// Prompts for a server.
pub(super) struct Load<'l> {
    pub server: &'l Server,
    pub prompts: &'l [String],
    pub tokens: usize,
    pub temperature: f64,
    pub timeout: Duration,
}

impl Load<'_> {
    /// Has so many clients ask, each one request after another until none is left; gives what came of each, and the time of all.
    /// `progress` is told of requests that ended.
    ///
    /// # Errors
    /// What `progress` returns.
    pub async fn run(
        &self,
        clients: usize,
        progress: &mut dyn FnMut(usize) -> anyhow::Result<()>,
    ) -> anyhow::Result<(Vec<Result<Answer, String>>, Duration)> {
        let next = std::sync::Arc::new(AtomicUsize::new(0));
        let prompts: std::sync::Arc<[String]> = self.prompts.into();
        let (send, mut ended) = tokio::sync::mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        let start = Instant::now();
        for _ in 0..clients {
            let (next, prompts, send) = (next.clone(), prompts.clone(), send.clone());
            let (server, tokens, timeout) = (self.server.clone(), self.tokens, self.timeout);
            let temperature = self.temperature;
            tasks.spawn(async move {
                while let Some(prompt) = prompts.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let answer =
                        match tokio::time::timeout(timeout, server.ask(prompt, tokens, temperature)).await {
                            Ok(answer) => answer,
                            Err(_) => Err(format!("no end after {} s", timeout.as_secs())),
                        };
                    if send.send(answer).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        let mut answers = Vec::with_capacity(self.prompts.len());
        while let Some(answer) = ended.recv().await {
            answers.push(answer);
            progress(1)?;
        }
        Ok((answers, start.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_read_however_it_is_cut() {
        let stream = "data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: {\"choices\":[{\"text\":\" cat\"}]}\r\n\r\n: note\n\
                      data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3}}\n\ndata: [DONE]\n\n";
        for size in [1, 2, 7, 1000] {
            let (mut reading, start) = (Reading::default(), Instant::now());
            stream.as_bytes().chunks(size).try_for_each(|bytes| reading.take(bytes, start)).expect("read");
            assert_eq!((reading.pieces, reading.usage), (2, Some((7, 3))));
            assert!(reading.ended(start).expect("an answer").between().is_some());
        }
        let mut reading = Reading::default();
        let error = reading.take(b"data: {\"error\":{\"message\":\"full\"}}\n", Instant::now());
        assert!(error.expect_err("an error").contains("full"));
        assert!(Reading::default().ended(Instant::now()).is_err());
    }
}
