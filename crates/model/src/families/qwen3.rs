//! Qwen 3 (arXiv 2505.09388): Llama with RMSNorm on each head's queries and keys.

use serde_json::json;

use super::layer_kinds::attentions;
use super::qwen2::upper_windows;
use super::{Family, llama};
use crate::spec::{Norm, QkNorm, QkScope, Spec};
use crate::{Config, Result};

/// The family.
pub static QWEN3: Family = Family {
    name: "qwen3",
    model_types: &["qwen3"],
    architectures: &["Qwen3ForCausalLM", "Qwen3Model"],
    spec,
    names: llama::NAMES,
};

fn spec(config: &Config) -> Result<Spec> {
    let mut spec = Spec { family: QWEN3.name.to_string(), ..decoder(config)? };
    upper_windows(config, &mut spec)?;
    Ok(spec)
}

/// Llama's decoder with Qwen 3's head norms.
///
/// # Errors
/// If a key is missing or wrong.
pub fn decoder(config: &Config) -> Result<Spec> {
    let config = &config.with_defaults([("head_dim", json!(128))]);
    let mut spec = llama::decoder(config)?;
    let norm = Norm::rms(config.number_or("rms_norm_eps", 1e-6)?);
    for (_, attention) in attentions(&mut spec) {
        attention.qk_norm = Some(QkNorm { norm, scope: QkScope::Head });
    }
    Ok(spec)
}
