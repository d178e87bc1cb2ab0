//! Qwen 1.5 and Qwen 2 with experts (arXiv 2407.10671): small routed experts and a gated one for every token.

use super::layer_kinds::{attentions, feed_forwards, set_windows};
use super::{Family, llama};
use crate::names::{Names, Rule, bare, same};
use crate::spec::{Experts, FeedForwardKind, Mlp, Spec};
use crate::{Config, Result};

/// The family.
pub static QWEN2_MOE: Family = Family {
    name: "qwen2_moe",
    model_types: &["qwen2_moe"],
    architectures: &["Qwen2MoeForCausalLM", "Qwen2MoeModel"],
    spec,
    names: NAMES,
};

/// Names of Qwen's mixtures.
pub const NAMES: Names = Names {
    rules: &[llama::OUTSIDE, llama::ATTENTION, llama::NORMS, llama::GATED_MLP, EXPERTS, STACKED],
    ..llama::NAMES
};

const EXPERTS: &[Rule] = &[
    same("{p}layers.{i}.mlp.gate", &["layers.{i}.feed_forward.router"]),
    same("{p}layers.{i}.mlp.experts.{e}.gate_proj", &["layers.{i}.feed_forward.experts.{e}.gate"]),
    same("{p}layers.{i}.mlp.experts.{e}.up_proj", &["layers.{i}.feed_forward.experts.{e}.up"]),
    same("{p}layers.{i}.mlp.experts.{e}.down_proj", &["layers.{i}.feed_forward.experts.{e}.down"]),
    same("{p}layers.{i}.mlp.shared_expert.gate_proj", &["layers.{i}.feed_forward.shared.gate"]),
    same("{p}layers.{i}.mlp.shared_expert.up_proj", &["layers.{i}.feed_forward.shared.up"]),
    same("{p}layers.{i}.mlp.shared_expert.down_proj", &["layers.{i}.feed_forward.shared.down"]),
    same("{p}layers.{i}.mlp.shared_expert_gate", &["layers.{i}.feed_forward.shared_gate"]),
];

/// All experts of a layer in one tensor, as newer checkpoints may store them.
pub const STACKED: &[Rule] = &[
    bare(
        "{p}layers.{i}.mlp.experts.gate_up_proj",
        &["layers.{i}.feed_forward.experts.{e}.gate", "layers.{i}.feed_forward.experts.{e}.up"],
    ),
    bare("{p}layers.{i}.mlp.experts.down_proj", &["layers.{i}.feed_forward.experts.{e}.down"]),
];

fn spec(config: &Config) -> Result<Spec> {
    let mut spec = Spec { family: QWEN2_MOE.name.to_string(), ..llama::decoder(config)? };
    let qkv_bias = config.flag_or("qkv_bias", true)?;
    for (_, attention) in attentions(&mut spec) {
        attention.qkv_bias = qkv_bias;
        attention.output_bias = false;
    }
    let shared = config.size("shared_expert_intermediate_size")?;
    mix(config, &mut spec, config.size("num_experts")?, Some(shared))?;
    if config.flag_or("use_sliding_window", false)? {
        let end = config.size_or("max_window_layers", 28)?;
        set_windows(config, &mut spec, |layer| layer % 2 == 0 && layer < end)?;
    }
    Ok(spec)
}

/// Replaces the feed-forward half by `count` experts, and a shared one of width `shared`, in the layers that
/// `decoder_sparse_step` and `mlp_only_layers` leave.
///
/// # Errors
/// If a key is missing or wrong.
pub fn mix(config: &Config, spec: &mut Spec, count: usize, shared: Option<usize>) -> Result<()> {
    let used = config.size("num_experts_per_tok")?;
    let width = config.size("moe_intermediate_size")?;
    let normalise = config.flag_or("norm_topk_prob", false)?;
    let dense = config.ids("mlp_only_layers")?;
    let step = config.size_or("decoder_sparse_step", 1)?;
    if step == 0 {
        return Err(config.error("decoder_sparse_step", "should not be 0"));
    }
    for (layer, feed_forward) in feed_forwards(spec) {
        if (layer + 1) % step != 0 || dense.iter().any(|&dense| dense as usize == layer) {
            continue;
        }
        if let FeedForwardKind::Dense(mlp) = &feed_forward.kind {
            let sized = |width: usize| Mlp { width, ..mlp.clone() };
            feed_forward.kind = FeedForwardKind::Experts(Experts {
                count,
                used,
                expert: sized(width),
                normalise,
                shared: shared.map(sized),
                shared_gate: shared.is_some(),
            });
        }
    }
    Ok(())
}
