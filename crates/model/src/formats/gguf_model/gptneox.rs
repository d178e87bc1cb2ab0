//! `gptneox`: query, key and value fused one below the other, not head by head as in Hugging Face's files.

use serde_json::json;

use super::keys;
use super::{ATTENTION_OUTPUT, Arch, FUSED_PROJECTIONS, MLP, OUTSIDE, PRE_NORMS};
use super::{names, rope, set_flag, set_model_type};
use crate::formats::gguf::Value;
use crate::spec::Residual;

/// The architecture.
pub(super) static GPTNEOX: Arch = Arch {
    name: "gptneox",
    families: &["gpt_neox"],
    keys: &[keys::DECODER, keys::LAYER_NORM, keys::HEAD_DIM],
    rope: Some(rope::Spelling { theta: "rotary_emb_base", share: "rotary_pct", always: true }),
    names: names(&[OUTSIDE, FUSED_PROJECTIONS, ATTENTION_OUTPUT, PRE_NORMS, MLP]),
    read: |facts, map| {
        set_model_type(map, "gpt_neox", "GPTNeoXForCausalLM");
        // The file names no nonlinearity; every published model has this one, by the error function.
        map.insert("hidden_act".to_string(), json!("gelu"));
        set_flag(map, "attention_bias", facts.some_layer_has("attn_qkv.bias"));
        let parallel = facts.get::<bool>("use_parallel_residual")?.unwrap_or(true);
        set_flag(map, "use_parallel_residual", parallel);
        Ok(())
    },
    write: |spec, _, metadata| {
        let parallel = spec.layers.iter().any(|layer| layer.residual != Residual::Sequential);
        metadata.insert("gptneox.use_parallel_residual", Value::Bool(parallel));
    },
};
