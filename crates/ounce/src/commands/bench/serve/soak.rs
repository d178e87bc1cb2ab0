//! Many requests of all kinds, a fifth of them given up, some by clients that are slow, broken or gone: does the server stay as it was?

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::client::Server;
use super::prompts::Prompts;
use crate::failure::Outcome;
use crate::interrupt::Watch;
use crate::output;
use crate::progress::{Progress, Unit};

/// Growth of resident memory behind the warm-up that is still called flat.
const FLAT: f64 = 1.02;

/// Samples of memory over the whole run.
const SAMPLES: usize = 100;

/// How long what was given up may still be seen in the server.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Asks and reads the whole answer, by one interface or another.
    Whole,
    /// Asks for a stream and leaves before its end.
    Aborted,
    /// Reads a few bytes at a time.
    Slow,
    /// Sends what is no request.
    Malformed,
    /// Is gone in the middle of its own request.
    Killed,
}

/// One in twenty each: eight whole, four aborted, two slow, four malformed, two killed.
const MIX: [Kind; 20] = {
    use Kind::{Aborted, Killed, Malformed, Slow, Whole};
    [
        Whole, Aborted, Malformed, Whole, Slow, Whole, Aborted, Whole, Killed, Malformed, Whole, Aborted,
        Whole, Malformed, Slow, Whole, Aborted, Whole, Malformed, Killed,
    ]
};

/// What is asked of the server, and its memory, at one time.
#[derive(Debug, Clone, Copy, Serialize)]
struct Sample {
    requests: usize,
    resident_bytes: f64,
    used_bytes: f64,
}

/// What came of it.
#[derive(Debug, Default, Serialize)]
struct Report {
    requests: usize,
    answered: usize,
    /// Well-formed requests that were refused with a reason (429 or 503).
    turned_away: usize,
    aborted: usize,
    killed: usize,
    malformed_refused: usize,
    /// What should not have come.
    wrong: Vec<String>,
    /// Means of the tenth of all requests behind the warm-up of a fifth, and of the last tenth.
    resident_before: f64,
    resident_after: f64,
    most_used_bytes: f64,
    budget_bytes: f64,
    left_running: f64,
    left_waiting: f64,
    samples: Vec<Sample>,
}

/// How one request ended.
enum Ended {
    Answered,
    TurnedAway,
    Aborted,
    Killed,
    Refused,
    Wrong(String),
}

/// Runs the soak and prints what came of it.
///
/// # Errors
/// If the server does not answer, or tells nothing of its memory.
pub(super) async fn run(
    server: Server,
    count: usize,
    clients: usize,
    mut prompts: Prompts,
    as_json: bool,
) -> anyhow::Result<Outcome> {
    let watch = Watch::start();
    let mut bar = Progress::new("soaking", Unit::Items);
    // As many different prompts as a busy afternoon has.
    let prompts: Arc<[String]> = prompts.next(512.min(count))?.into();
    let next = Arc::new(AtomicUsize::new(0));
    let (send, mut ended) = tokio::sync::mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let (next, prompts, send, server) = (next.clone(), prompts.clone(), send.clone(), server.clone());
        tasks.spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    return;
                }
                let one = Client { server: &server, prompt: &prompts[n % prompts.len()], n };
                let ended = match tokio::time::timeout(Duration::from_secs(300), one.act()).await {
                    Ok(ended) => ended,
                    Err(_) => Ended::Wrong(format!("request {n} had no end in 300 s")),
                };
                if send.send(ended).is_err() {
                    return;
                }
            }
        });
    }
    drop(send);
    let mut report = Report { requests: count, ..Report::default() };
    let mut done = 0;
    while let Some(ended) = ended.recv().await {
        done += 1;
        report.take(ended);
        bar.set(done as u64, count as u64);
        watch.check()?;
        if done % count.div_ceil(SAMPLES) == 0 {
            report.look(&server, done).await?;
        }
    }
    drop(bar);
    report.settle(&server).await?;
    report.tell(as_json)
}

impl Report {
    fn take(&mut self, ended: Ended) {
        match ended {
            Ended::Answered => self.answered += 1,
            Ended::TurnedAway => self.turned_away += 1,
            Ended::Aborted => self.aborted += 1,
            Ended::Killed => self.killed += 1,
            Ended::Refused => self.malformed_refused += 1,
            Ended::Wrong(what) => self.wrong.push(what),
        }
    }

    async fn look(&mut self, server: &Server, requests: usize) -> anyhow::Result<()> {
        let text = server.metrics().await?;
        let metric = |name: &str| {
            metric(&text, name).with_context(|| {
                format!("the server's /metrics does not tell {name}; --soak is for ounce serve")
            })
        };
        let resident_bytes = metric("process_resident_memory_bytes")?;
        let used_bytes = metric("ounce:memory_used_bytes")?;
        self.budget_bytes = metric("ounce:memory_budget_bytes")?;
        self.most_used_bytes = self.most_used_bytes.max(used_bytes);
        self.samples.push(Sample { requests, resident_bytes, used_bytes });
        Ok(())
    }

    /// Waits until nothing is left of the requests, and compares memory.
    async fn settle(&mut self, server: &Server) -> anyhow::Result<()> {
        let start = std::time::Instant::now();
        loop {
            let text = server.metrics().await?;
            self.left_running = metric(&text, "vllm:num_requests_running").unwrap_or(0.0);
            self.left_waiting = metric(&text, "vllm:num_requests_waiting").unwrap_or(0.0);
            if self.left_running + self.left_waiting == 0.0 || start.elapsed() > PATIENCE {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let all = self.samples.len();
        if all < 10 {
            bail!(
                "{} requests are too few to tell whether memory grows; give --soak 100 or more",
                self.requests
            );
        }
        let mean = |samples: &[Sample]| {
            samples.iter().map(|it| it.resident_bytes).sum::<f64>() / samples.len() as f64
        };
        self.resident_before = mean(&self.samples[all / 5..all * 3 / 10]);
        self.resident_after = mean(&self.samples[all * 9 / 10..]);
        Ok(())
    }

    fn tell(&self, as_json: bool) -> anyhow::Result<Outcome> {
        let growth = self.resident_after / self.resident_before;
        let stuck = self.left_running + self.left_waiting;
        let flat = growth <= FLAT;
        let within = self.most_used_bytes <= self.budget_bytes;
        let fine = flat && within && stuck == 0.0 && self.wrong.is_empty();
        if as_json {
            output::json(self)?;
        } else {
            let mib = |bytes: f64| format!("{:.1} MiB", bytes / f64::from(1 << 20));
            let yes = |fine: bool| if fine { "ok" } else { "NO" };
            output::line(format!(
                "{} requests: {} answered, {} turned away, {} given up, {} cut off in their own request, {} malformed and refused",
                self.requests,
                self.answered,
                self.turned_away,
                self.aborted,
                self.killed,
                self.malformed_refused
            ))?;
            output::line(format!(
                "{}  resident memory {} behind a fifth, {} at the end: {:+.1} %",
                yes(flat),
                mib(self.resident_before),
                mib(self.resident_after),
                100.0 * (growth - 1.0)
            ))?;
            output::line(format!(
                "{}  weights, keys and values took {} at most, of {}",
                yes(within),
                mib(self.most_used_bytes),
                mib(self.budget_bytes)
            ))?;
            output::line(format!("{}  requests left in the server: {stuck}", yes(stuck == 0.0)))?;
            output::line(format!(
                "{}  answers that should not have come: {}",
                yes(self.wrong.is_empty()),
                self.wrong.len()
            ))?;
            for what in self.wrong.iter().take(5) {
                output::note(what);
            }
        }
        Ok(if fine { Outcome::Done } else { Outcome::No })
    }
}

/// The sum of a metric over all models.
fn metric(text: &str, name: &str) -> Option<f64> {
    let lines = text.lines().filter_map(|line| line.strip_prefix(name));
    let values = lines
        .filter(|rest| rest.starts_with([' ', '{']))
        .filter_map(|rest| rest.rsplit(' ').next()?.parse().ok());
    values.fold(None, |sum: Option<f64>, value: f64| Some(sum.unwrap_or(0.0) + value))
}

/// One client with one request.
struct Client<'c> {
    server: &'c Server,
    prompt: &'c str,
    n: usize,
}

impl Client<'_> {
    async fn act(&self) -> Ended {
        let outcome = match MIX[self.n % MIX.len()] {
            Kind::Whole => self.whole().await,
            Kind::Aborted => self.aborted().await,
            Kind::Slow => self.slow().await,
            Kind::Malformed => self.malformed().await,
            Kind::Killed => self.killed().await,
        };
        outcome.unwrap_or_else(|error| Ended::Wrong(format!("request {}: {error:#}", self.n)))
    }

    fn body(&self) -> Value {
        let n = self.n;
        json!({
            "model": self.server.model(), "prompt": self.prompt, "max_tokens": 1 + n % 24, "temperature": (n % 3) as f64 / 2.0, "seed": n,
            "n": 1 + usize::from(n.is_multiple_of(7)), "stream": n.is_multiple_of(3),
        })
    }

    async fn whole(&self) -> anyhow::Result<Ended> {
        let mut body = self.body();
        let messages = json!([{"role": "user", "content": self.prompt}]);
        let path = match self.n / MIX.len() % 4 {
            0 => "/v1/completions",
            1 => {
                body["messages"] = messages;
                body["response_format"] = json!({"type": "json_object"});
                "/v1/chat/completions"
            }
            2 => {
                body["messages"] = messages;
                "/v1/messages"
            }
            _ => "/api/generate",
        };
        if path != "/v1/chat/completions" && path != "/v1/completions" {
            body["n"] = json!(1);
        }
        let (status, _) = self.server.post(path, body.to_string().into_bytes()).await?;
        Ok(match status {
            200 => Ended::Answered,
            429 | 503 => Ended::TurnedAway,
            status => Ended::Wrong(format!("request {}, {path}: {status}", self.n)),
        })
    }

    async fn aborted(&self) -> anyhow::Result<Ended> {
        let mut body = self.body();
        (body["max_tokens"], body["stream"]) = (json!(200), json!(true));
        let sent = self.server.post("/v1/completions", body.to_string().into_bytes());
        // Before the first token, in the middle, or close to the end.
        let _ = tokio::time::timeout(Duration::from_millis((self.n * 37 % 200) as u64), sent).await;
        Ok(Ended::Aborted)
    }

    async fn open(&self, path: &str, body: &[u8]) -> anyhow::Result<TcpStream> {
        let mut stream = TcpStream::connect(self.server.address()).await?;
        let key = self.server.key().map(|key| format!("authorization: Bearer {key}\r\n")).unwrap_or_default();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: soak\r\nconnection: close\r\n{key}content-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        Ok(stream)
    }

    async fn slow(&self) -> anyhow::Result<Ended> {
        let mut body = self.body();
        (body["max_tokens"], body["stream"]) = (json!(60), json!(true));
        let body = body.to_string().into_bytes();
        let mut stream = self.open("/v1/completions", &body).await?;
        // The request comes in pieces, too.
        for piece in body.chunks(body.len().div_ceil(4)) {
            stream.write_all(piece).await?;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let (mut answer, mut bytes) = (Vec::new(), [0; 64]);
        for _ in 0..20 {
            let count = stream.read(&mut bytes).await?;
            answer.extend_from_slice(&bytes[..count]);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stream.read_to_end(&mut answer).await?;
        let text = String::from_utf8_lossy(&answer);
        Ok(match text.get(9..12) {
            Some("200") if text.contains("[DONE]") => Ended::Answered,
            Some("429" | "503") => Ended::TurnedAway,
            _ => Ended::Wrong(format!(
                "request {}, read slowly: {:?}",
                self.n,
                text.chars().take(120).collect::<String>()
            )),
        })
    }

    async fn malformed(&self) -> anyhow::Result<Ended> {
        let body = match self.n / MIX.len() % 6 {
            0 => b"{\"prompt\": \"never closed".to_vec(),
            1 => b"{\"prompt\": \"\xff\xfe\"}".to_vec(),
            2 => "[".repeat(100_000).into_bytes(),
            3 => json!({"prompt": self.prompt, "max_tokens": "many"}).to_string().into_bytes(),
            4 => json!({"prompt": self.prompt, "temperature": -3}).to_string().into_bytes(),
            _ => json!({"prompt": {"text": 1}, "n": 0}).to_string().into_bytes(),
        };
        let (status, answer) = self.server.post("/v1/completions", body).await?;
        let told = serde_json::from_str(&answer).is_ok_and(|it: Value| it["error"]["message"].is_string());
        Ok(match status {
            400 | 422 if told => Ended::Refused,
            status => Ended::Wrong(format!("request {}, malformed: {status} {answer:.80}", self.n)),
        })
    }

    async fn killed(&self) -> anyhow::Result<Ended> {
        let body = self.body().to_string().into_bytes();
        let mut stream = self.open("/v1/completions", &body).await?;
        stream.write_all(&body[..body.len() / 2]).await?;
        if self.n.is_multiple_of(2) {
            // Whole, and gone at once: the answer meets a closed door.
            stream.write_all(&body[body.len() / 2..]).await?;
        }
        Ok(Ended::Killed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_of_all_models_are_summed_and_others_not() {
        let text = "# HELP a b\na{model=\"x\"} 2\na{model=\"y\"} 3\nab 9\nc 1.5e3\n";
        assert_eq!(
            (metric(text, "a"), metric(text, "c"), metric(text, "d")),
            (Some(5.0), Some(1500.0), None)
        );
    }

    #[test]
    fn a_fifth_is_given_up() {
        assert_eq!(MIX.iter().filter(|kind| **kind == Kind::Aborted).count() * 5, MIX.len());
    }
}
