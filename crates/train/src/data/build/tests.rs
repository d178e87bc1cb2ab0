use std::fs;

use ounce_model::tokenizer::Tokenizer;

use super::*;
use crate::data::encode::Limits;

fn tokenizer() -> Tokenizer {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lab/assets/builtin");
    Tokenizer::from_folder(path, &serde_json::Value::Null, &serde_json::Value::Null).unwrap()
}

fn recipe(paths: Vec<PathBuf>) -> Recipe {
    let encoder = Encoder::new(tokenizer(), None, Limits::default()).unwrap();
    Recipe { paths, read: ReadOptions::default(), form: None, encoder }
}

#[test]
fn a_cache_is_reused_until_something_changes() {
    let folder = tempfile::tempdir().unwrap();
    let (text, tokens) = (folder.path().join("a.txt"), folder.path().join("tokens"));
    fs::write(&text, "Once upon a time.\n<|endoftext|>\nThere was a cat.\n").unwrap();
    let recipe = recipe(vec![text.clone()]);
    let build = |recipe: &Recipe| {
        let mut told = Vec::new();
        let built = recipe.open_or_build(&tokens, &mut |done, total| {
            told.push((done, total));
            Ok(())
        });
        (built.unwrap(), told)
    };
    let (first, told) = build(&recipe);
    assert_eq!((first.reused, first.cache.len()), (false, 2));
    assert_eq!(told.last(), Some(&(49, 49)));
    let mut ids = Vec::new();
    first.cache.read(0, 0..first.cache.length(0), &mut ids).unwrap();
    let end = tokenizer().special().eos[0];
    assert_eq!(ids.last(), Some(&end));
    assert_eq!(tokenizer().decode(&ids, true).unwrap().trim_start(), "Once upon a time.");

    assert!(build(&recipe).0.reused);
    fs::write(&text, "Once upon a time.\n<|endoftext|>\nThere were cats.\n<|endoftext|>\nTwo.").unwrap();
    assert_eq!(build(&recipe).0.cache.len(), 3);
    let cut = Recipe {
        read: ReadOptions { separator: crate::data::Separator::Never, ..recipe.read.clone() },
        ..recipe.clone()
    };
    assert_eq!(build(&cut).0.cache.len(), 1);
    // A damaged one is made again.
    let bytes = fs::read(&tokens).unwrap();
    fs::write(&tokens, &bytes[..bytes.len() - 8]).unwrap();
    let (again, _) = build(&cut);
    assert!(!again.reused);
    assert_eq!(fs::read(&tokens).unwrap(), bytes);
}

#[test]
fn the_order_of_files_is_kept_by_all_threads() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("a.jsonl");
    let lines: String = (0..10_000).map(|i| format!("{{\"text\": \"number {i}\"}}\n")).collect();
    fs::write(&text, lines).unwrap();
    let cache = recipe(vec![text]).in_memory().unwrap();
    for number in [0, 4095, 4096, 9999] {
        let mut ids = Vec::new();
        cache.read(number, 0..cache.length(number), &mut ids).unwrap();
        assert_eq!(tokenizer().decode(&ids, true).unwrap().trim(), format!("number {number}"));
    }
}

#[test]
fn an_interrupted_build_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("a.txt");
    fs::write(&text, "Once upon a time.").unwrap();
    let stopped = recipe(vec![text])
        .open_or_build(&folder.path().join("tokens"), &mut |_, _| Err(ounce_model::Error::Interrupted));
    assert!(matches!(stopped, Err(Error::Model(ounce_model::Error::Interrupted))));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn useless_data_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for (name, content, says) in [
        ("a.txt", "", "there is no document in"),
        (
            "b.jsonl",
            "{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": \"a\"}\n",
            "b.jsonl:2: there is no column \"completion\"",
        ),
        ("c.jsonl", "{\"a\": 1, \"b\": 2}", "say which holds the text"),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        let error = recipe(vec![path]).in_memory().unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    // Without ends, a text of one token has nothing to predict.
    let path = folder.path().join("d.jsonl");
    fs::write(&path, "{\"text\": \"\"}\n{\"text\": \"a\"}\n").unwrap();
    let limits = Limits { ends: false, ..Limits::default() };
    let encoder = Encoder::new(tokenizer(), None, limits).unwrap();
    let error = Recipe { encoder, ..recipe(vec![path]) }.in_memory().unwrap_err().to_string();
    assert!(error.starts_with("none of the 2 documents in "), "{error}");
}
