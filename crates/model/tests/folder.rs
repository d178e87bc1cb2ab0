//! Hugging Face folders: every golden model (see tests/golden/README.md) written and read again, in one file and in
//! shards, in its own and in other number formats; and writing that stops, or meets something in its place.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ounce_kernels::DType;
use ounce_model::formats::WriteOptions;
use ounce_model::formats::hf::write_model;
use ounce_model::{Error, Model, Weights};
use serde_json::{Map, Value};

fn golden() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/models");
    let mut models: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    models.sort();
    assert!(models.len() >= 41, "{} golden models, some are missing", models.len());
    models
}

fn open(path: &Path) -> Model {
    Model::open(path).unwrap_or_else(|error| panic!("{error}"))
}

fn write(model: &Model, folder: &Path, options: &WriteOptions) -> u64 {
    write_model(model, folder, options, &mut |_, _| Ok(())).unwrap_or_else(|error| panic!("{error}"))
}

/// Writes and opens again.
fn copied(model: &Model, options: &WriteOptions) -> (tempfile::TempDir, Model) {
    let folder = tempfile::tempdir().unwrap();
    write(model, &folder.path().join("copy"), options);
    let copy = open(&folder.path().join("copy"));
    (folder, copy)
}

/// The settings less the two spellings of the number format.
fn settings(model: &Model) -> Map<String, Value> {
    let mut map = model.config.map().clone();
    for key in ["dtype", "torch_dtype"] {
        map.remove(key);
    }
    map
}

fn assert_equal_weights(before: &Weights, after: &Weights, name: &str) {
    assert_eq!(before.names().collect::<Vec<_>>(), after.names().collect::<Vec<_>>(), "{name}");
    for tensor in before.names() {
        let (before, after) = (before.get(tensor).unwrap(), after.get(tensor).unwrap());
        assert_eq!((before.dtype, before.shape), (after.dtype, after.shape), "{name}: {tensor}");
        assert!(before.data[..] == after.data[..], "{name}: {tensor} came back changed");
    }
}

#[test]
fn every_model_comes_back_as_it_was() {
    for path in golden() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let before = open(&path);
        let (_folder, after) = copied(&before, &WriteOptions::default());
        assert_eq!(before.spec, after.spec, "{name}");
        assert_eq!(settings(&before), settings(&after), "{name}");
        assert_eq!(before.generation.map(), after.generation.map(), "{name}");
        assert_eq!(before.extras, after.extras, "{name}");
        assert_equal_weights(&before.weights, &after.weights, &name);
        let json = |model: &Model| model.tokenizer.as_ref().map(|it| it.to_json().unwrap());
        assert!(json(&before) == json(&after), "{name}: the tokenizer came back changed");
        let special = |model: &Model| model.tokenizer.as_ref().map(|it| it.special().clone());
        assert_eq!(special(&before), special(&after), "{name}");
        let chat = |model: &Model| model.chat.as_ref().map(|it| it.source().to_string());
        assert_eq!(chat(&before), chat(&after), "{name}");
        // Written once more, the files are the same to the byte.
        let second = tempfile::tempdir().unwrap();
        write(&after, &second.path().join("copy"), &WriteOptions::default());
        for file in ["config.json", "model.safetensors"] {
            let bytes = |folder: &Path| fs::read(folder.join("copy").join(file)).unwrap();
            assert!(bytes(_folder.path()) == bytes(second.path()), "{name}: {file} differs");
        }
    }
}

#[test]
fn pooling_settings_travel_from_whatever_folder_they_are_in() {
    let source = golden().into_iter().find(|path| path.ends_with("minilm")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    write(&open(&source), &model, &WriteOptions::default());
    fs::rename(model.join("1_Pooling"), model.join("pool")).unwrap();
    let modules = fs::read_to_string(model.join("modules.json")).unwrap();
    fs::write(model.join("modules.json"), modules.replace("1_Pooling", "pool")).unwrap();
    let (_folder, copy) = copied(&open(&model), &WriteOptions::default());
    assert_eq!(copy.spec.pooling, open(&source).spec.pooling);
    assert!(copy.spec.pooling.is_some());
}

#[test]
fn shards_hold_the_same_model() {
    let options = WriteOptions { shard_bytes: Some(20_000), ..WriteOptions::default() };
    for path in golden() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let before = open(&path);
        let (folder, after) = copied(&before, &options);
        assert_eq!(before.spec, after.spec, "{name}");
        assert_equal_weights(&before.weights, &after.weights, &name);
        let copy = folder.path().join("copy");
        let index = fs::read(copy.join("model.safetensors.index.json")).unwrap();
        let index: Value = serde_json::from_slice(&index).unwrap();
        let shards: BTreeSet<&str> =
            index["weight_map"].as_object().unwrap().values().map(|it| it.as_str().unwrap()).collect();
        let count = shards.len();
        assert!(count > 1 && !copy.join("model.safetensors").exists(), "{name}: {count} shards");
        for (number, shard) in shards.into_iter().enumerate() {
            assert_eq!(shard, format!("model-{:05}-of-{count:05}.safetensors", number + 1), "{name}");
            assert!(copy.join(shard).is_file(), "{name}: {shard}");
        }
        assert_eq!(index["metadata"]["total_size"].as_u64(), Some(after.weight_bytes()), "{name}");
    }
}

#[test]
fn other_formats_round_to_nearest() {
    let relative = [
        (DType::F32, 0.0),
        (DType::F16, 1.0 / 2048.0),
        (DType::BF16, 1.0 / 256.0),
        (DType::F8E4M3, 1.0 / 16.0),
    ];
    for path in golden() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let before = open(&path);
        for (dtype, error) in relative {
            let options = WriteOptions { dtype: Some(dtype), ..WriteOptions::default() };
            let (_folder, after) = copied(&before, &options);
            assert_eq!(before.spec, after.spec, "{name}");
            for tensor in before.weights.names() {
                let (stored, shape) = after.weights.info(tensor).unwrap();
                // Vectors do not bear 8 bits and keep what they had.
                assert!(
                    stored == dtype || (shape.len() == 1 && dtype == DType::F8E4M3),
                    "{name}: {tensor} is {stored}"
                );
                let (before, after) =
                    (before.weights.f32(tensor).unwrap(), after.weights.f32(tensor).unwrap());
                for (before, after) in before.iter().zip(&after) {
                    // Below the smallest normal number of F8 the steps are 2^-9.
                    let bound = (before.abs() * error).max(if error > 0.0 { 1.0 / 1024.0 } else { 0.0 });
                    assert!(
                        (before - after).abs() <= bound,
                        "{name}: {tensor}: {before} became {after} in {dtype}"
                    );
                }
            }
        }
    }
}

#[test]
fn formats_that_a_folder_has_not_are_refused() {
    let model = open(&golden()[0]);
    let folder = tempfile::tempdir().unwrap();
    for dtype in [DType::Q8_0, DType::Q4K, DType::I8] {
        let options = WriteOptions { dtype: Some(dtype), ..WriteOptions::default() };
        let error =
            write_model(&model, &folder.path().join("copy"), &options, &mut |_, _| Ok(())).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("choose F32, F16, BF16, MXFP4 or groups (G4_128), or write a .gguf file"),
            "{error}"
        );
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn progress_ends_at_the_number_of_bytes() {
    let model = open(&golden()[0]);
    let folder = tempfile::tempdir().unwrap();
    let mut told = Vec::new();
    let total =
        write_model(&model, &folder.path().join("copy"), &WriteOptions::default(), &mut |done, total| {
            told.push((done, total));
            Ok(())
        });
    let total = total.unwrap();
    assert!(told.is_sorted() && told.iter().all(|it| it.1 == total));
    assert_eq!(told.last(), Some(&(total, total)));
}

/// What a folder holds, with the content of its files.
fn content(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut content: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap_or_default())
        })
        .collect();
    content.sort();
    content
}

#[test]
fn stopped_writing_leaves_nothing_and_an_older_model_as_it_was() {
    let models = golden();
    let (old, new) = (open(&models[0]), open(&models[1]));
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy");
    let options = WriteOptions { shard_bytes: Some(20_000), overwrite: true, ..WriteOptions::default() };
    let stop_after = |model: &Model, bytes: u64| {
        write_model(model, &copy, &options, &mut |done, _| {
            if done > bytes { Err(Error::Interrupted) } else { Ok(()) }
        })
    };
    for bytes in [0, 30_000, new.weight_bytes() - 1] {
        assert!(matches!(stop_after(&new, bytes), Err(Error::Interrupted)));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "after {bytes} bytes");
    }
    write(&old, &copy, &options);
    let before = content(&copy);
    for bytes in [0, 30_000, new.weight_bytes() - 1] {
        assert!(matches!(stop_after(&new, bytes), Err(Error::Interrupted)));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "after {bytes} bytes");
        assert!(content(&copy) == before, "the older model changed");
    }
}

#[test]
fn a_model_is_replaced_only_where_that_was_asked_for() {
    let models = golden();
    let (old, new) = (open(&models[0]), open(&models[1]));
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy");
    write(&old, &copy, &WriteOptions { shard_bytes: Some(20_000), ..WriteOptions::default() });
    let before = content(&copy);
    let refusal =
        write_model(&new, &copy, &WriteOptions::default(), &mut |_, _| Ok(())).unwrap_err().to_string();
    assert!(refusal.contains("exists already"), "{refusal}");
    assert!(content(&copy) == before);
    let options = WriteOptions { overwrite: true, ..WriteOptions::default() };
    write(&new, &copy, &options);
    assert_eq!(open(&copy).spec, new.spec);
    // Nothing of the old model is left, neither its shards nor its folder.
    assert!(!copy.join("model.safetensors.index.json").exists());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    // A model may replace the folder it is being read from.
    let itself = open(&copy);
    write(&itself, &copy, &options);
    assert_eq!(open(&copy).spec, new.spec);
}

#[test]
fn what_is_no_model_is_never_replaced() {
    let model = open(&golden()[0]);
    let folder = tempfile::tempdir().unwrap();
    let options = WriteOptions { overwrite: true, ..WriteOptions::default() };
    let try_at = |path: &Path| write_model(&model, path, &options, &mut |_, _| Ok(()));
    let home = folder.path().join("home");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("diary"), "x").unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    for path in [&home, &file] {
        let error = try_at(path).unwrap_err().to_string();
        assert!(error.contains("is no model's folder, so it is not replaced"), "{error}");
    }
    assert!(try_at(&home.join("..")).unwrap_err().to_string().contains("is no name for a new folder"));
    assert!(home.join("diary").is_file() && file.is_file());
    fs::remove_file(home.join("diary")).unwrap();
    assert!(try_at(&home).is_ok(), "an empty folder may be filled");
}

#[test]
fn a_carried_file_never_leaves_the_folder() {
    let mut model = open(&golden()[0]);
    for name in ["../outside", "/tmp/ounce-outside", ""] {
        model.extras = vec![ounce_model::model::Extra { name: name.to_string(), content: b"x".to_vec() }];
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("copy");
        let error = write_model(&model, &copy, &WriteOptions::default(), &mut |_, _| Ok(())).unwrap_err();
        assert!(error.to_string().contains("outside its folder"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
