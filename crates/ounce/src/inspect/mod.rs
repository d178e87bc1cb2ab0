//! Facts about an opened model, from its headers alone: sizes by group, cache, tokenizer, peculiarities.

mod peculiar;

use std::collections::BTreeMap;

use ounce_model::Model;
use ounce_model::account::Formats;
use ounce_model::account::sizes::{self, GroupSize};
use ounce_model::tokenizer::Tokenizer;
use serde::Serialize;

pub use peculiar::peculiarities;

/// Bytes of a value in the engine's cache, which is f32.
const CACHE_VALUE_BYTES: usize = 4;

/// One tensor as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TensorFact {
    /// ounce's name.
    pub name: String,
    /// The name of the file's tensor that holds it.
    pub file_name: String,
    /// The format's name.
    pub dtype: &'static str,
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// Bytes as stored.
    pub bytes: u64,
}

/// What the engine's cache costs for one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CacheSize {
    /// Bytes that one more token takes, f32.
    pub bytes_per_token: usize,
    /// Bytes at the model's full context; none if that overflows.
    pub bytes_full_context: Option<usize>,
}

/// What the tokenizer is like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenizerFacts {
    /// Tokens there are.
    pub tokens: usize,
    /// Special tokens by role, each as `id` and spelling.
    pub special: BTreeMap<&'static str, Vec<(u32, String)>>,
    /// Tokens put before every text.
    pub before: Vec<String>,
    /// Tokens put behind every text.
    pub after: Vec<String>,
}

/// Every tensor, in the order of use.
pub fn tensors(model: &Model) -> Vec<TensorFact> {
    let weights = &model.weights;
    let fact = |name: &str| {
        let (dtype, shape) = weights.info(name)?;
        Some(TensorFact {
            name: name.to_string(),
            file_name: weights.file_name(name)?.to_string(),
            dtype: dtype.name(),
            shape: shape.to_vec(),
            bytes: sizes::stored_bytes(dtype, shape),
        })
    };
    weights.names().filter_map(fact).collect()
}

/// Sizes by group and format, in the order of the groups, large formats first.
pub fn groups(model: &Model) -> Vec<GroupSize> {
    sizes::groups(&model.spec, &Formats::of(&model.weights))
}

/// The size of the cache; nothing for encoders, which keep none.
pub fn cache(model: &Model) -> Option<CacheSize> {
    let spec = &model.spec;
    let bytes_per_token = spec.kv_bytes_per_token(CACHE_VALUE_BYTES);
    let bytes_full_context = bytes_per_token.checked_mul(spec.context_length);
    spec.causal.then_some(CacheSize { bytes_per_token, bytes_full_context })
}

/// What the tokenizer is like.
pub fn tokenizer(tokenizer: &Tokenizer) -> TokenizerFacts {
    let ids = tokenizer.special();
    let roles = [
        ("bos", ids.bos.into_iter().collect()),
        ("eos", ids.eos.clone()),
        ("pad", ids.pad.into_iter().collect()),
        ("unk", ids.unk.into_iter().collect()),
        ("sep", ids.sep.into_iter().collect()),
        ("cls", ids.cls.into_iter().collect()),
        ("mask", ids.mask.into_iter().collect::<Vec<u32>>()),
    ];
    let (before, after) = frame(tokenizer);
    let spelt = |id: u32| (id, tokenizer.piece(id).unwrap_or_default());
    TokenizerFacts {
        tokens: tokenizer.vocab_size(),
        special: roles
            .into_iter()
            .filter(|(_, ids)| !ids.is_empty())
            .map(|(role, ids)| (role, ids.into_iter().map(spelt).collect()))
            .collect(),
        before,
        after,
    }
}

/// What the tokenizer puts before and behind a text.
fn frame(tokenizer: &Tokenizer) -> (Vec<String>, Vec<String>) {
    let encode = |special: bool| tokenizer.encode("a", special).unwrap_or_default();
    let (with, bare) = (encode(true), encode(false));
    let at = with.windows(bare.len().max(1)).position(|part| part == bare).unwrap_or(0);
    let names = |ids: &[u32]| ids.iter().map(|&id| tokenizer.piece(id).unwrap_or_default()).collect();
    (names(&with[..at]), names(with.get(at + bare.len()..).unwrap_or_default()))
}
