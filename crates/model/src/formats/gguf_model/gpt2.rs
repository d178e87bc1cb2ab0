//! `gpt2`: matrices as other architectures have them, not transposed as in Hugging Face's files.

use super::keys::{self, Key, key, layered, size};
use super::{ATTENTION_OUTPUT, Arch, FUSED_PROJECTIONS, MLP, OUTSIDE, PRE_NORMS};
use super::{names, nothing_more, set_model_type};
use crate::names::{Rule, same};

/// The architecture.
pub(super) static GPT2: Arch = Arch {
    name: "gpt2",
    families: &["gpt2"],
    keys: &[KEYS],
    rope: None,
    names: names(&[OUTSIDE, POSITIONS, FUSED_PROJECTIONS, ATTENTION_OUTPUT, PRE_NORMS, MLP]),
    read: |_, map| {
        set_model_type(map, "gpt2", "GPT2LMHeadModel");
        Ok(())
    },
    write: nothing_more,
};

const KEYS: &[Key] = &[
    key("context_length", "n_positions", |spec| size(spec.context_length)),
    key("embedding_length", "n_embd", |spec| size(spec.hidden_size)),
    key("block_count", "n_layer", |spec| size(spec.layers.len())),
    layered("feed_forward_length", "n_inner", "intermediate_size", keys::widths),
    layered("attention.head_count", "n_head", "num_attention_heads", keys::heads),
    key("attention.layer_norm_epsilon", "layer_norm_epsilon", keys::epsilon),
];

const POSITIONS: &[Rule] = &[same("position_embd", &["embed.positions"])];
