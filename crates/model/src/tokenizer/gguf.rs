//! The vocabulary of a GGUF file and the tokenizer it stands for.
//!
//! [`GgufVocab`] holds the values of the `tokenizer.ggml.*` keys; reading and writing the file is the format's business.
//! The kinds are `llama` (SentencePiece BPE by scores), `gpt2` (byte-level BPE by merges), `gemma4` (merges over marked
//! spaces), `bert` (WordPiece) and `t5` (unigram). A file that embeds `tokenizer.huggingface.json` needs no
//! guessing: that text is used if it agrees with the tokens.

use std::path::Path;

use super::build::{self, SPACE_MARK};
use super::{MAX_ID, SpecialIds, Tokenizer};
use crate::{Error, Result};

/// The values of a GGUF file's `tokenizer.ggml.*` keys; `None` for a key that is missing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GgufVocab {
    /// `tokenizer.ggml.model`: the kind.
    pub model: String,
    /// `tokenizer.ggml.pre`: the splitting rule of kind `gpt2`, see [`super::pre`].
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
        self.to_tokenizer_of(Path::new("tokenizer.ggml"))
    }

    /// [`GgufVocab::to_tokenizer`], with the file the vocabulary came from to be named in errors.
    pub fn to_tokenizer_of(&self, path: &Path) -> Result<Tokenizer> {
        let build = || {
            self.check()?;
            match self.embedded() {
                Some(tokenizer) => Ok(tokenizer),
                None => Tokenizer::from_value(self.parts()?.into_json(), path),
            }
        };
        let tokenizer = build().map_err(|error| match error {
            Error::Text { what } | Error::Unsupported { what } => Error::format(path, what),
            other => other,
        })?;
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
                "tokenizer.ggml.tokens has {count} entries; the file is damaged"
            )));
        }
        let lengths = [
            ("scores", self.scores.as_ref().map(Vec::len)),
            ("token_type", self.token_types.as_ref().map(Vec::len)),
        ];
        for (key, length) in lengths {
            if length.is_some_and(|length| length != count) {
                return Err(Error::text(format!(
                    "tokenizer.ggml.{key} has {} entries for {count} tokens; the file is damaged",
                    length.unwrap_or(0)
                )));
            }
        }
        if let Some((first, second)) = build::first_duplicate(&self.tokens) {
            return Err(Error::text(format!(
                "tokens {first} and {second} are both {:?}; the file is damaged",
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
                Some(piece) => self.spelling(&piece) == *token,
                None => *token == padding(id),
            })
    }

    /// How a token of a `tokenizer.json` is spelled in this kind of GGUF vocabulary.
    ///
    /// Kind `bert` marks the words, where WordPiece marks the continuations; names in brackets stay as they are.
    pub(crate) fn spelling(&self, piece: &str) -> String {
        if self.model != "bert" || in_brackets(piece) {
            return piece.to_string();
        }
        match piece.strip_prefix("##") {
            Some(rest) => rest.to_string(),
            None => format!("{SPACE_MARK}{piece}"),
        }
    }

    /// The inverse of [`GgufVocab::spelling`].
    pub(crate) fn unspelled(&self, token: &str) -> String {
        if self.model != "bert" || in_brackets(token) {
            return token.to_string();
        }
        match token.strip_prefix(SPACE_MARK) {
            // A mark alone continues a word; there is no empty word.
            Some(word) if !word.is_empty() => word.to_string(),
            _ => format!("##{token}"),
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
    pub(super) fn used(&self, types: &[TokenType]) -> usize {
        let is_padding = |id: usize| types[id] == TokenType::Unused && self.tokens[id] == padding(id);
        (0..self.tokens.len()).rev().find(|id| !is_padding(*id)).map_or(0, |id| id + 1)
    }
}

/// Whether a token is a name such as `[CLS]`.
pub(crate) fn in_brackets(token: &str) -> bool {
    token.len() > 1 && token.starts_with('[') && token.ends_with(']')
}

/// The name of an unused token.
pub(crate) fn padding(id: usize) -> String {
    format!("[PAD{id}]")
}
