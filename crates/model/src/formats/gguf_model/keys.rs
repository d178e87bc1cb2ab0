//! Metadata keys as tables: where GGUF and `config.json` keep the same number, and how to get it from a spec.
//!
//! A [`Key`] serves both directions. Reading takes the value as it is in the file; writing asks the spec, which
//! knows every default that a configuration leaves out. Numbers that differ from layer to layer are arrays in GGUF
//! and `ounce_layers` in `config.json`; [`fold_layers`] turns the one into the other.

use serde_json::{Map, Value as Json, json};

use crate::formats::gguf::{Array, Value};
use crate::spec::{Experts, FeedForwardKind, Layer, Spec};

/// One number of an architecture.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    /// GGUF's key behind `{architecture}.`.
    pub suffix: &'static str,
    /// Hugging Face's key.
    pub config: &'static str,
    /// Its key in an item of `ounce_layers`, if it may differ from layer to layer.
    pub layer: Option<&'static str>,
    /// The number of a spec; none leaves the key out.
    pub of: fn(&Spec) -> Option<Value>,
}

/// A number of the whole model.
pub(super) const fn key(suffix: &'static str, config: &'static str, of: fn(&Spec) -> Option<Value>) -> Key {
    Key { suffix, config, layer: None, of }
}

/// A number that may differ from layer to layer; 0 where the half that it belongs to is missing.
pub(super) const fn layered(
    suffix: &'static str,
    config: &'static str,
    layer: &'static str,
    of: fn(&Spec) -> Option<Value>,
) -> Key {
    Key { suffix, config, layer: Some(layer), of }
}

/// What every decoder in this crate's Hugging Face spelling has.
pub(super) const DECODER: &[Key] = &[
    key("context_length", "max_position_embeddings", |spec| size(spec.context_length)),
    key("embedding_length", "hidden_size", |spec| size(spec.hidden_size)),
    key("block_count", "num_hidden_layers", |spec| size(spec.layers.len())),
    layered("feed_forward_length", "intermediate_size", "intermediate_size", widths),
    layered("attention.head_count", "num_attention_heads", "num_attention_heads", heads),
    layered("attention.head_count_kv", "num_key_value_heads", "num_key_value_heads", kv_heads),
];

/// RMSNorm's epsilon.
pub(super) const RMS_NORM: &[Key] = &[key("attention.layer_norm_rms_epsilon", "rms_norm_eps", epsilon)];

/// LayerNorm's epsilon.
pub(super) const LAYER_NORM: &[Key] = &[key("attention.layer_norm_epsilon", "layer_norm_eps", epsilon)];

/// Width of a head; families whose heads need not split the hidden size evenly.
pub(super) const HEAD_DIM: &[Key] = &[key("attention.key_length", "head_dim", head_dim)];

/// How many experts there are and are used. The first is called differently from family to family.
pub(super) const EXPERTS_USED: &[Key] =
    &[key("expert_used_count", "num_experts_per_tok", |spec| size(first_experts(spec)?.used))];

/// A size as GGUF writes sizes.
pub(super) fn size(size: usize) -> Option<Value> {
    u32::try_from(size).ok().map(Value::U32)
}

/// One number for all layers, or an array where they differ.
fn per_layer(spec: &Spec, of: impl Fn(&Layer) -> usize) -> Option<Value> {
    let sizes: Option<Vec<u32>> = spec.layers.iter().map(|layer| u32::try_from(of(layer)).ok()).collect();
    let sizes = sizes?;
    let first = *sizes.first()?;
    let same = sizes.iter().all(|&size| size == first);
    Some(if same { Value::U32(first) } else { Value::from(sizes) })
}

/// Query heads of each layer.
pub(super) fn heads(spec: &Spec) -> Option<Value> {
    per_layer(spec, |layer| layer.attention.as_ref().map_or(0, |attention| attention.heads))
}

/// Key/value heads of each layer.
pub(super) fn kv_heads(spec: &Spec) -> Option<Value> {
    per_layer(spec, |layer| layer.attention.as_ref().map_or(0, |attention| attention.kv_heads))
}

/// Width of a layer's feed-forward half, or of one of its experts.
pub(super) fn width(layer: &Layer) -> usize {
    match layer.feed_forward.as_ref().map(|half| &half.kind) {
        None => 0,
        Some(FeedForwardKind::Dense(mlp)) => mlp.width,
        Some(FeedForwardKind::Experts(experts)) => experts.expert.width,
    }
}

/// Feed-forward widths of each layer.
pub(super) fn widths(spec: &Spec) -> Option<Value> {
    per_layer(spec, width)
}

/// Experts of each layer; layers without any count as the first with some.
pub(super) fn expert_counts(spec: &Spec) -> Option<Value> {
    let usual = first_experts(spec)?.count;
    per_layer(spec, |layer| experts(layer).map_or(usual, |experts| experts.count))
}

/// The experts of a layer.
pub(super) fn experts(layer: &Layer) -> Option<&Experts> {
    match &layer.feed_forward.as_ref()?.kind {
        FeedForwardKind::Experts(experts) => Some(experts),
        FeedForwardKind::Dense(_) => None,
    }
}

/// The experts of the first layer that has some.
pub(super) fn first_experts(spec: &Spec) -> Option<&Experts> {
    spec.layers.iter().find_map(experts)
}

/// Epsilon of the model's norms: the last one's, or an encoder's first.
pub(super) fn epsilon(spec: &Spec) -> Option<Value> {
    spec.final_norm.or(spec.embedding.norm).map(|norm| Value::F32(norm.eps))
}

/// Width of a head in the first layer that has attention.
fn head_dim(spec: &Spec) -> Option<Value> {
    size(spec.layers.iter().find_map(|layer| layer.attention.as_ref())?.head_dim)
}

/// A metadata value in `config.json`; none for kinds no configuration has.
pub(super) fn to_json(value: &Value) -> Option<Json> {
    match value {
        // The shortest decimal of an f32, not its f64 digits: 1e-6, not 9.999999974752427e-7.
        Value::F32(number) => number.to_string().parse().ok().map(|number: f64| json!(number)),
        Value::F64(number) => Some(json!(number)),
        Value::Bool(flag) => Some(json!(flag)),
        Value::String(text) => Some(json!(text)),
        Value::Array(Array::Bool(flags)) => Some(json!(flags)),
        Value::Array(Array::U32(numbers)) => Some(json!(numbers)),
        Value::Array(Array::I32(numbers)) => Some(json!(numbers)),
        Value::Array(Array::U64(numbers)) => Some(json!(numbers)),
        Value::Array(Array::I64(numbers)) => Some(json!(numbers)),
        Value::Array(_) => None,
        _ => i64::try_from(value.integer()?).ok().map(|number| json!(number)),
    }
}

/// Replaces the lists of layered keys by one number and `ounce_layers`.
pub(super) fn fold_layers(keys: &[&[Key]], map: &mut Map<String, Json>) {
    let mut layers: Vec<Map<String, Json>> = Vec::new();
    for key in keys.iter().copied().flatten() {
        let Some(name) = key.layer else { continue };
        let Some(Json::Array(list)) = map.get(key.config).cloned() else { continue };
        let usual = list.iter().find(|size| **size != json!(0)).cloned().unwrap_or(json!(1));
        layers.resize_with(layers.len().max(list.len()), Map::new);
        for (layer, size) in layers.iter_mut().zip(list) {
            let half = if name.contains("heads") { "attention" } else { "feed_forward" };
            if size == json!(0) {
                layer.insert(half.to_string(), json!(false));
            } else {
                layer.insert(name.to_string(), size);
            }
        }
        map.insert(key.config.to_string(), usual);
    }
    if !layers.is_empty() {
        map.insert("ounce_layers".to_string(), json!(layers));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_become_one_number_and_layer_shapes() {
        let Json::Object(mut map) = json!({"num_attention_heads": [4, 0, 2], "intermediate_size": [8, 8, 0]})
        else {
            unreachable!()
        };
        fold_layers(&[DECODER], &mut map);
        assert_eq!(map["num_attention_heads"], json!(4));
        assert_eq!(map["intermediate_size"], json!(8));
        let layers = json!([
            {"intermediate_size": 8, "num_attention_heads": 4},
            {"intermediate_size": 8, "attention": false},
            {"feed_forward": false, "num_attention_heads": 2},
        ]);
        assert_eq!(map["ounce_layers"], layers);
    }

    #[test]
    fn numbers_keep_their_shortest_spelling() {
        assert_eq!(to_json(&Value::F32(1e-6)), Some(json!(1e-6)));
        assert_eq!(to_json(&Value::F32(500_000.0)), Some(json!(500_000.0)));
        assert_eq!(to_json(&Value::U32(3)), Some(json!(3)));
    }
}
