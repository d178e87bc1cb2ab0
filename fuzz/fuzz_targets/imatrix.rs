//! Any bytes as an importance matrix of either format: an error or entries that fit the file, never a panic.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use ounce_model::formats::imatrix::Imatrix;
use ounce_model::storage::Bytes;

fuzz_target!(|data: &[u8]| {
    let Ok(imatrix) = Imatrix::parse(Bytes::from(data.to_vec()), Path::new("fuzz.imatrix")) else { return };
    let values: usize = imatrix.entries.values().map(|entry| entry.in_sum2.len() + entry.counts.len()).sum();
    assert!(values * 4 <= data.len());
    for (name, entry) in &imatrix.entries {
        let means = imatrix.importance(name).expect("a listed entry is there");
        assert_eq!(means.len(), entry.width * entry.counts.len());
    }
});
