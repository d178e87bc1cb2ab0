//! GPT-NeoX and Pythia (arXiv 2204.06745, 2304.01373): both halves beside each other, each with a LayerNorm
//! of its own, partly rotated heads, and query, key and value fused head by head.

use serde_json::json;

use super::Family;
use super::layer_kinds::{attentions, feed_forwards};
use super::llama::{self, activation};
use super::rope_config::rope;
use crate::names::{Layout, Names, Rule, laid, same};
use crate::spec::{FeedForwardKind, Mlp, Norm, Norms, Residual, Spec};
use crate::{Config, Result};

/// The family.
pub static GPT_NEOX: Family = Family {
    name: "gpt_neox",
    model_types: &["gpt_neox"],
    architectures: &["GPTNeoXForCausalLM", "GPTNeoXModel"],
    spec,
    names: Names {
        prefixes: &["gpt_neox.", ""],
        rules: &[RULES],
        ignore: &[".attention.bias", ".attention.masked_bias", "rotary_emb.inv_freq"],
    },
};

const RULES: &[Rule] = &[
    same("{p}embed_in", &["embed.tokens"]),
    same("{p}final_layer_norm", &["final_norm"]),
    same("embed_out", &["head"]),
    same("lm_head", &["head"]),
    same("score", &["classifier"]),
    same("classifier", &["token_classifier"]),
    same("qa_outputs", &["span_classifier"]),
    same("{p}layers.{i}.input_layernorm", &["layers.{i}.attention.before_norm"]),
    laid(
        "{p}layers.{i}.attention.query_key_value",
        &["layers.{i}.attention.query", "layers.{i}.attention.key", "layers.{i}.attention.value"],
        Layout::HeadThirds,
    ),
    same("{p}layers.{i}.attention.dense", &["layers.{i}.attention.output"]),
    same("{p}layers.{i}.post_attention_layernorm", &["layers.{i}.feed_forward.before_norm"]),
    same("{p}layers.{i}.mlp.dense_h_to_4h", &["layers.{i}.feed_forward.up"]),
    same("{p}layers.{i}.mlp.dense_4h_to_h", &["layers.{i}.feed_forward.down"]),
];

fn spec(config: &Config) -> Result<Spec> {
    let config = &config.with_defaults([("rotary_pct", json!(0.25)), ("attention_bias", json!(true))]);
    let norm = Norm::layer(config.number_or("layer_norm_eps", 1e-5)?);
    let theta = config.number_or("rotary_emb_base", 10_000.0)?;
    let mlp = Mlp {
        width: config.size("intermediate_size")?,
        gated: false,
        activation: activation(config, "hidden_act", "gelu")?,
        bias: true,
    };
    let mut spec =
        Spec { family: GPT_NEOX.name.to_string(), final_norm: Some(norm), ..llama::decoder(config)? };
    for (_, attention) in attentions(&mut spec) {
        attention.norms = Norms::before(norm);
        attention.rope = Some(rope(config, attention.head_dim, theta, None)?);
    }
    for (_, feed_forward) in feed_forwards(&mut spec) {
        feed_forward.norms = Norms::before(norm);
        feed_forward.kind = FeedForwardKind::Dense(mlp.clone());
    }
    if config.flag_or("use_parallel_residual", true)? {
        spec.layers.iter_mut().for_each(|layer| layer.residual = Residual::Parallel);
    }
    Ok(spec)
}
