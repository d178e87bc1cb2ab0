//! A lab for tests: sentences of a small grammar.

use ounce_eval::method::{Fixture, Lab, Text};

pub(crate) struct Desk;

impl Lab for Desk {
    fn seed(&self) -> u64 {
        1
    }

    fn text(&self, _kind: Text, bytes: usize) -> String {
        let (who, what) = (["the cat", "a dog", "the bird", "my aunt"], ["sat", "slept", "sang loudly"]);
        let (mut text, mut number) = (String::new(), 1usize);
        while text.len() < bytes {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (a, b) = (number >> 33, number >> 40);
            text += &format!("{} {}.{}", who[a % 4], what[b % 3], if a % 5 == 0 { "\n\n" } else { " " });
        }
        text.trim_end().to_string()
    }

    fn model(&self, _fixture: Fixture) -> ounce_model::Result<ounce_model::Model> {
        unreachable!("these demonstrations open no model")
    }

    fn progress(&self, _message: &str, _done: f64) {}
}
