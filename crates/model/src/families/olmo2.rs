//! OLMo 2 (arXiv 2501.00656): norms after each half instead of before it, and over whole queries and keys.

use super::layer_kinds::{attentions, feed_forwards};
use super::{Family, llama};
use crate::names::{Names, Rule, same};
use crate::spec::{Norm, Norms, QkNorm, QkScope, Spec};
use crate::{Config, Result};

/// The family.
pub static OLMO2: Family = Family {
    name: "olmo2",
    model_types: &["olmo2"],
    architectures: &["Olmo2ForCausalLM", "Olmo2Model"],
    spec,
    names: Names { rules: &[llama::OUTSIDE, llama::ATTENTION, AFTER, llama::GATED_MLP], ..llama::NAMES },
};

const AFTER: &[Rule] = &[
    same("{p}layers.{i}.post_attention_layernorm", &["layers.{i}.attention.after_norm"]),
    same("{p}layers.{i}.post_feedforward_layernorm", &["layers.{i}.feed_forward.after_norm"]),
];

fn spec(config: &Config) -> Result<Spec> {
    let norm = Norm::rms(config.number_or("rms_norm_eps", 1e-5)?);
    let mut spec = Spec { family: OLMO2.name.to_string(), final_norm: Some(norm), ..llama::decoder(config)? };
    for (_, attention) in attentions(&mut spec) {
        attention.norms = Norms::after(norm);
        attention.qk_norm = Some(QkNorm { norm, scope: QkScope::Width });
    }
    for (_, feed_forward) in feed_forwards(&mut spec) {
        feed_forward.norms = Norms::after(norm);
    }
    Ok(spec)
}
