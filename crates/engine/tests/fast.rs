//! The fast mode against the reference mode, on the golden models of every family.

use std::path::{Path, PathBuf};

use ounce_engine::{Engine, Mode};
use ounce_kernels::{DType, quant};
use ounce_model::Model;
use ounce_model::account::{Formats, sizes};

fn models() -> Vec<(String, Model)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/models");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("golden models").map(|entry| entry.expect("entry").path()).collect();
    paths.sort();
    let open = |path: PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        (name, Model::open(path).unwrap_or_else(|error| panic!("{error}")))
    };
    paths.into_iter().map(open).filter(|(_, model)| model.spec.causal).collect()
}

fn ids(model: &Model) -> Vec<u32> {
    (0..48).map(|i| (i * 37 + 11) % model.spec.vocab_size as u32).collect()
}

/// Mean divergence of `other` from `reference`, in nats a position.
fn divergence(reference: &[f32], other: &[f32], vocab: usize) -> f64 {
    let log_probabilities = |logits: &[f32]| -> Vec<f64> {
        let total = ounce_kernels::softmax::log_sum_exp(logits);
        logits.iter().map(|&logit| f64::from(logit) - total).collect()
    };
    let pairs = reference.chunks_exact(vocab).zip(other.chunks_exact(vocab));
    let sum: f64 = pairs
        .map(|(reference, other)| {
            let (p, q) = (log_probabilities(reference), log_probabilities(other));
            p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>()
        })
        .sum();
    sum / (reference.len() / vocab) as f64
}

fn stores_only(model: &Model, dtype: DType) -> bool {
    model.weights.names().all(|name| model.weights.info(name).is_some_and(|(stored, _)| stored == dtype))
}

#[test]
fn f32_and_f16_weights_give_the_reference_logits() {
    let mut compared = 0;
    for (name, model) in models() {
        if !stores_only(&model, DType::F32) && !stores_only(&model, DType::F16) {
            continue;
        }
        let ids = ids(&model);
        let reference = Engine::new(&model).unwrap().session().logits(&ids).unwrap();
        let fast = Engine::load(&model, Mode::fast()).unwrap();
        assert!(fast.packed_bytes() > 0, "{name}");
        let logits = fast.session().logits(&ids).unwrap();
        let rms = (reference.iter().map(|x| x * x).sum::<f32>() / reference.len() as f32).sqrt();
        let largest = reference.iter().zip(&logits).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(largest <= 5e-5 * rms, "{name}: {largest} of {rms}");
        compared += 1;
    }
    assert!(compared >= 2, "{compared} models in F32 or F16");
}

#[test]
fn bf16_weights_stay_close_to_the_reference() {
    let mut compared = 0;
    for (name, model) in models() {
        if !stores_only(&model, DType::BF16) {
            continue;
        }
        let ids = ids(&model);
        let reference = Engine::new(&model).unwrap().session().logits(&ids).unwrap();
        let logits = Engine::load(&model, Mode::fast()).unwrap().session().logits(&ids).unwrap();
        let found = divergence(&reference, &logits, model.spec.vocab_size);
        println!("{name:24} {found:.2e} nats");
        // Random weights of large variance make the logits far more sensitive to the rounding of activations than
        // those of a trained model are.
        assert!(found < 5e-3, "{name}: {found:.2e} nats");
        compared += 1;
    }
    assert!(compared >= 15, "{compared} models in BF16");
}

#[test]
fn steps_give_what_the_whole_text_gives() {
    for (name, model) in models() {
        let ids = ids(&model);
        let engine = Engine::load(&model, Mode::fast()).unwrap();
        let whole = engine.session().logits(&ids).unwrap();
        let mut session = engine.session();
        let mut last = session.feed(&ids[..20], |_| {}).unwrap();
        for &id in &ids[20..] {
            last = session.feed(&[id], |_| {}).unwrap();
        }
        let reference = &whole[whole.len() - model.spec.vocab_size..];
        let rms = (reference.iter().map(|x| x * x).sum::<f32>() / reference.len() as f32).sqrt();
        let largest = reference.iter().zip(&last).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(largest <= 1e-5 * rms, "{name}: {largest} of {rms}");
    }
}

#[test]
fn the_memory_of_packed_weights_is_known_before_they_are_packed() {
    for (name, model) in models() {
        for quantize in [None, Some(DType::Q8_0), Some(DType::Q4K)] {
            let engine = Engine::load(&model, Mode::Fast { quantize }).unwrap();
            assert_eq!(
                Engine::packed_size(&model, quantize).expect("readable"),
                engine.packed_bytes(),
                "{name} {quantize:?}"
            );
        }
    }
}

#[test]
fn zeros_that_are_left_out_are_counted_before_they_are() {
    for (name, model) in models() {
        let in_layers = |name: &&str| {
            name.starts_with("layers.") && model.weights.info(name).is_some_and(|(_, shape)| shape.len() == 2)
        };
        let (mut sparse, mut panels) = (Vec::new(), 0);
        for name in model.weights.names().filter(in_layers) {
            let mut tensor = model.weights.get(name).unwrap();
            let mut values = tensor.to_f32().unwrap();
            values.iter_mut().enumerate().filter(|(at, _)| at % 5 < 3).for_each(|(_, value)| *value = 0.0);
            let mut bytes = Vec::new();
            quant::encode(DType::BF16, &values, &mut bytes).unwrap();
            panels += tensor.rows().div_ceil(16);
            tensor = ounce_model::Tensor { dtype: DType::BF16, data: bytes.into(), ..tensor };
            sparse.push((name.to_owned(), tensor));
        }
        let model = Model { weights: model.weights.replaced(sparse).unwrap(), ..model.clone() };
        let engine = Engine::load(&model, Mode::fast()).unwrap();
        assert_eq!(Engine::packed_size(&model, None).unwrap(), engine.packed_bytes(), "{name}");
        let told = Formats::of(&model.weights).with_share_of_zeros(&model.spec, 0.6);
        let told = sizes::packed_bytes(&model.spec, &told, None) as usize;
        // Half a line a panel is how far a share of zeros alone may lead astray, and rows are not long enough here for it to
        // be 0.6 in every panel.
        assert!(
            told.abs_diff(engine.packed_bytes()) <= 96 * panels,
            "{name}: {told} {}",
            engine.packed_bytes()
        );
    }
}
