//! The configuration of a model some of whose numbers were changed: `spec_of` read backwards, for what cutting a
//! model changes.
//!
//! Where all layers are alike the family's own keys say it, so that other tools read the folder; where they differ
//! `ounce_layers` does. What comes out is read again and compared, so that no configuration says something else than
//! the spec does.

use serde_json::{Map, Value, json};

use super::spec_of;
use crate::spec::{Attention, FeedForwardKind, Layer, Norm, Spec};
use crate::{Config, Error, Result};

/// The keys of the same number in different families; the one that is there counts.
const LAYERS: [&str; 3] = ["num_hidden_layers", "n_layer", "n_layers"];
const HIDDEN: [&str; 3] = ["hidden_size", "n_embd", "dim"];
const HEADS: [&str; 3] = ["num_attention_heads", "n_head", "n_heads"];
const WIDTH: [&str; 3] = ["intermediate_size", "n_inner", "hidden_dim"];

/// Keys that list something for each layer.
const LISTS: [&str; 3] = ["layer_types", "no_rope_layers", "mlp_layer_types"];

/// The configuration that gives `spec`, made from that of the model it was cut from; `kept` are the numbers that the
/// spec's layers had there. Layers, heads, widths of feed-forward halves, width and epsilon of the stream may differ.
///
/// # Errors
/// If the family has no way to say it.
pub fn reshaped(original: &Config, spec: &Spec, kept: &[usize]) -> Result<Config> {
    let base = with_stream(original, spec, kept);
    let listed = with_lists(&base, spec);
    for base in [&base, &listed] {
        for config in [plain(base, spec), layered(base, spec)].into_iter().flatten() {
            if says(&config, spec) {
                return Ok(config);
            }
        }
    }
    let what = format!(
        "configurations of the family {} can't say this shape; leave out the kind of cut that it can't have, or cut \
         another model",
        spec.family
    );
    Err(Error::unsupported(what))
}

/// Whether a configuration gives the parts of a spec that cutting changes.
fn says(config: &Config, spec: &Spec) -> bool {
    spec_of(config).is_ok_and(|(_, found)| {
        found.hidden_size == spec.hidden_size
            && found.layers == spec.layers
            && found.final_norm == spec.final_norm
            && found.embedding == spec.embedding
    })
}

/// The one of these keys that is there.
fn present<'k>(map: &Map<String, Value>, keys: &[&'k str]) -> Option<&'k str> {
    keys.iter().copied().find(|key| map.contains_key(*key))
}

/// The number of layers, what is listed for each, and the stream.
fn with_stream(original: &Config, spec: &Spec, kept: &[usize]) -> Config {
    let mut config = original.clone();
    let map = config.map_mut();
    let set = |map: &mut Map<String, Value>, keys: &[&str], value: usize| {
        if let Some(key) = present(map, keys) {
            map.insert(key.to_string(), json!(value));
        }
    };
    set(map, &LAYERS, spec.layers.len());
    set(map, &HIDDEN, spec.hidden_size);
    map.remove("ounce_layers");
    for key in LISTS {
        if let Some(Value::Array(list)) = map.get(key) {
            let left: Vec<Value> = kept.iter().filter_map(|&layer| list.get(layer).cloned()).collect();
            map.insert(key.to_string(), json!(left));
        }
    }
    if let Some(Value::Array(list)) = map.get("mlp_only_layers") {
        let dense = |layer: &usize| list.iter().any(|it| it.as_u64() == Some(*layer as u64));
        let left: Vec<usize> = (0..kept.len()).filter(|&place| dense(&kept[place])).collect();
        map.insert("mlp_only_layers".to_string(), json!(left));
    }
    if let Some(Norm { eps, .. }) = spec.final_norm.filter(|_| map.contains_key("rms_norm_eps")) {
        let same = map["rms_norm_eps"].as_f64().is_some_and(|it| it as f32 == eps);
        // The shortest decimal of an f32, not its f64 digits.
        if let (false, Ok(number)) = (same, eps.to_string().parse::<f64>()) {
            map.insert("rms_norm_eps".to_string(), json!(number));
        }
    }
    config
}

/// Windows and rotations layer by layer, in the place of rules that go by the layer's number.
fn with_lists(base: &Config, spec: &Spec) -> Config {
    let mut config = base.clone();
    let attentions = || spec.layers.iter().map(|layer| layer.attention.as_ref());
    let kind = |attention: Option<&Attention>| match attention.and_then(|it| it.window) {
        Some(_) => "sliding_attention",
        None => "full_attention",
    };
    let turns = |attention: Option<&Attention>| u8::from(attention.is_none_or(|it| it.rope.is_some()));
    let (kinds, rotations): (Vec<_>, Vec<_>) = attentions().map(|it| (kind(it), turns(it))).unzip();
    config.map_mut().insert("layer_types".to_string(), json!(kinds));
    if spec.family == super::smollm3::SMOLLM3.name {
        config.map_mut().insert("no_rope_layers".to_string(), json!(rotations));
    }
    config
}

/// The numbers of a layer that may differ from layer to layer: heads, key/value heads, and the feed-forward width.
fn numbers(layer: &Layer) -> Option<(&Attention, usize)> {
    let (attention, half) = layer.attention.as_ref().zip(layer.feed_forward.as_ref())?;
    match &half.kind {
        FeedForwardKind::Dense(mlp) => Some((attention, mlp.width)),
        FeedForwardKind::Experts(_) => None,
    }
}

/// All layers by the family's own keys, if they are alike.
fn plain(base: &Config, spec: &Spec) -> Option<Config> {
    let Some((attention, width)) = spec.layers.first().and_then(numbers) else { return Some(base.clone()) };
    let alike = |layer: &Layer| {
        numbers(layer).is_some_and(|(it, wide)| {
            (it.heads, it.kv_heads, wide, it.copies) == (attention.heads, attention.kv_heads, width, None)
        })
    };
    if !spec.layers.iter().all(alike) {
        return None;
    }
    let mut config = base.clone();
    let map = config.map_mut();
    if let Some(key) = present(map, &HEADS) {
        // Families with an even split of the stream have no key for it, and then it does not change.
        if key == HEADS[0] && map[key] != json!(attention.heads) {
            map.insert("head_dim".to_string(), json!(attention.head_dim));
        }
        map.insert(key.to_string(), json!(attention.heads));
    }
    if spec.hidden_size != attention.query_width() && map.contains_key(HEADS[0]) {
        map.insert("head_dim".to_string(), json!(attention.head_dim));
    }
    if map.contains_key("num_key_value_heads") || attention.kv_heads != attention.heads {
        map.insert("num_key_value_heads".to_string(), json!(attention.kv_heads));
    }
    let key = present(map, &WIDTH).unwrap_or(if map.contains_key("n_embd") { WIDTH[1] } else { WIDTH[0] });
    map.insert(key.to_string(), json!(width));
    Some(config)
}

/// Each layer by `ounce_layers`.
fn layered(base: &Config, spec: &Spec) -> Option<Config> {
    let mut config = base.clone();
    let head_dim = spec.layers.iter().find_map(|layer| layer.attention.as_ref()).map(|it| it.head_dim);
    let layer = |layer: &Layer| {
        let mut item = Map::new();
        match &layer.attention {
            Some(attention) => {
                item.insert("num_attention_heads".to_string(), json!(attention.heads));
                item.insert("num_key_value_heads".to_string(), json!(attention.kv_heads));
                if let Some(source) = attention.copies {
                    item.insert("copies".to_string(), json!(source));
                }
            }
            None => drop(item.insert("attention".to_string(), json!(false))),
        }
        match layer.feed_forward.as_ref().map(|half| &half.kind) {
            Some(FeedForwardKind::Dense(mlp)) => {
                item.insert("intermediate_size".to_string(), json!(mlp.width));
            }
            Some(FeedForwardKind::Experts(experts)) => {
                item.insert("num_experts".to_string(), json!(experts.count));
                item.insert("intermediate_size".to_string(), json!(experts.expert.width));
            }
            None => drop(item.insert("feed_forward".to_string(), json!(false))),
        }
        if let Some(owner) = layer.shares {
            item.insert("shares".to_string(), json!(owner));
        }
        Value::Object(item)
    };
    let layers: Vec<Value> = spec.layers.iter().map(layer).collect();
    let map = config.map_mut();
    map.insert("ounce_layers".to_string(), json!(layers));
    // A width of heads that followed from the stream's is said where the stream's is another.
    if let (Some(head_dim), true) = (head_dim, map.contains_key(HEADS[0]) && map.contains_key(HIDDEN[0])) {
        map.insert("head_dim".to_string(), json!(head_dim));
    }
    Some(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(keys: Value) -> Config {
        let mut all = json!({
            "hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 32,
            "vocab_size": 31, "max_position_embeddings": 64, "rms_norm_eps": 1e-6,
        });
        let map = all.as_object_mut().expect("an object");
        map.extend(keys.as_object().expect("an object").clone());
        Config::new("config.json", map.clone())
    }

    fn families() -> Vec<Config> {
        let gpt2 = json!({
            "model_type": "gpt2", "n_embd": 24, "n_layer": 4, "n_head": 4, "n_positions": 64, "vocab_size": 31,
        });
        let distilbert = json!({
            "model_type": "distilbert", "dim": 24, "n_layers": 4, "n_heads": 4, "hidden_dim": 32, "vocab_size": 31,
            "max_position_embeddings": 64,
        });
        let own = |keys: Value| Config::new("config.json", keys.as_object().expect("an object").clone());
        let mut all = vec![own(gpt2), own(distilbert)];
        for name in [
            "llama",
            "mistral",
            "qwen2",
            "qwen3",
            "gemma2",
            "gemma3_text",
            "phi3",
            "granite",
            "smollm3",
            "bert",
        ] {
            all.push(config(json!({
                "model_type": name, "num_key_value_heads": 2, "head_dim": 6, "sliding_window": 16,
                "use_sliding_window": true, "max_window_layers": 2,
            })));
        }
        all
    }

    fn narrow(layer: &mut Layer, kv_heads: usize, width: usize) {
        let attention = layer.attention.as_mut().expect("attention");
        (attention.heads, attention.kv_heads) = (attention.heads / attention.kv_heads * kv_heads, kv_heads);
        match &mut layer.feed_forward.as_mut().expect("a feed-forward half").kind {
            FeedForwardKind::Dense(mlp) => mlp.width = width,
            FeedForwardKind::Experts(experts) => experts.expert.width = width,
        }
    }

    #[test]
    fn what_is_said_is_read_and_layers_that_are_alike_need_no_key_of_ours() {
        for config in families() {
            let family = config.text_opt("model_type").expect("text").expect("a family").to_string();
            let (_, spec) = spec_of(&config).expect("a model");
            let all: Vec<usize> = (0..4).collect();
            let unchanged =
                reshaped(&config, &spec, &all).unwrap_or_else(|error| panic!("{family}: {error}"));
            assert!(unchanged.get("ounce_layers").is_none(), "{family}");
            let mut alike = spec.clone();
            alike.layers.iter_mut().for_each(|layer| {
                let kv_heads = layer.attention.as_ref().expect("attention").kv_heads;
                narrow(layer, kv_heads, 8);
            });
            let found = reshaped(&config, &alike, &all).unwrap_or_else(|error| panic!("{family}: {error}"));
            assert!(found.get("ounce_layers").is_none(), "{family}");
            assert_eq!(spec_of(&found).expect("a model").1.layers, alike.layers, "{family}");
            let mut unlike = spec.clone();
            narrow(&mut unlike.layers[1], 1, 16);
            unlike.layers[2].attention = None;
            let found = reshaped(&config, &unlike, &all).unwrap_or_else(|error| panic!("{family}: {error}"));
            assert!(found.get("ounce_layers").is_some(), "{family}");
            assert_eq!(spec_of(&found).expect("a model").1.layers, unlike.layers, "{family}");
            // Layers that went may have stood in a pattern of windows or rotations.
            let mut shallow = spec.clone();
            shallow.layers.remove(1);
            let found =
                reshaped(&config, &shallow, &[0, 2, 3]).unwrap_or_else(|error| panic!("{family}: {error}"));
            assert_eq!(spec_of(&found).expect("a model").1.layers, shallow.layers, "{family}");
        }
    }

    #[test]
    fn fewer_heads_alike_are_said_by_keys_that_other_tools_know() {
        let llama = config(json!({"model_type": "llama", "num_key_value_heads": 2}));
        let (_, mut spec) = spec_of(&llama).expect("a model");
        spec.layers.iter_mut().for_each(|layer| narrow(layer, 1, 20));
        let found = reshaped(&llama, &spec, &[0, 1, 2, 3]).expect("said");
        assert!(found.get("ounce_layers").is_none());
        let size = |key: &str| found.size_opt(key).expect("a size");
        let keys = ["num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size"];
        assert_eq!(keys.map(size), [Some(2), Some(1), Some(6), Some(20)]);
        // The stream too.
        spec.hidden_size = 18;
        let norm = Norm { eps: 1e-6 * 24.0 / 18.0, ..spec.final_norm.expect("a norm") };
        spec.final_norm = Some(norm);
        for layer in &mut spec.layers {
            layer.attention.as_mut().expect("attention").norms.before = Some(norm);
            layer.feed_forward.as_mut().expect("a half").norms.before = Some(norm);
        }
        let found = reshaped(&llama, &spec, &[0, 1, 2, 3]).expect("said");
        assert!(found.get("ounce_layers").is_none());
        assert_eq!(found.size_opt("hidden_size").expect("a size"), Some(18));
    }

    #[test]
    fn what_a_family_can_not_say_is_refused() {
        // The factor on Gemma's token vectors follows from the width of the stream.
        let gemma = config(json!({"model_type": "gemma2", "num_key_value_heads": 2, "head_dim": 6}));
        let (_, mut spec) = spec_of(&gemma).expect("a model");
        spec.hidden_size = 18;
        let error = reshaped(&gemma, &spec, &[0, 1, 2, 3]).expect_err("refused").to_string();
        assert!(error.contains("gemma2"), "{error}");
    }
}
