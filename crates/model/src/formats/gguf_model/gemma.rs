//! `gemma2` and `gemma3`. Norm weights are stored with one added, the embedding's scale is implied, and the score's
//! scale follows from the number of layers: the largest model of each generation has another rule.

use serde_json::{Map, Value as Json, json};

use super::facts::Facts;
use super::keys::{self, Key, key};
use super::{ATTENTION_OUTPUT, Arch, GATED, MLP, PROJECTIONS};
use super::{names, rope, set_flag, set_model_type, windows};
use crate::Result;
use crate::formats::gguf::{Metadata, Value};
use crate::names::{Layout, Rule, laid, same};
use crate::spec::Spec;

/// Gemma 2.
pub(super) static GEMMA2: Arch = Arch {
    name: "gemma2",
    families: &["gemma2"],
    keys: &[keys::DECODER, keys::RMS_NORM, keys::HEAD_DIM, SOFT_CAPS],
    rope: Some(rope::USUAL),
    names: names(&[OUTSIDE, PROJECTIONS, ATTENTION_OUTPUT, NORMS, GATED, MLP]),
    read: |facts, map| {
        set_model_type(map, "gemma2", "Gemma2ForCausalLM");
        read(facts, even, GEMMA2_27B_LAYERS, map)
    },
    write: |spec, _, metadata| windows::write(spec, GEMMA2.name, even, metadata),
};

/// Gemma 3, the text model.
pub(super) static GEMMA3: Arch = Arch {
    name: "gemma3",
    families: &["gemma3"],
    keys: &[keys::DECODER, keys::RMS_NORM, keys::HEAD_DIM, SOFT_CAPS],
    rope: Some(rope::USUAL),
    names: names(&[OUTSIDE, PROJECTIONS, ATTENTION_OUTPUT, NORMS, HEAD_NORMS, GATED, MLP]),
    read: |facts, map| {
        set_model_type(map, "gemma3_text", "Gemma3ForCausalLM");
        let local = facts.get::<f32>("rope.freq_base_swa")?.unwrap_or(10_000.0);
        map.insert("rope_local_base_freq".to_string(), rope::shortest(local));
        read(facts, five_of_six, GEMMA3_27B_LAYERS, map)
    },
    write: write_gemma3,
};

/// Layers of the 27B models, whose scores are scaled by the hidden size over the heads.
const GEMMA2_27B_LAYERS: usize = 46;
const GEMMA3_27B_LAYERS: usize = 62;

fn even(layer: usize) -> bool {
    layer.is_multiple_of(2)
}

fn five_of_six(layer: usize) -> bool {
    !(layer + 1).is_multiple_of(6)
}

const SOFT_CAPS: &[Key] = &[
    key("attn_logit_softcapping", "attn_logit_softcapping", |spec| {
        spec.layers.iter().find_map(|layer| layer.attention.as_ref()?.softcap).map(Value::F32)
    }),
    key("final_logit_softcapping", "final_logit_softcapping", |spec| {
        spec.head.as_ref()?.softcap.map(Value::F32)
    }),
];

const OUTSIDE: &[Rule] = &[
    same("token_embd", &["embed.tokens"]),
    laid("output_norm", &["final_norm"], Layout::PlusOne),
    same("output", &["head"]),
];

const NORMS: &[Rule] = &[
    laid("blk.{i}.attn_norm", &["layers.{i}.attention.before_norm"], Layout::PlusOne),
    laid("blk.{i}.post_attention_norm", &["layers.{i}.attention.after_norm"], Layout::PlusOne),
    laid("blk.{i}.ffn_norm", &["layers.{i}.feed_forward.before_norm"], Layout::PlusOne),
    laid("blk.{i}.post_ffw_norm", &["layers.{i}.feed_forward.after_norm"], Layout::PlusOne),
];

const HEAD_NORMS: &[Rule] = &[
    laid("blk.{i}.attn_q_norm", &["layers.{i}.attention.query_norm"], Layout::PlusOne),
    laid("blk.{i}.attn_k_norm", &["layers.{i}.attention.key_norm"], Layout::PlusOne),
];

fn read(facts: &Facts<'_>, rule: windows::Rule, largest: usize, map: &mut Map<String, Json>) -> Result<()> {
    windows::read(facts, rule, map)?;
    let head_dim = facts.head_dim()?;
    map.insert("head_dim".to_string(), json!(head_dim));
    set_flag(map, "attention_bias", facts.some_layer_has("attn_q.bias"));
    let hidden = facts.get::<usize>("embedding_length")?.unwrap_or(0);
    let heads = facts.get::<usize>("attention.head_count").ok().flatten().filter(|&heads| heads > 0);
    let scalar = match heads {
        Some(heads) if facts.layers()? == largest => hidden / heads,
        _ => head_dim,
    };
    map.insert("query_pre_attn_scalar".to_string(), json!(scalar));
    Ok(())
}

fn write_gemma3(spec: &Spec, _: &crate::Config, metadata: &mut Metadata) {
    windows::write(spec, GEMMA3.name, five_of_six, metadata);
    let attentions = spec.layers.iter().filter_map(|layer| layer.attention.as_ref());
    let local = attentions.filter(|attention| attention.window.is_some()).find_map(|it| it.rope.as_ref());
    if let Some(local) = local {
        metadata.insert("gemma3.rope.freq_base_swa", Value::F32(local.theta));
    }
}
