//! Mistral (arXiv 2310.06825): Llama with a sliding window, which later releases switch off.

use serde_json::json;

use super::layer_kinds::set_windows;
use super::{Family, llama};
use crate::spec::Spec;
use crate::{Config, Result};

/// The family.
pub static MISTRAL: Family = Family {
    name: "mistral",
    model_types: &["mistral", "ministral"],
    architectures: &["MistralForCausalLM", "MistralModel", "MinistralForCausalLM"],
    spec,
    names: llama::NAMES,
};

fn spec(config: &Config) -> Result<Spec> {
    let config = &config.with_defaults([("sliding_window", json!(4096))]);
    let mut spec = Spec { family: MISTRAL.name.to_string(), ..llama::decoder(config)? };
    set_windows(config, &mut spec, |_| true)?;
    Ok(spec)
}
