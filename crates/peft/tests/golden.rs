//! Adapters of Python's peft: the same logits and gradients, and folders that it reads again. Made by
//! `tests/golden/adapters.py`.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ounce_model::Model;
use ounce_model::formats::safetensors::SafetensorsFile;
use ounce_model::weights::TensorSource;
use ounce_peft::names::Names;
use ounce_peft::{Adapted, Folder};
use ounce_train::net::Options;
use ounce_train::{Batch, Trainable};

/// Of the greatest value; both sides sum in f32 in orders of their own.
const TOLERANCE: f32 = 2e-5;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

fn read(path: &Path) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let file = SafetensorsFile::open(path).unwrap();
    let tensor = |name: &&str| {
        let tensor = file.tensor(name).unwrap();
        ((*name).to_owned(), (tensor.shape.clone(), tensor.to_f32().unwrap()))
    };
    file.names().iter().map(tensor).collect()
}

fn assert_close(what: &str, ours: &[f32], theirs: &[f32]) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let largest = theirs.iter().fold(1e-3f32, |max, it| max.max(it.abs()));
    for (at, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        assert!((ours - theirs).abs() <= TOLERANCE * largest, "{what}[{at}]: {ours} for {theirs}");
    }
}

fn check(name: &str) {
    let base = if name == "lora_fused" { "models/gpt2" } else { "models/llama" };
    let model = Model::open(golden().join(base)).unwrap();
    let path = golden().join("adapters").join(name);
    let folder = Folder::open(&path).unwrap();
    assert!(folder.own.is_none(), "peft's folder has nothing of ounce's");
    let expected = read(&path.join("expected.safetensors"));
    let ids: Vec<u32> = (0..24).map(|i| (7 * i + 3) % 96).collect();
    let mut adapted = Adapted::open(&model, &folder, Options::default(), &[], false).unwrap();
    let whole = Batch { tokens: ids.clone(), targets: ids.clone(), lengths: vec![24], ..Batch::default() };
    assert_close("logits", &adapted.logits(&whole).unwrap(), &expected["logits"].1);
    let batch = Batch::next_token([ids.as_slice()]);
    let loss = adapted.accumulate(&batch, 1.0).unwrap();
    let theirs = f64::from(expected["loss"].1[0]);
    // AdaLoRA's penalty is no part of what is reported, and it is in the gradient: the script took the cross-entropy's alone.
    assert!((loss.sum - theirs).abs() < 1e-5 * theirs, "{} for {theirs}", loss.sum);
    let names = Names::of(&model).unwrap();
    let parts = ounce_peft::adapter::adapter(adapted.settings(), &Default::default()).unwrap().parts();
    let apart = ["adalora", "lora_ranks", "lora_fused"];
    let mut compared = 0;
    for param in adapted.params().iter().filter(|param| param.is_trainable()) {
        let key = names.key(&param.name, parts);
        let Some((shape, theirs)) = expected.get(&format!("gradient.{key}")) else { continue };
        // Layers with a rank of their own are compared by their logits: here they have more rows, and another scale.
        if apart.contains(&name) {
            continue;
        }
        assert_eq!(shape.iter().product::<usize>(), param.grad.len(), "{key}");
        assert_close(&key, &param.grad, theirs);
        compared += 1;
    }
    let given = expected
        .keys()
        .filter(|key| key.starts_with("gradient.base_model.model") || key.ends_with("prompt_embeddings"));
    assert!(compared == given.count() || apart.contains(&name), "{compared} gradients");
    // Written again, it is what peft wrote.
    let written = tempfile::tempdir().unwrap();
    let place = written.path().join("adapter");
    adapted.save(&place).unwrap();
    let (ours, theirs) =
        (read(&place.join("adapter_model.safetensors")), read(&path.join("adapter_model.safetensors")));
    if !["lora_ranks", "lora_fused"].contains(&name) {
        assert_eq!(ours, theirs, "{name}");
        let again = Folder::open(&place).unwrap();
        for (key, value) in &folder.config {
            let differs = ["base_model_name_or_path", "inference_mode", "peft_version", "auto_mapping"];
            let Some(ours) = again.config.get(key).filter(|_| !differs.contains(&key.as_str())) else {
                continue;
            };
            let sorted = |value: &serde_json::Value| match value.as_array() {
                Some(list) => {
                    let mut list: Vec<String> = list.iter().map(ToString::to_string).collect();
                    list.sort();
                    list.join(" ")
                }
                None => value.as_f64().map_or_else(|| value.to_string(), |it| it.to_string()),
            };
            let run = [
                "total_step",
                "tinit",
                "tfinal",
                "deltaT",
                "beta1",
                "beta2",
                "projection_prng_key",
                "encoder_hidden_size",
            ];
            assert!(
                run.contains(&key.as_str()) || sorted(ours) == sorted(value),
                "{name}: {key} is {ours} for {value}"
            );
        }
    }
    let mut again =
        Adapted::open(&model, &Folder::open(&place).unwrap(), Options::default(), &[], false).unwrap();
    assert_close("logits again", &again.logits(&whole).unwrap(), &expected["logits"].1);
}

macro_rules! adapters {
    ($($name:ident),*) => { $(#[test] fn $name() { check(stringify!($name)); })* };
}

adapters!(lora, rslora, lora_ranks, lora_fused, dora, adalora, vera, ia3, prompt, p_tuning, prefix);
