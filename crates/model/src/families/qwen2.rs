//! Qwen 2 and 2.5 (arXiv 2407.10671, 2412.15115): Llama with biases on query, key and value.

use super::layer_kinds::{attentions, set_windows};
use super::{Family, llama};
use crate::spec::Spec;
use crate::{Config, Result};

/// The family.
pub static QWEN2: Family = Family {
    name: "qwen2",
    model_types: &["qwen2"],
    architectures: &["Qwen2ForCausalLM", "Qwen2Model"],
    spec,
    names: llama::NAMES,
};

fn spec(config: &Config) -> Result<Spec> {
    let mut spec = Spec { family: QWEN2.name.to_string(), ..llama::decoder(config)? };
    for (_, attention) in attentions(&mut spec) {
        attention.qkv_bias = true;
        attention.output_bias = false;
    }
    upper_windows(config, &mut spec)?;
    Ok(spec)
}

/// Qwen's windows: none unless `use_sliding_window`, then on the layers from `max_window_layers` on.
///
/// # Errors
/// If a key is wrong.
pub fn upper_windows(config: &Config, spec: &mut Spec) -> Result<()> {
    if !config.flag_or("use_sliding_window", false)? {
        return Ok(());
    }
    let first = config.size_or("max_window_layers", 28)?;
    set_windows(config, spec, |layer| layer >= first)
}
