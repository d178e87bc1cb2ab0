//! Reading `config.json`: typed access to its keys, with errors that name the file and the key.
//!
//! Key names are Hugging Face's throughout; GGUF metadata is translated to them by [`crate::families`], so
//! that a family is described once.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::{Error, Result};

/// The keys of a `config.json` and where they came from.
#[derive(Debug, Clone)]
pub struct Config {
    path: PathBuf,
    map: Map<String, Value>,
}

/// Sizes above this are damage, not models; it keeps products of two sizes within 64 bits.
const MAX_SIZE: u64 = 1 << 31;

impl Config {
    /// Wraps a JSON object; `path` is used in messages.
    pub fn new(path: impl AsRef<Path>, map: Map<String, Value>) -> Config {
        Config { path: path.as_ref().to_path_buf(), map }
    }

    /// Parses the text of a `config.json`.
    pub fn parse(path: impl AsRef<Path>, text: &[u8]) -> Result<Config> {
        match serde_json::from_slice(text) {
            Ok(Value::Object(map)) => Ok(Config::new(path, map)),
            Ok(_) => Err(Error::format(path, "should hold a JSON object; fetch the file again")),
            Err(error) => Err(Error::format(path, format!("is no valid JSON ({error}); fetch it again"))),
        }
    }

    /// Where the keys came from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All keys, unknown ones included.
    pub fn map(&self) -> &Map<String, Value> {
        &self.map
    }

    /// All keys, to change them.
    pub fn map_mut(&mut self) -> &mut Map<String, Value> {
        &mut self.map
    }

    /// The same keys, with `defaults` for those that are left out; a key that is `null` stays `null`, which
    /// families use to switch a part off.
    pub fn with_defaults<const N: usize>(&self, defaults: [(&str, Value); N]) -> Config {
        let mut config = self.clone();
        for (key, value) in defaults {
            config.map.entry(key).or_insert(value);
        }
        config
    }

    /// An error about one key.
    pub fn error(&self, key: &str, what: impl std::fmt::Display) -> Error {
        Error::format(&self.path, format!("key {key}: {what}"))
    }

    /// The value of a key; JSON `null` counts as absent.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn need<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| self.error(key, "is missing; the model can't be built without it"))
    }

    /// A size, if given.
    pub fn size_opt(&self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_u64() {
            Some(size) if size <= MAX_SIZE => Ok(Some(size as usize)),
            _ => {
                let found = shown(value);
                Err(self.error(key, format!("should be a whole number from 0 to {MAX_SIZE}, found {found}")))
            }
        }
    }

    /// A size that must be there and not be 0.
    pub fn size(&self, key: &str) -> Result<usize> {
        let size = self.need(key, self.size_opt(key)?)?;
        if size == 0 { Err(self.error(key, "should not be 0")) } else { Ok(size) }
    }

    /// A size with a default.
    pub fn size_or(&self, key: &str, default: usize) -> Result<usize> {
        Ok(self.size_opt(key)?.unwrap_or(default))
    }

    /// A number, if given.
    pub fn number_opt(&self, key: &str) -> Result<Option<f32>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_f64().map(|number| number as f32) {
            Some(number) if number.is_finite() => Ok(Some(number)),
            _ => Err(self.error(key, format!("should be a finite number, found {}", shown(value)))),
        }
    }

    /// A number that must be there.
    pub fn number(&self, key: &str) -> Result<f32> {
        self.need(key, self.number_opt(key)?)
    }

    /// A number with a default.
    pub fn number_or(&self, key: &str, default: f32) -> Result<f32> {
        Ok(self.number_opt(key)?.unwrap_or(default))
    }

    /// A switch with a default.
    pub fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(value) => Err(self.error(key, format!("should be true or false, found {}", shown(value)))),
        }
    }

    /// A string, if given.
    pub fn text_opt(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(value) => Err(self.error(key, format!("should be a string, found {}", shown(value)))),
        }
    }

    /// A nested object, if given; its path in messages is the file's.
    pub fn object_opt(&self, key: &str) -> Result<Option<Config>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Config::new(&self.path, map.clone()))),
            Some(value) => Err(self.error(key, format!("should be an object, found {}", shown(value)))),
        }
    }

    /// A list of numbers, if given.
    pub fn numbers_opt(&self, key: &str) -> Result<Option<Vec<f32>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let numbers: Option<Vec<f32>> = value
            .as_array()
            .and_then(|list| list.iter().map(|item| item.as_f64().map(|number| number as f32)).collect());
        numbers
            .filter(|numbers| numbers.iter().all(|number| number.is_finite()))
            .map(Some)
            .ok_or_else(|| self.error(key, "should be a list of finite numbers"))
    }

    /// A list of strings, if given.
    pub fn texts_opt(&self, key: &str) -> Result<Option<Vec<&str>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let texts: Option<Vec<&str>> =
            value.as_array().and_then(|list| list.iter().map(Value::as_str).collect());
        texts.map(Some).ok_or_else(|| self.error(key, "should be a list of strings"))
    }

    /// A token id or a list of them; absent gives an empty list.
    pub fn ids(&self, key: &str) -> Result<Vec<u32>> {
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids = match self.get(key) {
            None => Some(Vec::new()),
            Some(Value::Array(list)) => list.iter().map(id).collect(),
            Some(value) => id(value).map(|id| vec![id]),
        };
        ids.ok_or_else(|| self.error(key, "should be a token id or a list of token ids"))
    }
}

/// A value for a message, cut short if it is long.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::Array(list) if list.len() > 8 => return format!("a list of {} items", list.len()),
        Value::Object(map) if map.len() > 8 => return format!("an object of {} keys", map.len()),
        _ => value.to_string(),
    };
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse("config.json", text.as_bytes()).unwrap()
    }

    #[test]
    fn wrong_values_are_named_with_their_key_and_never_printed_at_length() {
        let long = format!(r#"{{"n": {:?}, "list": [{}]}}"#, "x".repeat(10_000), vec!["1"; 10_000].join(","));
        let config = config(&long);
        for error in [config.size_opt("n").unwrap_err(), config.flag_or("list", true).unwrap_err()] {
            let message = error.to_string();
            assert!(message.contains("config.json: key ") && message.len() < 200, "{message}");
        }
    }

    #[test]
    fn null_is_absent_and_numbers_are_checked() {
        let config = config(r#"{"none": null, "big": 1e300, "list": [1, 1e300], "size": 16, "half": 0.5}"#);
        assert_eq!(config.size_opt("none").unwrap(), None);
        assert_eq!(config.size("size").unwrap(), 16);
        assert_eq!(config.number("half").unwrap(), 0.5);
        assert!(config.number("big").unwrap_err().to_string().contains("key big: should be a finite number"));
        assert!(config.numbers_opt("list").unwrap_err().to_string().contains("key list"));
        assert!(config.size("half").unwrap_err().to_string().contains("whole number"));
        assert!(config.size("none").unwrap_err().to_string().contains("is missing"));
    }
}
