//! Any bytes as a `tokenizer.json`: an error or a tokenizer that encodes and decodes, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ounce_model::tokenizer::Tokenizer;

fuzz_target!(|data: &[u8]| {
    let Ok(tokenizer) = Tokenizer::from_json_bytes(data) else { return };
    let Ok(ids) = tokenizer.encode("Hello, wörld! 123 🎉\n", true) else { return };
    let _ = tokenizer.decode(&ids, true);
});
