//! The network's loss and gradients against PyTorch's autograd, for one model of each family
//! (`tests/golden/gradients.py`).

mod common;

use std::path::Path;

use common::{batch, families, golden, header};
use ounce_model::Model;
use ounce_train::Trainable;
use ounce_train::net::{Net, Options};

/// Of a tensor's greatest gradient; stored values carry 5e-4 of their own rounding.
const TOLERANCE: f32 = 1.5e-3;

fn metadata(path: &Path, key: &str) -> f64 {
    header(path)["__metadata__"][key].as_str().expect("golden").parse().expect("golden")
}

fn compare(name: &str, options: Options) {
    let folder = golden().join("models").join(name);
    let model = Model::open(&folder).expect("golden");
    let file = golden().join("gradients").join(format!("{name}.safetensors"));
    let as_model = tempfile::tempdir().expect("golden");
    std::fs::copy(folder.join("config.json"), as_model.path().join("config.json")).expect("golden");
    std::fs::copy(&file, as_model.path().join("model.safetensors")).expect("golden");
    let expected = Model::open(as_model.path()).expect("golden");

    let mut net = Net::from_model(&model, options).expect("golden");
    let batch = batch(name, !model.spec.causal);
    let loss = net.loss(&batch).expect("golden");
    let found = net.accumulate(&batch, 1.0).expect("golden");
    assert_eq!(loss, found, "{name}: with and without gradients");
    let expected_loss = metadata(&file, "loss");
    assert!((found.sum / expected_loss - 1.0).abs() < 1e-5, "{name}: {} for {expected_loss}", found.sum);

    let scale = metadata(&file, "scale") as f32;
    // What cancels exactly in theory (a bias on keys without rotation) is rounding in both.
    let floor = 1e-4 * net.params().iter().flat_map(|it| &it.grad).fold(0.0f32, |max, it| max.max(it.abs()));
    for param in net.params() {
        let theirs = expected.weights.f32(&param.name).expect("golden");
        let largest = theirs.iter().fold(0.0f32, |max, it| max.max(it.abs())) / scale;
        let bound = (TOLERANCE * largest).max(floor);
        for (index, (ours, theirs)) in param.grad.iter().zip(&theirs).enumerate() {
            let theirs = theirs / scale;
            assert!((ours - theirs).abs() <= bound, "{name}: {}[{index}]: {ours} for {theirs}", param.name);
        }
    }
}

families!(|name| compare(name, Options::default()));

#[test]
fn checkpointing_gives_the_same_gradients_to_the_bit() {
    for name in ["llama", "gemma2", "stablelm_parallel", "qwen2_moe", "bert_mlm", "albert_mlm"] {
        let model = Model::open(golden().join("models").join(name)).expect("golden");
        let batch = batch(name, !model.spec.causal);
        let grads = |checkpointing| {
            let mut net =
                Net::from_model(&model, Options { checkpointing, ..Options::default() }).expect("golden");
            net.accumulate(&batch, 0.5).expect("golden");
            net.params().iter().map(|param| param.grad.clone()).collect::<Vec<_>>()
        };
        assert_eq!(grads(false), grads(true), "{name}");
    }
}
