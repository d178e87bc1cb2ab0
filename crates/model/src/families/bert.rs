//! BERT (arXiv 1810.04805) and the sentence encoders built on it (MiniLM, BGE, E5, GTE).

use super::llama::activation;
use super::{Family, classifier, layers};
use crate::names::{Layout, Names, Rule, Suffix, same};
use crate::spec::{
    Activation, Attention, Embedding, FeedForward, FeedForwardKind, Head, HeadTransform, Layer, Mlp, Norm,
    Norms, Positions, Residual, Spec,
};
use crate::{Config, Result};

/// The family.
pub static BERT: Family = Family {
    name: "bert",
    model_types: &["bert"],
    architectures: &[
        "BertModel",
        "BertForMaskedLM",
        "BertForPreTraining",
        "BertForSequenceClassification",
        "BertForTokenClassification",
        "BertForQuestionAnswering",
    ],
    spec,
    names: Names {
        prefixes: &["bert.", ""],
        rules: &[ENCODER, HEAD, EARLY_NORMS, CLASSIFIER],
        ignore: &["position_ids"],
    },
};

/// The encoder, under names that RoBERTa shares.
pub const ENCODER: &[Rule] = &[
    same("{p}embeddings.word_embeddings", &["embed.tokens"]),
    same("{p}embeddings.position_embeddings", &["embed.positions"]),
    same("{p}embeddings.token_type_embeddings", &["embed.types"]),
    same("{p}embeddings.LayerNorm", &["embed.norm"]),
    same("{p}encoder.layer.{i}.attention.self.query", &["layers.{i}.attention.query"]),
    same("{p}encoder.layer.{i}.attention.self.key", &["layers.{i}.attention.key"]),
    same("{p}encoder.layer.{i}.attention.self.value", &["layers.{i}.attention.value"]),
    same("{p}encoder.layer.{i}.attention.output.dense", &["layers.{i}.attention.output"]),
    same("{p}encoder.layer.{i}.attention.output.LayerNorm", &["layers.{i}.attention.residual_norm"]),
    same("{p}encoder.layer.{i}.intermediate.dense", &["layers.{i}.feed_forward.up"]),
    same("{p}encoder.layer.{i}.output.dense", &["layers.{i}.feed_forward.down"]),
    same("{p}encoder.layer.{i}.output.LayerNorm", &["layers.{i}.feed_forward.residual_norm"]),
];

/// Norms of early checkpoints, with `gamma` and `beta`.
const EARLY_NORMS: &[Rule] = &[
    early("{p}embeddings.LayerNorm", &["embed.norm"]),
    early("{p}encoder.layer.{i}.attention.output.LayerNorm", &["layers.{i}.attention.residual_norm"]),
    early("{p}encoder.layer.{i}.output.LayerNorm", &["layers.{i}.feed_forward.residual_norm"]),
    early("cls.predictions.transform.LayerNorm", &["head.norm"]),
];

/// Scores of texts behind the pooler, of tokens and of spans.
const CLASSIFIER: &[Rule] = &[
    same("{p}pooler.dense", &["classifier.dense"]),
    same("classifier", &["classifier"]),
    same("classifier", &["token_classifier"]),
    same("qa_outputs", &["span_classifier"]),
];

const HEAD: &[Rule] = &[
    same("cls.predictions.transform.dense", &["head.dense"]),
    same("cls.predictions.transform.LayerNorm", &["head.norm"]),
    same("cls.predictions", &["head"]),
];

const fn early(file: &'static str, ours: &'static [&'static str]) -> Rule {
    Rule { file, ours, layout: Layout::Rows, suffix: Suffix::GammaBeta }
}

fn spec(config: &Config) -> Result<Spec> {
    let mut spec = Spec { family: BERT.name.to_string(), ..encoder(config)? };
    if has_head(config)? {
        spec.head = Some(masked_head(config, activation(config, "hidden_act", "gelu")?)?);
    }
    classifier::add(config, &mut spec, Some(Activation::Tanh))?;
    Ok(spec)
}

/// Whether `architectures` names a masked language model.
///
/// # Errors
/// If the key is no list of strings.
pub fn has_head(config: &Config) -> Result<bool> {
    let classes = config.texts_opt("architectures")?.unwrap_or_default();
    Ok(classes.iter().any(|class| class.ends_with("ForMaskedLM") || class.ends_with("ForPreTraining")))
}

/// The head of a masked language model: dense layer, `activation`, norm, and the token embedding as matrix.
///
/// # Errors
/// If the matrix is not the token embedding.
pub fn masked_head(config: &Config, activation: Activation) -> Result<Head> {
    if !config.flag_or("tie_word_embeddings", true)? {
        let what = "a masked language model with an output matrix of its own is not supported";
        return Err(config.error("tie_word_embeddings", what));
    }
    let norm = Norm::layer(config.number_or("layer_norm_eps", 1e-12)?);
    Ok(Head {
        tied: true,
        bias: true,
        transform: Some(HeadTransform { activation, norm }),
        scale: 1.0,
        softcap: None,
    })
}

/// An encoder of BERT's shape, without head, its positions counted from 0.
///
/// # Errors
/// If a key is missing or wrong, or asks for relative positions or a decoder.
pub fn encoder(config: &Config) -> Result<Spec> {
    if config.flag_or("is_decoder", false)? {
        return Err(config.error("is_decoder", "this family is supported as an encoder only"));
    }
    let positions = config.text_opt("position_embedding_type")?.unwrap_or("absolute");
    if positions != "absolute" {
        let what = format!("\"{positions}\" is not supported; only \"absolute\" is");
        return Err(config.error("position_embedding_type", what));
    }
    shaped(
        config,
        Shape {
            hidden_size: config.size("hidden_size")?,
            heads: config.size("num_attention_heads")?,
            layers: config.size("num_hidden_layers")?,
            width: config.size("intermediate_size")?,
            activation: activation(config, "hidden_act", "gelu")?,
            token_types: config.size_or("type_vocab_size", 2)?,
            norm: Norm::layer(config.number_or("layer_norm_eps", 1e-12)?),
        },
    )
}

/// What encoders of BERT's build differ in.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Attention heads.
    pub heads: usize,
    /// Layers.
    pub layers: usize,
    /// Width of the feed-forward half.
    pub width: usize,
    /// Its nonlinearity.
    pub activation: Activation,
    /// Rows of the token-type table.
    pub token_types: usize,
    /// Every norm.
    pub norm: Norm,
}

/// Builds the encoder of `shape`; vocabulary and positions are read from `vocab_size` and
/// `max_position_embeddings`.
///
/// # Errors
/// If one of these is missing or wrong.
pub fn shaped(config: &Config, shape: Shape) -> Result<Spec> {
    let head_dim = shape.hidden_size / shape.heads;
    let count = config.size_or("max_position_embeddings", 512)?;
    let layer = |_| {
        Ok(Layer {
            attention: Some(Attention {
                heads: shape.heads,
                kv_heads: shape.heads,
                head_dim,
                norms: Norms::residual(shape.norm),
                qkv_bias: true,
                output_bias: true,
                qk_norm: None,
                copies: None,
                scale: (head_dim as f32).sqrt().recip(),
                softcap: None,
                window: None,
                rope: None,
            }),
            feed_forward: Some(FeedForward {
                norms: Norms::residual(shape.norm),
                kind: FeedForwardKind::Dense(Mlp {
                    width: shape.width,
                    gated: false,
                    activation: shape.activation,
                    bias: true,
                }),
            }),
            residual: Residual::Sequential,
            residual_scale: 1.0,
            shares: None,
        })
    };
    Ok(Spec {
        ranks: Default::default(),
        family: BERT.name.to_string(),
        hidden_size: shape.hidden_size,
        vocab_size: config.size("vocab_size")?,
        context_length: count,
        causal: false,
        embedding: Embedding {
            scale: 1.0,
            positions: Some(Positions { count, offset: 0 }),
            token_types: shape.token_types,
            norm: Some(shape.norm),
            projected_from: None,
        },
        layers: layers(config, shape.layers, layer)?,
        final_norm: None,
        head: None,
        classifier: None,
        pooling: None,
    })
}
