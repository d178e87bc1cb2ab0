//! The rotary settings of a `config.json`, in both spellings: `rope_theta` with `rope_scaling`, and the
//! newer `rope_parameters` object (which may nest one object per layer type).

use crate::rope::{Rope, RopeScaling};
use crate::{Config, Result};

/// Rotary dimensions above this are damage; every layer keeps its own list of divisors.
const MAX_DIMS: usize = 4096;

/// Reads the rotary embedding for heads of `head_dim`. `layer_type` picks the object of a nested
/// `rope_parameters`; `theta` is the family's default base.
///
/// # Errors
/// If a key is missing, wrong, or names a scaling that ounce does not know.
pub fn rope(config: &Config, head_dim: usize, theta: f32, layer_type: Option<&str>) -> Result<Rope> {
    let scaling = settings(config, layer_type)?;
    let theta = match scaling.number_opt("rope_theta")? {
        Some(theta) => theta,
        None => config.number_or("rope_theta", theta)?,
    };
    if !(theta > 0.0) {
        return Err(config.error("rope_theta", format!("should be positive, found {theta}")));
    }
    let share = match scaling.number_opt("partial_rotary_factor")? {
        Some(share) => share,
        None => match config.number_opt("partial_rotary_factor")? {
            Some(share) => share,
            None => config.number_or("rotary_pct", 1.0)?,
        },
    };
    if !(0.0..=1.0).contains(&share) {
        return Err(config.error("partial_rotary_factor", format!("should be within 0 and 1, found {share}")));
    }
    let dims = (head_dim as f32 * share) as usize;
    if dims > MAX_DIMS {
        let what = format!("{dims} rotary dimensions are more than the {MAX_DIMS} that ounce accepts");
        return Err(config.error("head_dim", what));
    }
    Ok(Rope { dims, theta, scaling: read_scaling(config, &scaling, dims)? })
}

/// The object that holds the scaling's keys; empty if there is none.
fn settings(config: &Config, layer_type: Option<&str>) -> Result<Config> {
    for key in ["rope_parameters", "rope_scaling"] {
        if let Some(object) = config.object_opt(key)? {
            if let Some(nested) =
                layer_type.map(|layer_type| object.object_opt(layer_type)).transpose()?.flatten()
            {
                return Ok(nested);
            }
            return Ok(object);
        }
    }
    Ok(Config::new(config.path(), serde_json::Map::new()))
}

fn read_scaling(config: &Config, scaling: &Config, dims: usize) -> Result<RopeScaling> {
    let kind = match scaling.text_opt("rope_type")? {
        Some(kind) => kind,
        None => scaling.text_opt("type")?.unwrap_or("default"),
    };
    let trained = |default: usize| -> Result<usize> {
        match config.size_opt("original_max_position_embeddings")? {
            Some(size) => Ok(size),
            None => scaling.size_or("original_max_position_embeddings", default),
        }
    };
    let context = || config.size("max_position_embeddings");
    let positive = |key: &str| -> Result<f32> {
        let number = scaling.number(key)?;
        if number > 0.0 { Ok(number) } else { Err(scaling.error(key, "should be positive")) }
    };
    Ok(match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: positive("factor")? },
        "dynamic" => RopeScaling::Dynamic { factor: positive("factor")?, original: context()?.max(1) },
        "llama3" => RopeScaling::Llama3 {
            factor: positive("factor")?,
            low_freq_factor: positive("low_freq_factor")?,
            high_freq_factor: positive("high_freq_factor")?,
            original: trained(context()?)?,
        },
        "yarn" => {
            let original = trained(context()?)?.max(1);
            let factor = match scaling.number_opt("factor")? {
                Some(factor) => factor,
                None => context()? as f32 / original as f32,
            };
            let mscale = |weight: f32| if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 };
            let attention_factor = match scaling.number_opt("attention_factor")? {
                Some(given) => given,
                None => match (scaling.number_opt("mscale")?, scaling.number_opt("mscale_all_dim")?) {
                    (Some(one), Some(all)) if one != 0.0 && all != 0.0 => mscale(one) / mscale(all),
                    _ => mscale(1.0),
                },
            };
            RopeScaling::Yarn {
                factor,
                original,
                beta_fast: scaling.number_or("beta_fast", 32.0)?,
                beta_slow: scaling.number_or("beta_slow", 1.0)?,
                attention_factor,
                truncate: scaling.flag_or("truncate", true)?,
            }
        }
        "longrope" | "su" => {
            let original = trained(context()?)?.max(2);
            let list = |key: &str| -> Result<Vec<f32>> {
                let list = scaling.numbers_opt(key)?.unwrap_or_default();
                if list.len() == dims / 2 && list.iter().all(|&divisor| divisor > 0.0) {
                    Ok(list)
                } else {
                    Err(scaling.error(key, format!("should list {} positive divisors", dims / 2)))
                }
            };
            let factor = match scaling.number_opt("factor")? {
                Some(factor) => factor,
                None => context()? as f32 / original as f32,
            };
            let default =
                if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / (original as f32).ln()).sqrt() };
            RopeScaling::LongRope {
                short: list("short_factor")?,
                long: list("long_factor")?,
                original,
                attention_factor: scaling.number_or("attention_factor", default)?,
            }
        }
        // ounce's own word, for GGUF files whose divisors are no published method's.
        "ounce_divisors" => {
            let divisors = scaling.numbers_opt("divisors")?.unwrap_or_default();
            if divisors.len() != dims / 2 || !divisors.iter().all(|&divisor| divisor > 0.0) {
                return Err(scaling.error("divisors", format!("should list {} positive divisors", dims / 2)));
            }
            RopeScaling::Divisors { divisors }
        }
        other => {
            return Err(config.error(
                "rope_scaling",
                format!(
                    "the kind \"{other}\" is none that ounce knows (linear, dynamic, yarn, llama3, longrope)"
                ),
            ));
        }
    })
}
