use std::path::Path;

use ounce_engine::Engine;
use ounce_model::formats::safetensors::SafetensorsFile;
use ounce_model::model::{Format, Origin};
use ounce_model::weights::{MemorySource, TensorSource};
use ounce_model::{Config, Tensor, families};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::quantize::gptq;
use crate::quantize::{Method, Quantizer, units};

/// Decoders of every family that ounce runs, as transformers wrote them.
const FAMILIES: &[&str] = &[
    "llama",
    "llama_bias",
    "llama_tied",
    "mistral",
    "mixtral",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_moe",
    "gemma2",
    "gemma3",
    "phi3",
    "smollm3",
    "granite",
    "olmo2",
    "stablelm",
    "stablelm_parallel",
    "gpt2",
    "gpt_neox",
];

/// A golden model with all weights as f32, and tokens for it.
fn golden(name: &str) -> (Model, Vec<u32>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/models").join(name);
    let model = Model::open(&folder).unwrap();
    let names: Vec<String> = model.weights.names().map(str::to_owned).collect();
    let wide = names.into_iter().map(|name| {
        let shape = model.weights.info(&name).unwrap().1.to_vec();
        let tensor = Tensor::from_f32(&shape, &model.weights.f32(&name).unwrap());
        (name, tensor)
    });
    let weights = model.weights.replaced(wide).unwrap();
    let file = SafetensorsFile::open(&folder.join("golden.safetensors")).unwrap();
    let ids = file.tensor("input_ids").unwrap();
    let ids = ids.data.as_chunks::<4>().0.iter().map(|&bytes| i32::from_le_bytes(bytes) as u32).collect();
    (Model { weights, ..model }, ids)
}

fn logits(model: &Model, ids: &[u32]) -> Vec<f32> {
    Engine::new(model).unwrap().session().logits(ids).unwrap()
}

/// The largest difference as a share of the reference's root mean square.
fn moved(found: &[f32], reference: &[f32]) -> f32 {
    let square: f32 = reference.iter().map(|x| x * x).sum();
    let largest = found.iter().zip(reference).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
    largest / (square / reference.len() as f32).sqrt()
}

fn mean_square(found: &[f32], reference: &[f32]) -> f32 {
    found.iter().zip(reference).map(|(a, b)| (a - b) * (a - b)).sum::<f32>() / found.len() as f32
}

fn store(folder: &tempfile::TempDir, name: &str) -> Store {
    Store::open(&folder.path().join(name), &json!({"test": name})).unwrap()
}

#[test]
fn folded_scales_leave_logits_as_they_are() {
    for family in FAMILIES {
        let (model, ids) = golden(family);
        let before = logits(&model, &ids);
        let mut weights = model.weights.clone();
        let mut places = 0;
        for layer in 0..model.spec.layers.len() {
            let mut changes = Changes::new(&model.weights);
            for site in sites(&model.spec, layer) {
                places += 1;
                let scales: Vec<f32> =
                    (0..site.width).map(|i| 3f32.powf(((i * 37 + layer) as f32).sin())).collect();
                let taken = changes.fold(&site, &scales).unwrap();
                assert!(taken.iter().zip(&scales).all(|(a, b)| (a / b - 1.0).abs() < 1e-4), "{family}");
            }
            weights = weights.replaced(changes.finish(&Plan::default()).unwrap()).unwrap();
        }
        let after = logits(&Model { weights, ..model.clone() }, &ids);
        let difference = moved(&after, &before);
        println!("{family:18} {places:3} places, logits move by {difference:.1e}");
        // OLMo 2 has no norms before its halves, but gates.
        assert!(places > 0 && difference < 1e-4, "{family}: {difference}");
    }
}

#[test]
fn a_rounded_norm_is_answered_by_the_linears_behind_it() {
    let (model, ids) = golden("qwen2");
    let before_norm = "layers.0.attention.before_norm.weight";
    let narrow = |name: &str| {
        let mut bytes = Vec::new();
        let values = model.weights.f32(name).unwrap();
        ounce_kernels::quant::encode(DType::BF16, &values, &mut bytes).unwrap();
        let shape = vec![values.len()];
        (name.to_owned(), Tensor { dtype: DType::BF16, shape, data: bytes.into() })
    };
    let weights = model.weights.replaced([narrow(before_norm)]).unwrap();
    let model = Model { weights, ..model };
    let site = &sites(&model.spec, 0)[0];
    let scales: Vec<f32> = (0..site.width).map(|i| 3f32.powf((i as f32).sin())).collect();
    let mut changes = Changes::new(&model.weights);
    changes.fold(site, &scales).unwrap();
    let weights = model.weights.replaced(changes.finish(&Plan::default()).unwrap()).unwrap();
    assert_eq!(weights.info(before_norm).unwrap().0, DType::BF16);
    let after = logits(&Model { weights, ..model.clone() }, &ids);
    assert!(moved(&after, &logits(&model, &ids)) < 1e-5);
}

#[test]
fn rotated_models_give_the_same_logits_and_others_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut refused = Vec::new();
    for family in FAMILIES {
        let (model, ids) = golden(family);
        let rotation = Preparation::Rotate(rotate::Options { seed: 5 });
        let shaped = match rotation.shaped(&model) {
            Ok(shaped) => shaped,
            Err(error) => {
                assert!(error.to_string().contains("can't be rotated: it"), "{error}");
                refused.push(*family);
                continue;
            }
        };
        assert!(!shaped.spec.head.as_ref().unwrap().tied);
        let rotated = rotation
            .apply(&shaped, &Plan::default(), &[], &store(&folder, family), &mut |_, _| Ok(()))
            .unwrap();
        let difference = moved(&logits(&rotated, &ids), &logits(&model, &ids));
        println!("{family:18} logits move by {difference:.1e}");
        assert!(difference < 2e-4, "{family}: {difference}");
        let embedding = |model: &Model| model.weights.f32("embed.tokens.weight").unwrap();
        assert!(moved(&embedding(&rotated), &embedding(&model)) > 0.1, "{family} was rotated");
    }
    assert_eq!(refused, ["gemma2", "gemma3", "olmo2", "stablelm", "stablelm_parallel", "gpt2", "gpt_neox"]);
}

#[test]
fn a_rotated_tied_model_comes_back_from_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (model, ids) = golden("llama_tied");
    assert!(model.spec.head.as_ref().unwrap().tied);
    let rotation = Preparation::Rotate(rotate::Options::default());
    let shaped = rotation.shaped(&model).unwrap();
    let rotated =
        rotation.apply(&shaped, &Plan::default(), &[], &store(&folder, "work"), &mut |_, _| Ok(())).unwrap();
    let target = folder.path().join("out");
    let options = ounce_model::formats::WriteOptions::default();
    ounce_model::formats::hf::write_model(&rotated, &target, &options, &mut |_, _| Ok(())).unwrap();
    let again = Model::open(&target).unwrap();
    assert!(!again.spec.head.as_ref().unwrap().tied);
    assert!(moved(&logits(&again, &ids), &logits(&model, &ids)) < 2e-4);
}

/// A random Llama with channels that stand out, as those of trained models do: what a norm gives has some columns far
/// larger than the rest. With texts to calibrate on and one to compare on.
fn with_outliers() -> (Model, Vec<Vec<u32>>, Vec<u32>) {
    let config = json!({
        "model_type": "llama", "hidden_size": 128, "head_dim": 32, "intermediate_size": 256, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 128, "max_position_embeddings": 64,
    });
    let config = Config::new("config.json", config.as_object().unwrap().clone());
    let (_, spec) = families::spec_of(&config).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut source = MemorySource::new("memory");
    for tensor in spec.tensors() {
        let count: usize = tensor.shape.iter().product();
        let size = if tensor.name.starts_with("embed") {
            1.0
        } else {
            (3.0 / tensor.shape[tensor.shape.len() - 1] as f32).sqrt()
        };
        let values: Vec<f32> = (0..count)
            .map(|i| match tensor.shape.len() {
                1 if i % 16 == 3 && tensor.name.contains("before") => 12.0,
                1 => 1.0,
                _ => size * (rng.random::<f32>() + rng.random::<f32>() + rng.random::<f32>() - 1.5),
            })
            .collect();
        source.insert(tensor.name, Tensor::from_f32(&tensor.shape, &values));
    }
    let model = Model {
        spec,
        weights: Weights::in_memory(source),
        tokenizer: None,
        chat: None,
        config,
        generation: Config::new("generation_config.json", serde_json::Map::new()),
        origin: Origin { path: "memory".into(), format: Format::HuggingFace, name: None },
        extras: Vec::new(),
    };
    let mut text = |length: usize| (0..length).map(|_| rng.random_range(0..128)).collect::<Vec<u32>>();
    let calibration = (0..24).map(|_| text(48)).collect();
    (model, calibration, text(48))
}

fn plan(model: &Model, dtype: DType) -> Plan {
    let units = units(model).unwrap();
    Plan::new(units.iter().filter(|unit| !unit.is_outer()).map(|unit| (unit, Some(dtype)))).unwrap()
}

/// Mean square error of the logits when quantized like that.
fn cost(prepare: &[Preparation], method: Method, dtype: DType) -> f32 {
    let folder = tempfile::tempdir().unwrap();
    let (original, calibration, ids) = with_outliers();
    let mut model = original.clone();
    for step in prepare {
        model = step.shaped(&model).unwrap();
    }
    let plan = plan(&model, dtype);
    for (index, step) in prepare.iter().enumerate() {
        let store = store(&folder, &format!("{index}"));
        model = step.apply(&model, &plan, &calibration, &store, &mut |_, _| Ok(())).unwrap();
    }
    let store = store(&folder, "quantized");
    let mut observer = |_: Option<&crate::quantize::Finished>, _: u64, _: u64| Ok(());
    let weights = Quantizer::new(&model, &plan, method, &store, &mut observer).run(calibration).unwrap();
    assert!(plan.formats.keys().all(|name| weights.info(name).unwrap().0 == plan.dtype(name).unwrap()));
    mean_square(&logits(&Model { weights, ..model }, &ids), &logits(&original, &ids))
}

#[test]
fn prepared_models_lose_less_when_they_are_rounded() {
    let awq = Preparation::Awq(awq::Options::default());
    let clipped = Preparation::Awq(awq::Options { clip: true, ..awq::Options::default() });
    let smooth = Preparation::Smooth(smooth::Options::default());
    let rotate = Preparation::Rotate(rotate::Options::default());
    let gptq = Method::Gptq(gptq::Options::default());
    for dtype in [DType::G4x32, DType::G3x32] {
        let plain = cost(&[], Method::Round, dtype);
        let plain_gptq = cost(&[], gptq, dtype);
        println!("{dtype}: round {plain:.3e}, GPTQ {:.3} of it", plain_gptq / plain);
        let ratio = |name: &str, steps: &[Preparation], method: Method| {
            let ratio = cost(steps, method, dtype) / plain;
            println!("{dtype}: {name} {ratio:.3} of rounding's error of the logits");
            ratio
        };
        assert!(ratio("AWQ", &[awq], Method::Round) < 0.8);
        assert!(ratio("AWQ, clipped", &[clipped], Method::Round) < 0.8);
        assert!(ratio("SmoothQuant", &[smooth], Method::Round) < 0.9);
        assert!(ratio("rotation", &[rotate], Method::Round) < 0.95);
        ratio("rotation, AWQ", &[rotate, awq], Method::Round);
        assert!(ratio("HQQ", &[], Method::Hqq(crate::quantize::hqq::Options::default())) < 1.0);
        assert!(ratio("AWQ, GPTQ", &[awq], gptq) < 0.8);
        ratio("rotation, GPTQ", &[rotate], gptq);
    }
}

#[test]
fn finished_steps_are_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let (model, calibration, _) = with_outliers();
    let plan = plan(&model, DType::Q4_0);
    let step = Preparation::Awq(awq::Options { clip: true, grid: 4 });
    let store = store(&folder, "awq");
    let first = step.apply(&model, &plan, &calibration, &store, &mut |_, _| Ok(())).unwrap();
    // Without calibration it could do nothing itself.
    let second = step.apply(&model, &plan, &[], &store, &mut |_, _| Ok(())).unwrap();
    for name in model.weights.names() {
        assert_eq!(first.weights.f32(name).unwrap(), second.weights.f32(name).unwrap(), "{name}");
    }
    assert_ne!(
        first.weights.f32("layers.0.attention.query.weight").unwrap(),
        model.weights.f32("layers.0.attention.query.weight").unwrap()
    );
    let other = Store::open(&folder.path().join("empty"), &json!({})).unwrap();
    let error = step.apply(&model, &plan, &[vec![]], &other, &mut |_, _| Ok(())).unwrap_err().to_string();
    assert!(error.contains("calibration text is empty"), "{error}");
}

#[test]
fn what_stays_in_blocks_is_not_rounded_again() {
    let folder = tempfile::tempdir().unwrap();
    let (model, ..) = with_outliers();
    let name = "layers.0.attention.query.weight";
    let (values, shape) = (model.weights.f32(name).unwrap(), model.weights.info(name).unwrap().1.to_vec());
    let mut bytes = Vec::new();
    ounce_kernels::quant::encode_rows(DType::Q8_0, &values, shape[1], &mut bytes).unwrap();
    let tensor = Tensor { dtype: DType::Q8_0, shape, data: bytes.into() };
    let model = Model { weights: model.weights.replaced([(name.to_owned(), tensor)]).unwrap(), ..model };
    let rotation = Preparation::Rotate(rotate::Options::default());
    let error = rotation
        .apply(&model, &Plan::default(), &[], &store(&folder, "a"), &mut |_, _| Ok(()))
        .unwrap_err()
        .to_string();
    assert!(error.contains(name) && error.contains("block format"), "{error}");
    assert!(!sites(&model.spec, 0)[0].is_open(&model.weights, &Plan::default()));
    assert!(sites(&model.spec, 0)[0].is_open(&model.weights, &plan(&model, DType::Q4_0)));
}
