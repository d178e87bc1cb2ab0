//! GGUF files of every golden model: what ounce writes computes what the Hugging Face folder computes, as stored and
//! quantized; and files made by another writer compute what llama.cpp computes.

use std::path::{Path, PathBuf};

use ounce_engine::Engine;
use ounce_kernels::DType;
use ounce_model::Model;
use ounce_model::formats::gguf_model::write_model;
use ounce_model::formats::safetensors::SafetensorsFile;
use ounce_model::formats::{WriteOptions, gguf::GgufFile};
use ounce_model::weights::TensorSource;

fn golden(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(folder)
}

/// All golden models but those whose layers share weights, which GGUF can't say.
fn models() -> Vec<PathBuf> {
    let mut models: Vec<PathBuf> = std::fs::read_dir(golden("models"))
        .expect("golden models")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| !name_of(path).starts_with("albert"))
        .collect();
    models.sort();
    assert!(models.len() >= 40, "the golden models are there: {}", models.len());
    models
}

fn name_of(path: &Path) -> String {
    path.file_name().expect("a name").to_string_lossy().into_owned()
}

fn open(path: &Path) -> Model {
    Model::open(path).unwrap_or_else(|error| panic!("{error}"))
}

fn ids(folder: &Path) -> Vec<u32> {
    let file = SafetensorsFile::open(&folder.join("golden.safetensors")).expect("golden file");
    let tensor = file.tensor("input_ids").expect("ids");
    tensor.data.as_chunks::<4>().0.iter().map(|&bytes| i32::from_le_bytes(bytes) as u32).collect()
}

/// Logits of a decoder, hidden states of an encoder (GGUF leaves out an encoder's head).
fn run(model: &Model, ids: &[u32]) -> Vec<f32> {
    let engine = Engine::new(model).unwrap_or_else(|error| panic!("{error}"));
    if model.spec.causal {
        engine.session().logits(ids).expect("logits")
    } else {
        engine.encode(ids, &[]).expect("hidden states")
    }
}

/// Largest difference over the reference's root mean square.
fn difference(found: &[f32], reference: &[f32]) -> f64 {
    assert_eq!(found.len(), reference.len(), "as many values as the reference has");
    let square: f64 = reference.iter().map(|&x| f64::from(x).powi(2)).sum();
    let scale = (square / reference.len() as f64).sqrt();
    let largest = found.iter().zip(reference).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
    largest / scale
}

fn write(model: &Model, path: &Path, dtype: Option<DType>) -> u64 {
    let options = WriteOptions { dtype, ..WriteOptions::default() };
    write_model(model, path, &options, &mut |_, _| Ok(())).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_written_model_computes_the_same() {
    let scratch = tempfile::tempdir().expect("a folder");
    for folder in models() {
        let (name, ids) = (name_of(&folder), ids(&folder));
        let original = open(&folder);
        let path = scratch.path().join(format!("{name}.gguf"));
        let size = write(&original, &path, None);
        assert_eq!(size, path.metadata().expect("a file").len(), "{name}: the size returned is the file's");
        let written = open(&path);
        assert_eq!(written.spec.layers, original.spec.layers, "{name}");
        assert_eq!(written.spec.embedding, original.spec.embedding, "{name}");
        let found = difference(&run(&written, &ids), &run(&original, &ids));
        // One added to a norm's weight and taken off again may round; everything else is exact.
        let limit = if name.starts_with("gemma") { 1e-6 } else { 0.0 };
        assert!(found <= limit, "{name} differs by {found:e}");
    }
}

#[test]
fn quantized_models_open_and_stay_near() {
    // Error over signal; results that have nothing to do with each other differ by 1.4. Random weights have no
    // structure, so these are about the worst that the formats do.
    let limits =
        [(DType::BF16, 0.03), (DType::Q8_0, 0.05), (DType::Q6K, 0.05), (DType::Q4K, 0.4), (DType::Q4_0, 0.8)];
    let scratch = tempfile::tempdir().expect("a folder");
    let folders =
        ["llama", "llama_tied", "granite", "qwen2", "gemma2", "phi3_longrope_long", "mixtral", "gpt2", "bge"];
    let mut sources: Vec<PathBuf> = folders.iter().map(|name| golden("models").join(name)).collect();
    // The one whose rows are whole blocks of the larger formats; the others get replacements.
    sources.push(golden("gguf_model").join("llama_q4_k.gguf"));
    for source in sources {
        let name = name_of(&source);
        let original = open(&source);
        let ids: Vec<u32> = (3..30).collect();
        let reference = run(&original, &ids);
        for (dtype, limit) in limits {
            let path = scratch.path().join(format!("{name}-{dtype}.gguf"));
            write(&original, &path, Some(dtype));
            let found = noise(&run(&open(&path), &ids), &reference);
            println!("{name:16} {dtype:6} {found:.3}");
            assert!(found < limit, "{name} in {dtype} differs by {found}");
            assert!(found > 0.0 || dtype == DType::BF16, "{name} in {dtype} is not quantized at all");
        }
    }
}

/// Root mean square of the difference over the reference's.
fn noise(found: &[f32], reference: &[f32]) -> f64 {
    let square = |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x).powi(2)).sum::<f64>();
    let error = square(&mut found.iter().zip(reference).map(|(a, b)| a - b));
    (error / square(&mut reference.iter().copied())).sqrt()
}

#[test]
fn files_of_another_writer_compute_what_llama_cpp_computes() {
    let folder = golden("gguf_model");
    let entries = std::fs::read_dir(&folder).expect("golden GGUF models");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("entry").path()).collect();
    files.retain(|file| file.extension().is_some_and(|it| it == "gguf"));
    files.sort();
    assert!(files.len() >= 5, "the golden GGUF models are there: {}", files.len());
    for file in files {
        let golden = SafetensorsFile::open(&file.with_extension("safetensors")).expect("golden file");
        let ids: Vec<u32> = golden
            .tensor("input_ids")
            .expect("ids")
            .data
            .as_chunks::<4>()
            .0
            .iter()
            .map(|&bytes| i32::from_le_bytes(bytes) as u32)
            .collect();
        let reference = golden.tensor("result").expect("result").to_f32().expect("f32");
        assert!(GgufFile::open(&file).expect("a GGUF file").metadata().get("ounce.config").is_none());
        let found = difference(&run(&open(&file), &ids), &reference);
        println!("{:24} {found:.2e}", name_of(&file));
        // llama.cpp looks GELU up in a table of F16.
        let table = ["bert", "gemma", "gptneox"].iter().any(|name| name_of(&file).starts_with(name));
        assert!(found < if table { 5e-3 } else { 2e-5 }, "{} differs by {found:e}", name_of(&file));
    }
}

#[test]
fn a_converted_checkpoint_tells_the_story_that_llama_cpp_tells() {
    let checkpoint =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/stories260k/stories260K.bin");
    if !checkpoint.is_file() {
        println!("skipped: {} is not there", checkpoint.display());
        return;
    }
    let text = std::fs::read_to_string(golden("gguf_model").join("stories260K.json")).expect("golden story");
    let story: Story = serde_json::from_str(&text).expect("JSON");
    let scratch = tempfile::tempdir().expect("a folder");
    let path = scratch.path().join("stories.gguf");
    write(&open(&checkpoint), &path, None);
    let model = open(&path);
    let tokenizer = model.tokenizer.as_ref().expect("a tokenizer");
    assert_eq!(tokenizer.encode(&story.prompt, true).expect("ids"), story.prompt_ids);
    let engine = Engine::new(&model).expect("an engine");
    let mut session = engine.session();
    let mut ids = story.prompt_ids.clone();
    let mut logits = session.feed(&ids, |_| {}).expect("logits");
    while ids.len() < story.ids.len() {
        let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).expect("a token");
        ids.push(best as u32);
        logits = session.feed(&[best as u32], |_| {}).expect("logits");
    }
    assert_eq!(ids, story.ids, "{}", tokenizer.decode(&ids, true).expect("text"));
}

/// What llama.cpp made of a prompt, greedily.
#[derive(serde::Deserialize)]
struct Story {
    prompt: String,
    prompt_ids: Vec<u32>,
    ids: Vec<u32>,
}
