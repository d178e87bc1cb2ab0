//! Shards and their index.

use serde_json::json;

use crate::folder::{Folder, Stored, config, pack, tensors};
use crate::refused;

const INDEX: &str = "model.safetensors.index.json";

/// The sound model in two shards, `first` and `second`.
fn sharded() -> (Folder, Vec<Stored>, Vec<Stored>) {
    let folder = Folder::new();
    let mut first = tensors(&config());
    let second = first.split_off(3);
    folder.remove("model.safetensors");
    folder.write("first", pack(&first));
    folder.write("second", pack(&second));
    let shard = |tensors: &[Stored], name: &'static str| {
        tensors.iter().map(|tensor| (tensor.0.clone(), json!(name))).collect::<Vec<_>>()
    };
    let map: serde_json::Map<_, _> =
        shard(&first, "first").into_iter().chain(shard(&second, "second")).collect();
    folder.write(INDEX, json!({"metadata": {}, "weight_map": map}).to_string());
    (folder, first, second)
}

#[test]
fn the_sound_shards_open_and_one_file_wins_over_them() {
    let (folder, ..) = sharded();
    assert_eq!(folder.open().unwrap().weights.names().count(), 21);
    folder.write(INDEX, "{");
    folder.write("model.safetensors", pack(&tensors(&config())));
    assert!(folder.open().is_ok());
}

#[test]
fn damaged_indexes_are_refused() {
    let nested = "[".repeat(1000);
    let cases: [(&str, &[&str]); 14] = [
        ("", &["is no valid JSON"]),
        ("{", &["is no valid JSON", "fetch it again"]),
        (&nested, &["is no valid JSON", "recursion"]),
        ("[]", &["has no weight_map object"]),
        ("{}", &["has no weight_map object"]),
        (r#"{"weight_map":[]}"#, &["has no weight_map object"]),
        (r#"{"weight_map":{"a":1}}"#, &["tensor a: its shard 1 is no file name"]),
        (r#"{"weight_map":{"a":""}}"#, &["tensor a: its shard \"\" is no file name"]),
        (r#"{"weight_map":{"a":"../first"}}"#, &["tensor a", "is no file name in the same folder"]),
        (r#"{"weight_map":{"a":"/etc/passwd"}}"#, &["tensor a", "is no file name in the same folder"]),
        (r#"{"weight_map":{"a":"x/first"}}"#, &["tensor a", "is no file name in the same folder"]),
        (r#"{"weight_map":{"a":"gone"}}"#, &["gone: is listed in", "the download is incomplete"]),
        (r#"{"weight_map":{"a":"folder"}}"#, &["folder: is listed in", "is no file here"]),
        (r#"{"weight_map":{}}"#, &["tensor model.embed_tokens.weight: is missing"]),
    ];
    for (text, words) in cases {
        let (folder, ..) = sharded();
        folder.write("folder/x", "");
        folder.write(INDEX, text);
        refused(&text[..text.len().min(60)], words, || folder.open());
    }
    let (folder, ..) = sharded();
    std::fs::File::create(folder.file(INDEX)).unwrap().set_len(1 << 40).unwrap();
    refused("huge", &[INDEX, "has 1099511627776 bytes", "is it the right file?"], || folder.open());
    folder.remove(INDEX);
    folder.write(&format!("{INDEX}/x"), "");
    refused("folder", &[INDEX, "is no regular file"], || folder.open());
}

#[test]
fn shards_that_are_not_what_the_index_says_are_refused() {
    let (folder, first, mut second) = sharded();
    folder.write("first", pack(&first[1..]));
    let words = ["first: tensor model.embed_tokens.weight: is listed in the index but not in this shard"];
    refused("tensor gone", &words, || folder.open());

    second.push(first[0].clone());
    folder.write("first", pack(&first));
    folder.write("second", pack(&second));
    let words = ["second: tensor model.embed_tokens.weight: is in this shard but the index does not list it"];
    refused("tensor in both", &words, || folder.open());

    second.pop();
    folder.write("second", &pack(&second)[..200]);
    refused("cut", &["second: its header is longer than the file of 200 bytes"], || folder.open());
    folder.remove("second");
    refused("missing shard", &["second: is listed in", "is no file here"], || folder.open());
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_loops_are_not() {
    let (folder, ..) = sharded();
    std::fs::rename(folder.file("second"), folder.file("blob")).unwrap();
    std::os::unix::fs::symlink("blob", folder.file("second")).unwrap();
    assert!(folder.open().is_ok());
    folder.remove("second");
    std::os::unix::fs::symlink("second", folder.file("second")).unwrap();
    refused("loop", &["second: is listed in", "is no file here"], || folder.open());
}

#[test]
fn folders_without_weights_say_what_to_do() {
    let folder = Folder::new();
    folder.remove("model.safetensors");
    refused("nothing", &["has no model.safetensors", "ounce pull"], || folder.open());
    folder.write("pytorch_model.bin", "PK");
    refused("pickle", &["run code when loaded", "save_pretrained"], || folder.open());
}
