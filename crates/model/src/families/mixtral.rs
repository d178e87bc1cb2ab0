//! Mixtral (arXiv 2401.04088): Mistral with a mixture of experts in every layer.

use serde_json::json;

use super::layer_kinds::{feed_forwards, set_windows};
use super::{Family, llama, qwen2_moe};
use crate::names::{Names, Rule, same};
use crate::spec::{Experts, FeedForwardKind, Spec};
use crate::{Config, Result};

/// The family.
pub static MIXTRAL: Family = Family {
    name: "mixtral",
    model_types: &["mixtral"],
    architectures: &["MixtralForCausalLM", "MixtralModel"],
    spec,
    names: Names {
        rules: &[llama::OUTSIDE, llama::ATTENTION, llama::NORMS, EXPERTS, qwen2_moe::STACKED],
        ..llama::NAMES
    },
};

const EXPERTS: &[Rule] = &[
    same("{p}layers.{i}.block_sparse_moe.gate", &["layers.{i}.feed_forward.router"]),
    same("{p}layers.{i}.mlp.gate", &["layers.{i}.feed_forward.router"]),
    same("{p}layers.{i}.block_sparse_moe.experts.{e}.w1", &["layers.{i}.feed_forward.experts.{e}.gate"]),
    same("{p}layers.{i}.block_sparse_moe.experts.{e}.w3", &["layers.{i}.feed_forward.experts.{e}.up"]),
    same("{p}layers.{i}.block_sparse_moe.experts.{e}.w2", &["layers.{i}.feed_forward.experts.{e}.down"]),
];

fn spec(config: &Config) -> Result<Spec> {
    let config = &config.with_defaults([("rms_norm_eps", json!(1e-5)), ("rope_theta", json!(1_000_000.0))]);
    let mut spec = Spec { family: MIXTRAL.name.to_string(), ..llama::decoder(config)? };
    let count = config.size("num_local_experts")?;
    let used = config.size_or("num_experts_per_tok", 2)?;
    for (_, feed_forward) in feed_forwards(&mut spec) {
        if let FeedForwardKind::Dense(expert) = &feed_forward.kind {
            let expert = expert.clone();
            feed_forward.kind = FeedForwardKind::Experts(Experts {
                count,
                used,
                expert,
                normalise: true,
                shared: None,
                shared_gate: false,
            });
        }
    }
    set_windows(config, &mut spec, |_| true)?;
    Ok(spec)
}
