//! From the lists of a GGUF file to a tokenizer: one function for each kind of vocabulary.

use serde_json::{Value, json};

use super::build::{self, AddedToken, BpeOptions, Named, Parts, SPACE_MARK};
use super::derive::merges_from_scores;
use super::gguf::{GgufVocab, TokenType, in_brackets};
use super::{bytes, pre};
use crate::{Error, Result};

impl GgufVocab {
    /// The `tokenizer.json` that does what this kind of vocabulary means.
    pub(super) fn parts(&self) -> Result<Parts> {
        let types = self.types();
        let used = self.used(&types);
        let tokens: Vec<String> = self.tokens[..used].iter().map(|token| self.unspelled(token)).collect();
        let (tokens, types) = (tokens.as_slice(), &types[..used]);
        let mut parts = match self.model.as_str() {
            "llama" | "gemma4" => self.marked_bpe(tokens, types)?,
            "gpt2" => self.byte_level_bpe(tokens)?,
            "bert" => self.word_piece(tokens)?,
            "t5" => self.unigram(tokens, types)?,
            other => {
                return Err(Error::unsupported(format!(
                    "tokenizer.ggml.model is {other:?}; llama, gpt2, gemma4, bert and t5 are supported"
                )));
            }
        };
        let added = tokens.iter().zip(types).enumerate().filter_map(|(id, (token, kind))| {
            let special = matches!(kind, TokenType::Control | TokenType::Unknown);
            let added = special || *kind == TokenType::UserDefined;
            added.then(|| AddedToken { id: id as u32, content: token.clone(), special })
        });
        parts.added = added.collect();
        Ok(parts)
    }

    /// The token with this id, for the post-processor.
    fn named(&self, id: Option<u32>) -> Option<Named<'_>> {
        id.and_then(|id| self.tokens.get(id as usize).map(|token| (token.as_str(), id)))
    }

    fn surround(
        &self,
        add_bos: bool,
        add_eos: bool,
        default_bos: Option<u32>,
        default_eos: Option<u32>,
    ) -> Value {
        let bos = self.named(self.bos.or(default_bos)).filter(|_| self.add_bos.unwrap_or(add_bos));
        let eos = self.named(self.eos.or(default_eos)).filter(|_| self.add_eos.unwrap_or(add_eos));
        build::surround(bos, eos)
    }

    /// SentencePiece's replacements, and its handling of runs of spaces.
    fn text_cleaning(&self) -> Vec<Value> {
        let mut steps = Vec::new();
        if let Some(map) = self.precompiled_charsmap.as_ref().filter(|map| !map.is_empty()) {
            steps.push(json!({"type": "Precompiled", "precompiled_charsmap": build::base64(map)}));
        }
        if self.remove_extra_whitespaces.unwrap_or(false) {
            steps.extend(build::squeeze_spaces());
        }
        steps
    }

    fn marked_bpe(&self, tokens: &[String], types: &[TokenType]) -> Result<Parts> {
        let llama = self.model == "llama";
        let merges = match (&self.merges, &self.scores) {
            (Some(merges), _) => split_merges(merges)?,
            (None, Some(scores)) => merges_from_scores(tokens, scores, types),
            (None, None) => {
                return Err(Error::text(
                    "the vocabulary has neither scores nor merges; convert the model again",
                ));
            }
        };
        let prefix = self.add_space_prefix.unwrap_or(llama);
        let byte_fallback = tokens.iter().any(|token| bytes::byte_token(token).is_some());
        let mut normalizer = self.text_cleaning();
        normalizer.extend(build::mark_spaces(prefix));
        let unk_token = self.named(self.unk.or(if llama { Some(0) } else { None })).map(|(token, _)| token);
        let options = BpeOptions { unk_token, byte_fallback, ignore_merges: false };
        let pre_tokenizer = if llama {
            Value::Null
        } else {
            json!({"type": "Split", "pattern": {"Regex": r"[^\n]+|[\n]+"}, "behavior": "Isolated", "invert": false})
        };
        Ok(Parts {
            normalizer: build::sequence("normalizers", normalizer),
            pre_tokenizer,
            post_processor: self.surround(true, false, llama.then_some(1), llama.then_some(2)),
            decoder: build::sentencepiece_decoder(byte_fallback, prefix),
            model: build::bpe(vocab(tokens), &merges, &options),
            ..Parts::default()
        })
    }

    fn byte_level_bpe(&self, tokens: &[String]) -> Result<Parts> {
        let name = self.pre.as_deref().unwrap_or_else(|| {
            tracing::warn!("the GGUF file has no tokenizer.ggml.pre; the rule \"default\" is used, as files of that age mean");
            "default"
        });
        let rule = pre::find(name)?;
        let merges = self.merges.as_ref().ok_or_else(|| {
            Error::text("the vocabulary has no tokenizer.ggml.merges; convert the model again")
        })?;
        let options = BpeOptions { ignore_merges: rule.ignore_merges, ..BpeOptions::default() };
        let post_processor =
            match (rule.encoder, self.named(self.cls.or(self.bos)), self.named(self.sep.or(self.eos))) {
                (true, Some((cls, cls_id)), Some((sep, sep_id))) => json!({
                    "type": "RobertaProcessing", "sep": [sep, sep_id], "cls": [cls, cls_id],
                    "trim_offsets": true, "add_prefix_space": false,
                }),
                _ => self.surround(rule.add_bos, false, None, None),
            };
        Ok(Parts {
            normalizer: rule.normalizer(),
            pre_tokenizer: build::byte_level_pre_tokenizer(rule),
            post_processor,
            decoder: build::byte_level(),
            model: build::bpe(vocab(tokens), &split_merges(merges)?, &options),
            ..Parts::default()
        })
    }

    fn word_piece(&self, tokens: &[String]) -> Result<Parts> {
        let unk = self.named(self.unk.or(Some(100)));
        let cls = self.named(self.cls.or(self.bos).or(Some(101)));
        let sep = self.named(self.sep.or(Some(102)));
        let (Some((unk, _)), Some(cls), Some(sep)) = (unk, cls, sep) else {
            return Err(Error::text("the vocabulary of kind bert has no unknown, first and separator token"));
        };
        // Files that don't say are of the time when only lower-case models were converted; but capitals in the
        // vocabulary would then be of no use.
        let capitals =
            || tokens.iter().any(|word| !in_brackets(word) && word.chars().any(char::is_uppercase));
        let lowercase = self.lowercase.unwrap_or_else(|| !capitals());
        Ok(Parts {
            normalizer: build::bert_normalizer(lowercase, self.strip_accents),
            pre_tokenizer: json!({"type": "BertPreTokenizer"}),
            post_processor: build::classify(cls, sep),
            decoder: json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
            model: build::word_piece(vocab(tokens), unk),
            ..Parts::default()
        })
    }

    fn unigram(&self, tokens: &[String], types: &[TokenType]) -> Result<Parts> {
        let Some(scores) = &self.scores else {
            return Err(Error::text("the vocabulary of kind t5 has no tokenizer.ggml.scores"));
        };
        let byte_fallback = types.contains(&TokenType::Byte);
        let entries: Vec<(&String, f32)> = tokens.iter().zip(scores.iter().copied()).collect();
        let prefix = self.add_space_prefix.unwrap_or(false);
        let scheme = if prefix { "always" } else { "never" };
        Ok(Parts {
            normalizer: build::sequence("normalizers", self.text_cleaning()),
            pre_tokenizer: json!({"type": "Metaspace", "replacement": SPACE_MARK, "prepend_scheme": scheme, "split": true}),
            post_processor: self.surround(false, true, None, Some(1)),
            decoder: build::sentencepiece_decoder(byte_fallback, prefix),
            model: json!({
                "type": "Unigram", "unk_id": self.unk.unwrap_or(2), "vocab": entries, "byte_fallback": byte_fallback,
            }),
            ..Parts::default()
        })
    }
}

fn vocab(tokens: &[String]) -> Value {
    build::vocab_map(tokens.iter().enumerate().map(|(id, token)| (token.as_str(), id as u32)))
}

/// Pairs from lines such as `Ġ t`; the first character may itself be a space.
fn split_merges(lines: &[String]) -> Result<Vec<(String, String)>> {
    lines
        .iter()
        .enumerate()
        .map(|(i, line)| {
            let first = line.chars().next().map_or(0, char::len_utf8);
            let at = line[first..].find(' ').map(|at| at + first);
            at.map(|at| (line[..at].to_string(), line[at + 1..].to_string())).ok_or_else(|| {
                Error::text(format!("entry {i} of tokenizer.ggml.merges is not two tokens: {line:?}"))
            })
        })
        .collect()
}
