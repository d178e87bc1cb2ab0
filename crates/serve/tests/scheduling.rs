//! Many requests at once: shared beginnings, memory, queues, clients that leave, the end of the server.

#![allow(clippy::unwrap_used)] // helpers of tests, which end where something is missing

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Host, built_in, open, source};
use ounce_engine::{Engine, Mode};
use ounce_serve::{Budget, Draft, Limits, Open, Server, Settings, Source, SwapSpace};
use serde_json::{Value, json};

fn limits(change: impl FnOnce(&mut Limits)) -> Settings {
    let mut settings = Settings::default();
    change(&mut settings.limits);
    settings
}

fn story(words: usize) -> String {
    "Once upon a time there was a little girl who had a red ball and a small dog. ".repeat(words / 17 + 1)
}

#[tokio::test]
async fn a_shared_beginning_is_computed_once_and_changes_nothing() {
    let host = Host::start(Settings::default()).await;
    let cold = Host::start(limits(|limits| limits.prefix_cache = false)).await;
    let system = story(100);
    for (question, cached) in [("The dog", false), ("The girl", true), ("The dog", true)] {
        let body = json!({"prompt": format!("{system}{question}"), "max_tokens": 8, "temperature": 0});
        let answer = host.ok("/v1/completions", &body).await;
        let known = answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
        let prompt = answer["usage"]["prompt_tokens"].as_u64().unwrap();
        assert_eq!(known > prompt / 2, cached, "{question}: {known} of {prompt}");
        let alone = cold.ok("/v1/completions", &body).await;
        assert_eq!(answer["choices"][0]["text"], alone["choices"][0]["text"], "{question}");
        assert_eq!(alone["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    }
    assert!(host.metric("vllm:prefix_cache_hits_total").await > 100.0);
    host.end().await;
    cold.end().await;
}

#[tokio::test]
async fn requests_that_arrive_together_share_their_beginning_too() {
    let host = Host::start(Settings::default()).await;
    let system = story(200);
    let ask = |question: &'static str| {
        let body = json!({"prompt": format!("{system}{question}"), "max_tokens": 4, "temperature": 0});
        let host = &host;
        async move { host.ok("/v1/completions", &body).await }
    };
    let (a, b, c) = tokio::join!(ask("The dog"), ask("The girl"), ask("A cat"));
    let known = |answer: &Value| answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    let mut counts = [known(&a), known(&b), known(&c)];
    counts.sort_unstable();
    assert!(counts[0] == 0 && counts[1] > 100 && counts[2] > 100, "{counts:?}");
    host.end().await;
}

#[tokio::test]
async fn answers_are_the_same_when_memory_is_short_and_the_budget_is_kept() {
    let model = built_in("tiny");
    let engine = Engine::load(&model, Mode::fast()).unwrap();
    let room = engine.session().cache_growth(model.spec.context_length) as u64;
    // Room for one full text and a half: many short ones push each other out.
    let budget = model.weight_bytes() + room * 3 / 2;
    let host = Host::with(Settings::default(), budget, vec![("tiny", open("tiny"))]).await;
    let free = Host::start(Settings::default()).await;
    let bodies: Vec<Value> = (0..10)
        .map(|n| json!({"prompt": format!("{} number {n}", story(10 + 10 * n)), "max_tokens": 60, "temperature": 0}))
        .collect();
    let expected = {
        let mut texts = Vec::new();
        for body in &bodies {
            texts.push(free.ok("/v1/completions", body).await["choices"][0]["text"].clone());
        }
        texts
    };
    let answers = bodies.iter().map(|body| host.ok("/v1/completions", body));
    let answers = futures_util::future::join_all(answers).await;
    for (answer, expected) in answers.iter().zip(&expected) {
        assert_eq!(&answer["choices"][0]["text"], expected);
    }
    host.end().await;
    free.end().await;
}

#[tokio::test]
async fn a_full_queue_is_told_with_a_time_to_come_back() {
    let host = Host::start(limits(|limits| (limits.sequences, limits.queue) = (1, 2))).await;
    let mut body = json!({"prompt": "a", "max_tokens": 400, "ignore_eos": true, "stream": true});
    // One is being answered before the others come; where they were all there at once, one more would be refused.
    let mut first =
        host.client.post(host.url("/v1/completions")).json(&body).send().await.expect("an answer");
    first.chunk().await.expect("a token");
    (body["max_tokens"], body["stream"]) = (json!(60), json!(false));
    let sent = (0..11).map(|_| async {
        let sent = host.client.post(host.url("/v1/completions")).json(&body).send().await.expect("an answer");
        (sent.status().as_u16(), sent.headers().get("retry-after").cloned())
    });
    let answers = futures_util::future::join_all(sent).await;
    let refused: Vec<_> = answers.iter().filter(|(status, _)| *status == 429).collect();
    assert!(!refused.is_empty() && refused.len() <= 9, "{answers:?}");
    assert!(refused.iter().all(|(_, retry)| retry.is_some()));
    assert!(answers.iter().all(|(status, _)| matches!(status, 200 | 429)));
    host.end().await;
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_place() {
    let host = Host::start(limits(|limits| limits.sequences = 1)).await;
    let endless = json!({"prompt": "a", "max_tokens": 490, "ignore_eos": true, "stream": true});
    for whole in [false, true] {
        let mut body = endless.clone();
        if whole {
            body["stream"] = json!(false);
        }
        let request = host.client.post(host.url("/v1/completions")).json(&body).send();
        if whole {
            let _ = tokio::time::timeout(Duration::from_millis(40), request).await;
        } else {
            let mut sent = request.await.unwrap();
            assert!(sent.chunk().await.unwrap().is_some());
            drop(sent);
        }
    }
    let start = Instant::now();
    host.ok("/v1/completions", &json!({"prompt": "b", "max_tokens": 1})).await;
    assert!(start.elapsed() < Duration::from_secs(5));
    for _ in 0..100 {
        if host.metric("vllm:num_requests_running").await == 0.0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(host.metric("vllm:num_requests_running").await, 0.0);
    let (_, text) = host.get("/metrics").await;
    assert!(text.contains("finished_reason=\"abort\""), "{text}");
    host.end().await;
}

#[tokio::test]
async fn a_deadline_ends_what_takes_too_long() {
    let host = Host::start(limits(|limits| limits.sequences = 1)).await;
    let endless = json!({"prompt": "a", "max_tokens": 200, "ignore_eos": true});
    let ask = |seconds: &'static str| {
        let request = host.client.post(host.url("/v1/completions")).json(&endless);
        async move { request.header("x-request-timeout", seconds).send().await.unwrap().status().as_u16() }
    };
    assert_eq!(ask("0.02").await, 408);
    assert_eq!(ask("50").await, 200);
    host.end().await;
}

#[tokio::test]
async fn an_ending_server_lets_requests_finish_and_takes_no_more() {
    let host = Host::start(Settings::default()).await;
    let body = json!({"prompt": "a", "max_tokens": 300, "ignore_eos": true, "stream": true});
    let mut sent = host.client.post(host.url("/v1/completions")).json(&body).send().await.expect("an answer");
    let mut text = sent.chunk().await.unwrap().unwrap().to_vec();
    let url = host.url("/health");
    let reading = async {
        while let Some(chunk) = sent.chunk().await.unwrap() {
            text.extend_from_slice(&chunk);
        }
        String::from_utf8(text).unwrap()
    };
    let (text, ()) = tokio::join!(reading, host.end());
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    assert!(reqwest::get(url).await.is_err(), "the port is closed");
}

/// Sends requests of several kinds, a fifth of which are given up, some at a time.
async fn mixed(host: &Host, count: usize) {
    let one = async |n: usize| {
        let body = json!({
            "prompt": format!("{} and {n} apples", story(n % 40)), "max_tokens": 1 + n % 16, "stream": n.is_multiple_of(3),
            "n": 1 + n % 2, "seed": n,
        });
        let request = async {
            let sent =
                host.client.post(host.url("/v1/completions")).json(&body).send().await.expect("an answer");
            assert!(sent.status().is_success());
            sent.bytes().await.expect("a body");
        };
        if n.is_multiple_of(5) {
            let _ = tokio::time::timeout(Duration::from_millis(n as u64 % 17), request).await;
        } else {
            request.await;
        }
    };
    for round in 0..count / 20 {
        futures_util::future::join_all((0..20).map(|n| one(20 * round + n))).await;
    }
}

async fn assert_nothing_is_left(host: &Host) {
    for _ in 0..500 {
        if host.metric("vllm:kv_cache_usage_perc").await == 0.0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for metric in ["vllm:kv_cache_usage_perc", "vllm:num_requests_running", "vllm:num_requests_waiting"] {
        assert_eq!(host.metric(metric).await, 0.0, "{metric}");
    }
}

#[tokio::test]
async fn aborted_and_finished_requests_leave_nothing_behind() {
    let host = Host::start(limits(|limits| limits.prefix_cache = false)).await;
    mixed(&host, 200).await;
    assert_nothing_is_left(&host).await;
    host.end().await;
}

/// The whole promise: `cargo test --release -p ounce-serve --test scheduling -- --ignored`.
#[tokio::test]
#[ignore = "takes minutes"]
async fn ten_thousand_mixed_requests_leak_nothing() {
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
        line.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("a number")
    };
    // Prefix cache and table of guesses grow up to their limits; without them nothing may.
    let quiet = limits(|limits| (limits.prefix_cache, limits.speculation) = (false, false));
    let host = Host::start(quiet).await;
    mixed(&host, 2000).await;
    let before = resident();
    mixed(&host, 10_000).await;
    assert_nothing_is_left(&host).await;
    let after = resident();
    println!("resident: {before} KiB after 2,000 requests, {after} KiB after 12,000");
    assert!(after < before + before / 20 + 4096, "{before} KiB became {after} KiB");
    host.end().await;
}

#[tokio::test]
async fn models_share_the_memory_and_idle_ones_make_room() {
    let (tiny, encoder) = (built_in("tiny").weight_bytes(), built_in("encoder").weight_bytes());
    // Room for either with its texts, not for both.
    let budget = tiny.max(encoder) + tiny.min(encoder) / 2;
    let models = vec![("tiny", open("tiny")), ("encoder", open("encoder"))];
    let host = Host::with(limits(|limits| limits.context = 64), budget, models).await;
    let status = async |place: usize| {
        let (_, text) = host.get("/v1/models").await;
        let list: Value = serde_json::from_str(&text).unwrap();
        list["data"][place]["status"].as_str().unwrap().to_string()
    };
    assert_eq!(status(0).await, "unloaded");
    let body = json!({"model": "tiny", "prompt": "a", "max_tokens": 2, "temperature": 0});
    let first = host.ok("/v1/completions", &body).await;
    assert_eq!((status(0).await.as_str(), status(1).await.as_str()), ("loaded", "unloaded"));
    host.ok("/v1/embeddings", &json!({"model": "encoder", "input": "a"})).await;
    assert_eq!((status(0).await.as_str(), status(1).await.as_str()), ("unloaded", "loaded"));
    let again = host.ok("/v1/completions", &body).await;
    assert_eq!(first["choices"], again["choices"]);
    host.ok("/v1/models/reload", &json!({"model": "tiny"})).await;
    assert_eq!(host.ok("/v1/completions", &body).await["choices"], first["choices"]);
    assert_eq!(host.ok("/models/unload", &json!({"model": "tiny"})).await["was_loaded"], true);
    assert_eq!(status(0).await, "unloaded");
    host.end().await;
}

#[tokio::test]
async fn guesses_change_no_answer() {
    let plain = Host::start(limits(|limits| limits.speculation = false)).await;
    let guessing = Host::start(Settings::default()).await;
    for (prompt, temperature) in [(story(60), 0.0), (story(60), 0.8), ("The cat sat".to_string(), 0.0)] {
        let body = json!({"prompt": prompt, "max_tokens": 120, "temperature": temperature, "seed": 11, "ignore_eos": true});
        let (one, other) =
            (plain.ok("/v1/completions", &body).await, guessing.ok("/v1/completions", &body).await);
        assert_eq!(one["choices"][0]["text"], other["choices"][0]["text"]);
        assert_eq!(one["timings"]["draft_n"], 0);
    }
    // When a guess is tried hangs on times; what the model wrote before is always known where it is.
    let body = json!({"prompt": story(60), "max_tokens": 120, "temperature": 0.0, "ignore_eos": true});
    let expected = plain.ok("/v1/completions", &body).await;
    for _ in 0..20 {
        if guessing.metric("vllm:spec_decode_num_draft_tokens_total").await > 0.0 {
            break;
        }
        let answer = guessing.ok("/v1/completions", &body).await;
        assert_eq!(answer["choices"][0]["text"], expected["choices"][0]["text"]);
    }
    assert!(guessing.metric("vllm:spec_decode_num_draft_tokens_total").await > 0.0);
    plain.end().await;
    guessing.end().await;
}

/// The tiny model with another one of the same tokenizer beside.
fn with_draft(draft: &'static str) -> Open {
    Arc::new(move || {
        let other = source(draft);
        let draft = Draft { model: other.model, weight_bytes: other.weight_bytes, load: other.load };
        Ok(Source { draft: Some(draft), ..source("tiny") })
    })
}

#[tokio::test]
async fn a_draft_model_changes_no_answer_and_is_part_of_the_memory() {
    let tiny = built_in("tiny").weight_bytes();
    let plain = Host::start(limits(|limits| limits.speculation = false)).await;
    // The model as its own draft: every guess is right, as far as sums are the same in steps of any size.
    let drafted = Host::with(Settings::default(), 256 << 20, vec![("tiny", with_draft("tiny"))]).await;
    for (n, temperature) in [(0, 0.0), (1, 0.0), (2, 0.9), (3, 0.9)] {
        let body = json!({
            "prompt": story(50 + n), "max_tokens": 100, "temperature": temperature, "seed": n, "ignore_eos": true, "n": 1 + n % 2,
        });
        let (one, other) =
            (plain.ok("/v1/completions", &body).await, drafted.ok("/v1/completions", &body).await);
        assert_eq!(one["choices"], other["choices"], "{body}");
    }
    assert!(drafted.metric("vllm:spec_decode_num_draft_tokens_total").await > 0.0);
    plain.end().await;
    drafted.end().await;
    // Both have to fit.
    let server = Server::new(Settings::default(), Budget::new(2 * tiny - 1));
    server.add("tiny", vec![], with_draft("tiny")).unwrap();
    assert!(server.load("tiny").unwrap_err().to_string().contains("--memory"));
    let server = Server::new(Settings::default(), Budget::new(256 << 20));
    server.add("tiny", vec![], with_draft("encoder")).unwrap();
    let refused = server.load("tiny").unwrap_err().to_string();
    assert!(refused.contains("token 0 is") && refused.contains("same tokenizer"), "{refused}");
}

#[tokio::test]
async fn answers_that_are_put_back_go_on_from_a_file_as_if_nothing_had_been() {
    let one = Engine::load(&built_in("tiny"), Mode::fast()).unwrap().session().cache_growth(256) as u64;
    // Room for three answers of that length, and six are asked for.
    let memory = built_in("tiny").weight_bytes() + 3 * one;
    let space = SwapSpace { folder: std::env::temp_dir(), bytes: 1 << 30 };
    let small = limits(|limits| (limits.context, limits.swap) = (256, Some(space)));
    let host = Host::with(small, memory, vec![("tiny", open("tiny"))]).await;
    let roomy = Host::start(Settings::default()).await;
    let body = |n: usize| json!({"prompt": format!("{n} dogs"), "max_tokens": 220, "temperature": 0.7, "seed": n, "ignore_eos": true});
    let asked =
        (0..6).map(async |n| host.ok("/v1/completions", &body(n)).await["choices"][0]["text"].clone());
    let answers = futures_util::future::join_all(asked).await;
    for (n, text) in answers.into_iter().enumerate() {
        assert_eq!(text, roomy.ok("/v1/completions", &body(n)).await["choices"][0]["text"], "{n}");
    }
    assert!(host.metric("vllm:num_preemptions_total").await > 0.0);
    assert!(host.metric("ounce:preemptions_swapped_total").await > 0.0);
    roomy.end().await;
    host.end().await;
}
