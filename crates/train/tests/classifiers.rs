//! Losses and gradients of classifiers against PyTorch's (`tests/golden/classifiers.py`).

use std::path::Path;

use ounce_model::Model;
use ounce_train::graph::GraphNet;
use ounce_train::net::{Init, Net, Options};
use ounce_train::{Batch, IGNORE, Trainable};

/// Of a tensor's greatest gradient; stored values carry 5e-4 of their own rounding.
const TOLERANCE: f32 = 1.5e-3;

fn batch(name: &str, ids: &[Vec<u32>], labels: u32) -> Batch {
    let mut batch =
        Batch { tokens: ids.concat(), lengths: ids.iter().map(Vec::len).collect(), ..Batch::default() };
    if name.ends_with("_spans") {
        batch.spans = vec![[3, 9], [4, 10]];
    } else if name.ends_with("_tokens") {
        batch.targets = ids.iter().flat_map(|ids| (0..ids.len() as u32).map(|at| at % labels)).collect();
    } else {
        batch.labels = (0..ids.len() as u32).map(|index| (index + 1) % labels).collect();
    }
    batch
}

#[test]
fn losses_and_gradients_are_pytorchs() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/classifiers");
    for entry in std::fs::read_dir(golden).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let bytes = std::fs::read(folder.join("gradients.safetensors")).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        let text = |key: &str| header["__metadata__"][key].as_str().unwrap();
        let ids: Vec<Vec<u32>> = serde_json::from_str(text("ids")).unwrap();
        let scale: f32 = text("scale").parse().unwrap();
        let expected_loss: f64 = text("loss").parse().unwrap();

        let model = Model::open(&folder).unwrap();
        let as_model = tempfile::tempdir().unwrap();
        std::fs::copy(folder.join("config.json"), as_model.path().join("config.json")).unwrap();
        std::fs::write(as_model.path().join("model.safetensors"), &bytes).unwrap();
        let expected = Model::open(as_model.path()).unwrap();
        let mut net = Net::from_model(&model, Options::default()).unwrap();
        let batch = batch(&name, &ids, model.spec.classifier.unwrap().labels as u32);
        assert_eq!(net.loss(&batch).unwrap(), net.accumulate(&batch, 1.0).unwrap(), "{name}");
        let loss = net.loss(&batch).unwrap();
        assert_eq!(loss.count, batch.counted(), "{name}");
        assert!((loss.sum / expected_loss - 1.0).abs() < 1e-5, "{name}: {} for {expected_loss}", loss.sum);
        let mut graph =
            GraphNet::from_model(&model, Options::default(), &mut |_, linear| Ok(Box::new(linear))).unwrap();
        let found = graph.accumulate(&batch, 1.0).unwrap();
        assert_eq!(found.count, loss.count, "{name}");
        assert!((found.sum / loss.sum - 1.0).abs() < 1e-5, "{name}: {} for {}", found.sum, loss.sum);
        // What cancels exactly in theory is rounding in both: a bias on keys without rotation, and what is added to all
        // tokens alike behind the last layer where tokens compete for an answer's ends.
        let last = format!("layers.{}.feed_forward.residual_norm.bias", model.spec.layers.len() - 1);
        let everywhere = [last.as_str(), "span_classifier.bias"];
        let cancels = |param: &str| {
            param.ends_with("key.bias") || (name.ends_with("_spans") && everywhere.contains(&param))
        };
        let most = net.params().iter().flat_map(|it| &it.grad).fold(0.0f32, |max, it| max.max(it.abs()));
        for param in net.params() {
            let theirs = graph.params().iter().find(|other| other.name == param.name).unwrap();
            let floor = if cancels(&param.name) { most } else { 1e-2 * most };
            let largest = param.grad.iter().fold(floor, |max, it| max.max(it.abs()));
            let far = param.grad.iter().zip(&theirs.grad).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(far <= 1e-5 * largest, "{name}: {} is {far} of {largest} apart", param.name);
        }
        let floor =
            1e-4 * net.params().iter().flat_map(|it| &it.grad).fold(0.0f32, |max, it| max.max(it.abs()));
        for param in net.params() {
            let theirs = expected.weights.f32(&param.name).unwrap();
            let largest = theirs.iter().fold(0.0f32, |max, it| max.max(it.abs())) / scale;
            let bound = (TOLERANCE * largest).max(floor);
            for (index, (ours, theirs)) in param.grad.iter().zip(&theirs).enumerate() {
                let theirs = theirs / scale;
                assert!(
                    (ours - theirs).abs() <= bound,
                    "{name}: {}[{index}]: {ours} for {theirs}",
                    param.name
                );
            }
        }
    }
}

#[test]
fn labels_that_do_not_fit_are_refused_and_ignored_ones_count_nothing() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/classifiers");
    let model = Model::open(golden.join("bert_text")).unwrap();
    let mut net = Net::random(&model, Options::default(), Init::default(), 1).unwrap();
    let mut batch = Batch { tokens: vec![5; 6], lengths: vec![2, 4], labels: vec![2, 3], ..Batch::default() };
    assert!(net.loss(&batch).unwrap_err().to_string().contains("label 3 is outside the model's 3 labels"));
    batch.labels = vec![1];
    assert!(net.loss(&batch).unwrap_err().to_string().contains("needs 2 labels but has 1"));
    batch.labels = vec![IGNORE, 1];
    assert_eq!(net.loss(&batch).unwrap().count, 1);
    let model = Model::open(golden.join("bert_spans")).unwrap();
    let mut net = Net::from_model(&model, Options::default()).unwrap();
    let mut batch = Batch { spans: vec![[0, 2], [1, 3]], labels: Vec::new(), ..batch };
    assert!(
        net.loss(&batch)
            .unwrap_err()
            .to_string()
            .contains("from token 0 to 2 does not lie in its sequence of 2")
    );
    batch.spans = vec![[IGNORE, IGNORE], [1, 3]];
    assert_eq!(net.accumulate(&batch, 1.0).unwrap().count, 1);
}
