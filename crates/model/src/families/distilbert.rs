//! DistilBERT (arXiv 1910.01108): BERT without token types, under names of its own.

use super::llama::activation;
use super::{Family, bert, classifier};
use crate::names::{Names, Rule, same};
use crate::spec::{Activation, Norm, Spec};
use crate::{Config, Result};

/// The family.
pub static DISTILBERT: Family = Family {
    name: "distilbert",
    model_types: &["distilbert"],
    architectures: &[
        "DistilBertModel",
        "DistilBertForMaskedLM",
        "DistilBertForSequenceClassification",
        "DistilBertForTokenClassification",
        "DistilBertForQuestionAnswering",
    ],
    spec,
    names: Names { prefixes: &["distilbert.", ""], rules: &[RULES], ignore: &["position_ids"] },
};

const RULES: &[Rule] = &[
    same("{p}embeddings.word_embeddings", &["embed.tokens"]),
    same("{p}embeddings.position_embeddings", &["embed.positions"]),
    same("{p}embeddings.LayerNorm", &["embed.norm"]),
    same("{p}transformer.layer.{i}.attention.q_lin", &["layers.{i}.attention.query"]),
    same("{p}transformer.layer.{i}.attention.k_lin", &["layers.{i}.attention.key"]),
    same("{p}transformer.layer.{i}.attention.v_lin", &["layers.{i}.attention.value"]),
    same("{p}transformer.layer.{i}.attention.out_lin", &["layers.{i}.attention.output"]),
    same("{p}transformer.layer.{i}.sa_layer_norm", &["layers.{i}.attention.residual_norm"]),
    same("{p}transformer.layer.{i}.ffn.lin1", &["layers.{i}.feed_forward.up"]),
    same("{p}transformer.layer.{i}.ffn.lin2", &["layers.{i}.feed_forward.down"]),
    same("{p}transformer.layer.{i}.output_layer_norm", &["layers.{i}.feed_forward.residual_norm"]),
    same("vocab_transform", &["head.dense"]),
    same("vocab_layer_norm", &["head.norm"]),
    same("vocab_projector", &["head"]),
    same("pre_classifier", &["classifier.dense"]),
    same("classifier", &["classifier"]),
    same("classifier", &["token_classifier"]),
    same("qa_outputs", &["span_classifier"]),
];

fn spec(config: &Config) -> Result<Spec> {
    let shape = bert::Shape {
        hidden_size: config.size("dim")?,
        heads: config.size("n_heads")?,
        layers: config.size("n_layers")?,
        width: config.size("hidden_dim")?,
        activation: activation(config, "activation", "gelu")?,
        token_types: 0,
        // Fixed: the configuration has no key for it.
        norm: Norm::layer(1e-12),
    };
    let mut spec = Spec { family: DISTILBERT.name.to_string(), ..bert::shaped(config, shape)? };
    if bert::has_head(config)? {
        let mut head = bert::masked_head(config, shape.activation)?;
        if let Some(transform) = &mut head.transform {
            transform.norm = shape.norm;
        }
        spec.head = Some(head);
    }
    classifier::add(config, &mut spec, Some(Activation::Relu))?;
    Ok(spec)
}
