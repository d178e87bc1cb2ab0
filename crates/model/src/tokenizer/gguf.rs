//! The vocabulary of a GGUF file and the tokenizer it stands for.
//!
//! [`GgufVocab`] holds the values of the `tokenizer.ggml.*` keys; reading and writing the file is the format's business.
//! The kinds are `llama` (SentencePiece BPE by scores), `gpt2` (byte-level BPE by merges), `gemma4` (merges over marked
//! spaces), `bert` (WordPiece) and `t5` (unigram). A file that embeds `tokenizer.huggingface.json` needs no
//! guessing: that text is used if it agrees with the tokens.

use std::path::Path;

use serde_json::{Value, json};

use super::build::{self, AddedToken, BpeOptions, Named, Parts, SPACE_MARK};
use super::derive::merges_from_scores;
use super::{MAX_ID, SpecialIds, Tokenizer, pre};
use crate::{Error, Result};

/// The values of a GGUF file's `tokenizer.ggml.*` keys; `None` for a key that is missing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GgufVocab {
    /// `tokenizer.ggml.model`: the kind.
    pub model: String,
    /// `tokenizer.ggml.pre`: the splitting rule of kind `gpt2`, see [`pre`].
    pub pre: Option<String>,
    /// `tokenizer.ggml.tokens`, by id.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.scores`, by id.
    pub scores: Option<Vec<f32>>,
    /// `tokenizer.ggml.token_type`, by id; the numbers are those of [`TokenType`].
    pub token_types: Option<Vec<i32>>,
    /// `tokenizer.ggml.merges`: two tokens with a space between, best first.
    pub merges: Option<Vec<String>>,
    /// `tokenizer.ggml.bos_token_id`
    pub bos: Option<u32>,
    /// `tokenizer.ggml.eos_token_id`
    pub eos: Option<u32>,
    /// `tokenizer.ggml.eot_token_id`: end of a turn.
    pub eot: Option<u32>,
    /// `tokenizer.ggml.eom_token_id`: end of a message, before a tool answers.
    pub eom: Option<u32>,
    /// `tokenizer.ggml.unknown_token_id`
    pub unk: Option<u32>,
    /// `tokenizer.ggml.padding_token_id`
    pub pad: Option<u32>,
    /// `tokenizer.ggml.seperator_token_id` (spelled so in the format)
    pub sep: Option<u32>,
    /// `tokenizer.ggml.cls_token_id`
    pub cls: Option<u32>,
    /// `tokenizer.ggml.mask_token_id`
    pub mask: Option<u32>,
    /// `tokenizer.ggml.add_bos_token`
    pub add_bos: Option<bool>,
    /// `tokenizer.ggml.add_eos_token`
    pub add_eos: Option<bool>,
    /// `tokenizer.ggml.add_space_prefix`
    pub add_space_prefix: Option<bool>,
    /// `tokenizer.ggml.remove_extra_whitespaces`
    pub remove_extra_whitespaces: Option<bool>,
    /// `tokenizer.ggml.precompiled_charsmap`: SentencePiece's table of replacements.
    pub precompiled_charsmap: Option<Vec<u8>>,
    /// `tokenizer.ggml.normalizer.lowercase` (kind `bert`)
    pub lowercase: Option<bool>,
    /// `tokenizer.ggml.normalizer.strip_accents` (kind `bert`)
    pub strip_accents: Option<bool>,
    /// `tokenizer.huggingface.json`: the whole `tokenizer.json`.
    pub huggingface_json: Option<String>,
}

/// What a token is for; numbered as in GGUF files and in SentencePiece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum TokenType {
    /// Made from text.
    Normal = 1,
    /// Stands for what can't be spelled.
    Unknown = 2,
    /// Never made from text, never shown.
    Control = 3,
    /// Found in the text before anything else.
    UserDefined = 4,
    /// Fills a row of the embedding.
    Unused = 5,
    /// A single byte.
    Byte = 6,
}

impl TokenType {
    fn from_number(number: i32) -> TokenType {
        match number {
            2 => TokenType::Unknown,
            3 => TokenType::Control,
            4 => TokenType::UserDefined,
            5 => TokenType::Unused,
            6 => TokenType::Byte,
            _ => TokenType::Normal,
        }
    }
}

/// Control tokens that end a turn in the families that name only the end of the text in their GGUF files.
const TURN_ENDS: [&str; 8] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|eom_id|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
];

impl GgufVocab {
    /// The tokenizer this vocabulary stands for, with its special ids.
    ///
    /// # Errors
    /// When the kind or the splitting rule is unknown, or the lists contradict each other.
    pub fn to_tokenizer(&self) -> Result<Tokenizer> {
        self.check()?;
        let tokenizer = match self.embedded() {
            Some(tokenizer) => tokenizer,
            None => Tokenizer::from_value(self.parts()?.into_json(), Path::new("tokenizer.ggml"))?,
        };
        let special = self.special(&tokenizer);
        Ok(tokenizer.with_special(special))
    }

    /// Adds unused tokens until there are `rows`, for a model whose embedding has more rows than the vocabulary.
    pub fn pad_to(&mut self, rows: usize) {
        for id in self.tokens.len()..rows {
            self.tokens.push(padding(id));
            if let Some(scores) = &mut self.scores {
                scores.push(-1000.0);
            }
            if let Some(types) = &mut self.token_types {
                types.push(TokenType::Unused as i32);
            }
        }
    }

    fn check(&self) -> Result<()> {
        let count = self.tokens.len();
        if count == 0 || count > MAX_ID as usize {
            return Err(Error::text(format!(
                "tokenizer.ggml.tokens has {count} entries; the GGUF file is damaged"
            )));
        }
        let lengths = [
            ("scores", self.scores.as_ref().map(Vec::len)),
            ("token_type", self.token_types.as_ref().map(Vec::len)),
        ];
        for (key, length) in lengths {
            if length.is_some_and(|length| length != count) {
                return Err(Error::text(format!(
                    "tokenizer.ggml.{key} has {} entries for {count} tokens; the GGUF file is damaged",
                    length.unwrap_or(0)
                )));
            }
        }
        if let Some((first, second)) = build::first_duplicate(&self.tokens) {
            return Err(Error::text(format!(
                "tokens {first} and {second} of the GGUF file are both {:?}; the file is damaged",
                self.tokens[first]
            )));
        }
        Ok(())
    }

    /// The embedded `tokenizer.json`, if there is one that gives the same tokens.
    fn embedded(&self) -> Option<Tokenizer> {
        let json = self.huggingface_json.as_ref()?;
        match Tokenizer::from_json_bytes(json.as_bytes()) {
            Ok(tokenizer) if self.agrees(&tokenizer) => Some(tokenizer),
            Ok(_) => {
                tracing::warn!(
                    "tokenizer.huggingface.json has other tokens than tokenizer.ggml.tokens; not used"
                );
                None
            }
            Err(error) => {
                tracing::warn!("tokenizer.huggingface.json is not used: {error}");
                None
            }
        }
    }

    fn agrees(&self, tokenizer: &Tokenizer) -> bool {
        tokenizer.id_limit() as usize <= self.tokens.len()
            && self.tokens.iter().enumerate().all(|(id, token)| match tokenizer.piece(id as u32) {
                Some(piece) => self.spelling(&piece, tokenizer.is_special(id as u32)) == *token,
                None => *token == padding(id),
            })
    }

    /// How a token of a `tokenizer.json` is spelled in this kind of GGUF vocabulary.
    pub(crate) fn spelling(&self, piece: &str, special: bool) -> String {
        if self.model != "bert" || special {
            return piece.to_string();
        }
        match piece.strip_prefix("##") {
            Some(rest) => rest.to_string(),
            None => format!("{SPACE_MARK}{piece}"),
        }
    }

    fn special(&self, tokenizer: &Tokenizer) -> SpecialIds {
        let known = |id: Option<u32>| id.filter(|id| (*id as usize) < self.tokens.len());
        // What the kinds take for granted when the file is silent.
        let (bos, eos, unk) = match self.model.as_str() {
            "llama" => (self.bos.or(Some(1)), self.eos.or(Some(2)), self.unk.or(Some(0))),
            "t5" => (self.bos, self.eos.or(Some(1)), self.unk.or(Some(2))),
            _ => (self.bos, self.eos, self.unk),
        };
        let mut ends: Vec<u32> = [eos, self.eot, self.eom].into_iter().filter_map(known).collect();
        if self.model != "bert" {
            let marked = |id: &u32| self.types()[*id as usize] == TokenType::Control;
            ends.extend(TURN_ENDS.iter().filter_map(|name| tokenizer.id(name)).filter(marked));
        }
        let mut unique = Vec::new();
        ends.retain(|id| {
            !unique.contains(id) && {
                unique.push(*id);
                true
            }
        });
        let mut special = SpecialIds {
            bos: known(bos),
            eos: ends,
            pad: known(self.pad),
            unk: known(unk),
            sep: known(self.sep),
            cls: known(self.cls),
            mask: known(self.mask),
            names: Default::default(),
        };
        let named = [
            ("bos_token", special.bos),
            ("eos_token", special.eos.first().copied()),
            ("pad_token", special.pad),
            ("unk_token", special.unk),
            ("sep_token", special.sep),
            ("cls_token", special.cls),
            ("mask_token", special.mask),
        ];
        for (name, id) in named {
            if let Some(piece) = id.and_then(|id| tokenizer.piece(id)) {
                special.names.insert(name.into(), piece);
            }
        }
        special
    }

    pub(crate) fn types(&self) -> Vec<TokenType> {
        match &self.token_types {
            Some(types) => types.iter().map(|number| TokenType::from_number(*number)).collect(),
            None => vec![TokenType::Normal; self.tokens.len()],
        }
    }

    /// How many tokens are left without the unused ones that only fill rows of the embedding.
    fn used(&self, types: &[TokenType]) -> usize {
        let is_padding = |id: usize| types[id] == TokenType::Unused && self.tokens[id] == padding(id);
        (0..self.tokens.len()).rev().find(|id| !is_padding(*id)).map_or(0, |id| id + 1)
    }

    fn parts(&self) -> Result<Parts> {
        let types = self.types();
        let used = self.used(&types);
        let (tokens, types) = (&self.tokens[..used], &types[..used]);
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
                    "the GGUF vocabulary has neither scores nor merges; convert the model again",
                ));
            }
        };
        let prefix = self.add_space_prefix.unwrap_or(llama);
        let byte_fallback = tokens.iter().any(|token| token == "<0x00>");
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
            post_processor: self.surround(true, false, Some(1), Some(2)),
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
            Error::text("the GGUF vocabulary has no tokenizer.ggml.merges; convert the model again")
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
            return Err(Error::text(
                "the GGUF vocabulary of kind bert has no unknown, first and separator token",
            ));
        };
        // Words begin with the mark, and continuations with nothing; special tokens are written as they are.
        let is_special = |token: &str| token.starts_with('[') && token.ends_with(']') && token.len() > 2;
        let word = |token: &String| match token.strip_prefix(SPACE_MARK) {
            Some(word) => word.to_string(),
            None if is_special(token) => token.clone(),
            None => format!("##{token}"),
        };
        let words: Vec<String> = tokens.iter().map(word).collect();
        // Files that don't say are of the time when only lower-case models were converted; but capitals in the
        // vocabulary would then be of no use.
        let capitals = || words.iter().any(|word| !is_special(word) && word.chars().any(char::is_uppercase));
        let lowercase = self.lowercase.unwrap_or_else(|| !capitals());
        Ok(Parts {
            normalizer: build::bert_normalizer(lowercase, self.strip_accents),
            pre_tokenizer: json!({"type": "BertPreTokenizer"}),
            post_processor: build::classify(cls, sep),
            decoder: json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
            model: build::word_piece(vocab(&words), unk),
            ..Parts::default()
        })
    }

    fn unigram(&self, tokens: &[String], types: &[TokenType]) -> Result<Parts> {
        let Some(scores) = &self.scores else {
            return Err(Error::text("the GGUF vocabulary of kind t5 has no tokenizer.ggml.scores"));
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

pub(crate) fn padding(id: usize) -> String {
    format!("[PAD{id}]")
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
