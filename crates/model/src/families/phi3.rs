//! Phi-3 and Phi-4 (arXiv 2404.14219, 2412.08905): Llama with fused projections, LongRoPE and, in the small
//! Phi-4, partly rotated heads.

use super::layer_kinds::set_windows;
use super::{Family, llama};
use crate::names::{Names, Rule, same};
use crate::spec::Spec;
use crate::{Config, Result};

/// The family.
pub static PHI3: Family = Family {
    name: "phi3",
    model_types: &["phi3"],
    architectures: &["Phi3ForCausalLM", "Phi3Model"],
    spec,
    names: Names { rules: &[llama::OUTSIDE, FUSED, llama::NORMS], ..llama::NAMES },
};

const FUSED: &[Rule] = &[
    same(
        "{p}layers.{i}.self_attn.qkv_proj",
        &["layers.{i}.attention.query", "layers.{i}.attention.key", "layers.{i}.attention.value"],
    ),
    same("{p}layers.{i}.self_attn.o_proj", &["layers.{i}.attention.output"]),
    same("{p}layers.{i}.mlp.gate_up_proj", &["layers.{i}.feed_forward.gate", "layers.{i}.feed_forward.up"]),
    same("{p}layers.{i}.mlp.down_proj", &["layers.{i}.feed_forward.down"]),
];

fn spec(config: &Config) -> Result<Spec> {
    // Some early files call LongRoPE "yarn", whose frequencies would be quite others.
    if let Some(scaling) = config.object_opt("rope_scaling")? {
        let kind = scaling.text_opt("type")?.or(scaling.text_opt("rope_type")?);
        if kind == Some("yarn") {
            let what =
                "this family has no YaRN; if the file has short_factor and long_factor, write \"longrope\"";
            return Err(config.error("rope_scaling", what));
        }
    }
    let mut spec = Spec { family: PHI3.name.to_string(), ..llama::decoder(config)? };
    set_windows(config, &mut spec, |_| true)?;
    Ok(spec)
}
