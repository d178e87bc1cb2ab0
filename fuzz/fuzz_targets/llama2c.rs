//! Any bytes as a llama2.c vocabulary: an error or a vocabulary, never a panic.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use ounce_model::tokenizer::llama2c;

fuzz_target!(|data: &[u8]| {
    let Ok(vocab) = llama2c::read(data, Path::new("tokenizer.bin")) else { return };
    let _ = vocab.to_tokenizer();
});
