//! Builds tokenizers: each function gives one part of a `tokenizer.json` as a JSON value.
//!
//! Going through that file format keeps one way of building and makes every tokenizer writable.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::pre::Pre;

/// The mark SentencePiece writes for a space.
pub(crate) const SPACE_MARK: &str = "▁";

/// A token that is matched in the text before anything else happens to it.
pub(crate) struct AddedToken {
    pub(crate) id: u32,
    pub(crate) content: String,
    pub(crate) special: bool,
}

/// The parts of a `tokenizer.json`; [`Value::Null`] for one that is missing.
#[derive(Default)]
pub(crate) struct Parts {
    pub(crate) added: Vec<AddedToken>,
    pub(crate) normalizer: Value,
    pub(crate) pre_tokenizer: Value,
    pub(crate) post_processor: Value,
    pub(crate) decoder: Value,
    pub(crate) model: Value,
}

impl Parts {
    /// The whole file.
    pub(crate) fn into_json(self) -> Value {
        let added: Vec<Value> = self
            .added
            .iter()
            .map(|token| {
                json!({
                    "id": token.id, "content": token.content, "special": token.special,
                    "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                })
            })
            .collect();
        json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
            "normalizer": self.normalizer, "pre_tokenizer": self.pre_tokenizer,
            "post_processor": self.post_processor, "decoder": self.decoder, "model": self.model,
        })
    }
}

/// The vocabulary as the map that BPE and WordPiece models have.
pub(crate) fn vocab_map<'a>(tokens: impl IntoIterator<Item = (&'a str, u32)>) -> Value {
    Value::Object(tokens.into_iter().map(|(token, id)| (token.to_string(), json!(id))).collect::<Map<_, _>>())
}

/// What varies between BPE models.
#[derive(Default)]
pub(crate) struct BpeOptions<'a> {
    pub(crate) unk_token: Option<&'a str>,
    pub(crate) byte_fallback: bool,
    pub(crate) ignore_merges: bool,
}

/// A BPE model; `merges` in order of rank.
pub(crate) fn bpe(vocab: Value, merges: &[(String, String)], options: &BpeOptions<'_>) -> Value {
    json!({
        "type": "BPE", "dropout": null, "unk_token": options.unk_token, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": options.unk_token.is_some(),
        "byte_fallback": options.byte_fallback, "ignore_merges": options.ignore_merges,
        "vocab": vocab, "merges": merges,
    })
}

/// A list of normalizers, pre-tokenizers or decoders under `key`; null for none, the thing itself for one.
pub(crate) fn sequence(key: &str, mut parts: Vec<Value>) -> Value {
    match parts.len() {
        0 => Value::Null,
        1 => parts.remove(0),
        _ => json!({"type": "Sequence", key: parts}),
    }
}

/// Splits as `pre` says, then spells bytes in the byte-level alphabet.
pub(crate) fn byte_level_pre_tokenizer(pre: &Pre) -> Value {
    let (on_text, on_bytes) = pre.patterns.split_at(pre.patterns.len() - pre.after_bytes);
    let split = |pattern: &&str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    let mut steps: Vec<Value> = on_text.iter().map(split).collect();
    steps.push(byte_level());
    steps.extend(on_bytes.iter().map(split));
    sequence("pretokenizers", steps)
}

/// The byte-level step without splitting; it is a decoder as well.
pub(crate) fn byte_level() -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false})
}

/// Spaces become marks, with one more in front if `prefix`.
pub(crate) fn mark_spaces(prefix: bool) -> Vec<Value> {
    let mut steps = Vec::new();
    if prefix {
        steps.push(json!({"type": "Prepend", "prepend": SPACE_MARK}));
    }
    steps.push(json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE_MARK}));
    steps
}

/// Spaces at both ends go, and runs of them become one.
pub(crate) fn squeeze_spaces() -> Vec<Value> {
    vec![
        json!({"type": "Replace", "pattern": {"Regex": r"\A +| +\z"}, "content": ""}),
        json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}),
    ]
}

/// Marks become spaces, byte tokens bytes, and the space in front of the text goes if `strip`.
pub(crate) fn sentencepiece_decoder(byte_tokens: bool, strip: bool) -> Value {
    let mut steps = vec![json!({"type": "Replace", "pattern": {"String": SPACE_MARK}, "content": " "})];
    if byte_tokens {
        steps.push(json!({"type": "ByteFallback"}));
    }
    steps.push(json!({"type": "Fuse"}));
    if strip {
        steps.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    json!({"type": "Sequence", "decoders": steps})
}

/// A token of the post-processor.
pub(crate) type Named<'a> = (&'a str, u32);

/// Puts `before` in front of each text and `after` behind it: `<s> A`, `<s> A <s> B`, `A </s>`.
pub(crate) fn surround(before: Option<Named<'_>>, after: Option<Named<'_>>) -> Value {
    let part = |sequence: &str, type_id: u32| -> Vec<Value> {
        let token = |named: Option<Named<'_>>| {
            named.map(|(name, _)| json!({"SpecialToken": {"id": name, "type_id": type_id}}))
        };
        let text = json!({"Sequence": {"id": sequence, "type_id": type_id}});
        token(before).into_iter().chain([text]).chain(token(after)).collect()
    };
    let single = part("A", 0);
    let pair: Vec<Value> = single.iter().cloned().chain(part("B", 1)).collect();
    template(single, pair, &[before, after])
}

/// `[CLS] A [SEP]` and `[CLS] A [SEP] B [SEP]`.
pub(crate) fn classify(cls: Named<'_>, sep: Named<'_>) -> Value {
    let token =
        |(name, _): Named<'_>, type_id: u32| json!({"SpecialToken": {"id": name, "type_id": type_id}});
    let text = |sequence: &str, type_id: u32| json!({"Sequence": {"id": sequence, "type_id": type_id}});
    let single = vec![token(cls, 0), text("A", 0), token(sep, 0)];
    let pair = single.iter().cloned().chain([text("B", 1), token(sep, 1)]).collect();
    template(single, pair, &[Some(cls), Some(sep)])
}

fn template(single: Vec<Value>, pair: Vec<Value>, tokens: &[Option<Named<'_>>]) -> Value {
    if tokens.iter().all(Option::is_none) {
        return Value::Null;
    }
    let special: Map<String, Value> = tokens
        .iter()
        .flatten()
        .map(|(name, id)| (name.to_string(), json!({"id": name, "ids": [id], "tokens": [name]})))
        .collect();
    json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special})
}

/// A WordPiece tokenizer's normalizer, as BERT has it.
pub(crate) fn bert_normalizer(lowercase: bool, strip_accents: Option<bool>) -> Value {
    json!({
        "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
        "strip_accents": strip_accents, "lowercase": lowercase,
    })
}

/// A WordPiece model.
pub(crate) fn word_piece(vocab: Value, unk_token: &str) -> Value {
    json!({
        "type": "WordPiece", "unk_token": unk_token, "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100, "vocab": vocab,
    })
}

/// Bytes in the base64 alphabet, as a `Precompiled` normalizer holds its table.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            if i <= group.len() {
                text.push(char::from(ALPHABET[(bits >> (18 - 6 * i) & 63) as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

/// The inverse of [`base64`]; `None` when a character doesn't belong there.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Some(bytes)
}

/// The first two tokens that are the same text, as (first id, second id).
pub(crate) fn first_duplicate(tokens: &[String]) -> Option<(usize, usize)> {
    let mut seen = HashMap::with_capacity(tokens.len());
    tokens.iter().enumerate().find_map(|(id, token)| seen.insert(token.as_str(), id).map(|first| (first, id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_goes_both_ways() {
        for text in ["", "f", "fo", "foo", "foob", "\u{FF}\u{0}\u{10}"] {
            assert_eq!(from_base64(&base64(text.as_bytes())).as_deref(), Some(text.as_bytes()));
        }
        assert_eq!(base64(b"fo"), "Zm8=");
        assert_eq!(from_base64("a b"), None);
    }

    #[test]
    fn duplicates_are_found() {
        let tokens = ["a", "b", "a"].map(String::from);
        assert_eq!(first_duplicate(&tokens), Some((0, 2)));
        assert_eq!(first_duplicate(&tokens[..2]), None);
    }
}
