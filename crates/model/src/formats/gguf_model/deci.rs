//! `deci`: Llama with layers of unequal shape, which other programs read for Llama-Nemotron. A Llama model whose layers
//! differ is stored so: readers of `llama` take the first layer's shape for all.
//!
//! Heads or widths of 0 say that a layer has no attention, or nothing at all.

use serde_json::{Map, Value as Json};

use super::facts::Facts;
use super::llama::INTERLEAVED;
use super::{ATTENTION_OUTPUT, Arch, GATED, MLP, OUTSIDE, PRE_NORMS};
use super::{keys, names, nothing_more, rope, set_flag, set_model_type};
use crate::formats::gguf::Value;
use crate::spec::{FeedForwardKind, Layer, Spec};
use crate::{Error, Result};

/// The architecture. No family is always stored so.
pub(super) static DECI: Arch = Arch {
    name: "deci",
    families: &[],
    keys: &[keys::DECODER, keys::RMS_NORM, keys::HEAD_DIM],
    rope: Some(rope::USUAL),
    names: names(&[OUTSIDE, INTERLEAVED, ATTENTION_OUTPUT, PRE_NORMS, GATED, MLP]),
    read,
    write: nothing_more,
};

/// Whether a model is stored so: one of Llama's whose layers differ in ways that this architecture can say.
pub(super) fn fits(spec: &Spec) -> bool {
    let unequal = |value: Option<Value>| matches!(value, Some(Value::Array(_)));
    let dense = |layer: &Layer| {
        layer.feed_forward.as_ref().is_none_or(|it| matches!(it.kind, FeedForwardKind::Dense(_)))
    };
    // What has attention and nothing behind it is computed in another way there.
    let whole = |layer: &Layer| layer.feed_forward.is_some() || layer.attention.is_none();
    let window = |layer: &Layer| layer.attention.as_ref().is_some_and(|it| it.window.is_some());
    matches!(spec.family.as_str(), "llama" | "mistral")
        && (unequal(keys::heads(spec)) || unequal(keys::kv_heads(spec)) || unequal(keys::widths(spec)))
        && spec.layers.iter().all(|layer| dense(layer) && whole(layer) && !window(layer))
}

fn read(facts: &Facts<'_>, map: &mut Map<String, Json>) -> Result<()> {
    // A number alone is every layer's.
    let of_layers = |suffix: &str| match facts.metadata.get(&format!("{}.{suffix}", facts.arch.name)) {
        Some(Value::Array(_)) => facts.get::<Vec<u64>>(suffix),
        _ => Ok(None),
    };
    if let (Some(heads), Some(kv_heads)) =
        (of_layers("attention.head_count")?, of_layers("attention.head_count_kv")?)
        && let Some(layer) = heads.iter().zip(&kv_heads).position(|(heads, kv)| *heads > 0 && *kv == 0)
    {
        let what =
            format!("layer {layer} has a linear map in the place of attention, which is not supported");
        return Err(Error::format(facts.path, what));
    }
    set_model_type(map, "llama", "LlamaForCausalLM");
    set_flag(map, "attention_bias", facts.some_layer_has("attn_q.bias"));
    set_flag(map, "mlp_bias", facts.some_layer_has("ffn_up.bias"));
    Ok(())
}
