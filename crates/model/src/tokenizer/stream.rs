//! Ids to text, one id at a time.
//!
//! The decoder of a `tokenizer.json` works on a whole list of tokens. Decoding that list again for every new token
//! takes quadratic time, and decoding tokens alone gets spaces and split characters wrong. So the decoder is read
//! once into a [`DecodeRule`], and a [`DetokenStream`] applies it with a state of a few bytes. Each id costs the length
//! of its token.
//!
//! One difference from the `tokenizers` crate is meant: a run of byte tokens (`<0xE2>`) that holds one wrong byte
//! loses that byte only, not the whole run, because text that was given out can't be taken back.

use serde_json::Value;

use super::{Tokenizer, bytes, guarded};
use crate::{Error, Result};

/// How tokens become text; a decoder of `tokenizer.json` in a form that can be applied token by token.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum DecodeRule {
    /// No decoder: tokens are joined by spaces.
    Spaces,
    /// Tokens are spelled in the byte-level alphabet.
    ByteLevel,
    /// SentencePiece: texts are replaced in each token, byte tokens are joined, the text loses leading characters.
    Replace { pairs: Vec<(String, String)>, byte_tokens: bool, strip: Option<(char, usize)> },
    /// A mark stands for a space; the first token loses it.
    Metaspace { mark: char, drop_first: bool },
    /// Tokens are words unless they begin with `prefix`.
    WordPiece { prefix: String, cleanup: bool },
    /// A suffix ends a word.
    Suffix { suffix: String },
    /// A decoder that has to see the whole list.
    Whole,
}

impl DecodeRule {
    /// The rule of a tokenizer; [`DecodeRule::Whole`] where its decoder has no streaming form.
    pub(crate) fn of(hf: &tokenizers::Tokenizer) -> DecodeRule {
        let Some(decoder) = hf.get_decoder() else { return DecodeRule::Spaces };
        serde_json::to_value(decoder).ok().and_then(|value| read_decoder(&value)).unwrap_or(DecodeRule::Whole)
    }

    /// The bytes a token adds when it stands inside a text.
    pub(crate) fn bytes_inside(&self, token: &str) -> Vec<u8> {
        match self {
            DecodeRule::ByteLevel => bytes::byte_level(token),
            DecodeRule::Replace { pairs, byte_tokens, .. } => {
                let token = replace_all(token, pairs);
                match bytes::byte_token(&token) {
                    Some(byte) if *byte_tokens => vec![byte],
                    _ => token.into_bytes(),
                }
            }
            DecodeRule::Metaspace { mark, .. } => token.replace(*mark, " ").into_bytes(),
            DecodeRule::WordPiece { prefix, cleanup } => {
                word_piece(token, prefix, *cleanup, false).into_bytes()
            }
            DecodeRule::Suffix { suffix } => token.replace(suffix.as_str(), " ").into_bytes(),
            DecodeRule::Spaces => format!(" {token}").into_bytes(),
            DecodeRule::Whole => token.as_bytes().to_vec(),
        }
    }
}

fn read_decoder(decoder: &Value) -> Option<DecodeRule> {
    let text = |key: &str| decoder.get(key)?.as_str();
    let flag = |key: &str| decoder.get(key).and_then(Value::as_bool);
    match text("type")? {
        "ByteLevel" => Some(DecodeRule::ByteLevel),
        "Metaspace" => {
            let mark = text("replacement")?.chars().next()?;
            Some(DecodeRule::Metaspace { mark, drop_first: text("prepend_scheme") != Some("never") })
        }
        "WordPiece" => {
            Some(DecodeRule::WordPiece { prefix: text("prefix")?.into(), cleanup: flag("cleanup")? })
        }
        "BPEDecoder" => Some(DecodeRule::Suffix { suffix: text("suffix")?.into() }),
        "Sequence" => read_sequence(decoder.get("decoders")?.as_array()?),
        _ => None,
    }
}

/// The sequences in use: replacements, then byte fallback, then fusing, then stripping the front; each may be missing.
fn read_sequence(decoders: &[Value]) -> Option<DecodeRule> {
    if let [single] = decoders
        && let Some(rule) = read_decoder(single)
    {
        return Some(rule);
    }
    let (mut pairs, mut byte_tokens, mut fused, mut strip) = (Vec::new(), false, false, None);
    for decoder in decoders {
        match decoder.get("type")?.as_str()? {
            "Replace" if !byte_tokens && !fused => {
                let from = decoder.get("pattern")?.get("String")?.as_str().filter(|from| !from.is_empty())?;
                pairs.push((from.to_string(), decoder.get("content")?.as_str()?.to_string()));
            }
            "ByteFallback" if !byte_tokens && !fused => byte_tokens = true,
            "Fuse" => fused = true,
            "Strip" if fused && strip.is_none() && decoder.get("stop")?.as_u64()? == 0 => {
                let content = decoder.get("content")?.as_str()?.chars().next()?;
                strip = Some((content, usize::try_from(decoder.get("start")?.as_u64()?).ok()?));
            }
            _ => return None,
        }
    }
    Some(DecodeRule::Replace { pairs, byte_tokens, strip })
}

fn replace_all(token: &str, pairs: &[(String, String)]) -> String {
    pairs.iter().fold(token.to_string(), |token, (from, to)| token.replace(from.as_str(), to))
}

fn word_piece(token: &str, prefix: &str, cleanup: bool, first: bool) -> String {
    let token = match token.strip_prefix(prefix) {
        _ if first => token.to_string(),
        Some(rest) => rest.to_string(),
        None => format!(" {token}"),
    };
    if cleanup { tokenizers::decoders::wordpiece::cleanup(&token) } else { token }
}

/// Turns ids into text as they come; made by [`Tokenizer::stream`].
///
/// What [`DetokenStream::push`] and [`DetokenStream::finish`] give, joined, is what [`Tokenizer::decode`] gives for the
/// whole list. A character is held back until its last byte is there.
pub struct DetokenStream {
    tokenizer: Tokenizer,
    skip_special: bool,
    /// Whether a token was taken already, or the text goes on from an earlier one.
    begun: bool,
    /// How many leading characters may still be stripped.
    strip_left: usize,
    /// Bytes of an unfinished character.
    pending: Vec<u8>,
    /// The last token, whose end depends on whether another follows ([`DecodeRule::Suffix`]).
    held: Option<String>,
    /// All ids so far ([`DecodeRule::Whole`]).
    ids: Vec<u32>,
}

impl DetokenStream {
    pub(super) fn new(tokenizer: Tokenizer, skip_special: bool, begun: bool) -> DetokenStream {
        let strip_left = match tokenizer.rule() {
            DecodeRule::Replace { strip: Some((_, count)), .. } if !begun => *count,
            _ => 0,
        };
        DetokenStream {
            tokenizer,
            skip_special,
            begun,
            strip_left,
            pending: Vec::new(),
            held: None,
            ids: Vec::new(),
        }
    }

    /// Takes the next id and gives the text that is certain now, if any. An id the tokenizer doesn't have adds nothing.
    ///
    /// # Errors
    /// None at present; the type leaves room for decoders that can fail.
    pub fn push(&mut self, id: u32) -> Result<Option<String>> {
        let Some(token) = self.tokenizer.piece(id) else { return Ok(None) };
        if self.skip_special && self.tokenizer.hf().get_added_vocabulary().is_special_token(&token) {
            return Ok(None);
        }
        let first = !std::mem::replace(&mut self.begun, true);
        let mut text = String::new();
        let tokenizer = self.tokenizer.clone();
        match tokenizer.rule() {
            DecodeRule::Spaces => {
                if !first {
                    text.push(' ');
                }
                text.push_str(&token);
            }
            DecodeRule::ByteLevel => {
                self.pending.extend(bytes::byte_level(&token));
                bytes::drain_text(&mut self.pending, false, &mut text);
            }
            DecodeRule::Replace { pairs, byte_tokens, .. } => {
                let token = replace_all(&token, pairs);
                match bytes::byte_token(&token) {
                    Some(byte) if *byte_tokens => {
                        self.pending.push(byte);
                        bytes::drain_text(&mut self.pending, false, &mut text);
                    }
                    _ => {
                        bytes::drain_text(&mut self.pending, true, &mut text);
                        text.push_str(&token);
                    }
                }
            }
            DecodeRule::Metaspace { mark, drop_first } => {
                let space = if first && *drop_first { "" } else { " " };
                text = token.replace(*mark, space);
            }
            DecodeRule::WordPiece { prefix, cleanup } => text = word_piece(&token, prefix, *cleanup, first),
            DecodeRule::Suffix { suffix } => {
                if let Some(before) = self.held.replace(token) {
                    text = before.replace(suffix.as_str(), " ");
                }
            }
            DecodeRule::Whole => self.ids.push(id),
        }
        Ok(self.give(text))
    }

    /// Ends the text and gives what was held back: an unfinished character becomes U+FFFD.
    ///
    /// # Errors
    /// When the tokenizer's decoder works on whole lists only and refuses this one.
    pub fn finish(mut self) -> Result<Option<String>> {
        let mut text = String::new();
        bytes::drain_text(&mut self.pending, true, &mut text);
        match self.tokenizer.rule() {
            DecodeRule::Suffix { suffix } => {
                if let Some(last) = self.held.take() {
                    text.push_str(&last.replace(suffix.as_str(), ""));
                }
            }
            DecodeRule::Whole if !self.ids.is_empty() => {
                let decoded = guarded(|| self.tokenizer.hf().decode(&self.ids, self.skip_special));
                text = decoded.map_err(|what| {
                    Error::text(format!(
                        "the ids can't be decoded ({what}); the tokenizer file may be damaged"
                    ))
                })?;
            }
            _ => {}
        }
        Ok(self.give(text))
    }

    fn give(&mut self, text: String) -> Option<String> {
        let mut rest = text.as_str();
        if let DecodeRule::Replace { strip: Some((content, _)), .. } = self.tokenizer.rule() {
            while self.strip_left > 0 && !rest.is_empty() {
                match rest.strip_prefix(*content) {
                    Some(stripped) => {
                        rest = stripped;
                        self.strip_left -= 1;
                    }
                    None => self.strip_left = 0,
                }
            }
        }
        (!rest.is_empty()).then(|| rest.to_string())
    }
}

impl std::fmt::Debug for DetokenStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DetokenStream").field("pending", &self.pending).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn decoders_with_a_streaming_form_are_recognised() {
        let llama = json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
        let expected = DecodeRule::Replace {
            pairs: vec![("▁".into(), " ".into())],
            byte_tokens: true,
            strip: Some((' ', 1)),
        };
        assert_eq!(read_decoder(&llama), Some(expected));
        assert_eq!(read_decoder(&json!({"type": "Sequence", "decoders": [{"type": "ByteLevel"}]})), {
            Some(DecodeRule::ByteLevel)
        });
        // Stripping the end needs the end.
        let at_end = json!({"type": "Sequence", "decoders": [
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 0, "stop": 1}]});
        assert_eq!(read_decoder(&at_end), None);
        assert_eq!(read_decoder(&json!({"type": "CTC", "pad_token": "<pad>"})), None);
    }
}
