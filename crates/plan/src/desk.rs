//! A lab for tests: sentences of a small grammar, and a small model of random weights.

use ounce_eval::method::{Fixture, Lab, Text};
use ounce_model::Model;
use ounce_train::config;
use ounce_train::net::{Net, Options};
use ounce_train::tokenizer::{TokenizerSettings, train};

pub(crate) struct Desk;

impl Lab for Desk {
    fn seed(&self) -> u64 {
        1
    }

    fn text(&self, kind: Text, bytes: usize) -> String {
        let (who, what) = (["the cat", "a dog", "the bird", "my aunt"], ["sat", "slept", "sang loudly"]);
        let mut text = String::new();
        let mut number = if kind == Text::Train { 1 } else { 1_000_003usize };
        while text.len() < bytes {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (a, b) = (number >> 33, number >> 40);
            text += &format!("{} {}.{}", who[a % 4], what[b % 3], if a % 5 == 0 { "\n\n" } else { " " });
        }
        text.trim_end().to_string()
    }

    fn model(&self, _fixture: Fixture) -> ounce_model::Result<Model> {
        let settings = TokenizerSettings { vocab_size: 300, ..TokenizerSettings::default() };
        let text = self.text(Text::Train, 5000);
        let tokenizer =
            train(text.split("\n\n").map(|it| Ok(it.to_string())), &settings).expect("a tokenizer");
        let shape =
            config::Model { hidden: 64, layers: 2, heads: 2, context: 64, ..config::Model::default() };
        let skeleton = shape.skeleton(&tokenizer, None).expect("a shape");
        let net = Net::random(&skeleton, Options::default(), shape.initial(), 1).expect("a network");
        Ok(net.model().expect("a model"))
    }

    fn progress(&self, _message: &str, _done: f64) {}
}
