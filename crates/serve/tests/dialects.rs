//! The other interfaces: responses, Anthropic's, Ollama's, embeddings, tokens; and answers that follow a schema.

#![allow(clippy::unwrap_used)] // helpers of tests, which end where something is missing

mod common;

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use common::{Host, built_in, open, source};
use ounce_engine::Engine;
use ounce_model::chat::ChatTemplate;
use ounce_serve::{Open, Settings, Source};
use serde_json::{Value, json};

const PROMPT: &str = "Once upon a time";

/// A template that knows tools, as a model for chats has.
const TEMPLATE: &str = "{% for tool in tools %}{{ tool.function.name }} {% endfor %}{% for message in messages %}\
    {{ message.content }}\n{% endfor %}{# <tool_call> #}";

async fn with_tools() -> Host {
    let open: Open = Arc::new(|| {
        let template = Some(ChatTemplate::new(TEMPLATE, Default::default())?);
        Ok(Source { template, ..source("tiny") })
    });
    Host::with(Settings::default(), 256 << 20, vec![("tiny", open)]).await
}

/// Lines `event:` and `data:` of a stream.
async fn events(host: &Host, path: &str, body: &Value) -> Vec<(String, Value)> {
    let text = host.client.post(host.url(path)).json(body).send().await.unwrap().text().await.unwrap();
    let blocks = text.split("\n\n").filter(|block| block.starts_with("event: "));
    blocks
        .map(|block| {
            let (name, data) = block.split_once('\n').unwrap();
            let data = data.strip_prefix("data: ").unwrap();
            (name.strip_prefix("event: ").unwrap().to_string(), serde_json::from_str(data).unwrap())
        })
        .collect()
}

async fn completion(host: &Host, tokens: usize) -> String {
    let body = json!({"prompt": PROMPT, "max_tokens": tokens, "temperature": 0});
    host.ok("/v1/completions", &body).await["choices"][0]["text"].as_str().unwrap().to_string()
}

#[tokio::test]
async fn responses_come_whole_and_as_events() {
    let host = Host::start(Settings::default()).await;
    let expected = completion(&host, 12).await;
    let body = json!({"input": PROMPT, "max_output_tokens": 12, "temperature": 0});
    let answer = host.ok("/v1/responses", &body).await;
    assert_eq!(answer["output"][0]["content"][0]["text"], expected);
    assert_eq!(
        (&answer["status"], &answer["incomplete_details"]["reason"]),
        (&json!("incomplete"), &json!("max_output_tokens"))
    );
    let items = json!({"input": [{"role": "user", "content": [{"type": "input_text", "text": PROMPT}]}],
        "max_output_tokens": 12, "temperature": 0, "stream": true});
    let events = events(&host, "/v1/responses", &items).await;
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names[..4],
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added"
        ]
    );
    assert_eq!(*names.last().unwrap(), "response.incomplete");
    let deltas = events.iter().filter(|(name, _)| name == "response.output_text.delta");
    assert_eq!(deltas.map(|(_, event)| event["delta"].as_str().unwrap()).collect::<String>(), expected);
    assert!(events.iter().enumerate().all(|(n, (_, event))| event["sequence_number"] == n));
    assert_eq!(events.last().unwrap().1["response"]["output"][0]["content"][0]["text"], expected);
    host.end().await;
}

#[tokio::test]
async fn messages_come_as_anthropics_clients_expect() {
    let host = Host::start(Settings::default()).await;
    let expected = completion(&host, 12).await;
    let body = json!({"model": "tiny", "max_tokens": 12, "temperature": 0, "messages": [{"role": "user", "content": PROMPT}]});
    let answer = host.ok("/v1/messages", &body).await;
    assert_eq!(answer["content"], json!([{"type": "text", "text": expected}]));
    assert_eq!(
        (&answer["stop_reason"], &answer["usage"]["output_tokens"]),
        (&json!("max_tokens"), &json!(12))
    );
    let mut streamed = body.clone();
    streamed["stream"] = json!(true);
    let events = events(&host, "/v1/messages", &streamed).await;
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names[..2], ["message_start", "content_block_start"]);
    assert_eq!(names[names.len() - 3..], ["content_block_stop", "message_delta", "message_stop"]);
    let text = events.iter().filter_map(|(_, event)| event["delta"]["text"].as_str()).collect::<String>();
    assert_eq!(text, expected);
    let counted = host.ok("/v1/messages/count_tokens", &body).await;
    assert_eq!(counted["input_tokens"], answer["usage"]["input_tokens"]);
    let (status, error) = host.post("/v1/messages", &json!({"messages": []})).await;
    assert_eq!(
        (status, &error["type"], &error["error"]["type"]),
        (400, &json!("error"), &json!("invalid_request_error"))
    );
    host.end().await;
}

#[tokio::test]
async fn ollamas_lines_end_with_counts() {
    let host = Host::start(Settings::default()).await;
    let expected = completion(&host, 10).await;
    let options = json!({"num_predict": 10, "temperature": 0});
    for (path, body) in [
        ("/api/generate", json!({"model": "tiny", "prompt": PROMPT, "options": options})),
        (
            "/api/chat",
            json!({"model": "tiny", "messages": [{"role": "user", "content": PROMPT}], "options": options}),
        ),
    ] {
        let text = host.client.post(host.url(path)).json(&body).send().await.unwrap().text().await.unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let piece = |line: &Value| {
            line["response"].as_str().or(line["message"]["content"].as_str()).unwrap().to_string()
        };
        assert_eq!(lines.iter().map(piece).collect::<String>(), expected, "{path}");
        let (last, rest) = lines.split_last().unwrap();
        assert!(rest.iter().all(|line| line["done"] == false));
        assert_eq!(
            (&last["done"], &last["done_reason"], &last["eval_count"]),
            (&json!(true), &json!("length"), &json!(10))
        );
        let mut whole = body.clone();
        whole["stream"] = json!(false);
        assert_eq!(piece(&host.ok(path, &whole).await), expected);
    }
    let (_, tags) = host.get("/api/tags").await;
    let tags: Value = serde_json::from_str(&tags).unwrap();
    assert_eq!(tags["models"][0]["name"], "tiny");
    let shown = host.ok("/api/show", &json!({"model": "tiny"})).await;
    assert_eq!(shown["details"]["family"], "llama");
    assert_eq!(shown["capabilities"], json!(["completion"]));
    let (status, error) = host.post("/api/show", &json!({"model": "none"})).await;
    assert!(status == 404 && error["error"].is_string(), "{error}");
    assert_eq!(host.get("/api/version").await.0, 200);
    host.end().await;
}

#[tokio::test]
async fn vectors_are_those_of_the_engine_in_both_encodings() {
    let model = built_in("encoder");
    let ids = model.tokenizer.as_ref().unwrap().encode("a cat sat", true).unwrap();
    let expected = Engine::new(&model).unwrap().embed(&ids, &[]).unwrap();
    let host = Host::with(Settings::default(), 256 << 20, vec![("encoder", open("encoder"))]).await;
    let close = |found: &[f32]| found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5);
    let answer = host.ok("/v1/embeddings", &json!({"input": ["a cat sat", "dogs"]})).await;
    let floats: Vec<f32> = serde_json::from_value(answer["data"][0]["embedding"].clone()).unwrap();
    assert!(floats.len() == expected.len() && close(&floats));
    assert_eq!((&answer["data"][1]["index"], &answer["object"]), (&json!(1), &json!("list")));
    let answer = host.ok("/v1/embeddings", &json!({"input": ids, "encoding_format": "base64"})).await;
    let bytes = BASE64_STANDARD.decode(answer["data"][0]["embedding"].as_str().unwrap()).unwrap();
    let floats: Vec<f32> =
        bytes.chunks_exact(4).map(|it| f32::from_le_bytes(it.try_into().unwrap())).collect();
    assert!(close(&floats));
    let answer = host.ok("/api/embed", &json!({"input": "a cat sat"})).await;
    assert_eq!(answer["embeddings"].as_array().unwrap().len(), 1);
    let (status, _) = host.post("/v1/embeddings", &json!({"input": "word ".repeat(5000)})).await;
    assert_eq!(status, 400);
    host.end().await;
}

#[tokio::test]
async fn tokens_go_there_and_back() {
    let host = Host::start(Settings::default()).await;
    let answer = host
        .ok("/tokenize", &json!({"prompt": PROMPT, "add_special_tokens": false, "return_token_strs": true}))
        .await;
    assert_eq!(answer["count"].as_u64().unwrap() as usize, answer["token_strs"].as_array().unwrap().len());
    let back = host.ok("/detokenize", &json!({"tokens": answer["tokens"]})).await;
    assert_eq!(back["prompt"], PROMPT);
    assert_eq!(host.post("/detokenize", &json!({"tokens": [9_999_999]})).await.0, 400);
    host.end().await;
}

fn schema() -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["name", "age", "tags", "kind"],
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 8}, "maxItems": 3},
            "kind": {"enum": ["cat", "dog"]},
        },
    })
}

/// What is wrong with an object of the schema.
fn check(text: &str) -> Result<(), String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let object = value.as_object().ok_or("no object")?;
    let short = |value: &Value, most: usize| value.as_str().is_some_and(|text| text.chars().count() <= most);
    let tags = object.get("tags").and_then(Value::as_array).ok_or("tags")?;
    let fine = object.len() == 4
        && object.get("name").is_some_and(|name| short(name, 12))
        && object.get("age").and_then(Value::as_u64).is_some_and(|age| age <= 150)
        && tags.len() <= 3
        && tags.iter().all(|tag| short(tag, 8))
        && matches!(object.get("kind").and_then(Value::as_str), Some("cat" | "dog"));
    if fine { Ok(()) } else { Err("a field".to_string()) }
}

async fn valid_generations(count: usize) {
    let host = Host::start(Settings::default()).await;
    let format =
        json!({"type": "json_schema", "json_schema": {"name": "pet", "schema": schema(), "strict": true}});
    for seed in (0..count).step_by(20) {
        let body = json!({
            "messages": [{"role": "user", "content": "A pet:"}], "response_format": format, "temperature": 1,
            "top_p": 1, "max_tokens": 400, "seed": seed, "n": 20,
        });
        let answer = host.ok("/v1/chat/completions", &body).await;
        for choice in answer["choices"].as_array().unwrap() {
            let text = choice["message"]["content"].as_str().unwrap();
            check(text).unwrap_or_else(|what| panic!("{what}: {text} ({})", choice["finish_reason"]));
            assert_eq!(choice["finish_reason"], "stop");
        }
    }
    host.end().await;
}

#[tokio::test]
async fn answers_follow_a_schema_at_temperature_one() {
    valid_generations(40).await;
}

/// The whole promise: `cargo test -p ounce-serve --test dialects -- --ignored`.
#[tokio::test]
#[ignore = "takes minutes"]
async fn a_thousand_answers_follow_a_schema_at_temperature_one() {
    valid_generations(1000).await;
}

#[tokio::test]
async fn a_tool_that_must_be_called_is_called_with_valid_arguments() {
    let host = with_tools().await;
    let tools = json!([{"type": "function", "function": {"name": "adopt", "description": "d", "parameters": schema()}}]);
    let body = json!({
        "messages": [{"role": "user", "content": "A pet:"}], "tools": tools, "tool_choice": "required",
        "parallel_tool_calls": false, "temperature": 1, "max_tokens": 400, "seed": 3,
    });
    let answer = host.ok("/v1/chat/completions", &body).await;
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls", "{answer}");
    let call = &choice["message"]["tool_calls"][0];
    assert_eq!((&call["type"], &call["function"]["name"]), (&json!("function"), &json!("adopt")));
    check(call["function"]["arguments"].as_str().unwrap()).unwrap();
    assert!(choice["message"]["content"].is_null());
    let mut streamed = body.clone();
    streamed["stream"] = json!(true);
    let chunks = host.stream("/v1/chat/completions", &streamed).await;
    let calls: Vec<&Value> = chunks
        .iter()
        .map(|chunk| &chunk["choices"][0]["delta"]["tool_calls"][0])
        .filter(|it| !it.is_null())
        .collect();
    assert_eq!((calls.len(), &calls[0]["index"]), (1, &json!(0)));
    assert_eq!(calls[0]["function"]["arguments"], call["function"]["arguments"]);
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");
    let anthropic = json!({
        "max_tokens": 400, "messages": [{"role": "user", "content": "A pet:"}], "tool_choice": {"type": "any", "disable_parallel_tool_use": true},
        "tools": [{"name": "adopt", "input_schema": schema()}],
    });
    let answer = host.ok("/v1/messages", &anthropic).await;
    assert_eq!(
        (&answer["stop_reason"], &answer["content"][0]["type"]),
        (&json!("tool_use"), &json!("tool_use"))
    );
    check(&answer["content"][0]["input"].to_string()).unwrap();
    host.end().await;
}

#[tokio::test]
async fn json_mode_and_other_grammars_are_followed_and_bad_ones_told() {
    let host = Host::start(Settings::default()).await;
    let ask = async |extra: Value| {
        let mut body = json!({"prompt": "A list:", "max_tokens": 300, "temperature": 0.7, "seed": 1});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        host.post("/v1/completions", &body).await
    };
    let (_, answer) = ask(json!({"guided_regex": "[a-c]{3}-[0-9]{2}"})).await;
    let text = answer["choices"][0]["text"].as_str().unwrap().as_bytes();
    assert!(
        text.len() == 6 && text[..3].iter().all(|c| (b'a'..=b'c').contains(c)) && text[3] == b'-',
        "{answer}"
    );
    let (_, answer) = ask(json!({"grammar": "start: \"yes\" | \"no\""})).await;
    assert!(matches!(answer["choices"][0]["text"].as_str().unwrap(), "yes" | "no"), "{answer}");
    let (status, answer) = ask(json!({"json_schema": {"type": "no such type"}})).await;
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("json_schema")), "{answer}");
    let (status, _) = ask(json!({"grammar": "start: ((("})).await;
    assert_eq!(status, 400);
    host.end().await;
}
