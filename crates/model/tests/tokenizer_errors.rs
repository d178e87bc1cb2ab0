//! What is said when a tokenizer's files are missing, foreign, damaged or contradictory.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use ounce_model::tokenizer::gguf::TokenType;
use ounce_model::tokenizer::{GgufVocab, Tokenizer};
use serde_json::Value;

#[test]
fn missing_and_foreign_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let load = || Tokenizer::from_folder(folder.path(), &Value::Null, &Value::Null).unwrap_err().to_string();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let assert_says = |parts: &[&str]| {
        let error = load();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    };
    assert_says(&["no tokenizer.json"]);
    write("qwen.tiktoken", "IQ== 0\nIg== 1\n");
    assert_says(&["qwen.tiktoken", "tiktoken vocabulary"]);
    write("tokenizer.model", "IQ== 0\nIg== 1\n");
    assert_says(&["tokenizer.model", "tiktoken vocabulary"]);
    write("tokenizer.model", "\u{a}\u{9}");
    assert_says(&["tokenizer.model", "cut off at byte 0"]);
    write("vocab.txt", "a\nb\n");
    assert_says(&["vocab.txt", "[UNK]"]);
    write("vocab.json", "{\"a\": -1}");
    write("merges.txt", "a b\n");
    assert_says(&["vocab.json", "\"a\""]);
    write("vocab.json", "{\"a\": 0}");
    write("merges.txt", "#version: 0.2\nab\n");
    assert_says(&["merges.txt", "line 2"]);
    write("tokenizer.json", "{\"model\": 3}");
    assert_says(&["tokenizer.json", "not a usable"]);
    write("tokenizer_config.json", "{");
    assert_says(&["tokenizer_config.json", "not valid JSON"]);
}

#[test]
fn files_beyond_all_measure_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    // The file has holes only; it takes no space.
    std::fs::File::create(folder.path().join("tokenizer.json")).unwrap().set_len(300 << 20).unwrap();
    let error = Tokenizer::from_folder(folder.path(), &Value::Null, &Value::Null).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json") && error.contains("314572800 bytes"), "{error}");
}

#[test]
fn ids_beyond_all_measure_are_refused() {
    let json = r#"{"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"a": 4000000000}, "unk_token": "a"}}"#;
    let error = Tokenizer::from_json_bytes(json.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("4000000000"), "{error}");
    let empty = json.replace("\"a\": 4000000000", "");
    assert!(Tokenizer::from_json_bytes(empty.as_bytes()).unwrap_err().to_string().contains("empty"));
}

/// A byte-level vocabulary of three tokens.
fn vocab() -> GgufVocab {
    GgufVocab {
        model: "gpt2".into(),
        pre: Some("gpt-2".into()),
        tokens: ["a", "b", "ab"].map(String::from).to_vec(),
        merges: Some(vec!["a b".into()]),
        ..GgufVocab::default()
    }
}

fn error(change: impl FnOnce(&mut GgufVocab)) -> String {
    let mut vocab = vocab();
    change(&mut vocab);
    let error = vocab.to_tokenizer_of(Path::new("model.gguf")).unwrap_err().to_string();
    assert!(error.starts_with("model.gguf: "), "{error}");
    error
}

#[test]
fn contradictory_gguf_vocabularies_are_refused() {
    assert_eq!(vocab().to_tokenizer().unwrap().encode("abb", true).unwrap(), [2, 1]);
    assert!(error(|v| v.model = "rwkv".into()).contains("\"rwkv\""));
    assert!(error(|v| v.pre = Some("my-own".into())).contains("\"my-own\""));
    assert!(error(|v| v.tokens.clear()).contains("0 entries"));
    assert!(error(|v| v.tokens[1] = "a".into()).contains("tokens 0 and 1 are both \"a\""));
    assert!(error(|v| v.token_types = Some(vec![1])).contains("token_type has 1 entries for 3 tokens"));
    assert!(error(|v| v.scores = Some(vec![])).contains("scores has 0 entries"));
    assert!(error(|v| v.merges = None).contains("no tokenizer.ggml.merges"));
    assert!(error(|v| v.merges = Some(vec!["ab".into()])).contains("entry 0"));
    assert!(error(|v| v.merges = Some(vec!["a c".into()])).contains("out of vocabulary"));
    assert!(error(|v| (v.model, v.merges) = ("llama".into(), None)).contains("neither scores nor merges"));
    assert!(error(|v| v.model = "t5".into()).contains("tokenizer.ggml.scores"));
    assert!(error(|v| v.model = "bert".into()).contains("kind bert"));
}

#[test]
fn special_ids_outside_the_vocabulary_are_dropped() {
    let vocab = GgufVocab { bos: Some(7), eos: Some(2), eot: Some(9), add_bos: Some(true), ..vocab() };
    let tokenizer = vocab.to_tokenizer().unwrap();
    assert_eq!((tokenizer.special().bos, tokenizer.special().eos.as_slice()), (None, &[2][..]));
    assert_eq!(tokenizer.encode("a", true).unwrap(), [0]);
}

#[test]
fn turn_ends_are_found_by_name() {
    let mut vocab = GgufVocab { eos: Some(2), token_types: Some(vec![1, 1, 1]), ..vocab() };
    for (name, kind) in [("<|im_end|>", TokenType::Control), ("<|end|>", TokenType::Normal)] {
        vocab.tokens.push(name.into());
        vocab.token_types.as_mut().unwrap().push(kind as i32);
    }
    let tokenizer = vocab.to_tokenizer().unwrap();
    assert_eq!(tokenizer.special().eos, [2, 3], "a normal token of such a name ends nothing");
    assert_eq!(tokenizer.encode("a<|im_end|>", false).unwrap(), [0, 3]);
}
