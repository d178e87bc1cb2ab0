//! `stablelm`: which of its variants a file holds is seen from its tensors.

use super::keys;
use super::{ATTENTION_OUTPUT, Arch, GATED, MLP, OUTSIDE, PRE_NORMS, PROJECTIONS};
use super::{names, rope, set_flag, set_model_type};
use crate::formats::gguf::Value;
use crate::names::{Rule, same};
use crate::spec::Residual;

/// The architecture.
pub(super) static STABLELM: Arch = Arch {
    name: "stablelm",
    families: &["stablelm"],
    keys: &[keys::DECODER, keys::LAYER_NORM, keys::HEAD_DIM],
    rope: Some(rope::Spelling { always: true, ..rope::USUAL }),
    names: names(&[OUTSIDE, PROJECTIONS, HEAD_NORMS, ATTENTION_OUTPUT, PRE_NORMS, GATED, MLP]),
    read: |facts, map| {
        set_model_type(map, "stablelm", "StableLmForCausalLM");
        set_flag(map, "use_qkv_bias", facts.some_layer_has("attn_q.bias"));
        set_flag(map, "qk_layernorm", facts.some_layer_has("attn_q_norm.weight"));
        set_flag(map, "use_parallel_residual", !facts.some_layer_has("ffn_norm.weight"));
        Ok(())
    },
    write: |spec, _, metadata| {
        let parallel = spec.layers.iter().any(|layer| layer.residual != Residual::Sequential);
        metadata.insert("stablelm.use_parallel_residual", Value::Bool(parallel));
    },
};

/// One weight a head, stacked.
const HEAD_NORMS: &[Rule] = &[
    same("blk.{i}.attn_q_norm", &["layers.{i}.attention.query_norm.{e}"]),
    same("blk.{i}.attn_k_norm", &["layers.{i}.attention.key_norm.{e}"]),
];
