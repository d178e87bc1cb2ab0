//! Any bytes as a GGUF file: an error or tensors that can be read, never a panic.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use ounce_model::formats::gguf::GgufFile;
use ounce_model::storage::Bytes;

fuzz_target!(|data: &[u8]| {
    let Ok(file) = GgufFile::parse(Bytes::from(data.to_vec()), Path::new("fuzz.gguf")) else { return };
    for tensor in file.tensors() {
        assert!(tensor.data.len() <= data.len());
    }
    let _ = file.metadata();
});
