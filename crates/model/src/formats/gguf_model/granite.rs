//! `granite`: Llama's tensors and four factors.

use super::keys::{self, Key, key};
use super::llama::INTERLEAVED;
use super::{ATTENTION_OUTPUT, Arch, GATED, MLP, OUTSIDE, PRE_NORMS};
use super::{names, nothing_more, rope, set_flag, set_model_type};
use crate::formats::gguf::Value;
use crate::names::Rule;

/// The architecture.
pub(super) static GRANITE: Arch = Arch {
    name: "granite",
    families: &["granite"],
    keys: &[keys::DECODER, keys::RMS_NORM, keys::HEAD_DIM, FACTORS],
    rope: Some(rope::USUAL),
    names: names(TENSORS),
    read: |facts, map| {
        set_model_type(map, "granite", "GraniteForCausalLM");
        set_flag(map, "attention_bias", facts.some_layer_has("attn_q.bias"));
        set_flag(map, "mlp_bias", facts.some_layer_has("ffn_up.bias"));
        Ok(())
    },
    write: nothing_more,
};

const TENSORS: &[&[Rule]] = &[OUTSIDE, INTERLEAVED, ATTENTION_OUTPUT, PRE_NORMS, GATED, MLP];

const FACTORS: &[Key] = &[
    key("embedding_scale", "embedding_multiplier", |spec| Some(Value::F32(spec.embedding.scale))),
    key("attention.scale", "attention_multiplier", |spec| {
        spec.layers.iter().find_map(|layer| Some(layer.attention.as_ref()?.scale)).map(Value::F32)
    }),
    key("residual_scale", "residual_multiplier", |spec| {
        spec.layers.first().map(|layer| Value::F32(layer.residual_scale))
    }),
    // Both divide the logits by it.
    key("logit_scale", "logits_scaling", |spec| {
        spec.head.as_ref().map(|head| Value::F32(head.scale.recip()))
    }),
];
