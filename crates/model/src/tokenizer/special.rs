//! Which ids begin, end and fill a text. The facts are spread over up to five files of a folder; here they are joined.

use std::collections::BTreeMap;

use serde_json::Value;

/// The ids with a meaning for the model, and the names templates know them by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialIds {
    /// Begins a text.
    pub bos: Option<u32>,
    /// Each of these ends a text or a turn; the tokenizer's own one comes first. Empty for encoders.
    pub eos: Vec<u32>,
    /// Fills up the shorter texts of a batch.
    pub pad: Option<u32>,
    /// Stands for what the vocabulary can't spell.
    pub unk: Option<u32>,
    /// Ends each text of an encoder's input (`[SEP]`).
    pub sep: Option<u32>,
    /// Begins an encoder's input (`[CLS]`).
    pub cls: Option<u32>,
    /// To be filled in by an encoder (`[MASK]`).
    pub mask: Option<u32>,
    /// The texts behind the names a chat template may use: `bos_token`, `eos_token`, …
    pub names: BTreeMap<String, String>,
}

/// The parsed files that say something about special ids; [`Value::Null`] for a missing one.
pub(crate) struct SpecialFiles<'a> {
    pub(crate) config: &'a Value,
    pub(crate) generation_config: &'a Value,
    pub(crate) tokenizer_config: &'a Value,
    pub(crate) special_tokens_map: &'a Value,
}

impl SpecialIds {
    /// Guesses from the names that are usual, for a vocabulary that comes alone.
    pub(crate) fn from_names(id: impl Fn(&str) -> Option<u32>) -> SpecialIds {
        let first = |names: &[&str]| names.iter().find_map(|name| id(name).map(|id| (id, name.to_string())));
        let mut special = SpecialIds::default();
        let mut name = |key: &str, found: Option<(u32, String)>| {
            let (id, text) = found?;
            special.names.insert(key.into(), text);
            Some(id)
        };
        let bos = name("bos_token", first(&["<s>", "<|begin_of_text|>", "<bos>", "<|startoftext|>"]));
        let eos = name("eos_token", first(&["</s>", "<|end_of_text|>", "<eos>", "<|endoftext|>"]));
        let pad = name("pad_token", first(&["<pad>", "[PAD]"]));
        let unk = name("unk_token", first(&["<unk>", "[UNK]"]));
        let sep = name("sep_token", first(&["[SEP]"]));
        let cls = name("cls_token", first(&["[CLS]"]));
        let mask = name("mask_token", first(&["[MASK]", "<mask>"]));
        SpecialIds { bos, eos: eos.into_iter().collect(), pad, unk, sep, cls, mask, ..special }
    }

    /// Joins what the files of a folder say. Where the tokenizer's files name a token, they count before the ids in
    /// `config.json`; end-of-text ids are collected from all of them.
    pub(crate) fn from_files(files: &SpecialFiles<'_>, id: impl Fn(&str) -> Option<u32>) -> SpecialIds {
        let names = token_names(&[files.special_tokens_map, files.tokenizer_config]);
        let said = |key: &str| {
            let declared =
                [files.special_tokens_map, files.tokenizer_config].iter().any(|f| f.get(key).is_some());
            (names.get(key).and_then(|text| id(text)), declared)
        };
        let one = |key: &str| match said(&format!("{key}_token")) {
            (Some(found), _) => Some(found),
            // Declared as null: the tokenizer says there is none, whatever config.json repeats from its template.
            (None, true) => None,
            (None, false) => config_ids(files.config, &format!("{key}_token_id")).first().copied(),
        };

        let mut eos: Vec<u32> = said("eos_token").0.into_iter().collect();
        let configured = config_ids(files.config, "eos_token_id");
        let generation = config_ids(files.generation_config, "eos_token_id");
        for found in configured.into_iter().chain(generation) {
            if !eos.contains(&found) {
                eos.push(found);
            }
        }
        let (bos, pad, unk) = (one("bos"), one("pad"), one("unk"));
        let (sep, cls, mask) = (one("sep"), one("cls"), one("mask"));
        SpecialIds { bos, eos, pad, unk, sep, cls, mask, names }
    }
}

/// The texts of the tokens that files name (`bos_token`, …); later files count before earlier ones.
pub(crate) fn token_names(files: &[&Value]) -> BTreeMap<String, String> {
    let entries = files.iter().filter_map(|file| file.as_object()).flatten();
    entries
        .filter(|(key, _)| key.ends_with("_token"))
        .filter_map(|(key, value)| Some((key.clone(), token_text(value)?.to_string())))
        .collect()
}

/// A token given as a text or as an object with its `content`.
pub(crate) fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// The ids under `key`: one number or a list, also inside the `text_config` of models for several media.
fn config_ids(config: &Value, key: &str) -> Vec<u32> {
    let value = config.get(key).or_else(|| config.get("text_config")?.get(key)).unwrap_or(&Value::Null);
    let as_id = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(list) => list.iter().filter_map(as_id).collect(),
        single => as_id(single).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn id(name: &str) -> Option<u32> {
        match name {
            "<s>" => Some(1),
            "<|im_end|>" => Some(7),
            _ => None,
        }
    }

    #[test]
    fn ends_are_collected_from_all_files() {
        let files = SpecialFiles {
            config: &json!({"eos_token_id": [2, 3], "bos_token_id": 9}),
            generation_config: &json!({"eos_token_id": [3, 7, 8]}),
            tokenizer_config: &json!({"eos_token": {"content": "<|im_end|>"}, "bos_token": null}),
            special_tokens_map: &Value::Null,
        };
        let special = SpecialIds::from_files(&files, id);
        assert_eq!(special.eos, [7, 2, 3, 8]);
        assert_eq!(special.bos, None, "the tokenizer says there is none");
        assert_eq!(special.names["eos_token"], "<|im_end|>");
    }

    #[test]
    fn config_json_counts_where_the_tokenizer_is_silent() {
        let files = SpecialFiles {
            config: &json!({"text_config": {"bos_token_id": 5, "pad_token_id": -1, "eos_token_id": 6}}),
            generation_config: &Value::Null,
            tokenizer_config: &Value::Null,
            special_tokens_map: &Value::Null,
        };
        let special = SpecialIds::from_files(&files, id);
        assert_eq!((special.bos, special.pad, special.eos), (Some(5), None, vec![6]));
    }
}
