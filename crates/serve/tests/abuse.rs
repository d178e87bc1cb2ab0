//! What a hostile or careless client sends: it is refused in the interface's words, and the server goes on.

#![allow(clippy::unwrap_used)] // helpers of tests, which end where something is missing

mod common;

use std::time::{Duration, Instant};

use common::Host;
use ounce_serve::{Key, Settings};
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn raw(host: &Host, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(host.address).await.unwrap();
    // A server that has seen enough may close before all is sent.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

async fn assert_alive(host: &Host) {
    let answer = host.ok("/v1/completions", &json!({"prompt": "a", "max_tokens": 2})).await;
    assert!(answer["choices"][0]["text"].is_string());
}

#[tokio::test]
async fn bodies_that_are_no_request_are_refused() {
    let host = Host::start(Settings { most_body: 2 << 20, ..Settings::default() }).await;
    let post = async |body: Vec<u8>| {
        let sent = host.client.post(host.url("/v1/chat/completions")).body(body).send().await.unwrap();
        (sent.status().as_u16(), sent.json::<Value>().await.expect("an error body"))
    };
    let bombs = [
        ("depth", "[".repeat(1 << 20).into_bytes()),
        ("objects", "{\"a\":".repeat(200_000).into_bytes()),
        ("no UTF-8", b"{\"prompt\": \"\xff\xfe\"}".to_vec()),
        ("half a surrogate", b"{\"messages\": [{\"role\": \"user\", \"content\": \"\\ud800\"}]}".to_vec()),
        ("empty", Vec::new()),
        ("no object", b"[]".to_vec()),
        ("number", b"1e999".to_vec()),
    ];
    for (name, body) in bombs {
        let (status, answer) = post(body).await;
        assert_eq!(status, 400, "{name}: {answer}");
        assert!(answer["error"]["message"].is_string(), "{name}");
    }
    let (status, answer) = post(vec![b' '; 3 << 20]).await;
    assert_eq!(status, 413, "{answer}");
    assert_alive(&host).await;
    host.end().await;
}

#[tokio::test]
async fn fuzzed_bodies_never_break_the_server() {
    let host = Host::start(Settings::default()).await;
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(7);
    let fields = [
        "messages",
        "prompt",
        "max_tokens",
        "temperature",
        "top_p",
        "n",
        "stop",
        "seed",
        "stream",
        "logprobs",
        "echo",
        "logit_bias",
        "response_format",
        "tools",
        "tool_choice",
        "input",
        "options",
        "format",
        "system",
        "top_k",
        "min_p",
        "stream_options",
        "tokens",
        "priority",
        "stop_sequences",
        "top_logprobs",
    ];
    let paths = [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/messages",
        "/api/chat",
        "/api/generate",
        "/tokenize",
        "/detokenize",
        "/v1/embeddings",
        "/api/embed",
        "/api/show",
    ];
    for round in 0..132 {
        let mut body = serde_json::Map::new();
        for _ in 0..random.random_range(1..6) {
            let value = match random.random_range(0..9) {
                0 => json!(null),
                1 => json!(random.random_range(-3..9)),
                2 => json!("text"),
                3 => json!([{"role": "user", "content": "hi"}]),
                4 => json!({"type": "json_object"}),
                5 => json!(random.random_range(-1.0..2.5)),
                6 => json!([1, 2, 3]),
                7 => json!({"1": 5}),
                _ => json!(random.random_range(0..2) == 1),
            };
            body.insert(fields[random.random_range(0..fields.len())].to_string(), value);
        }
        body.entry("max_tokens").or_insert(json!(2));
        let path = paths[round % paths.len()];
        let sent = host.client.post(host.url(path)).json(&body).send().await.unwrap();
        let status = sent.status().as_u16();
        let text = sent.text().await.unwrap();
        assert!(matches!(status, 200 | 400 | 422), "{path} {}: {status} {text}", json!(body));
    }
    assert_alive(&host).await;
    host.end().await;
}

#[tokio::test]
async fn floods_of_headers_and_slow_clients_are_cut_off() {
    let settings = Settings { read_time: Duration::from_millis(700), ..Settings::default() };
    let host = Host::start(settings).await;
    let flood: String = (0..2000).map(|n| format!("x-{n}: {n}\r\n")).collect();
    let answer = raw(&host, format!("GET /health HTTP/1.1\r\nhost: a\r\n{flood}\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431") || answer.is_empty(), "{answer}");
    let long = format!("GET /health HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    let answer = raw(&host, long.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431") || answer.is_empty(), "{answer}");
    // Heads and bodies that never end.
    let start = Instant::now();
    let head = raw(&host, b"GET /health HTTP/1.1\r\nhost: a\r\n").await;
    assert!(!head.starts_with("HTTP/1.1 200") && start.elapsed() < Duration::from_secs(5), "{head}");
    let body = raw(&host, b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{").await;
    assert!(body.starts_with("HTTP/1.1 408"), "{body}");
    let answer = raw(&host, b"\x16\x03\x01\x02\x00\x01\x00 this is TLS").await;
    assert!(answer.starts_with("HTTP/1.1 400") || answer.is_empty(), "{answer}");
    assert_alive(&host).await;
    host.end().await;
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut_off() {
    let settings = Settings { write_time: Duration::from_millis(500), ..Settings::default() };
    let host = Host::start(settings).await;
    let (_, document) = host.get("/openapi.json").await;
    // More than the system's buffers hold.
    let count = (32 << 20) / document.len();
    let asked = "GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n".repeat(count);
    let mut stream = TcpStream::connect(host.address).await.unwrap();
    let _ = tokio::time::timeout(Duration::from_secs(2), stream.write_all(asked.as_bytes())).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    assert!(answer.len() < count * document.len() / 2, "{} bytes came of {count} answers", answer.len());
    assert_alive(&host).await;
    host.end().await;
}

#[tokio::test]
async fn keys_are_asked_for_and_have_their_limits() {
    let keys = vec![
        Key { max_tokens: Some(3), ..Key::new("a", "secret-a") },
        Key { requests_per_minute: Some(2), ..Key::new("b", "secret-b") },
        Key { models: vec!["other".to_string()], ..Key::new("c", "secret-c") },
    ];
    let host = Host::start(Settings { keys, ..Settings::default() }).await;
    let post = async |key: Option<&str>| {
        let request = host
            .client
            .post(host.url("/v1/completions"))
            .json(&json!({"prompt": "a", "max_tokens": 9, "temperature": 0}));
        let request = match key {
            Some(key) => request.bearer_auth(key),
            None => request,
        };
        let sent = request.send().await.unwrap();
        let retry = sent.headers().get("retry-after").is_some();
        (sent.status().as_u16(), retry, sent.json::<Value>().await.unwrap())
    };
    assert_eq!(post(None).await.0, 401);
    let (status, _, answer) = post(Some("secret-x")).await;
    assert_eq!((status, &answer["error"]["type"]), (401, &json!("authentication_error")));
    assert_eq!(post(Some("secret-a")).await.2["usage"]["completion_tokens"], 3);
    assert_eq!((post(Some("secret-b")).await.0, post(Some("secret-b")).await.0), (200, 200));
    let (status, retry, _) = post(Some("secret-b")).await;
    assert_eq!((status, retry), (429, true));
    assert_eq!(post(Some("secret-c")).await.0, 403);
    assert_eq!(host.get("/health").await.0, 200);
    assert_eq!(host.get("/metrics").await.0, 401);
    host.end().await;
}

#[tokio::test]
async fn pages_of_strangers_may_not_ask() {
    let settings = Settings { origins: vec!["https://friend.example".to_string()], ..Settings::default() };
    let host = Host::start(settings).await;
    let ask = async |origin: &str| {
        let body = json!({"prompt": "a", "max_tokens": 1});
        let sent = host
            .client
            .post(host.url("/v1/completions"))
            .header("origin", origin)
            .json(&body)
            .send()
            .await
            .unwrap();
        let allowed =
            sent.headers().get("access-control-allow-origin").map(|it| it.to_str().unwrap().to_string());
        (sent.status().as_u16(), allowed)
    };
    assert_eq!(ask("https://evil.example").await.0, 403);
    for origin in ["https://friend.example", "http://localhost:3000", "http://127.0.0.1"] {
        assert_eq!(ask(origin).await, (200, Some(origin.to_string())));
    }
    let preflight = host.client.request(reqwest::Method::OPTIONS, host.url("/v1/completions"));
    let sent = preflight.header("origin", "http://localhost:3000").send().await.unwrap();
    assert_eq!(sent.status(), 204);
    assert!(sent.headers()["access-control-allow-headers"].to_str().unwrap().contains("authorization"));
    host.end().await;
}
