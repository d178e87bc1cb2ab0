//! `olmo2`: norms behind both halves and over whole queries and keys.

use super::keys;
use super::{ATTENTION_OUTPUT, Arch, GATED, HEAD_NORMS, MLP, OUTSIDE, PROJECTIONS};
use super::{names, nothing_more, rope, set_flag, set_model_type};
use crate::Error;
use crate::names::{Rule, same};

/// The architecture.
pub(super) static OLMO2: Arch = Arch {
    name: "olmo2",
    families: &["olmo2"],
    keys: &[keys::DECODER, keys::RMS_NORM, keys::HEAD_DIM],
    rope: Some(rope::USUAL),
    names: names(&[OUTSIDE, PROJECTIONS, HEAD_NORMS, ATTENTION_OUTPUT, AFTER, GATED, MLP]),
    read: |facts, map| {
        set_model_type(map, "olmo2", "Olmo2ForCausalLM");
        set_flag(map, "attention_bias", facts.some_layer_has("attn_q.bias"));
        if facts.get::<u64>("attention.sliding_window")?.is_some_and(|window| window > 0) {
            let what = "has sliding windows, so it is OLMo 3, which is not supported; OLMo 2 is";
            return Err(Error::format(facts.path, what));
        }
        Ok(())
    },
    write: nothing_more,
};

const AFTER: &[Rule] = &[
    same("blk.{i}.post_attention_norm", &["layers.{i}.attention.after_norm"]),
    same("blk.{i}.post_ffw_norm", &["layers.{i}.feed_forward.after_norm"]),
];
