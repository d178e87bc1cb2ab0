//! Ids equal to those of the Python packages `tokenizers` and `sentencepiece` on a thousand lines of mixed text, from
//! every kind of file. The golden files are made by `tests/golden/tokenizer.py`.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use ounce_model::tokenizer::{GgufVocab, Tokenizer};
use serde_json::Value;

const NAMES: [&str; 7] = ["gpt2", "llama3", "qwen2", "llama", "t5", "bert-uncased", "bert-cased"];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/tokenizer").join(name)
}

fn lines() -> Vec<String> {
    serde_json::from_slice(&std::fs::read(golden("lines.json")).unwrap()).unwrap()
}

/// For each line its ids: u16 count, then the ids as u16, little-endian.
fn ids(name: &str) -> Vec<Vec<u32>> {
    let bytes = std::fs::read(golden(name)).unwrap();
    let mut words = bytes.chunks_exact(2).map(|word| u32::from(u16::from_le_bytes([word[0], word[1]])));
    let mut rows = Vec::new();
    while let Some(count) = words.next() {
        rows.push(words.by_ref().take(count as usize).collect());
    }
    rows
}

fn tokenizer(name: &str) -> Tokenizer {
    Tokenizer::from_json_bytes(&std::fs::read(golden(&format!("{name}.json"))).unwrap()).unwrap()
}

/// Compares all lines at once, so that a failure shows how common it is.
fn assert_equal(what: &str, lines: &[String], expected: &[Vec<u32>], encode: impl Fn(&str) -> Vec<u32>) {
    assert_eq!(lines.len(), 1000);
    assert_eq!(lines.len(), expected.len());
    let different: Vec<usize> = (0..lines.len()).filter(|i| encode(&lines[*i]) != expected[*i]).collect();
    if let Some(&first) = different.first() {
        let line = &lines[first];
        panic!(
            "{what}: {} lines differ, the first is {line:?}:\n{:?}\nexpected\n{:?}",
            different.len(),
            encode(line),
            expected[first]
        );
    }
}

#[test]
fn ids_equal_tokenizers() {
    let lines = lines();
    for name in NAMES {
        let tokenizer = tokenizer(name);
        assert_equal(name, &lines, &ids(&format!("{name}.ids")), |line| {
            tokenizer.encode(line, true).unwrap()
        });
    }
}

#[test]
fn text_equals_tokenizers() {
    for name in NAMES {
        let ours = tokenizer(name);
        let theirs = tokenizers::Tokenizer::from_file(golden(&format!("{name}.json"))).unwrap();
        for row in ids(&format!("{name}.ids")) {
            for skip in [false, true] {
                assert_eq!(ours.decode(&row, skip).unwrap(), theirs.decode(&row, skip).unwrap(), "{name}");
            }
        }
    }
}

#[test]
fn byte_level_text_comes_back() {
    for name in ["gpt2", "llama3"] {
        let tokenizer = tokenizer(name);
        for line in lines() {
            let ids = tokenizer.encode(&line, true).unwrap();
            let first = usize::from(name == "llama3");
            assert_eq!(tokenizer.decode(&ids[first..], false).unwrap(), line);
        }
    }
}

#[test]
fn gguf_lists_alone_give_the_same_ids() {
    let lines = lines();
    for name in NAMES {
        let mut vocab = GgufVocab::from_tokenizer(&tokenizer(name)).unwrap();
        vocab.huggingface_json = None;
        vocab.pad_to(1024);
        let rebuilt = vocab.to_tokenizer().unwrap();
        assert_eq!(rebuilt.vocab_size(), tokenizer(name).vocab_size(), "{name}");
        assert_equal(name, &lines, &ids(&format!("{name}.ids")), |line| rebuilt.encode(line, true).unwrap());
    }
}

#[test]
fn gguf_kinds_and_rules_are_recognised() {
    let expected = [
        ("gpt2", "gpt2", Some("gpt-2")),
        ("llama3", "gpt2", Some("llama-bpe")),
        ("qwen2", "gpt2", Some("qwen2")),
        ("llama", "llama", Some("default")),
        ("t5", "t5", None),
        ("bert-uncased", "bert", None),
    ];
    for (name, model, pre) in expected {
        let vocab = GgufVocab::from_tokenizer(&tokenizer(name)).unwrap();
        assert_eq!((vocab.model.as_str(), vocab.pre.as_deref()), (model, pre), "{name}");
    }
    let llama = GgufVocab::from_tokenizer(&tokenizer("llama")).unwrap();
    assert_eq!((llama.bos, llama.eos, llama.unk), (Some(1), Some(2), Some(0)));
    assert_eq!((llama.add_bos, llama.add_eos, llama.add_space_prefix), (Some(true), Some(false), Some(true)));
}

#[test]
fn embedded_json_survives_unless_it_disagrees() {
    for name in NAMES {
        let original = tokenizer(name);
        let mut vocab = GgufVocab::from_tokenizer(&original).unwrap();
        vocab.pad_to(1000);
        let back = vocab.to_tokenizer().unwrap();
        assert_eq!(back.to_json().unwrap(), original.to_json().unwrap(), "{name}");

        let foreign = if name == "gpt2" { "qwen2" } else { "gpt2" };
        vocab.huggingface_json = Some(tokenizer(foreign).to_json().unwrap());
        let rebuilt = vocab.to_tokenizer().unwrap();
        assert_eq!(rebuilt.vocab_size(), original.vocab_size());
        assert_eq!(
            rebuilt.encode("the fox", true).unwrap(),
            original.encode("the fox", true).unwrap(),
            "{name}"
        );
    }
}

#[test]
fn sentencepiece_files_give_the_same_ids() {
    let lines = lines();
    for name in ["llama", "t5"] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(golden(&format!("{name}.model")), folder.path().join("tokenizer.model")).unwrap();
        let tokenizer = Tokenizer::from_folder(folder.path(), &Value::Null, &Value::Null).unwrap();
        assert_equal(name, &lines, &ids(&format!("{name}.ids")), |line| {
            tokenizer.encode(line, true).unwrap()
        });
        // The sentencepiece package doesn't look for special tokens in the text, and takes its mark for a space.
        let expected = ids(&format!("{name}.sp.ids"));
        let special = |line: &str| ["<s>", "</s>", "<unk>", "▁"].iter().any(|part| line.contains(part));
        let mut compared = 0;
        for (line, expected) in lines.iter().zip(&expected).filter(|(line, _)| !special(line)) {
            assert_eq!(&tokenizer.encode(line, false).unwrap(), expected, "{name}: {line:?}");
            compared += 1;
        }
        assert!(compared > 900);
    }
}

#[test]
fn vocab_and_merges_make_a_tokenizer() {
    let json: Value = serde_json::from_slice(&std::fs::read(golden("gpt2.json")).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
    write("vocab.json", json["model"]["vocab"].to_string());
    let merges = json["model"]["merges"].as_array().unwrap();
    let merge = |m: &Value| format!("{} {}\n", m[0].as_str().unwrap(), m[1].as_str().unwrap());
    write("merges.txt", "#version: 0.2\n".to_string() + &merges.iter().map(merge).collect::<String>());
    write("added_tokens.json", r#"{"<|endoftext|>": 800, "@user": 801}"#.into());
    let tokenizer = Tokenizer::from_folder(folder.path(), &Value::Null, &Value::Null).unwrap();
    assert_equal("gpt2", &lines(), &ids("gpt2.ids"), |line| tokenizer.encode(line, true).unwrap());

    write("tokenizer_config.json", r#"{"tokenizer_class": "WhisperTokenizer"}"#.into());
    let error = Tokenizer::from_folder(folder.path(), &Value::Null, &Value::Null).unwrap_err().to_string();
    assert!(error.contains("WhisperTokenizer") && error.contains("tokenizer.json"), "{error}");
}

#[test]
fn a_word_list_makes_a_tokenizer() {
    for (name, lowercase) in [("bert-uncased", true), ("bert-cased", false)] {
        let original = tokenizer(name);
        let folder = tempfile::tempdir().unwrap();
        let words: String = (0..original.id_limit()).map(|id| original.piece(id).unwrap() + "\n").collect();
        std::fs::write(folder.path().join("vocab.txt"), words).unwrap();
        let config = format!(r#"{{"do_lower_case": {lowercase}}}"#);
        std::fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
        let tokenizer = Tokenizer::from_folder(folder.path(), &Value::Null, &Value::Null).unwrap();
        assert_equal(name, &lines(), &ids(&format!("{name}.ids")), |line| {
            tokenizer.encode(line, true).unwrap()
        });
        let pair = tokenizer.encode_with_types("the fox", Some("a dog"), true).unwrap();
        let second = pair.type_ids.iter().position(|kind| *kind == 1).unwrap();
        assert_eq!(pair.ids[0], tokenizer.id("[CLS]").unwrap());
        assert_eq!(pair.ids[second - 1], tokenizer.id("[SEP]").unwrap());
        assert_eq!(pair.ids.last().copied(), tokenizer.id("[SEP]"));
        assert!(pair.type_ids[second..].iter().all(|kind| *kind == 1));
    }
}

#[test]
fn truncation_and_padding_are_switched_off_but_kept_in_the_file() {
    let mut json: Value = serde_json::from_slice(&std::fs::read(golden("gpt2.json")).unwrap()).unwrap();
    json["truncation"] = serde_json::json!(
        {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0});
    json["padding"] = serde_json::json!({"strategy": {"Fixed": 16}, "direction": "Right",
        "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "!"});
    let tokenizer = Tokenizer::from_json_bytes(json.to_string().as_bytes()).unwrap();
    let text = "the quick brown fox jumps over a lazy dog";
    let ids = tokenizer.encode(text, true).unwrap();
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
    assert!(tokenizer.to_json().unwrap().contains("\"max_length\":4"));
}

#[test]
fn special_ids_come_from_all_files_of_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(golden("qwen2.json"), folder.path().join("tokenizer.json")).unwrap();
    let config = r#"{"bos_token": null, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}"#;
    std::fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
    let end = tokenizer("qwen2").id("<|endoftext|>").unwrap();
    let generation = serde_json::json!({"eos_token_id": [end]});
    let tokenizer =
        Tokenizer::from_folder(folder.path(), &serde_json::json!({"bos_token_id": end}), &generation)
            .unwrap();
    let turn = tokenizer.id("<|im_end|>").unwrap();
    assert_eq!(tokenizer.special().eos, [turn, end]);
    assert_eq!((tokenizer.special().bos, tokenizer.special().pad), (None, Some(end)));
    assert!(tokenizer.is_end(end) && tokenizer.is_special(turn) && !tokenizer.is_special(0));
    assert!(!tokenizer.adds_bos() && !tokenizer.adds_eos());
    assert!(self::tokenizer("llama3").adds_bos());
    assert!(self::tokenizer("t5").adds_eos());
}

#[test]
fn pieces_are_readable() {
    let tokenizer = tokenizer("llama");
    let ids = tokenizer.encode("the €", false).unwrap();
    let pieces = tokenizer.pieces(&ids);
    assert_eq!(pieces.concat(), " the <0xE2><0x82><0xAC>");
    assert_eq!(
        ids.iter().flat_map(|id| tokenizer.piece_bytes(*id)).collect::<Vec<u8>>(),
        " the €".as_bytes()
    );
    assert_eq!(tokenizer.pieces(&[60000]), ["<id 60000>"]);
}
