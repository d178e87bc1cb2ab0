//! One model under several names: with adapters beside its weights.

mod common;

use std::sync::Arc;

use common::{Host, alone, built_in, source};
use ounce_engine::LowRank;
use ounce_model::Model;
use ounce_serve::{MakeAdapter, ServeError, Settings, Source};
use serde_json::json;

const PROMPT: &str = "Once upon a time there was a little girl who lived in a house near the forest with";

/// Changes of every matrix of the layers.
fn changes(model: &Model, seed: f32) -> Vec<LowRank> {
    let wave = |count: usize, by: f32| (0..count).map(|at| 0.1 * (seed + by * at as f32).sin()).collect();
    let tensors = model.spec.tensors().into_iter();
    let layers = tensors.filter(|it| it.name.starts_with("layers.") && it.shape.len() == 2);
    layers
        .map(|it| LowRank {
            name: it.name.trim_end_matches(".weight").to_owned(),
            rank: 2,
            reduce: wave(2 * it.shape[1], 0.71),
            expand: wave(2 * it.shape[0], 1.3),
            scale: 40.0,
        })
        .collect()
}

fn with_adapters() -> Source {
    let make = |seed: f32| -> MakeAdapter {
        Box::new(move |model, engine| engine.adapter(changes(model, seed)).map_err(ServeError::from))
    };
    Source { adapters: vec![("poet".into(), make(1.0)), ("clerk".into(), make(2.0))], ..source("tiny") }
}

#[tokio::test]
async fn each_name_answers_with_its_adapter_also_in_company_and_behind_a_known_beginning() {
    let names = vec!["poet".to_owned(), "clerk".to_owned()];
    let models = vec![("tiny", names, Arc::new(|| Ok(with_adapters())) as ounce_serve::Open)];
    let host = Host::with_adapters(Settings::default(), 256 << 20, models).await;
    let alone = |changes| alone(PROMPT, 20, changes);
    let changes = |seed| changes(&built_in("tiny"), seed);
    let expected =
        [("tiny", alone(Vec::new())), ("poet", alone(changes(1.0))), ("clerk", alone(changes(2.0)))];
    assert!(
        expected[0].1 != expected[1].1 && expected[1].1 != expected[2].1,
        "adapters change the text: {expected:?}"
    );
    let body = |name: &str| json!({"model": name, "prompt": PROMPT, "max_tokens": 20, "temperature": 0});
    // The second round finds beginnings that were computed with each adapter.
    for round in 0..2 {
        let bodies = expected.each_ref().map(|(name, _)| body(name));
        let answers = bodies.iter().map(|body| host.ok("/v1/completions", body));
        let answers = futures_util::future::join_all(answers).await;
        for ((name, text), answer) in expected.iter().zip(&answers) {
            assert_eq!(answer["choices"][0]["text"], *text, "{name} in round {round}");
            assert_eq!(answer["model"], *name);
            let known = answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a count");
            assert_eq!(known > 0, round > 0, "{name} in round {round}: {known}");
        }
    }
    let (_, listed) = host.get("/v1/models").await;
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    let of = |id: &str| listed["data"].as_array().expect("a list").iter().find(|it| it["id"] == id).cloned();
    assert_eq!(of("poet").expect("listed")["parent"], "tiny");
    assert!(of("tiny").expect("listed")["parent"].is_null());
    let (status, answer) = host.post("/v1/completions", &body("painter")).await;
    assert!(status == 404 && answer.to_string().contains("clerk"), "{answer}");
    let (status, _) = host.post("/v1/embeddings", &json!({"model": "poet", "input": "a"})).await;
    assert_eq!(status, 422);
    host.end().await;
}
