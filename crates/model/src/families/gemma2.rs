//! Gemma 2 (arXiv 2408.00118): norms on both sides of each half, soft caps, every other layer windowed.

use serde_json::json;

use super::Family;
use super::layer_kinds::{attentions, feed_forwards, set_windows};
use super::llama::{self, activation};
use crate::names::{Names, Rule, same};
use crate::spec::{Embedding, FeedForwardKind, Norm, Norms, Spec};
use crate::{Config, Result};

/// The family.
pub static GEMMA2: Family = Family {
    name: "gemma2",
    model_types: &["gemma2"],
    architectures: &["Gemma2ForCausalLM", "Gemma2Model"],
    spec,
    names: NAMES,
};

/// Names of Gemma 2 and 3; what Llama calls `post_attention_layernorm` is here truly after the attention.
pub const NAMES: Names =
    Names { rules: &[llama::OUTSIDE, llama::ATTENTION, FOUR_NORMS, llama::GATED_MLP], ..llama::NAMES };

/// Norms before and after each half.
const FOUR_NORMS: &[Rule] = &[
    same("{p}layers.{i}.input_layernorm", &["layers.{i}.attention.before_norm"]),
    same("{p}layers.{i}.post_attention_layernorm", &["layers.{i}.attention.after_norm"]),
    same("{p}layers.{i}.pre_feedforward_layernorm", &["layers.{i}.feed_forward.before_norm"]),
    same("{p}layers.{i}.post_feedforward_layernorm", &["layers.{i}.feed_forward.after_norm"]),
];

fn spec(config: &Config) -> Result<Spec> {
    let config = &config.with_defaults([
        ("sliding_window", json!(4096)),
        ("attn_logit_softcapping", json!(50.0)),
        ("final_logit_softcapping", json!(30.0)),
    ]);
    let mut spec = Spec { family: GEMMA2.name.to_string(), ..decoder(config)? };
    set_windows(config, &mut spec, |layer| layer % 2 == 0)?;
    Ok(spec)
}

/// What Gemma 2 and 3 share. Soft caps are read without defaults.
///
/// # Errors
/// If a key is missing or wrong, or asks for attention in both directions.
pub fn decoder(config: &Config) -> Result<Spec> {
    let config = &config.with_defaults([("head_dim", json!(256)), ("tie_word_embeddings", json!(true))]);
    if config.flag_or("use_bidirectional_attention", false)? {
        let what = "attention in both directions is not supported for this family";
        return Err(config.error("use_bidirectional_attention", what));
    }
    let mut spec = llama::decoder(config)?;
    let norm = Norm { plus_one: true, ..Norm::rms(config.number_or("rms_norm_eps", 1e-6)?) };
    let norms = Norms { before: Some(norm), after: Some(norm), residual: None };
    let scale = config.number_or("query_pre_attn_scalar", 256.0)?;
    if scale <= 0.0 {
        return Err(config.error("query_pre_attn_scalar", format!("should be positive, found {scale}")));
    }
    let attention_cap = softcap(config, "attn_logit_softcapping")?;
    for (_, attention) in attentions(&mut spec) {
        attention.norms = norms;
        attention.scale = scale.sqrt().recip();
        attention.softcap = attention_cap;
    }
    let nonlinearity = activation(config, "hidden_activation", "gelu_pytorch_tanh")?;
    for (_, feed_forward) in feed_forwards(&mut spec) {
        feed_forward.norms = norms;
        if let FeedForwardKind::Dense(mlp) = &mut feed_forward.kind {
            mlp.activation = nonlinearity;
            mlp.bias = false;
        }
    }
    spec.final_norm = Some(norm);
    spec.embedding = Embedding { scale: (spec.hidden_size as f32).sqrt(), ..spec.embedding };
    if let Some(head) = &mut spec.head {
        head.softcap = softcap(config, "final_logit_softcapping")?;
    }
    Ok(spec)
}

/// A soft cap: a positive number, or none where the key is `null` or left out.
fn softcap(config: &Config, key: &str) -> Result<Option<f32>> {
    match config.number_opt(key)? {
        Some(cap) if cap <= 0.0 => Err(config.error(key, format!("should be positive, found {cap}"))),
        cap => Ok(cap),
    }
}
