//! `smollm3`: Llama's layout. The file has no key for the layers that don't rotate; it is every fourth.

use serde_json::json;

use super::keys;
use super::llama::INTERLEAVED;
use super::{ATTENTION_OUTPUT, Arch, GATED, MLP, OUTSIDE, PRE_NORMS};
use super::{names, nothing_more, rope, set_flag, set_model_type};

/// The architecture.
pub(super) static SMOLLM3: Arch = Arch {
    name: "smollm3",
    families: &["smollm3"],
    keys: &[keys::DECODER, keys::RMS_NORM, keys::HEAD_DIM],
    rope: Some(rope::USUAL),
    names: names(&[OUTSIDE, INTERLEAVED, ATTENTION_OUTPUT, PRE_NORMS, GATED, MLP]),
    read: |facts, map| {
        set_model_type(map, "smollm3", "SmolLM3ForCausalLM");
        set_flag(map, "attention_bias", facts.some_layer_has("attn_q.bias"));
        set_flag(map, "mlp_bias", facts.some_layer_has("ffn_up.bias"));
        let rotates: Vec<u8> = (1..=facts.layers()?).map(|layer| u8::from(layer % 4 != 0)).collect();
        map.insert("no_rope_layers".to_string(), json!(rotates));
        map.insert("no_rope_layer_interval".to_string(), json!(4));
        set_flag(map, "use_sliding_window", false);
        Ok(())
    },
    write: nothing_more,
};
