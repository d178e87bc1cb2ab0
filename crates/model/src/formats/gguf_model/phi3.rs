//! `phi3`: Phi-3 and Phi-4. Projections are fused; LongRoPE's divisors are two small tensors.

use super::keys;
use super::{ATTENTION_OUTPUT, Arch, FUSED_PROJECTIONS, OUTSIDE, PRE_NORMS};
use super::{names, rope, set_model_type, windows};
use crate::formats::gguf::Value;
use crate::names::{Rule, same};

/// The architecture.
pub(super) static PHI3: Arch = Arch {
    name: "phi3",
    families: &["phi3"],
    keys: &[keys::DECODER, keys::RMS_NORM, keys::HEAD_DIM],
    rope: Some(rope::USUAL),
    names: names(&[OUTSIDE, FUSED_PROJECTIONS, ATTENTION_OUTPUT, PRE_NORMS, FUSED_MLP]),
    read: |facts, map| {
        set_model_type(map, "phi3", "Phi3ForCausalLM");
        windows::read(facts, windows::all, map).map(|_| ())
    },
    write: |spec, _, metadata| {
        windows::write(spec, PHI3.name, windows::all, metadata);
        // Readers of this architecture take a missing window for an old file's.
        if metadata.get("phi3.attention.sliding_window").is_none() {
            metadata.insert("phi3.attention.sliding_window", Value::U32(0));
        }
    },
};

const FUSED_MLP: &[Rule] = &[
    same("blk.{i}.ffn_up", &["layers.{i}.feed_forward.gate", "layers.{i}.feed_forward.up"]),
    same("blk.{i}.ffn_down", &["layers.{i}.feed_forward.down"]),
];
