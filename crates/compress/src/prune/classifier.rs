//! For tests: a small encoder that sorts sequences, examples for it, and numbers.

use ounce_model::Model;
use ounce_train::Batch;
use ounce_train::data::BatchSource;
use ounce_train::data::labelled::{Example, LabelledSettings, LabelledStream, Target};
use ounce_train::net::Init;
use ounce_train::net::classifier::{Task, with_classifier};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use crate::prune::structured::tests::random;

/// An encoder of random weights with two labels.
pub(super) fn classifier() -> Model {
    let bert = random(json!({"model_type": "bert", "architectures": ["BertForMaskedLM"]}));
    with_classifier(&bert, Task::Texts, &["a", "b"].map(str::to_owned), Init::default(), 3).unwrap()
}

/// Examples whose label is the kind of their first token, for ever.
pub(super) fn source() -> LabelledStream {
    let example = |at: u32| Example {
        ids: (0..6).map(|i| 1 + (at * (i + 1) + 3 * i) % 29).collect(),
        types: vec![0; 6],
        target: Target::Label(at % 2),
    };
    let settings = LabelledSettings { examples: 8, seed: 1, shuffle: true, epochs: None };
    LabelledStream::new((0..32).map(example).collect(), settings).unwrap()
}

/// The first of their batches.
pub(super) fn batch() -> Batch {
    source().next().unwrap().unwrap()
}

/// Random numbers from −1 to 1.
pub(super) fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| random.random_range(-1.0..1.0)).collect()
}
