//! From a tokenizer to the vocabulary of a GGUF file.

use serde_json::Value;

use super::derive::scores_from_merges;
use super::gguf::{GgufVocab, TokenType, padding};
use super::{Tokenizer, build, bytes, pre};
use crate::{Error, Result};

impl GgufVocab {
    /// The vocabulary to write into a GGUF file for this tokenizer.
    ///
    /// Other programs read the plain lists; this crate reads the embedded `tokenizer.json` and so gets back exactly
    /// what was written.
    ///
    /// # Errors
    /// When GGUF has no kind for the tokenizer, or no name for the way it splits text
    /// (see [`GgufVocab::from_tokenizer_named`]).
    pub fn from_tokenizer(tokenizer: &Tokenizer) -> Result<GgufVocab> {
        GgufVocab::from_tokenizer_named(tokenizer, None)
    }

    /// [`GgufVocab::from_tokenizer`] with the name of the splitting rule (`tokenizer.ggml.pre`) given by hand.
    pub fn from_tokenizer_named(tokenizer: &Tokenizer, pre: Option<&str>) -> Result<GgufVocab> {
        let json = serde_json::to_value(tokenizer.hf())
            .map_err(|e| Error::text(format!("the tokenizer can't be taken apart ({e})")))?;
        let mut vocab = GgufVocab { huggingface_json: Some(tokenizer.to_json()?), ..GgufVocab::default() };
        vocab.model = kind(&json)?.into();
        vocab.describe(tokenizer);
        match vocab.model.as_str() {
            "gpt2" => {
                let name = pre.map_or_else(|| pre::recognise(&json), Ok)?;
                vocab.pre = Some(name.to_string());
                vocab.merges =
                    Some(merges(&json).into_iter().map(|(left, right)| format!("{left} {right}")).collect());
            }
            "llama" => {
                let (scores, exact) = scores_from_merges(&vocab.tokens, &merges(&json), &vocab.types());
                if !exact {
                    tracing::warn!(
                        "the tokenizer's merges don't follow from scores, which is all GGUF holds for them: \
                         programs that don't read tokenizer.huggingface.json will split some words differently"
                    );
                }
                vocab.scores = Some(scores);
                vocab.pre = Some("default".into());
                vocab.describe_text_cleaning(&json);
            }
            "bert" => {
                let option = |key: &str| json.pointer(&format!("/normalizer/{key}")).and_then(Value::as_bool);
                vocab.lowercase = option("lowercase");
                vocab.strip_accents = option("strip_accents");
                // Readers of this kind look for the first token under the name of the beginning of text.
                vocab.bos = vocab.cls.or(vocab.bos);
            }
            _ => {
                vocab.scores = Some(unigram_scores(&json, vocab.tokens.len()));
                vocab.unk = vocab.unk.or_else(|| json.pointer("/model/unk_id")?.as_u64()?.try_into().ok());
                vocab.describe_text_cleaning(&json);
            }
        }
        Ok(vocab)
    }

    /// Tokens, their types, special ids and what is added to a text.
    fn describe(&mut self, tokenizer: &Tokenizer) {
        let added = tokenizer.hf().get_added_tokens_decoder();
        let special = tokenizer.special();
        let mut types = Vec::new();
        for id in 0..tokenizer.id_limit() {
            let (token, kind) = match (tokenizer.piece(id), added.get(&id)) {
                (None, _) => (padding(id as usize), TokenType::Unused),
                (Some(piece), _) if special.unk == Some(id) && self.model != "gpt2" => {
                    (piece, TokenType::Unknown)
                }
                (Some(piece), Some(token)) if token.special => (piece, TokenType::Control),
                (Some(piece), Some(_)) => (piece, TokenType::UserDefined),
                (Some(piece), None) if self.has_byte_tokens() && bytes::byte_token(&piece).is_some() => {
                    (piece, TokenType::Byte)
                }
                (Some(piece), None) => (piece, TokenType::Normal),
            };
            self.tokens.push(self.spelling(&token));
            types.push(kind as i32);
        }
        self.token_types = Some(types);
        self.bos = special.bos;
        self.eos = special.eos.first().copied();
        self.eot = special.eos.get(1).copied();
        self.eom = special.eos.get(2).copied();
        (self.unk, self.pad, self.sep) = (special.unk, special.pad, special.sep);
        (self.cls, self.mask) = (special.cls, special.mask);
        self.add_bos = Some(tokenizer.adds_bos());
        self.add_eos = Some(tokenizer.adds_eos());
    }

    fn has_byte_tokens(&self) -> bool {
        matches!(self.model.as_str(), "llama" | "t5")
    }

    /// SentencePiece's settings, from the normalizer and the pre-tokenizer.
    fn describe_text_cleaning(&mut self, json: &Value) {
        let steps: Vec<&Value> =
            steps(json, "normalizer").into_iter().chain(steps(json, "pre_tokenizer")).collect();
        let is = |step: &&&Value, name: &str| step.get("type").and_then(Value::as_str) == Some(name);
        let prefix = |step: &&Value| {
            is(&step, "Prepend")
                || is(&step, "Metaspace")
                    && step.get("prepend_scheme").and_then(Value::as_str) != Some("never")
        };
        let squeezes = |step: &&Value| {
            step.pointer("/pattern/Regex").and_then(Value::as_str).is_some_and(|p| p.contains("{2,}"))
        };
        self.add_space_prefix = Some(steps.iter().any(prefix));
        self.remove_extra_whitespaces = Some(steps.iter().any(squeezes));
        self.precompiled_charsmap = steps
            .iter()
            .find(|step| is(step, "Precompiled"))
            .and_then(|step| build::from_base64(step.get("precompiled_charsmap")?.as_str()?));
    }
}

/// The GGUF kind of a tokenizer.
fn kind(json: &Value) -> Result<&'static str> {
    let name = json.pointer("/model/type").and_then(Value::as_str).unwrap_or("BPE");
    let has = |part: &str, step: &str| {
        steps(json, part).iter().any(|s| s.get("type").and_then(Value::as_str) == Some(step))
    };
    let marks_spaces = || {
        has("pre_tokenizer", "Metaspace")
            || steps(json, "normalizer")
                .iter()
                .any(|s| s.get("content").and_then(Value::as_str) == Some(build::SPACE_MARK))
    };
    match name {
        "BPE" if has("pre_tokenizer", "ByteLevel") => Ok("gpt2"),
        "BPE" if marks_spaces() => Ok("llama"),
        "WordPiece" if has("pre_tokenizer", "BertPreTokenizer") => Ok("bert"),
        "Unigram" => Ok("t5"),
        _ => Err(Error::unsupported(format!(
            "GGUF has no kind of vocabulary for this {name} tokenizer; byte-level BPE, SentencePiece and BERT's \
             WordPiece have one"
        ))),
    }
}

/// The steps of a part of a tokenizer.json, whether it is a sequence or a single one.
fn steps<'a>(json: &'a Value, part: &str) -> Vec<&'a Value> {
    let Some(step) = json.get(part).filter(|step| !step.is_null()) else { return Vec::new() };
    let list = ["normalizers", "pretokenizers"].iter().find_map(|key| step.get(key)?.as_array());
    list.map_or_else(|| vec![step], |list| list.iter().collect())
}

fn merges(json: &Value) -> Vec<(String, String)> {
    let pair =
        |merge: &Value| Some((merge.get(0)?.as_str()?.to_string(), merge.get(1)?.as_str()?.to_string()));
    json.pointer("/model/merges").and_then(Value::as_array).into_iter().flatten().filter_map(pair).collect()
}

fn unigram_scores(json: &Value, count: usize) -> Vec<f32> {
    let entries = json.pointer("/model/vocab").and_then(Value::as_array);
    let scores =
        entries.into_iter().flatten().map(|entry| entry.get(1).and_then(Value::as_f64).unwrap_or(0.0) as f32);
    scores.chain(std::iter::repeat(0.0)).take(count).collect()
}
