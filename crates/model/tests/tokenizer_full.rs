//! Full-size vocabularies: GPT-2's 50,257 tokens and Llama 2's 32,000, which are not part of the repository. Each test
//! says so and stops when they are missing.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ounce_model::tokenizer::{GgufVocab, Tokenizer, llama2c};
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A file beside the repository, or a printed reason to skip the test.
fn shared(name: &str) -> Option<PathBuf> {
    let path = root().join("../shared/data").join(name);
    if path.is_file() {
        return Some(path);
    }
    println!("skipped: ../shared/data/{name} is missing");
    None
}

fn lines() -> Vec<String> {
    serde_json::from_slice(&std::fs::read(root().join("tests/golden/tokenizer/lines.json")).unwrap()).unwrap()
}

fn ids(name: &str) -> Vec<Vec<u32>> {
    let bytes = std::fs::read(root().join("tests/golden/tokenizer").join(name)).unwrap();
    let mut words = bytes.chunks_exact(2).map(|word| u32::from(u16::from_le_bytes([word[0], word[1]])));
    let mut rows = Vec::new();
    while let Some(count) = words.next() {
        rows.push(words.by_ref().take(count as usize).collect());
    }
    rows
}

/// The sentencepiece package doesn't look for special tokens in the text, and takes its mark for a space.
fn is_plain(line: &str) -> bool {
    !["<s>", "</s>", "<unk>", "▁"].iter().any(|part| line.contains(part))
}

fn assert_equals_sentencepiece(tokenizer: &Tokenizer) {
    let mut compared = 0;
    for (line, expected) in lines().iter().zip(ids("full-llama2.ids")).filter(|(line, _)| is_plain(line)) {
        assert_eq!(tokenizer.encode(line, false).unwrap(), expected, "{line:?}");
        compared += 1;
    }
    assert!(compared > 900);
}

#[test]
fn gpt2() {
    let (Some(vocab), Some(merges)) =
        (shared("tokenizers/gpt2_vocab.json"), shared("tokenizers/gpt2_merges.txt"))
    else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(vocab, folder.path().join("vocab.json")).unwrap();
    std::fs::copy(merges, folder.path().join("merges.txt")).unwrap();
    std::fs::write(folder.path().join("tokenizer_config.json"), r#"{"eos_token": "<|endoftext|>"}"#).unwrap();
    let tokenizer = Tokenizer::from_folder(folder.path(), &Value::Null, &Value::Null).unwrap();
    assert_eq!((tokenizer.vocab_size(), tokenizer.special().eos.as_slice()), (50257, &[50256][..]));
    let mut vocab = GgufVocab::from_tokenizer(&tokenizer).unwrap();
    assert_eq!(vocab.pre.as_deref(), Some("gpt-2"));
    vocab.huggingface_json = None;
    let rebuilt = vocab.to_tokenizer().unwrap();
    for (line, expected) in lines().iter().zip(ids("full-gpt2.ids")) {
        assert_eq!(tokenizer.encode(line, true).unwrap(), expected, "{line:?}");
        assert_eq!(rebuilt.encode(line, true).unwrap(), expected, "{line:?}");
        assert_eq!(&tokenizer.decode(&expected, false).unwrap(), line);
    }
}

#[test]
fn llama2_from_sentencepiece() {
    let Some(model) = shared("tokenizers/llama2_tokenizer.model") else { return };
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(model, folder.path().join("tokenizer.model")).unwrap();
    let tokenizer = Tokenizer::from_folder(folder.path(), &Value::Null, &Value::Null).unwrap();
    assert_eq!((tokenizer.vocab_size(), tokenizer.special().bos), (32000, Some(1)));
    assert_equals_sentencepiece(&tokenizer);
    let mut vocab = GgufVocab::from_tokenizer(&tokenizer).unwrap();
    vocab.huggingface_json = None;
    assert_equals_sentencepiece(&vocab.to_tokenizer().unwrap());
}

#[test]
fn llama2_from_llama2c() {
    let Some(bin) = shared("tokenizers/llama2_tokenizer.bin") else { return };
    let tokenizer = llama2c::read_file(bin).unwrap().to_tokenizer().unwrap();
    assert_eq!(tokenizer.vocab_size(), 32000);
    assert_equals_sentencepiece(&tokenizer);
}

/// What llama2.c does: join the neighbours with the best joint token, the leftmost first, until none is left.
fn by_hand(vocab: &GgufVocab, text: &str) -> Vec<u32> {
    let known: HashMap<&str, u32> =
        vocab.tokens.iter().enumerate().map(|(id, t)| (t.as_str(), id as u32)).collect();
    let scores = vocab.scores.as_ref().unwrap();
    let text = format!("▁{}", text.replace(' ', "▁"));
    let mut ids = Vec::new();
    for c in text.chars() {
        match known.get(c.to_string().as_str()) {
            Some(id) => ids.push(*id),
            None => ids.extend(c.to_string().bytes().map(|byte| known[format!("<0x{byte:02X}>").as_str()])),
        }
    }
    loop {
        let mut best: Option<(f32, usize, u32)> = None;
        for at in 1..ids.len() {
            let pair = format!("{}{}", vocab.tokens[ids[at - 1] as usize], vocab.tokens[ids[at] as usize]);
            if let Some(&id) = known.get(pair.as_str())
                && best.is_none_or(|(score, ..)| scores[id as usize] > score)
            {
                best = Some((scores[id as usize], at, id));
            }
        }
        let Some((_, at, id)) = best else { return ids };
        ids.splice(at - 1..=at, [id]);
    }
}

#[test]
fn stories_vocabulary_from_llama2c() {
    let Some(bin) = shared("stories260k/tok512.bin") else { return };
    let Some(sample) = shared("stories260k/tinystories_sample.txt") else { return };
    let vocab = llama2c::read_file(bin).unwrap();
    let tokenizer = vocab.to_tokenizer().unwrap();
    assert_eq!(tokenizer.vocab_size(), 512);
    let sample = std::fs::read_to_string(sample).unwrap();
    let stories: Vec<&str> =
        sample.lines().filter(|line| !line.is_empty() && is_plain(line)).take(40).collect();
    assert!(stories.len() > 10);
    for text in stories.into_iter().chain(["  two  spaces ", "Zürich 😀\t漢字"]) {
        let ids = tokenizer.encode(text, false).unwrap();
        assert_eq!(ids, by_hand(&vocab, text), "{text:?}");
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), text);
    }
}
