//! sentence-transformers' `modules.json`: what happens to an encoder's hidden states.

use std::path::Path;

use serde_json::Value;

use crate::spec::{Pooling, PoolingMode};
use crate::{Config, Error, Result};

/// Reads the pooling of a folder; none if it is no sentence encoder. `read` gives a file's content by its path
/// within the folder.
pub(super) fn read_pooling(
    folder: &Path,
    read: &dyn Fn(&str) -> Result<Option<Vec<u8>>>,
) -> Result<Option<Pooling>> {
    let Some(text) = read("modules.json")? else { return Ok(None) };
    let path = folder.join("modules.json");
    let modules: Value = serde_json::from_slice(&text)
        .map_err(|error| Error::format(&path, format!("is no valid JSON ({error}); fetch it again")))?;
    let modules = modules.as_array().ok_or_else(|| Error::format(&path, "should hold a list of modules"))?;
    let (mut mode, mut normalise) = (PoolingMode::Mean, false);
    for module in modules {
        let kind = module.get("type").and_then(Value::as_str).unwrap_or_default();
        let place = module.get("path").and_then(Value::as_str).unwrap_or_default();
        match kind.rsplit('.').next().unwrap_or_default() {
            "Transformer" => {}
            "Normalize" => normalise = true,
            "Pooling" => {
                let name =
                    if place.is_empty() { "config.json".to_string() } else { format!("{place}/config.json") };
                let path = folder.join(&name);
                let text = read(&name)?
                    .ok_or_else(|| Error::format(&path, "is missing; it says how the encoder pools"))?;
                mode = pooling_mode(&Config::parse(&path, &text)?)?;
            }
            other => {
                let what = format!(
                    "the module {other} is none that ounce computes (Transformer, Pooling, Normalize)"
                );
                return Err(Error::format(path, what));
            }
        }
    }
    Ok(Some(Pooling { mode, normalise }))
}

/// The mode in either spelling: one `pooling_mode` string, or a switch for each.
fn pooling_mode(config: &Config) -> Result<PoolingMode> {
    let unknown = |name: &str| config.error("pooling_mode", format!("{name} is none that ounce computes"));
    if let Some(name) = config.text_opt("pooling_mode")? {
        return match name {
            "cls" => Ok(PoolingMode::Cls),
            "mean" => Ok(PoolingMode::Mean),
            "max" => Ok(PoolingMode::Max),
            "lasttoken" => Ok(PoolingMode::Last),
            other => Err(unknown(other)),
        };
    }
    let switches = [
        ("pooling_mode_cls_token", Some(PoolingMode::Cls)),
        ("pooling_mode_mean_tokens", Some(PoolingMode::Mean)),
        ("pooling_mode_max_tokens", Some(PoolingMode::Max)),
        ("pooling_mode_lasttoken", Some(PoolingMode::Last)),
        ("pooling_mode_mean_sqrt_len_tokens", None),
        ("pooling_mode_weightedmean_tokens", None),
    ];
    let mut chosen = Vec::new();
    for (key, mode) in switches {
        if config.flag_or(key, false)? {
            chosen.push(mode.ok_or_else(|| unknown(key))?);
        }
    }
    match chosen.as_slice() {
        [mode] => Ok(*mode),
        [] => Err(unknown("no mode")),
        _ => Err(unknown("several modes at once")),
    }
}
