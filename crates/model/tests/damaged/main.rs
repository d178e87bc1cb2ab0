//! Every way in which the files of a model folder can be wrong, each with the shortest content that causes it and
//! the words its message must have. Nothing panics, and nothing allocates by what a file merely claims.

#![allow(clippy::unwrap_used)]

mod allocations;
mod folder;
mod index;
mod llama2c;
mod safetensors;
mod settings;
mod weights;

use ounce_model::Error;

/// What opening a damaged file may allocate at most; the files here have a few hundred bytes.
const MAX_BYTES: usize = 2 << 20;

/// Checks that `open` refuses, in one sentence with these words, and without large allocations.
fn refused<T>(case: &str, words: &[&str], open: impl FnOnce() -> Result<T, Error>) {
    let (result, bytes) = allocations::peak(open);
    assert!(bytes < MAX_BYTES, "{case}: {bytes} bytes were allocated");
    let Err(error) = result else { panic!("{case}: should be refused because of {words:?}") };
    let message = error.to_string();
    for word in words {
        assert!(message.contains(word), "{case}: {word:?} is missing in: {message}");
    }
    assert!(!message.contains('\n') && message.len() < 600, "{case}: no sentence: {message}");
}
