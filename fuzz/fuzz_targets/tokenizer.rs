//! Any bytes as a `tokenizer.json`: an error or a tokenizer that encodes and decodes, never a panic that gets out.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ounce_model::tokenizer::Tokenizer;

fuzz_target!(
    // The tokenizers crate panics on some files; that is caught and made an error. The fuzzer's own hook would
    // end the process before; a panic that nobody catches still ends it.
    init: std::panic::set_hook(Box::new(|_| {})),
    |data: &[u8]| {
        let Ok(tokenizer) = Tokenizer::from_json_bytes(data) else { return };
        let Ok(ids) = tokenizer.encode("Hello, wörld! 123 🎉\n", true) else { return };
        let _ = tokenizer.decode(&ids, true);
    }
);
