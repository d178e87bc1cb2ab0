//! Models in GGUF files: there and back again without loss, whose word counts, and what is refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ounce_kernels::DType;
use ounce_model::formats::gguf::{GgufFile, GgufHeader, GgufWriter, Value};
use ounce_model::formats::gguf_model::{is_first_shard, unexpressed, write_model};
use ounce_model::formats::safetensors::SafetensorsFile;
use ounce_model::formats::{WriteOptions, hf};
use ounce_model::rope::RopeScaling;
use ounce_model::weights::{Tensor, TensorSource};
use ounce_model::{Error, Model};
use serde_json::Value as Json;

fn golden(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(folder)
}

fn listed(folder: &Path, wanted: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("golden files");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("entry").path()).collect();
    paths.retain(|path| wanted(path));
    paths.sort();
    paths
}

/// Whether GGUF has a place for the golden model of this folder.
fn has_place(folder: &Path) -> bool {
    folder.is_dir() && !folder.ends_with("albert_mlm") && !folder.ends_with("albert_model")
}

fn open(path: &Path) -> Model {
    Model::open(path).unwrap_or_else(|error| panic!("{error}"))
}

fn write(model: &Model, path: &Path) {
    let options = WriteOptions::default();
    let written = if path.extension().is_some_and(|it| it == "gguf") {
        write_model(model, path, &options, &mut |_, _| Ok(()))
    } else {
        hf::write_model(model, path, &options, &mut |_, _| Ok(()))
    };
    written.unwrap_or_else(|error| panic!("{error}"));
}

fn tensors(folder: &Path) -> BTreeMap<String, Tensor> {
    let file = SafetensorsFile::open_folder(folder).expect("weights");
    file.names().into_iter().map(|name| (name.to_string(), file.tensor(name).expect("a tensor"))).collect()
}

fn json(path: &Path) -> Json {
    serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON")
}

/// A copy of a GGUF file with other metadata.
fn changed(path: &Path, target: &Path, change: impl Fn(&mut GgufHeader)) {
    let file = GgufFile::open(path).expect("a GGUF file");
    let mut header = GgufHeader::new();
    file.metadata().iter().for_each(|(key, value)| header.set(key, value.clone()));
    change(&mut header);
    file.tensors().iter().for_each(|tensor| header.tensor(tensor.name.as_str(), tensor.dtype, &tensor.shape));
    let mut writer = GgufWriter::create(target, &header).expect("a writer");
    file.tensors().iter().for_each(|tensor| writer.write(&tensor.name, &tensor.data).expect("written"));
    writer.finish().expect("finished");
}

#[test]
fn a_folder_comes_back_from_gguf_as_it_was() {
    let scratch = tempfile::tempdir().expect("a folder");
    for folder in listed(&golden("models"), has_place) {
        let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
        let at = |end: &str| scratch.path().join(format!("{name}{end}"));
        let original = open(&folder);
        write(&original, &at(".gguf"));
        write(&open(&at(".gguf")), &at("-back"));
        // The folder as ounce writes it without the detour; checkpoints in old spellings are written in new ones.
        write(&original, &at("-direct"));
        let masked = original.spec.head.is_some() && !original.spec.causal;
        let (back, mut direct) = (tensors(&at("-back")), tensors(&at("-direct")));
        if masked {
            // Without its head an encoder is another class, whose names have no prefix.
            let prefix = format!("{}.", original.spec.family);
            let bare = |name: String| name.strip_prefix(&prefix).map_or(name.clone(), str::to_string);
            direct = direct.into_iter().map(|(name, tensor)| (bare(name), tensor)).collect();
        }
        let lost: Vec<&String> = direct.keys().filter(|key| !back.contains_key(*key)).collect();
        let is_head =
            |name: &String| ["cls.", "lm_head", "vocab_"].iter().any(|start| name.starts_with(start));
        assert!(lost.iter().all(|name| masked && is_head(name)), "{name} lost {lost:?}");
        for (key, tensor) in &back {
            let expected = direct.get(key).unwrap_or_else(|| panic!("{name}: {key} is new"));
            assert_eq!(tensor.shape, expected.shape, "{name}: {key}");
            if name.starts_with("gemma") && key.contains("norm") {
                let pairs = tensor.to_f32().expect("f32").into_iter().zip(expected.to_f32().expect("f32"));
                pairs.for_each(|(a, b)| assert!((a - b).abs() <= 1e-7, "{name}: {key}: {a} {b}"));
            } else {
                assert!(tensor.dtype == expected.dtype && *tensor.data == *expected.data, "{name}: {key}");
            }
        }
        for file in listed(&at("-direct"), |path| path.extension().is_some_and(|it| it == "json")) {
            let file_name = file.file_name().expect("a name");
            let (mut found, mut expected) = (json(&at("-back").join(file_name)), json(&file));
            if masked && file.ends_with("config.json") {
                assert!(found["architectures"][0].as_str().is_some_and(|class| class.ends_with("Model")));
                (found["architectures"], expected["architectures"]) = (Json::Null, Json::Null);
            }
            assert_eq!(found, expected, "{name}: {}", file.display());
        }
    }
}

#[test]
fn a_gguf_file_is_written_again_bit_by_bit() {
    let scratch = tempfile::tempdir().expect("a folder");
    let files = listed(&golden("gguf_model"), |path| path.extension().is_some_and(|it| it == "gguf"));
    assert!(files.len() >= 5, "the golden GGUF models are there: {}", files.len());
    for path in files {
        let copy = scratch.path().join(path.file_name().expect("a name"));
        write(&open(&path), &copy);
        let (before, after) = (GgufFile::open(&path).expect("GGUF"), GgufFile::open(&copy).expect("GGUF"));
        assert_eq!(before.tensors().len(), after.tensors().len(), "{}", path.display());
        for tensor in before.tensors() {
            let written = after.tensor(&tensor.name).unwrap_or_else(|| panic!("{} is lost", tensor.name));
            let gemma_norm = path.ends_with("gemma3.gguf") && tensor.name.contains("norm");
            assert_eq!((written.dtype, &written.shape), (tensor.dtype, &tensor.shape), "{}", tensor.name);
            assert!(gemma_norm || *written.data == *tensor.data, "{}: {}", path.display(), tensor.name);
        }
        let architecture = before.require::<&str>("general.architecture").expect("architecture");
        let own = before.metadata().iter().filter(|(key, _)| key.starts_with(architecture));
        for (key, value) in own {
            assert_eq!(after.metadata().get(key), Some(value), "{}: {key}", path.display());
        }
    }
}

#[test]
fn the_own_keys_win_over_the_embedded_configuration() {
    let scratch = tempfile::tempdir().expect("a folder");
    let at = |name: &str| scratch.path().join(name);
    write(&open(&golden("models/llama_rope_linear")), &at("original.gguf"));
    changed(&at("original.gguf"), &at("changed.gguf"), |header| {
        header.set("llama.rope.freq_base", 777.0f32);
        header.set("llama.attention.layer_norm_rms_epsilon", 0.5f32);
        header.set("llama.attention.sliding_window", 9u32);
    });
    let model = open(&at("changed.gguf"));
    let attention = model.spec.layers[1].attention.as_ref().expect("attention");
    let rope = attention.rope.as_ref().expect("rotation");
    assert_eq!((rope.theta, attention.window), (777.0, Some(9)));
    assert_eq!(rope.scaling, RopeScaling::Linear { factor: 4.0 });
    assert_eq!(attention.norms.before.map(|norm| norm.eps), Some(0.5));
    let config = model.config.map();
    assert_eq!(config["initializer_range"], 0.02, "keys that GGUF knows nothing of stay");
    assert_eq!((&config["rope_theta"], &config["model_type"]), (&777.0.into(), &"mistral".into()));
    assert!(!config.contains_key("rope_parameters"), "no second word on rotation is left");

    changed(&at("original.gguf"), &at("nonsense.gguf"), |header| {
        header.set("ounce.config", "{\"model_type\": 3}")
    });
    assert_eq!(open(&at("nonsense.gguf")).spec, open(&at("original.gguf")).spec, "nonsense is passed over");
}

#[test]
fn layers_that_share_weights_are_refused() {
    let scratch = tempfile::tempdir().expect("a folder");
    let mut model = open(&golden("models/llama"));
    model.spec.layers[1].shares = Some(0);
    for model in [open(&golden("models/albert_mlm")), model] {
        let path = scratch.path().join("model.gguf");
        let error = write_model(&model, &path, &WriteOptions::default(), &mut |_, _| Ok(()));
        assert!(
            error.expect_err("no place").to_string().contains("GGUF has no layers that share their weights")
        );
        assert!(!path.exists());
    }
}

#[test]
fn what_gguf_has_no_keys_for_is_said() {
    let expected = [
        ("bert_model", "layers.feed_forward.kind.dense.activation"),
        ("gemma2", "layers.attention.scale"),
        ("gemma3", "layers.attention.scale"),
        ("gpt_neox_sequential", "layers.feed_forward.kind.dense.activation"),
        ("llama_rope_dynamic", "layers.attention.rope.scaling"),
        ("llama_rope_yarn_options", "layers.attention.rope.scaling.truncate"),
        ("smollm3", "layers.attention.rope"),
    ];
    let mut found = Vec::new();
    for folder in listed(&golden("models"), has_place) {
        let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
        let paths = unexpressed(&open(&folder)).unwrap_or_else(|error| panic!("{error}"));
        found.extend(paths.into_iter().map(|path| (name.clone(), path)));
    }
    let expected: Vec<(String, String)> =
        expected.iter().map(|(name, path)| (name.to_string(), path.to_string())).collect();
    assert_eq!(found, expected);
}

#[test]
fn divisors_of_published_llamas_are_recognised_and_others_kept() {
    let path = golden("gguf_model/llama.gguf");
    let scaling =
        |model: &Model| model.spec.layers[0].attention.as_ref()?.rope.clone().map(|rope| rope.scaling);
    assert!(matches!(scaling(&open(&path)), Some(RopeScaling::Divisors { divisors }) if divisors.len() == 4));
    let scratch = tempfile::tempdir().expect("a folder");
    let copy = scratch.path().join("llama.gguf");
    // With this base and eight dimensions the slowest wave is the only one that Llama 3.1 divides.
    let file = GgufFile::open(&path).expect("GGUF");
    let mut header = GgufHeader::new();
    file.metadata().iter().for_each(|(key, value)| header.set(key, value.clone()));
    header.set("llama.rope.freq_base", 500_000.0f32);
    file.tensors().iter().for_each(|tensor| header.tensor(tensor.name.as_str(), tensor.dtype, &tensor.shape));
    let published =
        RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original: 8192 };
    let rope = ounce_model::rope::Rope { dims: 8, theta: 500_000.0, scaling: published.clone() };
    let divisors: Vec<u8> =
        rope.divisors().expect("divisors").iter().flat_map(|divisor| divisor.to_le_bytes()).collect();
    let mut writer = GgufWriter::create(&copy, &header).expect("a writer");
    for tensor in file.tensors() {
        let data = if tensor.name == "rope_freqs.weight" { &divisors } else { &*tensor.data };
        writer.write(&tensor.name, data).expect("written");
    }
    writer.finish().expect("finished");
    assert_eq!(scaling(&open(&copy)), Some(published));
}

/// What opening a changed copy of a golden file says.
fn refusal(file: &str, change: impl Fn(&mut GgufHeader)) -> String {
    let scratch = tempfile::tempdir().expect("a folder");
    let copy = scratch.path().join("model.gguf");
    changed(&golden("gguf_model").join(file), &copy, change);
    match Model::open(&copy) {
        Ok(model) => panic!("opened: {:?}", model.spec),
        Err(error) => error.to_string(),
    }
}

#[test]
fn bad_files_are_refused_with_the_reason() {
    let cases: [(&str, &str, Value, &str); 12] = [
        ("llama.gguf", "general.architecture", "rwkv6".into(), "none that ounce knows"),
        ("llama.gguf", "general.type", "adapter".into(), "no model by itself"),
        ("llama.gguf", "llama.block_count", 3u32.into(), "blk.2."),
        ("llama.gguf", "llama.block_count", u32::MAX.into(), "no number of layers"),
        ("llama.gguf", "llama.embedding_length", 24u32.into(), "asks for"),
        ("llama.gguf", "llama.attention.value_length", 4u32.into(), "wider or narrower"),
        ("llama.gguf", "llama.attention.clamp_kqv", 8.0f32.into(), "does not compute"),
        ("llama.gguf", "llama.rope.freq_base", "high".into(), "floating-point"),
        ("llama.gguf", "llama.rope.dimension_count", 6u32.into(), "dimensions are rotated"),
        ("llama.gguf", "llama.attention.head_count", vec![4u32, 4, 4].into(), "ounce_layers"),
        ("gemma3.gguf", "gemma3.attention.sliding_window_pattern", vec![true].into(), "2 flags"),
        ("qwen3moe.gguf", "qwen3moe.expert_gating_func", 2u32.into(), "does not compute"),
    ];
    for (file, key, value, reason) in cases {
        let message = refusal(file, |header| header.set(key, value.clone()));
        assert!(message.contains(reason), "{key}: {message}");
    }
}

#[test]
fn impossible_targets_are_refused_before_anything_is_written() {
    let scratch = tempfile::tempdir().expect("a folder");
    let path = scratch.path().join("model.gguf");
    let model = open(&golden("models/llama"));
    let attempt = |options: &WriteOptions| match write_model(&model, &path, options, &mut |_, _| Ok(())) {
        Ok(size) => panic!("{size} bytes were written"),
        Err(error) => error.to_string(),
    };
    let message = attempt(&WriteOptions { dtype: Some(DType::F8E4M3), ..WriteOptions::default() });
    assert!(message.contains("F8_E4M3") && message.contains("Q4_K"), "{message}");
    let message = attempt(&WriteOptions { shard_bytes: Some(1), ..WriteOptions::default() });
    assert!(message.contains("written whole"), "{message}");
    std::fs::write(&path, "mine").expect("a file");
    assert!(attempt(&WriteOptions::default()).contains("exists already"));
    assert_eq!(std::fs::read(&path).expect("a file"), b"mine");
    std::fs::remove_file(&path).expect("removed");
    let stopped = write_model(&model, &path, &WriteOptions::default(), &mut |_, _| Err(Error::Interrupted));
    assert!(matches!(stopped, Err(Error::Interrupted)));
    assert_eq!(listed(scratch.path(), |_| true), Vec::<PathBuf>::new(), "nothing is left behind");
}

#[test]
fn first_shards_are_told_by_their_names() {
    assert!(is_first_shard(Path::new("a/model-00001-of-00003.gguf")));
    assert!(!is_first_shard(Path::new("a/model-00002-of-00003.gguf")));
    assert!(!is_first_shard(Path::new("a-00001-of-00003/model.gguf")));
}
