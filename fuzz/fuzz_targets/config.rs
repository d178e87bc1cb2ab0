//! Any bytes as a `config.json`: an error or a spec whose sizes can be computed, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ounce_model::{Config, families};

fuzz_target!(|data: &[u8]| {
    let Ok(config) = Config::parse("config.json", data) else { return };
    let Ok((_, spec)) = families::spec_of(&config) else { return };
    let _ = (spec.parameters(), spec.kv_bytes_per_token(4));
    for rope in spec.layers.iter().filter_map(|layer| layer.attention.as_ref()?.rope.as_ref()) {
        // Angles of an absurd width are slow, not wrong.
        if rope.dims <= 1 << 12 {
            let _ = rope.frequencies(spec.context_length);
        }
    }
});
