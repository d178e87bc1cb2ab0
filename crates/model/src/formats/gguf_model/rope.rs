//! Rotary settings: GGUF's keys and small tensors, and `config.json`'s `rope_theta` and `rope_scaling`.
//!
//! GGUF has keys for linear scaling and YaRN, and tensors of divisors for what Llama 3 and Phi-3 do. Scaling by the
//! sequence's length (`dynamic`) has no place in it.

use serde_json::{Map, Value as Json, json};

use super::facts::Facts;
use crate::formats::gguf::{Metadata, Value};
use crate::rope::{Rope, RopeScaling};
use crate::spec::Spec;
use crate::{Error, Result};

/// How a family's `config.json` spells base and rotated share.
#[derive(Debug)]
pub(super) struct Spelling {
    /// Key of the base.
    pub theta: &'static str,
    /// Key of the rotated share of a head.
    pub share: &'static str,
    /// Whether the share is written even if it is the whole head, because leaving it out means less.
    pub always: bool,
}

/// Llama's spelling.
pub(super) const USUAL: Spelling =
    Spelling { theta: "rope_theta", share: "partial_rotary_factor", always: false };

/// Keys of `config.json` that describe rotation; they are replaced together.
pub(super) const CONFIG_KEYS: [&str; 8] = [
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "partial_rotary_factor",
    "rotary_pct",
    "rotary_emb_base",
    "rope_local_base_freq",
    "original_max_position_embeddings",
];

/// Reads the settings into a configuration.
pub(super) fn read(facts: &Facts<'_>, spelling: &Spelling, map: &mut Map<String, Json>) -> Result<()> {
    let theta = facts.get::<f32>("rope.freq_base")?.unwrap_or(10_000.0);
    map.insert(spelling.theta.to_string(), shortest(theta));
    let head_dim = facts.head_dim()?;
    let dims = facts.get::<usize>("rope.dimension_count")?.filter(|&dims| dims > 0).unwrap_or(head_dim);
    if dims != head_dim || spelling.always {
        map.insert(spelling.share.to_string(), json!(share(dims, head_dim)));
    }
    let scaling = scaling(facts, dims, theta, map)?;
    map.insert("rope_scaling".to_string(), scaling);
    Ok(())
}

/// The share of a head that gives `dims` again when it is multiplied and cut off.
fn share(dims: usize, head_dim: usize) -> f64 {
    let share = dims as f64 / head_dim.max(1) as f64;
    let cut = (head_dim as f32 * share as f32) as usize;
    if cut == dims { share } else { (dims as f64 + 0.5) / head_dim as f64 }
}

/// The `rope_scaling` object, or null.
fn scaling(facts: &Facts<'_>, dims: usize, theta: f32, map: &mut Map<String, Json>) -> Result<Json> {
    let context = facts.get::<usize>("context_length")?.unwrap_or(0);
    let original = facts.get::<usize>("rope.scaling.original_context_length")?.unwrap_or(context);
    let attention = facts.get::<f32>("rope.scaling.attn_factor")?.unwrap_or(1.0);
    let given = facts.get::<f32>("rope.scaling.factor")?.or(facts.get::<f32>("rope.scale_linear")?);
    let factor = given.filter(|&factor| factor != 0.0).unwrap_or(1.0);
    let list = |name: &str| {
        let Some(list) = facts.vectors.get(name) else { return Ok(None) };
        if list.len() == dims / 2 {
            return Ok(Some(list));
        }
        let what = format!("has {} values, but {dims} dimensions are rotated", list.len());
        Err(Error::tensor(facts.path, name, what))
    };
    if let (Some(long), Some(short)) = (list("rope_factors_long.weight")?, list("rope_factors_short.weight")?)
    {
        let numbers = |list: &[f32]| list.iter().map(|&number| shortest(number)).collect::<Vec<_>>();
        map.insert("original_max_position_embeddings".to_string(), json!(original));
        let mut scaling =
            json!({"type": "longrope", "short_factor": numbers(short), "long_factor": numbers(long)});
        if (attention - longrope_attention(context, original)).abs() > 1e-6 {
            scaling["attention_factor"] = shortest(attention);
        }
        return Ok(scaling);
    }
    if let Some(divisors) = list("rope_freqs.weight")? {
        return Ok(divided(divisors, dims, theta));
    }
    match facts.get::<&str>("rope.scaling.type")?.unwrap_or("linear") {
        "linear" if factor != 1.0 => Ok(json!({"rope_type": "linear", "factor": shortest(factor)})),
        "yarn" if factor != 1.0 => {
            let mut scaling = json!({
                "rope_type": "yarn",
                "factor": shortest(factor),
                "original_max_position_embeddings": original,
            });
            let given = facts.get::<f32>("rope.scaling.yarn_attn_factor")?;
            let logarithm = facts.get::<f32>("rope.scaling.yarn_log_multiplier")?.filter(|&it| it != 0.0);
            let total = match (given, logarithm) {
                (Some(given), _) => given,
                (None, Some(weight)) => yarn_attention(factor, 1.0) / yarn_attention(factor, weight),
                (None, None) => yarn_attention(factor, 1.0),
            } * attention;
            if (total - yarn_attention(factor, 1.0)).abs() > 1e-6 {
                scaling["attention_factor"] = shortest(total);
            }
            for (suffix, key) in YARN_BETAS {
                if let Some(beta) = facts.get::<f32>(suffix)? {
                    scaling[key] = shortest(beta);
                }
            }
            Ok(scaling)
        }
        _ => Ok(Json::Null),
    }
}

/// YaRN's ramp, in GGUF and in `config.json`.
const YARN_BETAS: [(&str, &str); 2] =
    [("rope.scaling.yarn_beta_fast", "beta_fast"), ("rope.scaling.yarn_beta_slow", "beta_slow")];

/// YaRN's usual factor on cosine and sine.
fn yarn_attention(factor: f32, weight: f32) -> f32 {
    if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 }
}

/// LongRoPE's usual factor on cosine and sine.
fn longrope_attention(context: usize, original: usize) -> f32 {
    let factor = context as f32 / original.max(1) as f32;
    if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / (original.max(2) as f32).ln()).sqrt() }
}

/// What divisors stand for: Llama 3's published settings if they give these numbers, else the list itself.
fn divided(divisors: &[f32], dims: usize, theta: f32) -> Json {
    let factor = divisors.iter().copied().fold(1.0, f32::max).round();
    let scaling = RopeScaling::Llama3 { factor, low_freq_factor: 1.0, high_freq_factor: 4.0, original: 8192 };
    let published = Rope { dims, theta, scaling }.divisors().unwrap_or_default();
    let near = |(a, b): (&f32, &f32)| (a / b - 1.0).abs() < 1e-5;
    if published.len() == divisors.len() && published.iter().zip(divisors).all(near) {
        return json!({
            "rope_type": "llama3",
            "factor": shortest(factor),
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        });
    }
    let list: Vec<Json> = divisors.iter().map(|&number| shortest(number)).collect();
    json!({"rope_type": "ounce_divisors", "divisors": list})
}

/// Writes the settings of the first layer that rotates without a window, or of the first that rotates; gives the
/// small tensors that belong to them.
pub(super) fn write(spec: &Spec, arch: &str, metadata: &mut Metadata) -> Vec<(&'static str, Vec<f32>)> {
    let attentions = || spec.layers.iter().filter_map(|layer| layer.attention.as_ref());
    let wide = attentions().filter(|attention| attention.window.is_none()).find_map(|it| it.rope.as_ref());
    let Some(rope) = wide.or_else(|| attentions().find_map(|it| it.rope.as_ref())) else { return Vec::new() };
    let mut set = |suffix: &str, value: Value| metadata.insert(format!("{arch}.{suffix}"), value);
    set("rope.dimension_count", Value::U32(rope.dims as u32));
    set("rope.freq_base", Value::F32(rope.theta));
    match &rope.scaling {
        RopeScaling::None | RopeScaling::Dynamic { .. } => Vec::new(),
        RopeScaling::Linear { factor } => {
            set("rope.scaling.type", "linear".into());
            set("rope.scaling.factor", Value::F32(*factor));
            Vec::new()
        }
        RopeScaling::Yarn { factor, original, beta_fast, beta_slow, attention_factor, .. } => {
            set("rope.scaling.type", "yarn".into());
            set("rope.scaling.factor", Value::F32(*factor));
            set("rope.scaling.original_context_length", Value::U32(*original as u32));
            for ((suffix, _), (beta, usual)) in YARN_BETAS.iter().zip([(beta_fast, 32.0), (beta_slow, 1.0)]) {
                if *beta != usual {
                    set(suffix, Value::F32(*beta));
                }
            }
            let attention = attention_factor / yarn_attention(*factor, 1.0);
            if (attention - 1.0).abs() > 1e-6 {
                set("rope.scaling.attn_factor", Value::F32(attention));
            }
            Vec::new()
        }
        RopeScaling::LongRope { short, long, original, attention_factor } => {
            set("rope.scaling.original_context_length", Value::U32(*original as u32));
            set("rope.scaling.attn_factor", Value::F32(*attention_factor));
            vec![("rope_factors_long.weight", long.clone()), ("rope_factors_short.weight", short.clone())]
        }
        RopeScaling::Llama3 { .. } | RopeScaling::Divisors { .. } => {
            rope.divisors().map(|divisors| ("rope_freqs.weight", divisors)).into_iter().collect()
        }
    }
}

/// A number with the digits of an f32.
pub(super) fn shortest(number: f32) -> Json {
    super::keys::to_json(&Value::F32(number)).unwrap_or(Json::Null)
}
