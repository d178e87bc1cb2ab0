//! Any bytes as a `config.json`: an error or a spec whose sizes can be computed and whose tensors have names in a
//! file, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ounce_model::{Config, families, names};

fuzz_target!(|data: &[u8]| {
    let Ok(config) = Config::parse("config.json", data) else { return };
    let Ok((family, spec)) = families::spec_of(&config) else { return };
    let _ = (spec.parameters(), spec.kv_bytes_per_token(4));
    for rope in spec.layers.iter().filter_map(|layer| layer.attention.as_ref()?.rope.as_ref()).take(4) {
        let frequencies = rope.frequencies(spec.context_length);
        assert!(frequencies.radians.iter().all(|radians| radians.is_finite()));
    }
    // Naming a hundred thousand tensors is slow, not wrong.
    if spec.layers.len() <= 64 {
        let _ = names::plan(&spec, &family.names);
    }
});
