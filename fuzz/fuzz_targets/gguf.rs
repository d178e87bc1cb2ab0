//! Any bytes as a GGUF file: an error or a model whose tensors can be read, never a panic.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use ounce_model::Model;
use ounce_model::formats::gguf::GgufFile;
use ounce_model::storage::Bytes;

fuzz_target!(|data: &[u8]| {
    let Ok(file) = GgufFile::parse(Bytes::from(data.to_vec()), Path::new("fuzz.gguf")) else { return };
    for tensor in file.tensors() {
        assert!(tensor.data.len() <= data.len());
    }
    // Only files whose container is sound get this far, so the detour through a file costs little.
    let path = std::env::temp_dir().join(format!("ounce-fuzz-{}.gguf", std::process::id()));
    std::fs::write(&path, data).expect("the temporary folder can be written");
    let Ok(model) = Model::open(&path) else { return };
    for name in model.weights.names() {
        let (_, shape) = model.weights.info(name).expect("a listed weight is there");
        let values: usize = shape.iter().product();
        if let Ok(found) = model.weights.f32(name) {
            assert_eq!(found.len(), values, "{name}");
        }
    }
});
