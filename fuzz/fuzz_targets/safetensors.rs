//! Any bytes as a safetensors file: an error or tensors that can be read, never a panic.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use ounce_model::formats::safetensors::SafetensorsFile;
use ounce_model::storage::Bytes;
use ounce_model::weights::TensorSource;

fuzz_target!(|data: &[u8]| {
    let Ok(file) = SafetensorsFile::parse(Bytes::from(data.to_vec()), Path::new("fuzz.safetensors")) else {
        return;
    };
    for name in file.names() {
        let tensor = file.tensor(name).expect("a listed tensor is there");
        if tensor.dtype.is_weight() {
            tensor.to_f32().expect("a checked tensor can be decoded");
        }
    }
});
