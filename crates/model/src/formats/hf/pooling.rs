//! sentence-transformers' `modules.json`: what happens to an encoder's hidden states.

use std::path::Path;

use serde_json::Value;

use super::files::stays_inside;
use crate::spec::{Pooling, PoolingMode};
use crate::{Config, Error, Result};

/// What `modules.json` says: the pooling, and the files its modules keep in folders of their own.
pub(super) struct Modules {
    pub pooling: Pooling,
    pub files: Vec<String>,
}

/// Reads the pooling of a folder; none if it is no sentence encoder. `read` gives a file's content by its path
/// within the folder.
pub(super) fn read_modules(
    folder: &Path,
    read: &dyn Fn(&str) -> Result<Option<Vec<u8>>>,
) -> Result<Option<Modules>> {
    let Some(text) = read("modules.json")? else { return Ok(None) };
    let path = folder.join("modules.json");
    let modules: Value = serde_json::from_slice(&text)
        .map_err(|error| Error::format(&path, format!("is no valid JSON ({error}); fetch it again")))?;
    let modules = modules
        .as_array()
        .ok_or_else(|| Error::format(&path, "should hold a list of modules; fetch the file again"))?;
    let (mut mode, mut normalise, mut files) = (None, false, Vec::new());
    for (index, module) in modules.iter().enumerate() {
        let text = |key: &str| {
            module.get(key).and_then(Value::as_str).ok_or_else(|| {
                Error::format(&path, format!("module {index} has no {key}; fetch the file again"))
            })
        };
        match text("type")?.rsplit('.').next().unwrap_or_default() {
            "Transformer" => {}
            "Normalize" => normalise = true,
            "Pooling" => {
                let place = text("path")?;
                if !place.is_empty() && !stays_inside(place) {
                    let what =
                        format!("the path {place:?} of module {index} leads out of the model's folder");
                    return Err(Error::format(&path, what));
                }
                let name =
                    if place.is_empty() { "config.json".to_string() } else { format!("{place}/config.json") };
                let path = folder.join(&name);
                let text = read(&name)?.ok_or_else(|| {
                    Error::format(&path, "is missing; it says how the encoder pools, fetch it")
                })?;
                mode = Some(pooling_mode(&Config::parse(&path, &text)?)?);
                files.push(name);
            }
            other => {
                let what = format!(
                    "module {index}, {other}, is none that ounce computes (Transformer, Pooling, Normalize)"
                );
                return Err(Error::format(path, what));
            }
        }
    }
    let mode = mode.ok_or_else(|| {
        Error::format(&path, "lists no Pooling module, so it does not say how a text becomes one vector")
    })?;
    Ok(Some(Modules { pooling: Pooling { mode, normalise }, files }))
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
