//! Weights that are missing, too many, or of another shape or type than the settings say.

use ounce_model::formats::safetensors::SafetensorsFile;
use ounce_model::weights::MemorySource;
use ounce_model::{Config, Error, Tensor, families, names};
use serde_json::{Value, json};
use std::sync::Arc;

use crate::folder::{Folder, Stored, config, pack, tensors};
use crate::refused;

const QUERY: &str = "model.layers.1.self_attn.q_proj.weight";

/// The sound model with other tensors.
fn with_tensors(change: impl FnOnce(&mut Vec<Stored>)) -> Folder {
    let folder = Folder::new();
    let mut tensors = tensors(&config());
    change(&mut tensors);
    folder.write("model.safetensors", pack(&tensors));
    folder
}

fn stored(name: &str, dtype: &'static str, shape: &[usize], bytes: usize) -> Stored {
    (name.to_string(), dtype, shape.to_vec(), vec![0; bytes])
}

/// The sound model with its second query matrix replaced.
fn with_query(dtype: &'static str, shape: &[usize], bytes: usize) -> Folder {
    with_tensors(|tensors| {
        let query = tensors.iter_mut().find(|tensor| tensor.0 == QUERY).unwrap();
        *query = stored(QUERY, dtype, shape, bytes);
    })
}

#[test]
fn missing_weights_are_named() {
    let folder = with_tensors(|tensors| tensors.retain(|tensor| tensor.0 != QUERY));
    refused("gone", &["tensor model.layers.1.self_attn.q_proj.weight: is missing", "[8, 8]"], || {
        folder.open()
    });
    let folder = with_tensors(|tensors| tensors.retain(|tensor| tensor.0 != "lm_head.weight"));
    refused("no head", &["tensor lm_head.weight: is missing"], || folder.open());
    refused("more layers", &["tensor model.layers.2.input_layernorm.weight: is missing"], || {
        Folder::with_settings(&[("num_hidden_layers", json!(3))]).open()
    });
}

#[test]
fn other_shapes_are_refused() {
    for (shape, bytes) in [(&[4, 16][..], 256), (&[64], 256), (&[16, 8], 512), (&[0, 8], 0), (&[], 4)] {
        let words = [QUERY, "has shape", "but the configuration asks for [8, 8]", "from the same model"];
        refused(&format!("{shape:?}"), &words, || with_query("F32", shape, bytes).open());
    }
    assert!(with_query("F32", &[1, 8, 8], 256).open().is_ok(), "a dimension of 1 changes nothing");
    let words = [
        "tensor model.embed_tokens.weight: has shape [5, 8]",
        "(vocab_size and hidden_size) asks for [6, 8]",
    ];
    refused("vocab_size", &words, || Folder::with_settings(&[("vocab_size", json!(6))]).open());
}

#[test]
fn other_types_are_refused() {
    for (dtype, size) in [("I8", 1), ("U8", 1), ("I32", 4), ("I64", 8), ("BOOL", 1), ("I16", 2)] {
        let words = [QUERY, "values, which are no weights", "take the original or a GGUF"];
        refused(dtype, &words, || with_query(dtype, &[8, 8], 64 * size).open());
    }
    for (dtype, size) in [("F64", 8), ("F16", 2), ("BF16", 2), ("F8_E4M3", 1), ("F8_E5M2", 1)] {
        assert!(with_query(dtype, &[8, 8], 64 * size).open().is_ok(), "{dtype}");
    }
}

#[test]
fn weights_that_nothing_uses_are_refused_within_the_layers_and_listed_elsewhere() {
    let with = |name: &'static str, dtype: &'static str| {
        with_tensors(move |tensors| {
            tensors.push(stored(name, dtype, &[1], if dtype == "I32" { 4 } else { 8 }))
        })
    };
    for (name, dtype) in [
        ("model.layers.0.self_attn.q_norm.weight", "F64"),
        ("model.layers.1.self_attn.q_proj.bias", "F64"),
        ("model.layers.1.self_attn.q_proj.qweight", "I32"),
        ("layers.0.extra", "F64"),
    ] {
        let words = [name, "is a weight of a layer that this family does not have"];
        refused(name, &words, || with(name, dtype).open());
    }
    let name = "model.layers.2.mlp.up_proj.weight";
    let words = [name, "belongs to layer 2, but the configuration has only 2 layers"];
    refused("a layer more", &words, || with(name, "F64").open());
    for name in ["classifier.0.weight", "model.layers.0.self_attn.rotary_emb.inv_freq", "model.layers.x"] {
        let model = with(name, "F64").open().unwrap();
        let listed = model.weights.unused() == [name];
        assert_eq!(listed, !name.contains("inv_freq"), "{name}");
    }
}

#[test]
fn a_head_unlike_the_embedding_is_used_though_the_settings_tie_them() {
    let folder = Folder::with_settings(&[("tie_word_embeddings", json!(true))]);
    let tied = |folder: &Folder| folder.open().unwrap().spec.head.unwrap().tied;
    assert!(tied(&folder), "both hold the same values");
    let mut tensors = tensors(&config());
    tensors.iter_mut().find(|tensor| tensor.0 == "lm_head.weight").unwrap().3[7] ^= 1;
    folder.write("model.safetensors", pack(&tensors));
    assert!(!tied(&folder));
    let model = folder.open().unwrap();
    assert_eq!(model.config.get("tie_word_embeddings"), Some(&json!(false)));
    assert!(model.weights.contains("head.weight"));
}

/// Resolves a family's configuration against these tensors of zeros and reads all weights.
fn resolve(config: Value, tensors: &[(&str, &[usize])]) -> Result<(), Error> {
    let config = Config::new("config.json", config.as_object().unwrap().clone());
    let (family, spec) = families::spec_of(&config)?;
    let mut source = MemorySource::new("memory");
    for planned in names::plan(&spec, &family.names)? {
        let size = planned.shape.iter().product();
        source.insert(planned.name, Tensor::from_f32(&planned.shape, &vec![0.0; size]));
    }
    for (name, shape) in tensors {
        source.insert(*name, Tensor::from_f32(shape, &vec![0.0; shape.iter().product()]));
    }
    let weights = names::resolve(&spec, &family.names, Arc::new(source))?;
    weights.names().try_for_each(|name| weights.get(name).map(|_| ()))
}

#[test]
fn fused_layouts_that_can_not_hold_the_parts_are_refused() {
    let neox = |kv_heads: usize| {
        json!({"model_type": "gpt_neox", "hidden_size": 16, "num_attention_heads": 2, "rotary_pct": 0.5,
            "num_key_value_heads": kv_heads, "num_hidden_layers": 1, "intermediate_size": 4, "vocab_size": 3})
    };
    assert!(resolve(neox(2), &[]).is_ok());
    let words =
        ["query_key_value.weight: holds query, key and value head by head", "correct the configuration"];
    refused("grouped heads", &words, || resolve(neox(1), &[]));

    // A matrix of one column may be stored as one row; it must not be read beyond its end.
    let gpt2 = json!({"model_type": "gpt2", "n_embd": 4, "n_head": 1, "n_layer": 1, "n_inner": 1, "n_positions": 2,
        "vocab_size": 3});
    assert!(resolve(gpt2, &[("transformer.h.0.mlp.c_fc.weight", &[1, 4])]).is_ok());
}

#[test]
fn tensors_whose_bytes_do_not_fit_their_shape_are_refused_when_they_are_used() {
    let folder = Folder::new();
    let file = SafetensorsFile::open(&folder.file("model.safetensors")).unwrap();
    let config = Config::new("config.json", config());
    let (family, spec) = families::spec_of(&config).unwrap();
    let mut source = MemorySource::new("memory");
    for name in ounce_model::weights::TensorSource::names(&file) {
        let tensor = ounce_model::weights::TensorSource::tensor(&file, name).unwrap();
        source.insert(name, Tensor { data: tensor.data.slice(0..4), ..tensor });
    }
    let weights = names::resolve(&spec, &family.names, Arc::new(source)).unwrap();
    for name in weights.names() {
        refused(name, &["has 4 bytes, which its shape does not have"], || weights.get(name));
    }
}
