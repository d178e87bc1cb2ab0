//! StableLM 3B and StableLM 2 (arXiv 2402.17834): Llama with LayerNorm and partly rotated heads; the 12B
//! adds both halves to the same normed input and norms every head with weights of its own.

use serde_json::json;

use super::layer_kinds::{attentions, feed_forwards};
use super::{Family, llama};
use crate::names::{Names, Rule, same};
use crate::spec::{Norm, Norms, QkNorm, QkScope, Residual, Spec};
use crate::{Config, Result};

/// The family.
pub static STABLELM: Family = Family {
    name: "stablelm",
    model_types: &["stablelm"],
    architectures: &["StableLmForCausalLM", "StableLmModel"],
    spec,
    names: Names {
        rules: &[HEAD_NORMS, llama::OUTSIDE, llama::ATTENTION, llama::NORMS, llama::GATED_MLP],
        ..llama::NAMES
    },
};

const HEAD_NORMS: &[Rule] = &[
    same("{p}layers.{i}.self_attn.q_layernorm.norms.{e}", &["layers.{i}.attention.query_norm.{e}"]),
    same("{p}layers.{i}.self_attn.k_layernorm.norms.{e}", &["layers.{i}.attention.key_norm.{e}"]),
];

fn spec(config: &Config) -> Result<Spec> {
    let config = &config.with_defaults([("partial_rotary_factor", json!(0.25))]);
    let norm = Norm::layer(config.number_or("layer_norm_eps", 1e-5)?);
    let qkv_bias = config.flag_or("use_qkv_bias", false)?;
    let head_norm = config.flag_or("qk_layernorm", false)?;
    let shared = config.flag_or("use_parallel_residual", false)?;
    let mut spec =
        Spec { family: STABLELM.name.to_string(), final_norm: Some(norm), ..llama::decoder(config)? };
    for (_, attention) in attentions(&mut spec) {
        attention.norms = Norms::before(norm);
        attention.qkv_bias = qkv_bias;
        attention.output_bias = false;
        attention.qk_norm =
            head_norm.then_some(QkNorm { norm: Norm { bias: false, ..norm }, scope: QkScope::EachHead });
    }
    for (_, feed_forward) in feed_forwards(&mut spec) {
        feed_forward.norms = if shared { Norms::default() } else { Norms::before(norm) };
    }
    if shared {
        spec.layers.iter_mut().for_each(|layer| layer.residual = Residual::ParallelSharedNorm);
    }
    Ok(spec)
}
