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

fn models() -> Vec<PathBuf> {
    let mut models: Vec<PathBuf> = std::fs::read_dir(golden("models"))
        .expect("golden models")
        .map(|entry| entry.expect("entry").path())
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
    // The golden models' rows of 32 to 64 values leave the larger blocks to their replacements; the errors are those
    // of tiny random models, whose weights have no structure to round to.
    let limits = [(DType::Q8_0, 0.2), (DType::Q6K, 0.2), (DType::Q4K, 2.0), (DType::Q4_0, 3.0), (DType::BF16, 0.2)];
    let scratch = tempfile::tempdir().expect("a folder");
    for name in ["llama", "llama_tied", "qwen2", "gemma2", "phi3", "mixtral", "gpt2", "bge"] {
        let folder = golden("models").join(name);
        let (original, ids) = (open(&folder), ids(&folder));
        let reference = run(&original, &ids);
        for (dtype, limit) in limits {
            let path = scratch.path().join(format!("{name}-{dtype}.gguf"));
            write(&original, &path, Some(dtype));
            let found = difference(&run(&open(&path), &ids), &reference);
            println!("{name:12} {dtype:6} {found:.3}");
            assert!(found < limit, "{name} in {dtype} differs by {found}");
            let exact = found == 0.0;
            assert!(!exact || dtype == DType::BF16, "{name} in {dtype} is not quantized at all");
        }
    }
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
        let ids: Vec<u32> = golden.tensor("input_ids").expect("ids").data.as_chunks::<4>().0.iter()
            .map(|&bytes| i32::from_le_bytes(bytes) as u32)
            .collect();
        let reference = golden.tensor("result").expect("result").to_f32().expect("f32");
        assert!(GgufFile::open(&file).expect("a GGUF file").metadata().get("ounce.config").is_none());
        let found = difference(&run(&open(&file), &ids), &reference);
        println!("{:24} {found:.2e}", name_of(&file));
        // llama.cpp rounds the attention's scores and values to F16 and looks GELU up in a table of F16.
        assert!(found < 2e-2, "{} differs by {found:e}", name_of(&file));
    }
}
