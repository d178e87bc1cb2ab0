//! Gemma 3, the text model (arXiv 2503.19786): Gemma 2 with head norms instead of soft caps, and two rotary
//! bases: one for windowed layers, another (with scaling) for the layers that see everything.

use serde_json::json;

use super::layer_kinds::{attentions, windowed_layers};
use super::rope_config::rope;
use super::{Family, gemma2};
use crate::rope::Rope;
use crate::spec::{Norm, QkNorm, QkScope, Spec};
use crate::{Config, Result};

/// The family.
pub static GEMMA3: Family = Family {
    name: "gemma3",
    model_types: &["gemma3_text"],
    architectures: &["Gemma3ForCausalLM", "Gemma3TextModel"],
    spec,
    names: gemma2::NAMES,
};

fn spec(config: &Config) -> Result<Spec> {
    let config = &config.with_defaults([("sliding_window", json!(4096)), ("head_dim", json!(256))]);
    let mut spec = Spec { family: GEMMA3.name.to_string(), ..gemma2::decoder(config)? };
    let period = match config.size_opt("sliding_window_pattern")? {
        Some(period) => period,
        None => config.size_or("_sliding_window_pattern", 6)?,
    };
    if period == 0 {
        return Err(config.error("sliding_window_pattern", "should not be 0"));
    }
    let windowed = windowed_layers(config, spec.layers.len(), |layer| (layer + 1) % period != 0)?;
    let window = config.size("sliding_window")?;
    let head_dim = config.size("head_dim")?;
    let wide = rope(config, head_dim, 1_000_000.0, Some("full_attention"))?;
    let narrow = if config.get("rope_parameters").is_some() {
        rope(config, head_dim, 10_000.0, Some("sliding_attention"))?
    } else {
        Rope::plain(head_dim, config.number_or("rope_local_base_freq", 10_000.0)?)
    };
    let norm = Norm { plus_one: true, ..Norm::rms(config.number_or("rms_norm_eps", 1e-6)?) };
    for (layer, attention) in attentions(&mut spec) {
        attention.qk_norm = Some(QkNorm { norm, scope: QkScope::Head });
        attention.window = windowed[layer].then_some(window);
        attention.rope = Some(if windowed[layer] { narrow.clone() } else { wide.clone() });
    }
    Ok(spec)
}
