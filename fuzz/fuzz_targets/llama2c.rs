//! Any bytes as a llama2.c vocabulary and as a checkpoint: an error or a vocabulary, an error or weights, never a
//! panic.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use ounce_model::formats::llama2c as checkpoint;
use ounce_model::storage::Bytes;
use ounce_model::tokenizer::llama2c as vocabulary;

fuzz_target!(|data: &[u8]| {
    if let Ok(vocab) = vocabulary::read(data, Path::new("tokenizer.bin")) {
        let _ = vocab.to_tokenizer();
    }
    let Ok((spec, weights)) = checkpoint::read(&Bytes::from(data.to_vec()), Path::new("model.bin")) else {
        return;
    };
    assert!(spec.parameters() * 4 <= data.len() as u64);
    for name in weights.names() {
        weights.f32(name).expect("a checked weight can be read");
    }
});
