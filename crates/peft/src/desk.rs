//! A lab for tests: a golden model with another tool's tokenizer, and sentences of a small grammar.

use std::path::Path;

use ounce_eval::method::{Fixture, Lab, Text};
use ounce_model::Model;

/// A lab without fixtures of its own.
pub(crate) struct Desk;

impl Lab for Desk {
    fn seed(&self) -> u64 {
        1
    }

    fn text(&self, kind: Text, bytes: usize) -> String {
        let (who, what) = (["the cat", "a dog", "the bird", "my aunt"], ["sat", "slept", "sang loudly"]);
        let mut text = String::new();
        let mut number = if kind == Text::Town { 1 } else { 1_000_003usize };
        while text.len() < bytes {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (a, b) = (number >> 33, number >> 40);
            text += &format!("{} {}.{}", who[a % 4], what[b % 3], if a % 5 < 2 { "\n\n" } else { " " });
        }
        text
    }

    fn model(&self, fixture: Fixture) -> ounce_model::Result<Model> {
        let name = if fixture == Fixture::Encoder { "encoder" } else { "tiny" };
        Model::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../lab/assets").join(name))
    }

    fn progress(&self, _message: &str, _done: f64) {}
}
