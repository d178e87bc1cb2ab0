//! `qwen2`, `qwen3` and their mixtures of experts `qwen2moe`, `qwen3moe`.

use serde_json::{Map, Value as Json, json};

use super::facts::Facts;
use super::keys::{self, Key, key, layered, size};
use super::{ATTENTION_OUTPUT, Arch, EXPERTS, GATED, HEAD_NORMS, MLP, OUTSIDE, PRE_NORMS, PROJECTIONS};
use super::{names, rope, set_flag, set_model_type, windows};
use crate::formats::gguf::{Metadata, Value};
use crate::names::{Rule, same};
use crate::spec::{FeedForwardKind, Spec};
use crate::{Config, Result};

/// Qwen 2 and 2.5.
pub(super) static QWEN2: Arch = Arch {
    name: "qwen2",
    families: &["qwen2"],
    keys: &[keys::DECODER, keys::RMS_NORM, keys::HEAD_DIM],
    rope: Some(rope::USUAL),
    names: names(&[OUTSIDE, PROJECTIONS, ATTENTION_OUTPUT, PRE_NORMS, GATED, MLP]),
    read: |facts, map| {
        set_model_type(map, "qwen2", "Qwen2ForCausalLM");
        read_windows(facts, map)
    },
    write: |spec, _, metadata| windows::write(spec, QWEN2.name, windows::all, metadata),
};

/// Qwen 1.5 and Qwen 2 with experts.
pub(super) static QWEN2_MOE: Arch = Arch {
    name: "qwen2moe",
    families: &["qwen2_moe"],
    keys: &[keys::DECODER, keys::RMS_NORM, keys::HEAD_DIM, keys::EXPERTS_USED, MOE, SHARED],
    rope: Some(rope::USUAL),
    names: names(&[OUTSIDE, PROJECTIONS, ATTENTION_OUTPUT, PRE_NORMS, GATED, MLP, EXPERTS, SHARED_EXPERT]),
    read: |facts, map| {
        set_model_type(map, "qwen2_moe", "Qwen2MoeForCausalLM");
        set_flag(map, "qkv_bias", facts.some_layer_has("attn_q.bias"));
        read_experts(facts, false, map)
    },
    write: |spec, config, metadata| write_experts(spec, config, QWEN2_MOE.name, metadata),
};

/// Qwen 3.
pub(super) static QWEN3: Arch = Arch {
    name: "qwen3",
    families: &["qwen3"],
    keys: &[keys::DECODER, keys::RMS_NORM, keys::HEAD_DIM],
    rope: Some(rope::USUAL),
    names: names(&[OUTSIDE, PROJECTIONS, HEAD_NORMS, ATTENTION_OUTPUT, PRE_NORMS, GATED, MLP]),
    read: |facts, map| {
        set_model_type(map, "qwen3", "Qwen3ForCausalLM");
        set_flag(map, "attention_bias", facts.some_layer_has("attn_q.bias"));
        map.insert("head_dim".to_string(), json!(facts.head_dim()?));
        read_windows(facts, map)
    },
    write: |spec, _, metadata| windows::write(spec, QWEN3.name, windows::all, metadata),
};

/// Qwen 3 with experts.
pub(super) static QWEN3_MOE: Arch = Arch {
    name: "qwen3moe",
    families: &["qwen3_moe"],
    keys: &[keys::DECODER, keys::RMS_NORM, keys::HEAD_DIM, keys::EXPERTS_USED, MOE],
    rope: Some(rope::USUAL),
    names: names(&[OUTSIDE, PROJECTIONS, HEAD_NORMS, ATTENTION_OUTPUT, PRE_NORMS, GATED, MLP, EXPERTS]),
    read: |facts, map| {
        set_model_type(map, "qwen3_moe", "Qwen3MoeForCausalLM");
        set_flag(map, "attention_bias", facts.some_layer_has("attn_q.bias"));
        map.insert("head_dim".to_string(), json!(facts.head_dim()?));
        read_experts(facts, true, map)
    },
    write: |spec, config, metadata| write_experts(spec, config, QWEN3_MOE.name, metadata),
};

const MOE: &[Key] = &[
    layered("expert_count", "num_experts", "num_experts", keys::expert_counts),
    key("expert_feed_forward_length", "moe_intermediate_size", |spec| {
        size(keys::first_experts(spec)?.expert.width)
    }),
    key("expert_weights_norm", "norm_topk_prob", |spec| {
        Some(Value::Bool(keys::first_experts(spec)?.normalise))
    }),
];

const SHARED: &[Key] =
    &[key("expert_shared_feed_forward_length", "shared_expert_intermediate_size", |spec| {
        size(keys::first_experts(spec)?.shared.as_ref()?.width)
    })];

const SHARED_EXPERT: &[Rule] = &[
    same("blk.{i}.ffn_gate_shexp", &["layers.{i}.feed_forward.shared.gate"]),
    same("blk.{i}.ffn_up_shexp", &["layers.{i}.feed_forward.shared.up"]),
    same("blk.{i}.ffn_down_shexp", &["layers.{i}.feed_forward.shared.down"]),
    same("blk.{i}.ffn_gate_inp_shexp", &["layers.{i}.feed_forward.shared_gate"]),
];

fn read_windows(facts: &Facts<'_>, map: &mut Map<String, Json>) -> Result<()> {
    let windowed = windows::read(facts, windows::all, map)?;
    set_flag(map, "use_sliding_window", windowed);
    Ok(())
}

/// Layers without a router are dense. Files that say nothing of the experts' weights are normalised as `normalise`
/// says, which differs between the generations.
fn read_experts(facts: &Facts<'_>, normalise: bool, map: &mut Map<String, Json>) -> Result<()> {
    let dense: Vec<usize> =
        (0..facts.layers()?).filter(|&layer| !facts.layer_has(layer, "ffn_gate_inp.weight")).collect();
    map.insert("mlp_only_layers".to_string(), json!(dense));
    map.insert("decoder_sparse_step".to_string(), json!(1));
    map.entry("norm_topk_prob").or_insert(json!(normalise));
    if !map.contains_key("moe_intermediate_size") {
        let width = map.get("intermediate_size").and_then(Json::as_u64).unwrap_or(0);
        let used = map.get("num_experts_per_tok").and_then(Json::as_u64).unwrap_or(1);
        map.insert("moe_intermediate_size".to_string(), json!(width / used.max(1)));
    }
    read_windows(facts, map)
}

/// `feed_forward_length` is the dense layers' width, which a model whose layers all have experts knows only from its
/// configuration; a list only where layers of one kind differ among themselves or lack the half.
fn write_experts(spec: &Spec, config: &Config, arch: &str, metadata: &mut Metadata) {
    windows::write(spec, arch, windows::all, metadata);
    let halves = || spec.layers.iter().filter_map(|layer| layer.feed_forward.as_ref());
    let dense = halves().find_map(|half| match &half.kind {
        FeedForwardKind::Dense(mlp) => Some(mlp.width),
        FeedForwardKind::Experts(_) => None,
    });
    let sparse = keys::first_experts(spec).map(|experts| experts.expert.width);
    let uniform = spec.layers.iter().all(|layer| {
        let width = Some(keys::width(layer));
        if keys::experts(layer).is_some() { width == sparse } else { width == dense }
    });
    if uniform {
        let configured = config.size_opt("intermediate_size").ok().flatten();
        if let Some(width) = dense.or(configured).or(sparse).and_then(size) {
            metadata.insert(format!("{arch}.feed_forward_length"), width);
        }
    }
}
