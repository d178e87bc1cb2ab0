//! GPT-2 (Radford et al. 2019): learned positions, LayerNorm before each half, matrices stored transposed.

use super::llama::activation;
use super::{Family, layers};
use crate::names::{Layout, Names, Rule, laid, same};
use crate::spec::{
    Attention, Embedding, FeedForward, FeedForwardKind, Head, Layer, Mlp, Norm, Norms, Positions, Residual,
    Spec,
};
use crate::{Config, Result};

/// The family.
pub static GPT2: Family = Family {
    name: "gpt2",
    model_types: &["gpt2"],
    architectures: &["GPT2LMHeadModel", "GPT2Model"],
    spec,
    names: Names {
        prefixes: &["transformer.", ""],
        rules: &[RULES],
        // Causal masks, which early files store.
        ignore: &[".attn.bias", ".attn.masked_bias"],
    },
};

const RULES: &[Rule] = &[
    same("{p}wte", &["embed.tokens"]),
    same("{p}wpe", &["embed.positions"]),
    same("{p}ln_f", &["final_norm"]),
    same("lm_head", &["head"]),
    same("score", &["classifier"]),
    same("classifier", &["token_classifier"]),
    same("qa_outputs", &["span_classifier"]),
    same("{p}h.{i}.ln_1", &["layers.{i}.attention.before_norm"]),
    laid(
        "{p}h.{i}.attn.c_attn",
        &["layers.{i}.attention.query", "layers.{i}.attention.key", "layers.{i}.attention.value"],
        Layout::Columns,
    ),
    laid("{p}h.{i}.attn.c_proj", &["layers.{i}.attention.output"], Layout::Columns),
    same("{p}h.{i}.ln_2", &["layers.{i}.feed_forward.before_norm"]),
    laid("{p}h.{i}.mlp.c_fc", &["layers.{i}.feed_forward.up"], Layout::Columns),
    laid("{p}h.{i}.mlp.c_proj", &["layers.{i}.feed_forward.down"], Layout::Columns),
];

fn spec(config: &Config) -> Result<Spec> {
    if config.flag_or("add_cross_attention", false)? {
        return Err(
            config.error("add_cross_attention", "decoders that attend to an encoder are not supported")
        );
    }
    let hidden_size = config.size("n_embd")?;
    let heads = config.size("n_head")?;
    let head_dim = hidden_size / heads;
    let positions = config.size_or("n_positions", 1024)?;
    let norm = Norm::layer(config.number_or("layer_norm_epsilon", 1e-5)?);
    let scaled = config.flag_or("scale_attn_weights", true)?;
    let scaled_by_layer = config.flag_or("scale_attn_by_inverse_layer_idx", false)?;
    let mlp = Mlp {
        width: config.size_or("n_inner", 4 * hidden_size)?,
        gated: false,
        activation: activation(config, "activation_function", "gelu_new")?,
        bias: true,
    };
    let layer = |index: usize| {
        let scale = if scaled { (head_dim as f32).sqrt().recip() } else { 1.0 };
        Ok(Layer {
            attention: Some(Attention {
                heads,
                kv_heads: heads,
                head_dim,
                norms: Norms::before(norm),
                qkv_bias: true,
                output_bias: true,
                qk_norm: None,
                copies: None,
                scale: if scaled_by_layer { scale / (index + 1) as f32 } else { scale },
                softcap: None,
                window: None,
                rope: None,
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
        family: GPT2.name.to_string(),
        hidden_size,
        vocab_size: config.size("vocab_size")?,
        context_length: positions,
        causal: true,
        embedding: Embedding {
            scale: 1.0,
            positions: Some(Positions { count: positions, offset: 0 }),
            token_types: 0,
            norm: None,
            projected_from: None,
        },
        layers: layers(config, config.size("n_layer")?, layer)?,
        final_norm: Some(norm),
        head: Some(Head {
            tied: config.flag_or("tie_word_embeddings", true)?,
            bias: false,
            transform: None,
            scale: 1.0,
            softcap: None,
        }),
        classifier: None,
        pooling: None,
    })
}
