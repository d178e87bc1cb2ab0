//! `ounce classify` on tiny random classifiers with a word-piece tokenizer.

mod common;

use common::{Desk, golden};

/// A golden classifier with a tokenizer, on the desk.
fn classifier(desk: &Desk, name: &str) -> String {
    let read = |path: String| std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let source = golden("../classifiers");
    for file in ["config.json", "model.safetensors"] {
        desk.write(&format!("{name}/{file}"), read(format!("{source}/{name}/{file}")));
    }
    let tokenizer = golden("minilm");
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        desk.write(&format!("{name}/{file}"), read(format!("{tokenizer}/{file}")));
    }
    name.to_string()
}

#[test]
fn texts_get_labels_with_probabilities_likeliest_first() {
    let desk = Desk::new();
    let model = classifier(&desk, "bert_text");
    let report = desk.json(&["classify", &model, "the cat sat", "a small model"]);
    assert_eq!(report.as_array().map(Vec::len), Some(2));
    let labels = report[0]["labels"].as_array().expect("labels");
    let probability = |at: usize| labels[at]["probability"].as_f64().expect("a number");
    assert_eq!(labels.len(), 3);
    assert!((probability(0) + probability(1) + probability(2) - 1.0).abs() < 1e-5);
    assert!(probability(0) >= probability(1) && probability(1) >= probability(2));
    assert_eq!(desk.json(&["classify", &model, "the cat sat", "--top", "1"])[0]["labels"][0], labels[0]);
    let text = desk.ok(&["classify", &model, "the cat sat"]);
    assert!(text.contains("LABEL_") && text.contains('%'), "{text}");
}

#[test]
fn tokens_get_labels_and_questions_get_answers_from_the_text() {
    let desk = Desk::new();
    let report = desk.json(&["classify", &classifier(&desk, "bert_tokens"), "the cat sat"]);
    let tokens = report[0]["tokens"].as_array().expect("tokens");
    assert_eq!(
        tokens.iter().map(|it| it["token"].as_str().unwrap_or("")).collect::<Vec<_>>(),
        ["the", "cat", "sat"]
    );
    let model = classifier(&desk, "bert_spans");
    let text = "the cat sat by the river";
    let report = desk.json(&["classify", &model, text, "--question", "is it small"]);
    let answer = report[0]["answer"]["answer"].as_str().expect("an answer").to_string();
    assert!(!answer.is_empty() && text.contains(&answer), "{answer}");
    let ran = desk.run(&["classify", &model, text]);
    assert!(ran.code == 2 && ran.stderr.contains("add --question"), "{}", ran.stderr);
}

#[test]
fn models_without_labels_are_refused() {
    let desk = Desk::new();
    let ran = desk.run(&["classify", &golden("minilm"), "a"]);
    assert!(ran.code == 2 && ran.stderr.contains("has no classifier"), "{}", ran.stderr);
}
