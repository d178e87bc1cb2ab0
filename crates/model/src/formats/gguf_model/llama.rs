//! `llama`: Llama, Mistral and Mixtral, and every model that calls itself one of them (SmolLM 1 and 2, TinyLlama,
//! Yi …). Queries and keys are stored for interleaved rotation.

use serde_json::{Map, Value as Json};

use super::facts::Facts;
use super::keys::{self, Key, layered};
use super::{ATTENTION_OUTPUT, Arch, EXPERTS, GATED, MLP, OUTSIDE, PRE_NORMS};
use super::{names, rope, set_flag, set_model_type, windows};
use crate::formats::gguf::Metadata;
use crate::names::{Layout, Rule, laid, same};
use crate::spec::Spec;
use crate::{Config, Result};

/// The architecture.
pub(super) static LLAMA: Arch = Arch {
    name: "llama",
    families: &["llama", "mistral", "mixtral"],
    keys: &[keys::DECODER, keys::RMS_NORM, keys::HEAD_DIM, keys::EXPERTS_USED, EXPERT_COUNT],
    rope: Some(rope::USUAL),
    names: names(&[OUTSIDE, INTERLEAVED, ATTENTION_OUTPUT, PRE_NORMS, GATED, MLP, EXPERTS]),
    read,
    write,
};

const EXPERT_COUNT: &[Key] =
    &[layered("expert_count", "num_local_experts", "num_experts", keys::expert_counts)];

/// Queries and keys in the order in which neighbouring rows turn together.
pub(super) const INTERLEAVED: &[Rule] = &[
    laid("blk.{i}.attn_q", &["layers.{i}.attention.query"], Layout::Interleaved),
    laid("blk.{i}.attn_k", &["layers.{i}.attention.key"], Layout::Interleaved),
    same("blk.{i}.attn_v", &["layers.{i}.attention.value"]),
];

fn read(facts: &Facts<'_>, map: &mut Map<String, Json>) -> Result<()> {
    let windowed = windows::read(facts, windows::all, map)?;
    if facts.some_layer_has("ffn_gate_inp.weight") {
        set_model_type(map, "mixtral", "MixtralForCausalLM");
        return Ok(());
    }
    // Files of dense models may carry these keys with the value 0.
    map.remove("num_local_experts");
    map.remove("num_experts_per_tok");
    if windowed {
        set_model_type(map, "mistral", "MistralForCausalLM");
        return Ok(());
    }
    map.remove("sliding_window");
    map.remove("layer_types");
    set_model_type(map, "llama", "LlamaForCausalLM");
    set_flag(map, "attention_bias", facts.some_layer_has("attn_q.bias"));
    set_flag(map, "mlp_bias", facts.some_layer_has("ffn_up.bias"));
    Ok(())
}

fn write(spec: &Spec, _: &Config, metadata: &mut Metadata) {
    windows::write(spec, LLAMA.name, windows::all, metadata);
}
