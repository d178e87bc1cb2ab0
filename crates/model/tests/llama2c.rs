//! llama2.c checkpoints: a small file put together here holds the same model as a Hugging Face folder of the same
//! weights.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use ounce_model::formats::WriteOptions;
use ounce_model::formats::hf::write_model;
use ounce_model::model::Format;
use ounce_model::{Model, Weights};

const DIM: usize = 8;
const HIDDEN: usize = 6;
const LAYERS: usize = 2;
const HEADS: usize = 2;
const KV_HEADS: usize = 1;
const VOCAB: usize = 5;
const CONTEXT: usize = 16;
const HEAD_DIM: usize = DIM / HEADS;

/// Different values for every tensor and layer.
fn values(seed: usize, count: usize) -> Vec<f32> {
    (0..count).map(|i| ((seed * 1000 + i) as f32 * 0.37).sin()).collect()
}

/// A row of each half of a head in turn, as interleaved rotation wants them.
fn interleaved(matrix: &[f32], heads: usize) -> Vec<f32> {
    let row = |head: usize, row: usize| &matrix[(head * HEAD_DIM + row) * DIM..][..DIM];
    let pairs = (0..heads).flat_map(|head| (0..HEAD_DIM / 2).map(move |pair| (head, pair)));
    pairs.flat_map(|(head, pair)| [row(head, pair), row(head, pair + HEAD_DIM / 2)].concat()).collect()
}

/// The weights by ounce's names; the file's order is that of this list, layer by layer within a name.
fn tensor(name: &str, layer: usize) -> Vec<f32> {
    let (seed, count) = match name {
        "embed.tokens" => (1, VOCAB * DIM),
        "attention.before_norm" => (2, DIM),
        "attention.query" => (3, DIM * DIM),
        "attention.key" => (4, KV_HEADS * HEAD_DIM * DIM),
        "attention.value" => (5, KV_HEADS * HEAD_DIM * DIM),
        "attention.output" => (6, DIM * DIM),
        "feed_forward.before_norm" => (7, DIM),
        "feed_forward.gate" => (8, HIDDEN * DIM),
        "feed_forward.down" => (9, DIM * HIDDEN),
        "feed_forward.up" => (10, HIDDEN * DIM),
        "final_norm" => (11, DIM),
        "head" => (12, VOCAB * DIM),
        _ => unreachable!("{name}"),
    };
    values(seed + 20 * layer, count)
}

const PER_LAYER: [&str; 9] = [
    "attention.before_norm",
    "attention.query",
    "attention.key",
    "attention.value",
    "attention.output",
    "feed_forward.before_norm",
    "feed_forward.gate",
    "feed_forward.down",
    "feed_forward.up",
];

fn checkpoint(own_head: bool) -> Vec<u8> {
    let vocab = VOCAB as i32;
    let header = [DIM, HIDDEN, LAYERS, HEADS, KV_HEADS].map(|size| size as i32);
    let header = header.into_iter().chain([if own_head { -vocab } else { vocab }, CONTEXT as i32]);
    let mut floats = tensor("embed.tokens", 0);
    for name in PER_LAYER {
        for layer in 0..LAYERS {
            let values = tensor(name, layer);
            floats.extend(match name {
                "attention.query" => interleaved(&values, HEADS),
                "attention.key" => interleaved(&values, KV_HEADS),
                _ => values,
            });
        }
    }
    floats.extend(tensor("final_norm", 0));
    floats.extend(vec![f32::NAN; CONTEXT * HEAD_DIM]);
    if own_head {
        floats.extend(tensor("head", 0));
    }
    header.flat_map(i32::to_le_bytes).chain(floats.into_iter().flat_map(f32::to_le_bytes)).collect()
}

fn open(folder: &Path, own_head: bool) -> Model {
    let path = folder.join("model.bin");
    std::fs::write(&path, checkpoint(own_head)).unwrap();
    Model::open(&path).unwrap()
}

fn assert_weights(weights: &Weights, own_head: bool) {
    let mut expected = vec![("embed.tokens.weight".to_string(), tensor("embed.tokens", 0))];
    for layer in 0..LAYERS {
        let named = |name: &&str| (format!("layers.{layer}.{name}.weight"), tensor(name, layer));
        expected.extend(PER_LAYER.iter().map(named));
    }
    expected.push(("final_norm.weight".to_string(), tensor("final_norm", 0)));
    if own_head {
        expected.push(("head.weight".to_string(), tensor("head", 0)));
    }
    assert_eq!(weights.names().count(), expected.len());
    for (name, values) in expected {
        assert_eq!(weights.f32(&name).unwrap(), values, "{name}");
    }
}

#[test]
fn a_checkpoint_holds_the_weights_it_was_made_of() {
    for own_head in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let model = open(folder.path(), own_head);
        assert_eq!(model.origin.format, Format::Llama2c);
        assert_eq!((model.spec.vocab_size, model.spec.context_length), (VOCAB, CONTEXT));
        assert_eq!(model.spec.head.as_ref().map(|head| head.tied), Some(!own_head));
        assert_eq!(model.end_ids(), [2]);
        assert_weights(&model.weights, own_head);
    }
}

#[test]
fn written_as_a_folder_it_is_the_same_model() {
    for own_head in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let model = open(folder.path(), own_head);
        let target = folder.path().join("folder");
        write_model(&model, &target, &WriteOptions::default(), &mut |_, _| Ok(())).unwrap();
        let copy = Model::open(&target).unwrap();
        assert_eq!(copy.spec, model.spec);
        assert_weights(&copy.weights, own_head);
        assert_eq!(copy.config.get("architectures"), Some(&serde_json::json!(["LlamaForCausalLM"])));
    }
}
