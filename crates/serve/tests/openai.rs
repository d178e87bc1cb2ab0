//! OpenAI's interfaces as clients see them.

#![allow(clippy::unwrap_used)] // helpers of tests, which end where something is missing

mod common;

use common::{Host, alone, built_in, open};
use ounce_engine::{Engine, Mode};
use ounce_serve::Settings;
use serde_json::{Value, json};

const PROMPT: &str = "Once upon a time";

fn text(answer: &Value) -> &str {
    answer["choices"][0]["text"].as_str().expect("a text")
}

#[tokio::test]
async fn completions_are_what_the_engine_writes_alone_also_in_company() {
    let host = Host::start(Settings::default()).await;
    let prompts = [PROMPT, "The cat", "A small dog went to", "Lily and Ben"];
    let bodies = prompts.map(|prompt| json!({"prompt": prompt, "max_tokens": 24, "temperature": 0}));
    let answers = bodies.iter().map(|body| host.ok("/v1/completions", body));
    let answers = futures_util::future::join_all(answers).await;
    for (prompt, answer) in prompts.iter().zip(&answers) {
        assert_eq!(text(answer), alone(prompt, 24, Vec::new()), "{prompt}");
        assert_eq!(answer["usage"]["completion_tokens"], 24);
        assert_eq!(answer["choices"][0]["finish_reason"], "length");
    }
    host.end().await;
}

#[tokio::test]
async fn echo_scores_every_token_of_the_prompt_as_harnesses_want_it() {
    let host = Host::start(Settings::default()).await;
    let model = built_in("tiny");
    let tokenizer = model.tokenizer.as_ref().unwrap();
    let prompts = ["Once upon a time there was a", "The dog"].map(|it| tokenizer.encode(it, true).unwrap());
    let body = json!({
        "model": "tiny", "prompt": prompts, "max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": true, "seed": 1234,
    });
    let answer = host.ok("/v1/completions", &body).await;
    let engine = Engine::load(&model, Mode::fast()).unwrap();
    for (choice, ids) in answer["choices"].as_array().unwrap().iter().zip(&prompts) {
        let scores = &choice["logprobs"];
        let logprobs = scores["token_logprobs"].as_array().unwrap();
        assert_eq!(logprobs.len(), ids.len() + 1, "prompt and one token: {scores}");
        assert!(logprobs[0].is_null());
        let logits = engine.session().logits(ids).unwrap();
        for (place, rows) in logits.chunks_exact(model.spec.vocab_size).take(ids.len() - 1).enumerate() {
            let expected = ounce_engine::sample::logprobs(rows, ids[place + 1], 1).0.logprob;
            let found = logprobs[place + 1].as_f64().unwrap();
            assert!((found - f64::from(expected)).abs() < 1e-3, "{place}: {found} for {expected}");
            // The greedy token is told by comparing with the likeliest: the same float.
            let top = scores["top_logprobs"][place + 1].as_object().unwrap();
            let token = scores["tokens"][place + 1].as_str().unwrap();
            assert_eq!(top[token].as_f64(), Some(found));
        }
        assert!(choice["text"].as_str().unwrap().len() > 4);
    }
    // Nothing generated, only scored.
    let body = json!({"prompt": PROMPT, "max_tokens": 0, "logprobs": 0, "echo": true});
    let answer = host.ok("/v1/completions", &body).await;
    assert_eq!(answer["usage"]["completion_tokens"], 0);
    assert_eq!(text(&answer).trim_start_matches("<|endoftext|>"), PROMPT);
    host.end().await;
}

#[tokio::test]
async fn streams_give_the_same_text_and_counts_at_the_end() {
    let host = Host::start(Settings::default()).await;
    let body =
        json!({"prompt": PROMPT, "max_tokens": 20, "seed": 5, "n": 2, "temperature": 1, "logprobs": 2});
    let whole = host.ok("/v1/completions", &body).await;
    let mut streamed = body.clone();
    streamed["stream"] = json!(true);
    streamed["stream_options"] = json!({"include_usage": true});
    let chunks = host.stream("/v1/completions", &streamed).await;
    for index in 0..2 {
        let of = |chunk: &Value| chunk["choices"][0].clone();
        let own = chunks.iter().map(of).filter(|choice| choice["index"] == index);
        let text: String = own.clone().map(|choice| choice["text"].as_str().unwrap().to_string()).collect();
        assert_eq!(text, whole["choices"][index]["text"]);
        let tokens: Vec<Value> = own
            .filter(|choice| !choice["logprobs"].is_null())
            .flat_map(|choice| choice["logprobs"]["tokens"].as_array().unwrap().clone())
            .collect();
        assert_eq!(json!(tokens), whole["choices"][index]["logprobs"]["tokens"]);
    }
    assert_ne!(whole["choices"][0]["text"], whole["choices"][1]["text"]);
    let last = chunks.last().unwrap();
    assert_eq!(
        (&last["choices"], &last["usage"]["completion_tokens"]),
        (&json!([]), &whole["usage"]["completion_tokens"])
    );
    host.end().await;
}

#[tokio::test]
async fn stop_texts_biases_and_limits_change_the_answer() {
    let host = Host::start(Settings::default()).await;
    let whole = alone(PROMPT, 40, Vec::new());
    let word = whole.split_whitespace().nth(6).unwrap().to_string();
    let body = json!({"prompt": PROMPT, "max_tokens": 40, "temperature": 0, "stop": [word, "never"]});
    let answer = host.ok("/v1/completions", &body).await;
    assert_eq!(text(&answer), whole.split_once(&word).unwrap().0);
    assert_eq!(
        (&answer["choices"][0]["finish_reason"], &answer["choices"][0]["stop_reason"]),
        (&json!("stop"), &json!(word))
    );

    let biased = json!({"prompt": PROMPT, "max_tokens": 3, "logit_bias": {"40": 100}, "logprobs": 0});
    let answer = host.ok("/v1/completions", &biased).await;
    let tokens = answer["choices"][0]["logprobs"]["tokens"].as_array().unwrap().clone();
    assert!(tokens.len() == 3 && tokens.iter().all(|token| *token == tokens[0]), "{tokens:?}");
    // The penalty outweighs the bias of a token that has occurred.
    let punished = json!({"prompt": PROMPT, "max_tokens": 2, "temperature": 0, "logit_bias": {"40": 30},
        "presence_penalty": 2, "repetition_penalty": 10, "logprobs": 0});
    host.ok("/v1/completions", &punished).await;
    host.end().await;
}

#[tokio::test]
async fn chats_answer_whole_and_in_pieces() {
    let host = Host::start(Settings::default()).await;
    let body = json!({
        "model": "tiny", "messages": [{"role": "user", "content": [{"type": "text", "text": PROMPT}]}],
        "max_completion_tokens": 16, "temperature": 0, "logprobs": true, "top_logprobs": 2, "unknown_field": 1,
    });
    let answer = host.ok("/v1/chat/completions", &body).await;
    let choice = &answer["choices"][0];
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(choice["message"]["content"], alone(PROMPT, 16, Vec::new()));
    assert_eq!(choice["logprobs"]["content"].as_array().unwrap().len(), 16);
    assert_eq!(choice["logprobs"]["content"][3]["top_logprobs"].as_array().unwrap().len(), 2);
    assert!(answer["created"].is_u64() && answer["id"].as_str().unwrap().starts_with("chatcmpl-"));
    let usage = &answer["usage"];
    assert_eq!(usage["total_tokens"].as_u64().unwrap(), usage["prompt_tokens"].as_u64().unwrap() + 16);
    let mut streamed = body.clone();
    streamed["stream"] = json!(true);
    let chunks = host.stream("/v1/chat/completions", &streamed).await;
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let content = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
    assert_eq!(content.collect::<String>(), alone(PROMPT, 16, Vec::new()));
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "length");
    host.end().await;
}

#[tokio::test]
async fn models_are_listed_and_found_by_name() {
    let host = Host::start(Settings::default()).await;
    let (status, text) = host.get("/v1/models").await;
    let list: Value = serde_json::from_str(&text).unwrap();
    let model = &list["data"][0];
    assert_eq!(
        (status, &list["object"], &model["id"], &model["object"]),
        (200, &json!("list"), &json!("tiny"), &json!("model"))
    );
    assert!(model["created"].is_u64() && model["owned_by"].is_string());
    assert_eq!(host.get("/v1/models/tiny").await.0, 200);
    assert_eq!(host.get("/models/none").await.0, 404);
    assert_eq!(host.get("/health").await, (200, "{\"status\":\"ok\"}".to_string()));
    host.end().await;
}

#[tokio::test]
async fn mistakes_are_told_with_the_field_and_never_by_another_status() {
    let host = Host::start(Settings::default()).await;
    let chat = |extra: Value| {
        let mut body = json!({"messages": [{"role": "user", "content": "hi"}]});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    let long = "word ".repeat(3000);
    let cases = [
        ("/v1/chat/completions", chat(json!({"model": "gpt"})), 404, "model"),
        ("/v1/chat/completions", chat(json!({"temperature": "hot"})), 400, "temperature"),
        ("/v1/chat/completions", chat(json!({"temperature": -1})), 400, "temperature"),
        ("/v1/chat/completions", chat(json!({"n": 0})), 400, "n"),
        ("/v1/chat/completions", chat(json!({"stop": [""]})), 400, "stop"),
        ("/v1/chat/completions", chat(json!({"logit_bias": {"x": 1}})), 400, "logit_bias"),
        ("/v1/chat/completions", chat(json!({"top_logprobs": 3})), 400, "top_logprobs"),
        (
            "/v1/chat/completions",
            chat(json!({"response_format": {"type": "xml"}})),
            400,
            "response_format.type",
        ),
        ("/v1/chat/completions", chat(json!({"messages": "hi"})), 400, "messages"),
        ("/v1/chat/completions", chat(json!({"messages": [{"content": "hi"}]})), 400, "messages[0]"),
        ("/v1/chat/completions", chat(json!({"tool_choice": "required"})), 400, "tool_choice"),
        ("/v1/chat/completions", json!({}), 400, "messages"),
        ("/v1/completions", json!({}), 400, "prompt"),
        ("/v1/completions", json!({"prompt": [1, "a"]}), 400, "prompt"),
        ("/v1/completions", json!({"prompt": "a", "best_of": 3}), 400, "best_of"),
        ("/v1/completions", json!({"prompt": long}), 400, "prompt"),
    ];
    for (path, body, status, param) in cases {
        let (found, answer) = host.post(path, &body).await;
        let error = &answer["error"];
        assert_eq!((found, error["param"].as_str()), (status, Some(param)), "{answer}");
        assert!(error["message"].is_string() && error["type"].is_string() && error.get("code").is_some());
    }
    assert_eq!(host.get("/v1/nothing").await.0, 404);
    assert_eq!(host.get("/v1/completions").await.0, 405);
    host.end().await;
}

#[tokio::test]
async fn an_encoder_says_that_it_writes_no_text() {
    let host = Host::with(Settings::default(), 256 << 20, vec![("encoder", open("encoder"))]).await;
    let (status, answer) = host.post("/v1/completions", &json!({"prompt": "a"})).await;
    assert_eq!(status, 422);
    assert!(answer["error"]["message"].as_str().unwrap().contains("/v1/embeddings"), "{answer}");
    host.end().await;
}

#[tokio::test]
async fn every_route_that_is_described_is_there() {
    let host = Host::start(Settings::default()).await;
    for route in ounce_serve::openapi::ROUTES {
        let path = route.path.replace("{id}", "tiny");
        let status = match route.method {
            "get" => host.get(&path).await.0,
            _ => {
                let request = host.client.post(host.url(&path)).json(&json!({"model": "tiny"}));
                request.send().await.unwrap().status().as_u16()
            }
        };
        assert!(!matches!(status, 404 | 405 | 500..), "{} {path}: {status}", route.method);
    }
    let (_, document) = host.get("/openapi.json").await;
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(
        document["paths"]["/v1/messages"]["post"]["requestBody"]["content"]["application/json"]["schema"]["required"],
        json!(["messages", "max_tokens"])
    );
    let (_, page) = host.get("/").await;
    assert!(page.len() < 10_000 && !page.contains("http"), "nothing from elsewhere");
    host.end().await;
}
