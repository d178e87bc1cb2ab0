//! ALBERT (arXiv 1909.11942) and FrALBERT (arXiv 2207.09150): BERT with layers that share their weights and token vectors
//! narrower than the residual stream.
//!
//! There are `num_hidden_groups` groups of `inner_group_num` layers with weights. `num_hidden_layers` times a group is run
//! through, each group about as often as the others, one behind the other.

use super::llama::activation;
use super::{Family, bert, classifier};
use crate::names::{Names, Rule, same};
use crate::spec::{Activation, Norm, Spec};
use crate::{Config, Result};

/// The family.
pub static ALBERT: Family = Family {
    name: "albert",
    model_types: &["albert"],
    architectures: &[
        "AlbertModel",
        "AlbertForMaskedLM",
        "AlbertForPreTraining",
        "AlbertForSequenceClassification",
        "AlbertForTokenClassification",
        "AlbertForQuestionAnswering",
    ],
    spec,
    names: Names {
        prefixes: &["albert.", ""],
        rules: &[EMBEDDING, LAYERS, HEAD],
        ignore: &["position_ids", "predictions.decoder.bias"],
    },
};

const EMBEDDING: &[Rule] = &[
    same("{p}embeddings.word_embeddings", &["embed.tokens"]),
    same("{p}embeddings.position_embeddings", &["embed.positions"]),
    same("{p}embeddings.token_type_embeddings", &["embed.types"]),
    same("{p}embeddings.LayerNorm", &["embed.norm"]),
    same("{p}encoder.embedding_hidden_mapping_in", &["embed.projection"]),
];

const LAYERS: &[Rule] = &[
    same(
        "{p}encoder.albert_layer_groups.{g}.albert_layers.{j}.attention.query",
        &["layers.{i}.attention.query"],
    ),
    same("{p}encoder.albert_layer_groups.{g}.albert_layers.{j}.attention.key", &["layers.{i}.attention.key"]),
    same(
        "{p}encoder.albert_layer_groups.{g}.albert_layers.{j}.attention.value",
        &["layers.{i}.attention.value"],
    ),
    same(
        "{p}encoder.albert_layer_groups.{g}.albert_layers.{j}.attention.dense",
        &["layers.{i}.attention.output"],
    ),
    same(
        "{p}encoder.albert_layer_groups.{g}.albert_layers.{j}.attention.LayerNorm",
        &["layers.{i}.attention.residual_norm"],
    ),
    same("{p}encoder.albert_layer_groups.{g}.albert_layers.{j}.ffn", &["layers.{i}.feed_forward.up"]),
    same(
        "{p}encoder.albert_layer_groups.{g}.albert_layers.{j}.ffn_output",
        &["layers.{i}.feed_forward.down"],
    ),
    same(
        "{p}encoder.albert_layer_groups.{g}.albert_layers.{j}.full_layer_layer_norm",
        &["layers.{i}.feed_forward.residual_norm"],
    ),
];

const HEAD: &[Rule] = &[
    same("predictions.dense", &["head.dense"]),
    same("predictions.LayerNorm", &["head.norm"]),
    same("predictions", &["head"]),
    same("{p}pooler", &["classifier.dense"]),
    same("classifier", &["classifier"]),
    same("classifier", &["token_classifier"]),
    same("qa_outputs", &["span_classifier"]),
];

fn spec(config: &Config) -> Result<Spec> {
    let blocks = config.size("num_hidden_layers")?;
    let groups = config.size_or("num_hidden_groups", 1)?;
    let inner = config.size_or("inner_group_num", 1)?;
    if groups == 0 || groups > blocks {
        let what = format!("{groups} groups can't be spread over {blocks} hidden layers");
        return Err(config.error("num_hidden_groups", what));
    }
    if inner == 0 || (inner > 1 && groups == blocks) {
        let what = format!("{inner} is supported only where groups are used more than once");
        return Err(config.error("inner_group_num", what));
    }
    let shape = bert::Shape {
        hidden_size: config.size("hidden_size")?,
        heads: config.size("num_attention_heads")?,
        layers: blocks.saturating_mul(inner),
        width: config.size("intermediate_size")?,
        activation: activation(config, "hidden_act", "gelu_new")?,
        token_types: config.size_or("type_vocab_size", 2)?,
        norm: Norm::layer(config.number_or("layer_norm_eps", 1e-12)?),
    };
    let mut spec = bert::shaped(config, shape)?;
    spec.family = ALBERT.name.to_string();
    spec.embedding.projected_from = Some(config.size_or("embedding_size", 128)?);
    // As transformers computes it, rounding included.
    let group = |block: usize| (block as f64 / (blocks as f64 / groups as f64)) as usize;
    for block in 1..blocks {
        // The first use of a group has its weights.
        let first = (0..block).rev().take_while(|&it| group(it) == group(block)).last();
        for place in 0..inner {
            spec.layers[block * inner + place].shares = first.map(|first| first * inner + place);
        }
    }
    if bert::has_head(config)? {
        spec.head = Some(bert::masked_head(config, shape.activation)?);
    }
    classifier::add(config, &mut spec, Some(Activation::Tanh))?;
    Ok(spec)
}
