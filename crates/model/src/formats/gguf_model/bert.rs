//! `bert`: BERT, RoBERTa and DistilBERT as encoders. GGUF has no place for the head of a masked language model, which
//! is left out, nor for the rows of RoBERTa's position table that no position uses.

use serde_json::json;

use super::keys::{self, Key, key, layered, size};
use super::{ATTENTION_OUTPUT, Arch, MLP, PROJECTIONS};
use super::{names, set_model_type};
use crate::formats::gguf::Value;
use crate::names::{Rule, same};

/// The architecture.
pub(super) static BERT: Arch = Arch {
    name: "bert",
    families: &["bert", "roberta", "distilbert"],
    keys: &[KEYS, keys::LAYER_NORM],
    rope: None,
    names: names(&[EMBEDDING, PROJECTIONS, ATTENTION_OUTPUT, POST_NORMS, MLP]),
    read: |facts, map| {
        set_model_type(map, "bert", "BertModel");
        map.remove("tie_word_embeddings");
        let types = facts.shapes.get("token_types.weight");
        let rows = types.map_or(0, |shape| if shape.len() > 1 { shape[0] } else { 1 });
        map.insert("type_vocab_size".to_string(), json!(rows));
        Ok(())
    },
    write: |spec, _, metadata| {
        metadata.insert("bert.attention.causal", Value::Bool(false));
        // Other programs want at least one even if there is no table.
        let types = spec.embedding.token_types.max(1) as u32;
        metadata.insert("tokenizer.ggml.token_type_count", Value::U32(types));
    },
};

const KEYS: &[Key] = &[
    key("context_length", "max_position_embeddings", |spec| size(spec.context_length)),
    key("embedding_length", "hidden_size", |spec| size(spec.hidden_size)),
    key("block_count", "num_hidden_layers", |spec| size(spec.layers.len())),
    layered("feed_forward_length", "intermediate_size", "intermediate_size", keys::widths),
    layered("attention.head_count", "num_attention_heads", "num_attention_heads", keys::heads),
];

const EMBEDDING: &[Rule] = &[
    same("token_embd", &["embed.tokens"]),
    same("position_embd", &["embed.positions"]),
    same("token_types", &["embed.types"]),
    same("token_embd_norm", &["embed.norm"]),
];

const POST_NORMS: &[Rule] = &[
    same("blk.{i}.attn_output_norm", &["layers.{i}.attention.residual_norm"]),
    same("blk.{i}.layer_output_norm", &["layers.{i}.feed_forward.residual_norm"]),
];
