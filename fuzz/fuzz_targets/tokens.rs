//! Any bytes as a cache of tokens: an error or sequences that can be read to their ends, never a panic.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use ounce_model::storage::Bytes;
use ounce_train::data::Cache;

fuzz_target!(|data: &[u8]| {
    // The checksum would keep nearly every changed file out: it is made right, so that what lies behind it is reached.
    for bytes in [data.to_vec(), Cache::with_checksum(data.to_vec())] {
        let Ok(cache) = Cache::from_bytes(Bytes::from(bytes), Path::new("tokens")) else { continue };
        assert!(cache.header().tokens * 2 <= data.len() as u64);
        let _ = cache.verify();
        let mut ids = Vec::new();
        for sequence in 0..cache.len() {
            let length = cache.length(sequence);
            for token in 0..length {
                let _ = cache.counts(sequence, token);
            }
            ids.clear();
            if cache.read(sequence, 0..length, &mut ids).is_ok() {
                assert!(ids.iter().all(|id| *id < cache.header().id_limit));
            }
        }
    }
});
