//! How much of a mapped file comes into memory where one byte is looked at: some pages around it, or all of a large page in which the
//! system's cache holds the file. Rows of the table of token vectors are looked at that way.

use std::io::Write;

use ounce_model::machine::host;
use ounce_model::storage::{AtomicFile, Bytes};

use super::super::USUAL_MAPPED;

/// Bytes of the file, and of the steps in which it is looked at.
const FILE: usize = 64 << 20;
const STEP: usize = 8 << 20;

/// Bytes for each look, in a temporary file; the usual number where they can't be measured.
pub(super) fn measure() -> u64 {
    look().unwrap_or(USUAL_MAPPED).clamp(4096, STEP as u64)
}

fn look() -> Option<u64> {
    let folder = tempfile::tempdir().ok()?;
    let path = folder.path().join("mapped");
    let mut file = AtomicFile::create(&path).ok()?;
    let part = vec![1u8; 1 << 20];
    for _ in 0..FILE / part.len() {
        file.write_all(&part).ok()?;
    }
    file.commit().ok()?;
    let bytes = Bytes::map(&path).ok()?;
    let before = host::resident_file_bytes()?;
    let places = (STEP / 2..FILE).step_by(STEP);
    let count = places.clone().count() as u64;
    let sum: u64 = places.map(|at| u64::from(bytes[at])).sum();
    std::hint::black_box(sum);
    let after = host::resident_file_bytes()?;
    (after > before).then(|| (after - before) / count)
}
