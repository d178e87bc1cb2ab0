//! Models whose layers differ in shape (`ounce_layers`, see docs/formats.md): they open, run, give the same step by
//! step as at once, compute what a model of equal layers computes where the cut parts do nothing, and come back from
//! a folder as they were.

use std::path::Path;
use std::sync::Arc;

use ounce_engine::{Engine, Mode};
use ounce_kernels::attention::KvType;
use ounce_model::formats::WriteOptions;
use ounce_model::formats::hf::write_model;
use ounce_model::model::{Format, Origin};
use ounce_model::weights::MemorySource;
use ounce_model::{Config, Model, Spec, Tensor, families, names};
use serde_json::{Map, Value, json};

/// Half of the models' layers in one list: fewer heads, other groups, other widths, halves missing.
fn layers() -> Value {
    json!([
        {},
        {"num_attention_heads": 3, "num_key_value_heads": 3, "intermediate_size": 10},
        {"attention": false, "intermediate_size": 40},
        {"num_attention_heads": 6, "num_key_value_heads": 1, "feed_forward": false},
        {"attention": false, "feed_forward": false},
    ])
}

fn config(model_type: &str, changes: &[(&str, Value)]) -> Config {
    let config = json!({
        "model_type": model_type,
        "hidden_size": 24,
        "head_dim": 8,
        "intermediate_size": 32,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 31,
        "max_position_embeddings": 64,
    });
    let mut map = config.as_object().expect("an object").clone();
    map.extend(changes.iter().map(|(key, value)| ((*key).to_string(), value.clone())));
    Config::new("config.json", map)
}

/// The same pseudorandom weights whenever the name and shape are the same.
fn values(name: &str, count: usize) -> Vec<f32> {
    let mut state = name.bytes().fold(0x9e37_79b9_7f4a_7c15u64, |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / (1 << 24) as f32 - 0.5) * 0.6
        })
        .collect()
}

/// A model of this configuration with random weights.
fn random(config: Config) -> Model {
    let (family, spec) = families::spec_of(&config).unwrap_or_else(|error| panic!("{error}"));
    let mut source = MemorySource::new("memory");
    for planned in names::plan(&spec, &family.names).expect("every tensor has a name") {
        let values = values(&planned.name, planned.shape.iter().product());
        source.insert(planned.name, Tensor::from_f32(&planned.shape, &values));
    }
    model(config, spec, source)
}

fn model(config: Config, spec: Spec, source: MemorySource) -> Model {
    let family = families::by_name(&spec.family).expect("a known family");
    let weights =
        names::resolve(&spec, &family.names, Arc::new(source)).unwrap_or_else(|error| panic!("{error}"));
    Model {
        spec,
        weights,
        tokenizer: None,
        chat: None,
        config,
        generation: Config::new("generation_config.json", Map::new()),
        origin: Origin { path: "memory".into(), format: Format::HuggingFace, name: None },
        extras: Vec::new(),
    }
}

fn ids() -> Vec<u32> {
    (0..20).map(|i| i * 7 % 31).collect()
}

fn logits(model: &Model) -> Vec<f32> {
    Engine::new(model).expect("an engine").session().logits(&ids()).expect("logits")
}

fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(0.0f32, |scale, x| scale.max(x.abs()));
    let largest = found.iter().zip(expected).fold(0.0f32, |largest, (a, b)| largest.max((a - b).abs()));
    assert!(largest <= 1e-5 * scale, "{what}: {largest} of {scale}");
}

#[test]
fn shapes_are_those_of_each_layer() {
    let model = random(config("llama", &[("ounce_layers", layers())]));
    let shape = |name: &str| model.weights.info(name).map(|(_, shape)| shape.to_vec());
    assert_eq!(shape("layers.0.attention.query.weight"), Some(vec![32, 24]));
    assert_eq!(shape("layers.1.attention.query.weight"), Some(vec![24, 24]));
    assert_eq!(shape("layers.1.attention.output.weight"), Some(vec![24, 24]));
    assert_eq!(shape("layers.1.feed_forward.down.weight"), Some(vec![24, 10]));
    assert_eq!(shape("layers.2.attention.query.weight"), None);
    assert_eq!(shape("layers.2.feed_forward.up.weight"), Some(vec![40, 24]));
    assert_eq!(shape("layers.3.attention.query.weight"), Some(vec![48, 24]));
    assert_eq!(shape("layers.3.attention.key.weight"), Some(vec![8, 24]));
    assert_eq!(shape("layers.3.feed_forward.up.weight"), None);
    assert!(!model.weights.names().any(|name| name.starts_with("layers.4.")));
    // Keys and values of 2, 3, none and 1 heads.
    assert_eq!(model.spec.kv_bytes_per_token(4), 2 * (2 + 3 + 1) * 8 * 4);
}

/// The logits behind each token, one step at a time.
fn stepwise(engine: &Engine) -> Vec<f32> {
    let mut session = engine.session();
    ids().into_iter().flat_map(|id| session.feed(&[id], |_| {}).expect("a step")).collect()
}

#[test]
fn a_text_gives_the_same_at_once_and_step_by_step() {
    for family in ["llama", "qwen2", "qwen3", "gemma2", "olmo2", "phi3", "granite", "smollm3", "stablelm"] {
        let model = random(config(family, &[("ounce_layers", layers())]));
        let whole = logits(&model);
        assert!(whole.iter().all(|logit| logit.is_finite()), "{family}");
        let engine = Engine::new(&model).expect("an engine");
        assert_close(&stepwise(&engine), &whole, family);
    }
}

#[test]
fn a_missing_half_computes_what_one_that_adds_nothing_computes() {
    // In the full model the last matrix of the same halves is zero, so they add nothing.
    let full = config("llama", &[]);
    let cut = config(
        "llama",
        &[(
            "ounce_layers",
            json!([{"attention": false}, {}, {"feed_forward": false}, {}, {"attention": false}]),
        )],
    );
    let (family, spec) = families::spec_of(&full).expect("valid");
    let mut source = MemorySource::new("memory");
    let silent = ["layers.0.self_attn.o_proj", "layers.2.mlp.down_proj", "layers.4.self_attn.o_proj"];
    for planned in names::plan(&spec, &family.names).expect("every tensor has a name") {
        let count = planned.shape.iter().product();
        let is_silent = silent.iter().any(|name| planned.name.contains(name));
        let values = if is_silent { vec![0.0; count] } else { values(&planned.name, count) };
        source.insert(planned.name, Tensor::from_f32(&planned.shape, &values));
    }
    assert_close(&logits(&random(cut)), &logits(&model(full, spec, source)), "cut and silenced");
}

#[test]
fn fewer_heads_compute_what_heads_that_add_nothing_compute() {
    // Two of four heads stay: those of the first key/value head. In the full model the others' columns of the
    // output matrix are zero.
    let full = random(config("llama", &[]));
    let layers = json!([{"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 12}, {}, {}, {}, {}]);
    let cut = config("llama", &[("ounce_layers", layers)]);
    let (family, spec) = families::spec_of(&cut).expect("valid");
    let mut small = MemorySource::new("memory");
    let mut silenced = MemorySource::new("memory");
    for planned in names::plan(&full.spec, &family.names).expect("every tensor has a name") {
        let tensor = planned.build(&full.weights, ounce_kernels::DType::F32).expect("built");
        let mut values = tensor.to_f32().expect("f32");
        let columns = tensor.row_len();
        let part = planned.name.strip_prefix("model.layers.0.").unwrap_or_default();
        let kept_rows = match part {
            "self_attn.q_proj.weight" => Some(16),
            "self_attn.k_proj.weight" | "self_attn.v_proj.weight" => Some(8),
            "mlp.gate_proj.weight" | "mlp.up_proj.weight" => Some(12),
            _ => None,
        };
        let kept_columns = match part {
            "self_attn.o_proj.weight" => 16,
            "mlp.down_proj.weight" => 12,
            _ => columns,
        };
        let smaller: Vec<f32> = values
            .chunks(columns)
            .take(kept_rows.unwrap_or(usize::MAX))
            .flat_map(|row| &row[..kept_columns])
            .copied()
            .collect();
        let rows = smaller.len() / kept_columns;
        let shape = if planned.shape.len() == 1 { vec![kept_columns] } else { vec![rows, kept_columns] };
        small.insert(planned.name.clone(), Tensor::from_f32(&shape, &smaller));
        values.chunks_mut(columns).for_each(|row| row[kept_columns..].fill(0.0));
        silenced.insert(planned.name, Tensor::from_f32(&planned.shape, &values));
    }
    let small = model(cut, spec, small);
    let silenced = model(full.config.clone(), full.spec.clone(), silenced);
    assert_close(&logits(&small), &logits(&silenced), "cut and silenced");
}

#[test]
fn every_family_that_can_be_cut_comes_back_from_a_folder() {
    let experts = json!({"num_experts": 3, "intermediate_size": 14});
    let with_experts = json!([{}, experts, {"attention": false}, {"feed_forward": false}, experts]);
    let mixture = |key: &str| {
        vec![
            (key.to_string(), json!(4)),
            ("num_experts_per_tok".to_string(), json!(2)),
            ("moe_intermediate_size".to_string(), json!(16)),
            ("shared_expert_intermediate_size".to_string(), json!(8)),
            ("ounce_layers".to_string(), with_experts.clone()),
        ]
    };
    let dense = vec![("ounce_layers".to_string(), layers())];
    for (family, changes) in [
        ("llama", dense.clone()),
        ("mistral", dense.clone()),
        ("qwen3", dense.clone()),
        ("gemma3_text", dense.clone()),
        ("phi3", dense.clone()),
        ("olmo2", dense),
        ("mixtral", mixture("num_local_experts")),
        ("qwen2_moe", mixture("num_experts")),
        ("qwen3_moe", mixture("num_experts")),
    ] {
        let changes: Vec<(&str, Value)> =
            changes.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
        let model = random(config(family, &changes));
        let copy = written(&model);
        assert_eq!(copy.spec, model.spec, "{family}");
        assert_eq!(copy.config.get("ounce_layers"), model.config.get("ounce_layers"), "{family}");
        assert_eq!(logits(&copy), logits(&model), "{family}");
    }
}

fn written(model: &Model) -> Model {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("copy");
    write_model(model, &path, &WriteOptions::default(), &mut |_, _| Ok(()))
        .unwrap_or_else(|error| panic!("{error}"));
    // The weights stay readable after the folder is gone: they are mapped.
    Model::open(Path::new(&path)).unwrap_or_else(|error| panic!("{error}"))
}

/// Layers 1 and 2 attend as layer 0 does, layer 4 as layer 3.
fn echoing(family: &str) -> Model {
    let shape = json!({"num_attention_heads": 6, "num_key_value_heads": 3});
    let copies = |source: usize| {
        let mut item = shape.clone();
        item["copies"] = json!(source);
        item
    };
    let layers = json!([shape, copies(0), copies(0), shape, copies(3)]);
    random(config(family, &[("ounce_layers", layers)]))
}

#[test]
fn layers_that_copy_attention_cache_values_only_and_give_the_same_step_by_step() {
    for family in ["llama", "qwen2", "qwen3", "olmo2", "granite"] {
        let model = echoing(family);
        assert!(model.weights.info("layers.1.attention.query.weight").is_none());
        assert!(model.weights.info("layers.3.attention.key.weight").is_some());
        let whole = logits(&model);
        let engine = Engine::new(&model).expect("an engine");
        assert_close(&stepwise(&engine), &whole, family);
        // The fast path, and every way to keep keys and values.
        let fast = Engine::load(&model, Mode::fast()).expect("an engine");
        assert_close(&fast.session().logits(&ids()).expect("logits"), &whole, family);
        for kv in [KvType::F16, KvType::Q8_0] {
            let mut small = Engine::new(&model).expect("an engine");
            small.set_kv_type(kv);
            let found = small.session().logits(&ids()).expect("logits");
            let off: f32 = found.iter().zip(&whole).map(|(a, b)| (a - b).powi(2)).sum();
            let size: f32 = whole.iter().map(|x| x.powi(2)).sum();
            assert!(off < 1e-3 * size, "{family} {kv:?}: {off} {size}");
        }
        // Two layers of keys and values of 3 heads of 8, and three of values.
        assert_eq!(model.spec.kv_bytes_per_token(4), (2 * 2 + 3) * 3 * 8 * 4);
        let held = ounce_model::account::cache::held_bytes(&model.spec, KvType::F32, [20].into_iter());
        let mut at_once = engine.session();
        at_once.feed(&ids(), |_| {}).expect("a prompt");
        assert_eq!(at_once.cache_bytes() as u64, held, "{family}");
        let folder = tempfile::tempdir().expect("a folder");
        write_model(
            &model,
            folder.path(),
            &WriteOptions { overwrite: true, ..WriteOptions::default() },
            &mut |_, _| Ok(()),
        )
        .unwrap_or_else(|error| panic!("{family}: {error}"));
        let back = Model::open(folder.path()).expect("a model");
        assert_eq!(back.spec, model.spec, "{family}");
        assert_close(&logits(&back), &whole, family);
    }
}

#[test]
fn copies_of_what_is_no_attention_of_the_same_shape_are_refused() {
    let said = |layers: Value| {
        families::spec_of(&config("llama", &[("ounce_layers", layers)])).unwrap_err().to_string()
    };
    let copies = |source: usize| json!({"copies": source});
    assert!(said(json!([copies(0), {}, {}, {}, {}])).contains("no layer before it"));
    assert!(said(json!([{}, {}, copies(0), {}, {}])).contains("the nearest before it with its own is 1"));
    let few = json!({"num_attention_heads": 2, "num_key_value_heads": 1});
    assert!(said(json!([few, copies(0), {}, {}, {}])).contains("another shape"));
}
