//! Granite 3 (IBM): Llama with four factors, on the embedding, the scores, each half's result and the logits. With them
//! one learning rate serves many widths and depths, which is also MiniCPM's recipe (arXiv 2404.06395).

use super::layer_kinds::attentions;
use super::{Family, llama};
use crate::spec::{Embedding, Spec};
use crate::{Config, Result};

/// The family.
pub static GRANITE: Family = Family {
    name: "granite",
    model_types: &["granite"],
    architectures: &["GraniteForCausalLM", "GraniteModel"],
    spec,
    names: llama::NAMES,
};

fn spec(config: &Config) -> Result<Spec> {
    let mut spec = Spec { family: GRANITE.name.to_string(), ..llama::decoder(config)? };
    let positive = |key: &str| match config.number_or(key, 1.0)? {
        factor if factor > 0.0 => Ok(factor),
        factor => Err(config.error(key, format!("should be positive, found {factor}"))),
    };
    spec.embedding = Embedding { scale: positive("embedding_multiplier")?, ..spec.embedding };
    let scale = positive("attention_multiplier")?;
    for (_, attention) in attentions(&mut spec) {
        attention.scale = scale;
    }
    let residual_scale = positive("residual_multiplier")?;
    spec.layers.iter_mut().for_each(|layer| layer.residual_scale = residual_scale);
    if let Some(head) = &mut spec.head {
        head.scale = positive("logits_scaling")?.recip();
    }
    Ok(spec)
}
