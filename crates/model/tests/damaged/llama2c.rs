//! Headers and sizes of llama2.c checkpoints.

use std::path::Path;

use ounce_model::Model;
use ounce_model::formats::llama2c::read;
use ounce_model::storage::Bytes;

use crate::folder::Folder;
use crate::refused;

/// dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, max_seq_len of a sound file.
const SOUND: [i32; 7] = [4, 3, 1, 2, 1, 5, 2];

/// A file of this header and as many zeros as the sound one has values, and `extra` bytes.
fn file(header: [i32; 7], extra: usize) -> Vec<u8> {
    let layer = 2 * 4 + 2 * 4 * 4 + 2 * 2 * 4 + 3 * 3 * 4;
    let values = 5 * 4 + layer + 4 + 2 * 2;
    let mut file: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
    file.resize(file.len() + 4 * values + extra, 0);
    file
}

/// The sound header with one number changed.
fn with(index: usize, value: i32) -> [i32; 7] {
    let mut header = SOUND;
    header[index] = value;
    header
}

fn refuse(case: &str, bytes: Vec<u8>, words: &[&str]) {
    refused(case, &[words, &["model.bin: "]].concat(), || read(&Bytes::from(bytes), Path::new("model.bin")));
}

#[test]
fn damaged_headers_are_refused() {
    assert!(read(&Bytes::from(file(SOUND, 0)), Path::new("model.bin")).is_ok());
    refuse("empty", Vec::new(), &["has 0 bytes, less than a header", "no llama2.c checkpoint"]);
    refuse("short", vec![0; 27], &["has 27 bytes, less than a header"]);
    let names = ["dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "max_seq_len"];
    for (index, name) in names.into_iter().enumerate() {
        for value in [0, -1, i32::MIN, i32::MAX, 1 << 24] {
            if (index, value) != (5, -1) {
                refuse(name, file(with(index, value), 0), &[&format!("says that {name} is {value}")]);
            }
        }
    }
    refuse("pickle", b"PK\x03\x04".repeat(7), &["says that dim is", "pickle weights are not read"]);
    refuse("later", file(with(0, 0x616b_3432), 0), &["checkpoint of version 3", "export it again"]);
    refuse("heads", file(with(3, 3), 0), &["has 3 heads", "can't share 4 dimensions"]);
    refuse("odd heads", file(with(3, 4), 0), &["has 4 heads", "can't share 4 dimensions"]);
    refuse("groups", file(with(4, 3), 0), &["and 3 key/value heads"]);
    refuse("layers", file(with(2, 1 << 23), 0), &["8388608 layers are more than the 10000"]);
}

#[test]
fn sizes_that_are_not_the_headers_are_refused() {
    refuse(
        "cut",
        {
            let mut file = file(SOUND, 0);
            file.pop();
            file
        },
        &["ends inside freq_cis", "cut off"],
    );
    refuse("vocabulary", file(with(5, 1 << 20), 0), &["ends inside token_embedding"]);
    refuse("wide", file(with(1, (1 << 24) - 1), 0), &["ends inside w1.0"]);
    refuse("own head", file(with(5, -5), 0), &["ends inside wcls"]);
    refuse("long", file(SOUND, 1), &["has 1 bytes too many"]);
    refuse("no layer", file(with(2, 2), 0), &["ends inside"]);
}

#[test]
fn a_vocabulary_of_another_size_is_refused() {
    let folder = Folder::new();
    folder.write("model.bin", file(SOUND, 0));
    assert!(Model::open(folder.file("model.bin")).unwrap().tokenizer.is_none());
    let mut vocab = 8u32.to_le_bytes().to_vec();
    for token in ["<unk>", "<s>", "</s>", "a", "b", "c"] {
        vocab.extend(0f32.to_le_bytes());
        vocab.extend((token.len() as u32).to_le_bytes());
        vocab.extend(token.as_bytes());
    }
    folder.write("tokenizer.bin", &vocab);
    let open = || Model::open(folder.file("model.bin"));
    assert!(open().unwrap_err().to_string().contains("has 6 tokens, but the checkpoint beside it has 5"));
    folder.write("tok5.bin", &vocab[..vocab.len() - 9]);
    assert_eq!(open().unwrap().tokenizer.unwrap().vocab_size(), 5);
}
