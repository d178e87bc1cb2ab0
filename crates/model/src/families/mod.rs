//! Model families as data: how to read a family's `config.json` into a [`Spec`], and under which names its
//! checkpoints store the weights. One file a family; a new one is a file and a line in [`ALL`].
//!
//! GGUF's names and keys for the same families are in [`crate::formats::gguf`].

pub mod albert;
pub mod bert;
mod check;
pub mod classifier;
pub mod distilbert;
pub mod gemma2;
pub mod gemma3;
pub mod gpt2;
pub mod gpt_neox;
pub mod granite;
mod layer_kinds;
pub mod llama;
pub mod mistral;
pub mod mixtral;
pub mod olmo2;
pub mod phi3;
pub mod qwen2;
pub mod qwen2_moe;
pub mod qwen3;
pub mod qwen3_moe;
mod reshape;
pub mod roberta;
mod rope_config;
pub mod smollm3;
pub mod stablelm;

use crate::names::Names;
use crate::spec::{Layer, Spec};
use crate::{Config, Error, Result};

pub use reshape::reshaped;

/// A family of models.
#[derive(Debug)]
pub struct Family {
    /// ounce's name for it, which [`Spec::family`] carries.
    pub name: &'static str,
    /// Values of `model_type` in `config.json`.
    pub model_types: &'static [&'static str],
    /// Values of `architectures` that are this family; the first is written where none is known.
    pub architectures: &'static [&'static str],
    /// Reads the configuration.
    pub spec: fn(&Config) -> Result<Spec>,
    /// Names in Hugging Face checkpoints.
    pub names: Names,
}

/// Every family, in the order of the documentation.
pub static ALL: &[&Family] = &[
    &llama::LLAMA,
    &mistral::MISTRAL,
    &mixtral::MIXTRAL,
    &qwen2::QWEN2,
    &qwen2_moe::QWEN2_MOE,
    &qwen3::QWEN3,
    &qwen3_moe::QWEN3_MOE,
    &gemma2::GEMMA2,
    &gemma3::GEMMA3,
    &phi3::PHI3,
    &granite::GRANITE,
    &smollm3::SMOLLM3,
    &olmo2::OLMO2,
    &stablelm::STABLELM,
    &gpt2::GPT2,
    &gpt_neox::GPT_NEOX,
    &bert::BERT,
    &roberta::ROBERTA,
    &distilbert::DISTILBERT,
    &albert::ALBERT,
];

/// The family of this name.
pub fn by_name(name: &str) -> Option<&'static Family> {
    ALL.iter().copied().find(|family| family.name == name)
}

/// The family that a `config.json` belongs to: by `model_type`, else by `architectures`.
///
/// # Errors
/// If neither names a family that ounce knows.
pub fn of_config(config: &Config) -> Result<&'static Family> {
    let model_type = config.text_opt("model_type")?;
    let architectures = config.texts_opt("architectures")?.unwrap_or_default();
    let by_type = ALL.iter().find(|family| model_type.is_some_and(|it| family.model_types.contains(&it)));
    let by_class =
        || ALL.iter().find(|family| architectures.iter().any(|it| family.architectures.contains(it)));
    by_type.or_else(by_class).copied().ok_or_else(|| {
        let known: Vec<&str> = ALL.iter().flat_map(|family| family.model_types).copied().collect();
        Error::format(
            config.path(),
            format!(
                "model_type {} is no family that ounce knows; it knows {}",
                model_type.map_or("(missing)".to_string(), |it| format!("\"{it}\"")),
                known.join(", ")
            ),
        )
    })
}

/// Builds the spec of a configuration, with the per-layer shapes of `ounce_layers` (see `docs/formats.md`).
///
/// # Errors
/// If the family is unknown, a key is missing or wrong, or the numbers contradict each other.
pub fn spec_of(config: &Config) -> Result<(&'static Family, Spec)> {
    let family = of_config(config)?;
    let mut spec = (family.spec)(config)?;
    if spec.causal {
        classifier::add(config, &mut spec, None)?;
    }
    apply_layer_shapes(config, &mut spec)?;
    apply_ranks(config, &mut spec)?;
    check::check(config, &spec)?;
    Ok((family, spec))
}

/// Applies `ounce_layers`: one object a layer, whose keys replace the whole model's.
fn apply_layer_shapes(config: &Config, spec: &mut Spec) -> Result<()> {
    use crate::spec::FeedForwardKind;
    let Some(value) = config.get("ounce_layers") else { return Ok(()) };
    let list = value.as_array().filter(|list| list.len() == spec.layers.len()).ok_or_else(|| {
        config.error("ounce_layers", format!("should be a list of {} objects", spec.layers.len()))
    })?;
    for (index, (value, layer)) in list.iter().zip(&mut spec.layers).enumerate() {
        let map = value.as_object().cloned();
        let map =
            map.ok_or_else(|| config.error("ounce_layers", format!("item {index} should be an object")))?;
        let shape = Config::new(config.path(), map);
        for key in shape.map().keys() {
            if !LAYER_KEYS.contains(&key.as_str()) {
                let known = LAYER_KEYS.join(", ");
                return Err(config.error("ounce_layers", format!("item {index}: {key} is none of {known}")));
            }
        }
        if let Some(attention) = &mut layer.attention {
            attention.heads = shape.size_or("num_attention_heads", attention.heads)?;
            attention.kv_heads = shape.size_or("num_key_value_heads", attention.kv_heads)?;
            attention.copies = shape.size_opt("copies")?;
        }
        if let Some(feed_forward) = &mut layer.feed_forward {
            match &mut feed_forward.kind {
                FeedForwardKind::Dense(mlp) => mlp.width = shape.size_or("intermediate_size", mlp.width)?,
                FeedForwardKind::Experts(experts) => {
                    experts.count = shape.size_or("num_experts", experts.count)?;
                    experts.expert.width = shape.size_or("intermediate_size", experts.expert.width)?;
                }
            }
        }
        layer.shares = shape.size_opt("shares")?.or(layer.shares);
        if !shape.flag_or("attention", true)? {
            layer.attention = None;
        }
        if !shape.flag_or("feed_forward", true)? {
            layer.feed_forward = None;
        }
    }
    Ok(())
}

/// The key of `config.json` that says which linear layers are factorised, with their ranks.
pub const RANKS_KEY: &str = "ounce_ranks";

/// Applies `ounce_ranks`: an object of names of layers' linear layers, such as `layers.0.attention.query`, with ranks.
fn apply_ranks(config: &Config, spec: &mut Spec) -> Result<()> {
    let Some(value) = config.get(RANKS_KEY) else { return Ok(()) };
    let wrong = |what: String| config.error(RANKS_KEY, what);
    let map = value.as_object().ok_or_else(|| wrong("should be an object of names with ranks".into()))?;
    let tensors = spec.tensors();
    for (name, rank) in map {
        let matrix = tensors.iter().find(|it| it.name.strip_suffix(".weight") == Some(name));
        let shape =
            matrix.filter(|it| it.shape.len() == 2 && name.starts_with("layers.")).map(|it| &it.shape);
        let shape =
            shape.ok_or_else(|| wrong(format!("{name} is no linear layer of this model's layers")))?;
        let most = shape[0].min(shape[1]) as u64;
        let rank = rank.as_u64().filter(|rank| (1..=most).contains(rank));
        let rank = rank.ok_or_else(|| wrong(format!("the rank of {name} should be from 1 to {most}")))?;
        spec.ranks.insert(name.clone(), rank as usize);
    }
    Ok(())
}

/// Keys of an `ounce_layers` item.
pub const LAYER_KEYS: [&str; 8] = [
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "num_experts",
    "attention",
    "feed_forward",
    "shares",
    "copies",
];

/// Layers above this are damage, not models.
const MAX_LAYERS: usize = 10_000;

/// `count` layers, refused before anything is allocated if the count is absurd.
///
/// # Errors
/// If `count` is larger than any model's, or `layer` fails.
pub fn layers(
    config: &Config,
    count: usize,
    layer: impl FnMut(usize) -> Result<Layer>,
) -> Result<Vec<Layer>> {
    if count > MAX_LAYERS {
        let what = format!("{count} layers are more than the {MAX_LAYERS} that ounce accepts");
        return Err(Error::format(config.path(), what));
    }
    (0..count).map(layer).collect()
}
