//! Qwen 3 with experts (arXiv 2505.09388): Qwen 3 attention, routed experts, none shared.

use super::layer_kinds::set_windows;
use super::{Family, qwen2_moe, qwen3};
use crate::spec::Spec;
use crate::{Config, Result};

/// The family.
pub static QWEN3_MOE: Family = Family {
    name: "qwen3_moe",
    model_types: &["qwen3_moe"],
    architectures: &["Qwen3MoeForCausalLM", "Qwen3MoeModel"],
    spec,
    names: qwen2_moe::NAMES,
};

fn spec(config: &Config) -> Result<Spec> {
    let mut spec = Spec { family: QWEN3_MOE.name.to_string(), ..qwen3::decoder(config)? };
    let count = match config.size_opt("num_experts")? {
        Some(count) => count,
        None => config.size("num_local_experts")?,
    };
    qwen2_moe::mix(config, &mut spec, count, None)?;
    if config.flag_or("use_sliding_window", false)? {
        set_windows(config, &mut spec, |_| true)?;
    }
    Ok(spec)
}
