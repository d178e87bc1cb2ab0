//! Tasks that are part of the crate. Their texts are generated, so that they need no files.
//!
//! - [`sentences`]: for encoders: whether words of a sentence changed places; which words a text had before.
//! - [`retell`]: for language models: a sentence told again in the present.
//! - [`code`]: for language models: tests of small functions, and functions from sentences; [`base`] trains models for it.
//! - [`pairs`]: questions with answers, as batches.

pub mod base;
pub mod code;
pub mod pairs;
pub mod retell;
pub mod sentences;

use std::hash::{DefaultHasher, Hash, Hasher};

use ounce_model::Model;

/// What a task's results hang on: the model's shapes and beginnings, and its data.
fn identity<T: Hash>(model: &Model, data: &[T]) -> String {
    let mut hash = DefaultHasher::new();
    data.hash(&mut hash);
    let base = crate::net::identify(model, &|_| false).map_or_else(|_| String::new(), |it| it.fingerprint);
    base.hash(&mut hash);
    format!("{:016x}", hash.finish())
}
