//! Streaming: whatever the ids, what comes out piece by piece is what decoding all of them gives; and damaged files are
//! errors, never panics.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use ounce_model::tokenizer::{DetokenStream, GgufVocab, Tokenizer};
use proptest::prelude::*;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/tokenizer").join(name)
}

fn tokenizer(name: &str) -> Tokenizer {
    Tokenizer::from_json_bytes(&std::fs::read(golden(name)).unwrap()).unwrap()
}

/// Both forms of each tokenizer: as its tokenizer.json says, and rebuilt from the lists of a GGUF file.
static TOKENIZERS: LazyLock<Vec<(Tokenizer, tokenizers::Tokenizer)>> = LazyLock::new(|| {
    let both = |name: &str| {
        let read = tokenizer(name);
        let mut vocab = GgufVocab::from_tokenizer(&read).unwrap();
        vocab.huggingface_json = None;
        [read, vocab.to_tokenizer().unwrap()]
    };
    let ours = ["gpt2.json", "llama.json", "t5.json", "bert-uncased.json"].into_iter().flat_map(both);
    ours.map(|ours| {
        let theirs = tokenizers::Tokenizer::from_bytes(ours.to_json().unwrap()).unwrap();
        (ours, theirs)
    })
    .collect()
});

fn run(mut stream: DetokenStream, ids: &[u32]) -> Vec<String> {
    let mut pieces: Vec<String> = ids.iter().filter_map(|id| stream.push(*id).unwrap()).collect();
    pieces.extend(stream.finish().unwrap());
    pieces
}

/// Ids with many bytes among them (the first few hundred of the small vocabularies), and some that don't exist.
fn any_ids() -> impl Strategy<Value = Vec<u32>> {
    let id = prop_oneof![6 => 0..900u32, 6 => 0..262u32, 1 => any::<u32>()];
    proptest::collection::vec(id, 0..60)
}

proptest! {
    #[test]
    fn pieces_join_to_the_whole(ids in any_ids(), skip: bool) {
        for (ours, theirs) in TOKENIZERS.iter() {
            let pieces = run(ours.stream(skip), &ids);
            prop_assert!(pieces.iter().all(|piece| !piece.is_empty()));
            let whole = ours.decode(&ids, skip).unwrap();
            prop_assert_eq!(pieces.concat(), whole.clone());
            // The reference replaces a whole run of byte tokens when one of them is wrong; otherwise texts are equal.
            let reference = theirs.decode(&ids, skip).unwrap();
            let runs_of_bytes = ours.id("<0xE2>").is_some();
            if !(runs_of_bytes && reference.contains('\u{FFFD}')) {
                prop_assert_eq!(whole, reference);
            }
        }
    }

    #[test]
    fn text_comes_out_without_halves_of_characters(text in "\\PC{0,40}") {
        for (ours, _) in TOKENIZERS.iter() {
            let ids = ours.encode(&text, false).unwrap();
            let pieces = run(ours.stream(false), &ids);
            if ours.id("<0xE2>").is_some() || ours.id("Ġ").is_some() {
                let stray = |text: &str| text.matches(char::REPLACEMENT_CHARACTER).count();
                prop_assert_eq!(stray(&pieces.concat()), stray(&text));
            }
        }
    }

    #[test]
    fn damaged_files_are_errors(at in 0usize..15000, byte: u8, name in 0usize..4) {
        let name = ["gpt2.json", "llama.json", "t5.json", "bert-uncased.json"][name];
        let mut content = std::fs::read(golden(name)).unwrap();
        let at = at % content.len();
        content[at] = byte;
        if let Ok(tokenizer) = Tokenizer::from_json_bytes(&content) {
            let _ = tokenizer.encode("the fox, 12 \u{1F600}", true);
            let _ = tokenizer.decode(&[0, 1, 2, 300, 800], true);
            let _ = GgufVocab::from_tokenizer(&tokenizer).and_then(|vocab| vocab.to_tokenizer());
        }
    }
}

#[test]
fn a_character_waits_for_its_last_byte() {
    for name in ["gpt2.json", "llama.json"] {
        let tokenizer = tokenizer(name);
        let bytes = if name == "gpt2.json" { ["â", "Ĥ", "¬"] } else { ["<0xE2>", "<0x82>", "<0xAC>"] };
        let mut stream = tokenizer.stream(false);
        let pieces: Vec<_> =
            bytes.iter().map(|byte| stream.push(tokenizer.id(byte).unwrap()).unwrap()).collect();
        assert_eq!(pieces, [None, None, Some("€".to_string())], "{name}");
        assert_eq!(stream.push(tokenizer.id(bytes[0]).unwrap()).unwrap(), None);
        assert_eq!(stream.finish().unwrap().as_deref(), Some("\u{FFFD}"), "{name}");
    }
}

#[test]
fn only_a_text_that_begins_loses_its_space() {
    let tokenizer = tokenizer("llama.json");
    let ids = tokenizer.encode("the fox", false).unwrap();
    assert_eq!(run(tokenizer.stream(false), &ids).concat(), "the fox");
    assert_eq!(run(tokenizer.stream_continuing(false), &ids).concat(), " the fox");
    assert_eq!(tokenizer.decode(&tokenizer.encode("  the", false).unwrap(), false).unwrap(), "  the");
}

#[test]
fn decoding_takes_linear_time() {
    // A hundred thousand ids; decoding the prefix again for each would take hours.
    for (tokenizer, _) in TOKENIZERS.iter() {
        let ids: Vec<u32> = (0..100_000).map(|i| (i * 7919) % 600 + 262).collect();
        assert!(run(tokenizer.stream(true), &ids).concat().len() > 50_000);
    }
}
