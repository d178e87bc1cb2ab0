//! Every family reads its golden models (see tests/golden/README.md): the configuration in both spellings,
//! every tensor by name and shape, and written back as it was.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ounce_model::families::{self, Family};
use ounce_model::formats::safetensors::SafetensorsFile;
use ounce_model::names::{plan, resolve};
use ounce_model::spec::{FeedForwardKind, QkScope, Residual};
use ounce_model::weights::{MemorySource, TensorSource};
use ounce_model::{Config, Spec, Weights};
use serde_json::{Value, json};

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/models")
}

fn golden_names() -> Vec<String> {
    let folders = fs::read_dir(models()).expect("the golden models are part of the repository");
    let mut names: Vec<String> =
        folders.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    assert!(names.len() >= 41, "{} golden models, some are missing", names.len());
    names
}

fn config(name: &str, file: &str) -> Config {
    let path = models().join(name).join(file);
    let text = fs::read(&path).expect("every golden model has its configuration");
    Config::parse(&path, &text).expect("valid JSON")
}

fn spec(name: &str) -> (&'static Family, Spec) {
    families::spec_of(&config(name, "config.json")).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The spec of a golden model after some keys were replaced, or the message of the refusal.
fn changed(name: &str, file: &str, changes: &[(&str, Value)]) -> Result<Spec, String> {
    let mut config = config(name, file);
    for (key, value) in changes {
        config.map_mut().insert((*key).to_string(), value.clone());
    }
    families::spec_of(&config).map(|(_, spec)| spec).map_err(|error| error.to_string())
}

/// The model's files. The golden results lie beside them under a name that is no shard's.
fn source(name: &str) -> Arc<SafetensorsFile> {
    let folder = models().join(name);
    let single = folder.join("model.safetensors");
    let file =
        if single.exists() { SafetensorsFile::open(&single) } else { SafetensorsFile::open_folder(&folder) };
    Arc::new(file.unwrap_or_else(|error| panic!("{name}: {error}")))
}

fn weights(name: &str) -> Weights {
    let (family, spec) = spec(name);
    resolve(&spec, &family.names, source(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn both_spellings_of_a_configuration_mean_the_same_model() {
    for name in golden_names() {
        let (family, new) = spec(&name);
        let (_, old) = families::spec_of(&config(&name, "config.hub.json")).expect("the older spelling");
        assert_eq!(new, old, "{name}");
        assert_eq!(new.family, family.name, "{name}");
        assert!(families::by_name(&new.family).is_some(), "{name}");
    }
}

#[test]
fn every_family_has_a_golden_model() {
    let tested: Vec<String> = golden_names().iter().map(|name| spec(name).1.family).collect();
    for family in families::ALL {
        assert!(tested.iter().any(|name| name == family.name), "{} has none", family.name);
    }
}

#[test]
fn every_tensor_of_a_file_is_found_or_known_to_be_needless() {
    let pooler = ["pooler.dense.bias", "pooler.dense.weight"].map(String::from).to_vec();
    let early: Vec<String> =
        ["pooler.dense.bias", "pooler.dense.weight"].iter().map(|name| format!("bert.{name}")).collect();
    let next_sentence = ["cls.seq_relationship.bias", "cls.seq_relationship.weight"].map(String::from);
    for name in golden_names() {
        let mut unused = weights(&name).unused().to_vec();
        unused.sort();
        let expected = match name.as_str() {
            "bert_model" | "minilm" | "bge" | "e5" => pooler.clone(),
            "bert_hub" => early.iter().chain(&next_sentence).cloned().collect(),
            "albert_model" => vec!["pooler.bias".to_string(), "pooler.weight".to_string()],
            _ => Vec::new(),
        };
        assert_eq!(unused, expected, "{name}");
    }
}

type Stored = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

fn stored(source: &dyn TensorSource) -> Stored {
    let tensor = |name: &str| source.tensor(name).expect("listed tensors are there");
    source
        .names()
        .into_iter()
        .map(|name| (name.to_string(), tensor(name)))
        .map(|(name, it)| (name, (it.shape, it.data.to_vec())))
        .collect()
}

/// Writes the model under its family's names, in the formats it is stored in.
fn written(name: &str) -> MemorySource {
    let (family, spec) = spec(name);
    let weights = weights(name);
    let mut memory = MemorySource::new("memory");
    for tensor in plan(&spec, &family.names).expect("a family has a place for each of its tensors") {
        let dtype = tensor.stored_dtype(&weights);
        memory.insert(tensor.name.clone(), tensor.build(&weights, dtype).expect("it was just read"));
    }
    memory
}

#[test]
fn a_model_is_written_as_transformers_writes_it() {
    // These have other names on purpose: published or stacked layouts, and base models without prefix.
    let others = [
        "bert_hub",
        "bert_model",
        "albert_model",
        "minilm",
        "bge",
        "e5",
        "gpt2_hub",
        "mixtral_fused",
        "qwen3_moe_fused",
    ];
    for name in golden_names().iter().filter(|name| !others.contains(&name.as_str())) {
        let (ours, theirs) = (stored(&written(name)), stored(source(name).as_ref()));
        assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "{name}");
        for (tensor, value) in &theirs {
            assert!(ours[tensor] == *value, "{name}: {tensor} came back changed");
        }
    }
}

#[test]
fn what_is_written_reads_back_the_same_whatever_the_layout_it_came_from() {
    for name in golden_names() {
        let (family, spec) = spec(&name);
        let before = weights(&name);
        let after = resolve(&spec, &family.names, Arc::new(written(&name))).expect("just written");
        assert!(after.unused().is_empty(), "{name}: {:?}", after.unused());
        for tensor in before.names() {
            let (before, after) = (before.get(tensor).expect("read"), after.get(tensor).expect("read"));
            assert_eq!((before.shape, before.dtype), (after.shape, after.dtype), "{name}: {tensor}");
            assert!(before.data[..] == after.data[..], "{name}: {tensor} came back changed");
        }
    }
}

fn values(source: &dyn TensorSource, name: &str) -> Vec<f32> {
    source.tensor(name).map(|it| it.to_f32().expect("a number format")).expect("it is there")
}

#[test]
fn gpt_neox_rows_are_taken_head_by_head() {
    let (weights, file) = (weights("gpt_neox"), source("gpt_neox"));
    let (hidden, head_dim) = (48, 12);
    let fused = values(file.as_ref(), "gpt_neox.layers.1.attention.query_key_value.weight");
    for (part, name) in ["query", "key", "value"].iter().enumerate() {
        let taken = weights.f32(&format!("layers.1.attention.{name}.weight")).expect("read");
        for row in 0..hidden {
            let there = (row / head_dim) * 3 * head_dim + part * head_dim + row % head_dim;
            assert_eq!(
                taken[row * hidden..][..hidden],
                fused[there * hidden..][..hidden],
                "{name} row {row}"
            );
        }
    }
}

#[test]
fn gpt2_matrices_are_transposed() {
    let (weights, file) = (weights("gpt2_hub"), source("gpt2_hub"));
    let fused = values(file.as_ref(), "h.0.attn.c_attn.weight"); // [32, 96]
    let key = weights.f32("layers.0.attention.key.weight").expect("read");
    let bias = weights.f32("layers.0.attention.key.bias").expect("read");
    for (out, input) in [(0, 0), (0, 31), (31, 0), (7, 19)] {
        assert_eq!(key[out * 32 + input], fused[input * 96 + 32 + out]);
    }
    assert_eq!(bias, values(file.as_ref(), "h.0.attn.c_attn.bias")[32..64]);
}

#[test]
fn stacked_experts_are_taken_apart() {
    let (weights, file) = (weights("qwen3_moe_fused"), source("qwen3_moe_fused"));
    let both = values(file.as_ref(), "model.layers.1.mlp.experts.gate_up_proj"); // [4, 2·16, 32]
    let up = weights.f32("layers.1.feed_forward.experts.3.up.weight").expect("read");
    assert_eq!(up, both[(3 * 32 + 16) * 32..][..16 * 32]);
    let down = values(file.as_ref(), "model.layers.1.mlp.experts.down_proj"); // [4, 32, 16]
    assert_eq!(weights.f32("layers.1.feed_forward.experts.2.down.weight").expect("read"), down[1024..1536]);
}

#[test]
fn layers_get_the_windows_their_family_gives_them() {
    let windows = |spec: &Spec| -> Vec<usize> {
        spec.layers
            .iter()
            .map(|layer| layer.attention.as_ref().and_then(|it| it.window).unwrap_or(0))
            .collect()
    };
    for (name, expected) in [
        ("llama", vec![0, 0]),
        ("mistral", vec![16, 16]),
        ("qwen2_window", vec![0, 16, 16]),
        ("gemma2", vec![16, 0, 16, 0]),
        ("gemma3", vec![16, 16, 0, 16]),
        ("mixtral", vec![0, 0]),
        ("mixtral_fused", vec![16, 16]),
        ("phi3", vec![16, 16]),
    ] {
        assert_eq!(windows(&spec(name).1), expected, "{name}");
    }
    let off = [("use_sliding_window", json!(false))];
    assert_eq!(windows(&changed("qwen2_window", "config.hub.json", &off).expect("valid")), [0, 0, 0]);
    // An explicit list wins over the family's rule.
    let list = [("layer_types", json!(["sliding_attention", "full_attention", "full_attention"]))];
    assert_eq!(windows(&changed("qwen2_window", "config.json", &list).expect("valid")), [16, 0, 0]);
    // SmolLM 3 has windows where it has no positions.
    let on = [("use_sliding_window", json!(true)), ("sliding_window", json!(8))];
    assert_eq!(windows(&changed("smollm3", "config.hub.json", &on).expect("valid")), [0, 8, 0, 8]);
}

#[test]
fn keys_left_out_mean_the_familys_default_and_null_means_off() {
    let mut config = config("gemma2", "config.hub.json");
    for key in ["attn_logit_softcapping", "final_logit_softcapping", "sliding_window", "tie_word_embeddings"]
    {
        config.map_mut().remove(key);
    }
    let (_, defaults) = families::spec_of(&config).expect("valid");
    let attention = defaults.layers[0].attention.as_ref().expect("decoders attend");
    assert_eq!((attention.softcap, attention.window), (Some(50.0), Some(4096)));
    let head = defaults.head.expect("decoders have a head");
    assert_eq!((head.tied, head.softcap), (true, Some(30.0)));
    let off = [("attn_logit_softcapping", Value::Null), ("sliding_window", Value::Null)];
    let off = changed("gemma2", "config.hub.json", &off).expect("valid");
    let attention = off.layers[0].attention.as_ref().expect("decoders attend");
    assert_eq!((attention.softcap, attention.window), (None, None));
}

#[test]
fn experts_sit_in_the_layers_the_configuration_names() {
    let sparse = |name: &str| -> Vec<bool> {
        let kind = |layer: &ounce_model::spec::Layer| {
            let half = layer.feed_forward.as_ref().expect("every layer has one");
            matches!(half.kind, FeedForwardKind::Experts(_))
        };
        spec(name).1.layers.iter().map(kind).collect()
    };
    assert_eq!(sparse("mixtral"), [true, true]);
    assert_eq!(sparse("qwen2_moe_sparse_step"), [false, true, false]);
    assert_eq!(sparse("qwen3_moe"), [true, false, true]);
}

#[test]
fn stablelm_shares_the_norm_of_parallel_halves() {
    let (_, spec) = spec("stablelm_parallel");
    assert!(spec.layers.iter().all(|layer| layer.residual == Residual::ParallelSharedNorm));
    let attention = spec.layers[0].attention.as_ref().expect("decoders attend");
    assert_eq!(attention.qk_norm.map(|norm| norm.scope), Some(QkScope::EachHead));
}

#[test]
fn layers_share_weights_by_groups() {
    let owners = |name: &str| -> Vec<usize> {
        let spec = spec(name).1;
        (0..spec.layers.len()).map(|index| spec.owner(index)).collect()
    };
    assert_eq!(owners("albert_mlm"), [0, 0, 2]);
    assert_eq!(owners("albert_model"), [0, 1, 0, 1]);
    assert_eq!(owners("bert_mlm"), [0, 1]);
    let shared = spec("albert_mlm").1;
    assert_eq!((shared.embedding_width(), shared.hidden_size, shared.sharing_layers()), (20, 32, 1));
    let stored: u64 = source("albert_mlm")
        .names()
        .iter()
        .filter_map(|name| {
            source("albert_mlm").info(name).map(|(_, shape)| shape.iter().product::<usize>() as u64)
        })
        .sum();
    assert_eq!(shared.parameters(), stored, "shared weights are counted once");
    // Any family can say so.
    let shares = json!([{}, {"shares": 0}]);
    let llama = changed("llama", "config.json", &[("ounce_layers", shares)]).expect("alike");
    assert_eq!(llama.owner(1), 0);
    assert!(llama.parameters() < spec("llama").1.parameters());
}

#[test]
fn what_would_compute_something_else_is_refused() {
    for (name, key, value) in [
        ("llama", "hidden_act", json!("xielu")),
        ("llama", "num_key_value_heads", json!(3)),
        ("llama", "num_hidden_layers", json!(1_000_000)),
        ("llama", "num_attention_heads", json!(0)),
        ("llama", "rope_parameters", json!({"rope_type": "axial", "rope_theta": 1e4})),
        ("mistral", "layer_types", json!(["sliding_attention", "chunked_attention"])),
        ("mistral", "layer_types", json!(["sliding_attention"])),
        ("gemma2", "query_pre_attn_scalar", json!(0)),
        ("gemma2", "final_logit_softcapping", json!(-1.0)),
        ("gemma3", "use_bidirectional_attention", json!(true)),
        ("phi3", "rope_scaling", json!({"type": "yarn", "short_factor": [], "long_factor": []})),
        ("smollm3", "no_rope_layers", json!([1, 0])),
        ("qwen2_moe", "decoder_sparse_step", json!(0)),
        ("qwen2_moe", "num_experts_per_tok", json!(7)),
        ("gpt2", "add_cross_attention", json!(true)),
        ("bert_mlm", "position_embedding_type", json!("relative_key")),
        ("bert_mlm", "is_decoder", json!(true)),
        ("bert_mlm", "tie_word_embeddings", json!(false)),
        ("roberta_mlm", "pad_token_id", json!(100)),
        ("albert_mlm", "num_hidden_groups", json!(4)),
        ("albert_mlm", "num_hidden_groups", json!(0)),
        ("albert_model", "num_hidden_groups", json!(2)),
    ] {
        let refusal = changed(name, "config.json", &[(key, value.clone())]);
        assert!(refusal.is_err(), "{name} with {key} = {value} should be refused");
    }
    let message =
        changed("mistral", "config.json", &[("model_type", json!("mamba")), ("architectures", json!([]))]);
    assert!(message.expect_err("unknown").contains("no family that ounce knows"));
}

#[test]
fn a_file_with_a_layer_part_too_many_is_refused() {
    // A Qwen 3 file read with Llama's configuration would lose its head norms without a word.
    let (llama, spec) = {
        let mut config = config("qwen3", "config.json");
        config.map_mut().insert("model_type".into(), json!("llama"));
        families::spec_of(&config).expect("a valid llama")
    };
    let error = resolve(&spec, &llama.names, source("qwen3")).expect_err("the head norms are left over");
    assert!(error.to_string().contains("q_norm") || error.to_string().contains("k_norm"), "{error}");
}
