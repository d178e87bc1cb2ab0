//! Llama 1–3 (arXiv 2302.13971, 2407.21783), and what shares its `config.json` and tensor names.

use super::{Family, layers, rope_config::rope};
use crate::names::{Names, Rule, same};
use crate::spec::{
    Activation, Attention, Embedding, FeedForward, FeedForwardKind, Head, Layer, Mlp, Norm, Norms, Residual,
    Spec,
};
use crate::{Config, Result};

/// The family.
pub static LLAMA: Family = Family {
    name: "llama",
    model_types: &["llama"],
    architectures: &[
        "LlamaForCausalLM",
        "LlamaModel",
        "LlamaForSequenceClassification",
        "LlamaForTokenClassification",
    ],
    spec: decoder,
    names: NAMES,
};

/// Names of Llama-style checkpoints: base models may come without the `model.` prefix.
pub const NAMES: Names = Names {
    prefixes: &["model.", ""],
    rules: &[OUTSIDE, ATTENTION, NORMS, GATED_MLP],
    ignore: &["rotary_emb.inv_freq"],
};

/// Embedding, last norm and head.
pub const OUTSIDE: &[Rule] = &[
    same("{p}embed_tokens", &["embed.tokens"]),
    same("{p}norm", &["final_norm"]),
    same("lm_head", &["head"]),
    same("score", &["classifier"]),
    same("score", &["token_classifier"]),
    same("qa_outputs", &["span_classifier"]),
];

/// Separate query, key, value and output projections.
pub const ATTENTION: &[Rule] = &[
    same("{p}layers.{i}.self_attn.q_proj", &["layers.{i}.attention.query"]),
    same("{p}layers.{i}.self_attn.k_proj", &["layers.{i}.attention.key"]),
    same("{p}layers.{i}.self_attn.v_proj", &["layers.{i}.attention.value"]),
    same("{p}layers.{i}.self_attn.o_proj", &["layers.{i}.attention.output"]),
    same("{p}layers.{i}.self_attn.q_norm", &["layers.{i}.attention.query_norm"]),
    same("{p}layers.{i}.self_attn.k_norm", &["layers.{i}.attention.key_norm"]),
];

/// Pre-norms of both halves.
pub const NORMS: &[Rule] = &[
    same("{p}layers.{i}.input_layernorm", &["layers.{i}.attention.before_norm"]),
    same("{p}layers.{i}.post_attention_layernorm", &["layers.{i}.feed_forward.before_norm"]),
];

/// Gated feed-forward half.
pub const GATED_MLP: &[Rule] = &[
    same("{p}layers.{i}.mlp.gate_proj", &["layers.{i}.feed_forward.gate"]),
    same("{p}layers.{i}.mlp.up_proj", &["layers.{i}.feed_forward.up"]),
    same("{p}layers.{i}.mlp.down_proj", &["layers.{i}.feed_forward.down"]),
];

/// Head sizes as Llama-style configurations give them.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

/// Reads `num_attention_heads`, `num_key_value_heads` (default: as many) and `head_dim` (default: an even
/// split of the hidden size).
///
/// # Errors
/// If a key is missing or wrong.
pub fn heads(config: &Config) -> Result<Heads> {
    let heads = config.size("num_attention_heads")?;
    let kv_heads = config.size_or("num_key_value_heads", heads)?;
    let head_dim = config.size_or("head_dim", config.size("hidden_size")? / heads)?;
    Ok(Heads { heads, kv_heads, head_dim })
}

/// The nonlinearity a configuration names under `key`.
///
/// # Errors
/// If it is none that ounce knows.
pub fn activation(config: &Config, key: &str, default: &str) -> Result<Activation> {
    Ok(match config.text_opt(key)?.unwrap_or(default) {
        "silu" | "swish" => Activation::Silu,
        "gelu" => Activation::Gelu,
        "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Activation::GeluTanh,
        "quick_gelu" => Activation::GeluQuick,
        "relu" => Activation::Relu,
        "relu2" => Activation::Relu2,
        "tanh" => Activation::Tanh,
        other => {
            return Err(config.error(key, format!("the nonlinearity \"{other}\" is none that ounce knows")));
        }
    })
}

/// A pre-norm decoder with RMSNorm, rotary attention and a gated feed-forward half; other families start
/// from it and change what differs.
///
/// # Errors
/// If a key is missing or wrong.
pub fn decoder(config: &Config) -> Result<Spec> {
    let hidden_size = config.size("hidden_size")?;
    let Heads { heads, kv_heads, head_dim } = heads(config)?;
    let norm = Norm::rms(config.number_or("rms_norm_eps", 1e-6)?);
    let rope = rope(config, head_dim, 10_000.0, None)?;
    let attention_bias = config.flag_or("attention_bias", false)?;
    let mlp = Mlp {
        width: config.size("intermediate_size")?,
        gated: true,
        activation: activation(config, "hidden_act", "silu")?,
        bias: config.flag_or("mlp_bias", false)?,
    };
    let layer = |_| {
        Ok(Layer {
            attention: Some(Attention {
                heads,
                kv_heads,
                head_dim,
                norms: Norms::before(norm),
                qkv_bias: attention_bias,
                output_bias: attention_bias,
                qk_norm: None,
                copies: None,
                scale: (head_dim as f32).sqrt().recip(),
                softcap: None,
                window: None,
                rope: Some(rope.clone()),
            }),
            feed_forward: Some(FeedForward {
                norms: Norms::before(norm),
                kind: FeedForwardKind::Dense(mlp.clone()),
            }),
            residual: Residual::Sequential,
            residual_scale: 1.0,
            shares: None,
        })
    };
    Ok(Spec {
        ranks: Default::default(),
        family: "llama".to_string(),
        hidden_size,
        vocab_size: config.size("vocab_size")?,
        context_length: config.size_or("max_position_embeddings", 2048)?,
        causal: true,
        embedding: Embedding {
            scale: 1.0,
            positions: None,
            token_types: 0,
            norm: None,
            projected_from: None,
        },
        layers: layers(config, config.size("num_hidden_layers")?, layer)?,
        final_norm: Some(norm),
        head: Some(Head {
            tied: config.flag_or("tie_word_embeddings", false)?,
            bias: false,
            transform: None,
            scale: 1.0,
            softcap: None,
        }),
        classifier: None,
        pooling: None,
    })
}
