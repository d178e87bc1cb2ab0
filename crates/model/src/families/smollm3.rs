//! SmolLM 3: Llama in which every fourth layer has no position embedding (NoPE, arXiv 2501.18795).

use serde_json::json;

use super::layer_kinds::{attentions, set_windows};
use super::{Family, llama};
use crate::spec::Spec;
use crate::{Config, Result};

/// The family.
pub static SMOLLM3: Family = Family {
    name: "smollm3",
    model_types: &["smollm3"],
    architectures: &["SmolLM3ForCausalLM", "SmolLM3Model"],
    spec,
    names: llama::NAMES,
};

fn spec(config: &Config) -> Result<Spec> {
    let config =
        &config.with_defaults([("tie_word_embeddings", json!(true)), ("rope_theta", json!(2_000_000.0))]);
    let mut spec = Spec { family: SMOLLM3.name.to_string(), ..llama::decoder(config)? };
    let rotated = rotated_layers(config, spec.layers.len())?;
    for (layer, attention) in attentions(&mut spec) {
        attention.rope = attention.rope.take().filter(|_| rotated[layer]);
    }
    if config.flag_or("use_sliding_window", false)? {
        set_windows(config, &mut spec, |layer| !rotated[layer])?;
    }
    Ok(spec)
}

/// For each layer whether it rotates. The key's name is misleading: 1 in `no_rope_layers` means rotation.
fn rotated_layers(config: &Config, count: usize) -> Result<Vec<bool>> {
    let Some(list) = config.numbers_opt("no_rope_layers")? else {
        let period = config.size_or("no_rope_layer_interval", 4)?;
        if period == 0 {
            return Err(config.error("no_rope_layer_interval", "should not be 0"));
        }
        return Ok((0..count).map(|layer| (layer + 1) % period != 0).collect());
    };
    if list.len() != count {
        let what = format!("lists {} layers, but the model has {count}", list.len());
        return Err(config.error("no_rope_layers", what));
    }
    Ok(list.iter().map(|&rotates| rotates != 0.0).collect())
}
