//! A layer gone through in steps is the layer gone through at once.

use std::path::Path;
use std::sync::{Arc, Mutex};

use ounce_engine::{Mode, Tap, Walk};
use ounce_model::Model;

/// Keeps what one linear layer is given, and then has enough.
#[derive(Debug)]
struct Wanted {
    name: String,
    enough: bool,
    seen: Vec<f32>,
}

impl Tap for Wanted {
    fn observe(&mut self, linears: &[&str], x: &[f32], _: usize) -> bool {
        let here = linears.contains(&self.name.as_str());
        if here {
            self.seen.extend_from_slice(x);
        }
        here && self.enough
    }
}

#[test]
fn steps_into_a_layer_see_and_give_what_the_whole_gives() {
    // One behind the other, with more norms, side by side, experts.
    for name in ["llama", "gemma2", "gpt_neox", "phi3", "mixtral"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/models").join(name);
        let model = Model::open(&folder).unwrap_or_else(|error| panic!("{name}: {error}"));
        let sequences: Vec<Vec<u32>> =
            (0..3u32).map(|i| (0..7 + 5 * i).map(|t| (t * 7 + i) % 50).collect()).collect();
        let mut whole = Walk::begin(&model, sequences.clone(), Mode::Reference).unwrap();
        let mut steps = Walk::begin(&model, sequences, Mode::Reference).unwrap();
        let experts = name == "mixtral";
        let feed_forward = if experts { "feed_forward.experts.0" } else { "feed_forward" };
        for layer in 0..model.spec.layers.len() {
            let before = steps.hidden().to_vec();
            for (linear, last) in [
                ("attention.query".to_owned(), true),
                ("attention.output".to_owned(), true),
                (format!("{feed_forward}.up"), !experts),
                (format!("{feed_forward}.down"), !experts),
            ] {
                let tap = || {
                    let name = format!("layers.{layer}.{linear}");
                    Arc::new(Mutex::new(Wanted { name, enough: last, seen: Vec::new() }))
                };
                let (one, other) = (tap(), tap());
                whole.look(&model.weights, one.clone(), |_| Ok(())).unwrap();
                steps.look_on(&model.weights, other.clone(), |_| Ok(())).unwrap();
                let (one, other) = (one.lock().unwrap(), other.lock().unwrap());
                assert!(!one.seen.is_empty(), "{name}: {}", one.name);
                assert_eq!(one.seen, other.seen, "{name}: {}", one.name);
                assert_eq!(steps.hidden(), before, "{name}: looking changes nothing");
            }
            whole.advance(&model.weights, |_| Ok(())).unwrap();
            steps.advance(&model.weights, |_| Ok(())).unwrap();
            assert_eq!(whole.hidden(), steps.hidden(), "{name}: layer {layer}");
        }
    }
}
