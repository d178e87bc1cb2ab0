//! The configuration of a GGUF file: what its own keys say, joined with the original `config.json` if it is embedded.

use serde_json::{Map, Value as Json};

use super::draft::Draft;
use super::facts::Facts;
use super::rope;
use crate::families;
use crate::formats::gguf::Value;
use crate::{Config, Result};

/// Key of the embedded `config.json`.
pub(super) const CONFIG: &str = "ounce.config";

/// DistilBERT's words for BERT's keys.
const DISTILBERT: [(&str, &str); 4] = [
    ("hidden_size", "dim"),
    ("num_hidden_layers", "n_layers"),
    ("num_attention_heads", "n_heads"),
    ("intermediate_size", "hidden_dim"),
];

/// The configuration of a file.
///
/// # Errors
/// If its own keys are wrong; an unusable embedded configuration is only passed over.
pub(super) fn of(facts: &Facts<'_>) -> Result<Config> {
    let plain = facts.config()?;
    Ok(match original(facts)? {
        Some((original, expected)) => Config::new(facts.path, joined(original, &plain, &expected)),
        None => Config::new(facts.path, plain),
    })
}

type Keys = Map<String, Json>;

/// The embedded configuration, and what the file's own keys would say if nothing had been changed since.
fn original(facts: &Facts<'_>) -> Result<Option<(Keys, Keys)>> {
    let Some(Value::String(text)) = facts.metadata.get(CONFIG) else { return Ok(None) };
    let usable = || -> Result<(Keys, Keys)> {
        let config = Config::parse(facts.path, text.as_bytes())?;
        let (_, spec) = families::spec_of(&config)?;
        let draft = Draft::of(&spec, &config)?;
        if draft.arch.name != facts.arch.name {
            return Err(
                config.error("model_type", format!("is no model of architecture {}", facts.arch.name))
            );
        }
        let expected = draft.facts(facts.path).config()?;
        Ok((config.map().clone(), expected))
    };
    match usable() {
        Ok(found) => Ok(Some(found)),
        Err(error) => {
            tracing::warn!("the embedded {CONFIG} is not used: {error}");
            Ok(None)
        }
    }
}

/// The original with every key of the file that says something else than expected.
fn joined(mut original: Keys, file: &Keys, expected: &Keys) -> Keys {
    let distilled = original.get("model_type").is_some_and(|it| it == "distilbert");
    let spelled = |key: &str| {
        let renamed = DISTILBERT.iter().find(|(usual, _)| distilled && *usual == key);
        renamed.map_or(key.to_string(), |(_, theirs)| theirs.to_string())
    };
    let mut rotation_changed = false;
    for key in file.keys().chain(expected.keys().filter(|key| !file.contains_key(*key))) {
        if file.get(key) == expected.get(key) {
            continue;
        }
        rotation_changed |= rope::CONFIG_KEYS.contains(&key.as_str());
        match file.get(key) {
            Some(value) => original.insert(spelled(key), value.clone()),
            None => original.remove(&spelled(key)),
        };
    }
    if rotation_changed {
        for key in rope::CONFIG_KEYS {
            original.remove(key);
            if let Some(value) = file.get(key) {
                original.insert(key.to_string(), value.clone());
            }
        }
    }
    original
}
