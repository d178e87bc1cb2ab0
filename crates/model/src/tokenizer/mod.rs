//! Text to token ids and back.
//!
//! [`Tokenizer`] wraps the `tokenizers` crate and adds what a model needs around it: which ids begin and end a text,
//! how many ids there are, decoding as a stream, and every file a tokenizer can come from:
//!
//! - `tokenizer.json`, `vocab.json` + `merges.txt`, `vocab.txt` or `tokenizer.model` of a Hugging Face folder ([`load`]),
//! - the vocabulary inside a GGUF file, in both directions ([`gguf`]),
//! - the `tokenizer.bin` of llama2.c ([`llama2c`]).
//!
//! Cloning a [`Tokenizer`] is cheap, and one may be used by many threads at once. It knows nothing of messages and
//! roles; that is [`crate::chat`].

mod build;
mod bytes;
mod derive;
pub mod gguf;
mod gguf_build;
mod gguf_write;
pub mod llama2c;
pub mod load;
pub mod pre;
mod sentencepiece;
pub(crate) mod special;
mod stream;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::{Error, Result};

pub use gguf::GgufVocab;
pub use special::SpecialIds;
use stream::DecodeRule;
pub use stream::DetokenStream;

/// No vocabulary has more ids than this; a file that claims more is damaged.
pub(crate) const MAX_ID: u32 = 1 << 24;

/// A tokenizer together with the ids that have a meaning for the model.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

struct Inner {
    /// Truncation and padding are switched off in it: a prompt must never be cut silently.
    hf: tokenizers::Tokenizer,
    /// The text it was read from, so that it can be written again unchanged.
    json: Option<Arc<str>>,
    rule: DecodeRule,
    special: SpecialIds,
    vocab_size: usize,
    id_limit: u32,
}

/// Token ids and, for encoders that read pairs of texts, which text each id belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// The token ids.
    pub ids: Vec<u32>,
    /// 0 for the first text and 1 for the second; as many as `ids`.
    pub type_ids: Vec<u32>,
}

impl Tokenizer {
    /// Reads the tokenizer of a Hugging Face folder; see [`load`] for the files looked for.
    ///
    /// `config` and `generation_config` are the parsed `config.json` and `generation_config.json` (or
    /// [`Value::Null`]): they name more end-of-text ids than the tokenizer's own files.
    pub fn from_folder(
        dir: impl AsRef<Path>,
        config: &Value,
        generation_config: &Value,
    ) -> Result<Tokenizer> {
        load::from_folder(dir.as_ref(), config, generation_config)
    }

    /// [`Tokenizer::from_folder`] for a model whose files are held in memory: the content of `tokenizer.json` and, if
    /// there is one, of `tokenizer_config.json`.
    ///
    /// # Errors
    /// When one of the files is damaged, or the tokenizer is none this crate can run.
    pub fn from_embedded(
        tokenizer: &[u8],
        tokenizer_config: Option<&[u8]>,
        config: &Value,
        generation_config: &Value,
    ) -> Result<Tokenizer> {
        load::from_embedded(tokenizer, tokenizer_config, config, generation_config)
    }

    /// Reads the content of a `tokenizer.json` held in memory. The special ids are guessed from the names usual for
    /// them; give them with [`Tokenizer::with_special`] where they are known.
    ///
    /// # Errors
    /// When the text is not a tokenizer this crate can run.
    pub fn from_json_bytes(bytes: &[u8]) -> Result<Tokenizer> {
        Tokenizer::parse(bytes, Path::new("tokenizer.json"))
    }

    /// [`Tokenizer::from_json_bytes`], with `path` to be named in errors.
    pub(crate) fn parse(bytes: &[u8], path: &Path) -> Result<Tokenizer> {
        if bytes.len() as u64 > load::MAX_JSON_BYTES {
            return Err(Error::format(path, load::too_large(bytes.len() as u64)));
        }
        let text = std::str::from_utf8(bytes).map_err(|e| {
            Error::format(path, format!("the file is not UTF-8 at byte {}; it is damaged", e.valid_up_to()))
        })?;
        let hf = guarded(|| tokenizers::Tokenizer::from_bytes(bytes)).map_err(|what| {
            Error::format(path, format!("not a usable tokenizer.json ({what}); download the file again"))
        })?;
        let rule = DecodeRule::of(&hf);
        Tokenizer::assemble(hf, Some(text.into()), rule, path)
    }

    /// Builds a tokenizer from the parsed form of a `tokenizer.json` made by this crate.
    pub(crate) fn from_value(value: Value, path: &Path) -> Result<Tokenizer> {
        let hf = guarded(|| serde_json::from_value::<tokenizers::Tokenizer>(value).map_err(Into::into))
            .map_err(|what| Error::format(path, format!("the vocabulary can't be used ({what})")))?;
        let rule = DecodeRule::of(&hf);
        Tokenizer::assemble(hf, None, rule, path)
    }

    fn assemble(
        mut hf: tokenizers::Tokenizer,
        json: Option<Arc<str>>,
        rule: DecodeRule,
        path: &Path,
    ) -> Result<Tokenizer> {
        // A built tokenizer has no such settings; a read one keeps them in `json`.
        hf.with_padding(None);
        hf.with_truncation(None)
            .map_err(|e| Error::format(path, format!("truncation can't be switched off ({e})")))?;
        let vocab = hf.get_vocab(true);
        let vocab_size = vocab.len();
        let highest = vocab.values().copied().max();
        let id_limit = match highest {
            None => return Err(Error::format(path, "the vocabulary is empty; download the file again")),
            Some(id) if id >= MAX_ID => {
                return Err(Error::format(
                    path,
                    format!("token id {id} is beyond {MAX_ID}, which no model has; the file is damaged"),
                ));
            }
            Some(id) => id + 1,
        };
        let special = SpecialIds::from_names(|name| vocab.get(name).copied());
        Ok(Tokenizer { inner: Arc::new(Inner { hf, json, rule, special, vocab_size, id_limit }) })
    }

    /// The same tokenizer with these special ids.
    pub fn with_special(self, special: SpecialIds) -> Tokenizer {
        let inner = match Arc::try_unwrap(self.inner) {
            Ok(inner) => Inner { special, ..inner },
            Err(shared) => Inner {
                hf: shared.hf.clone(),
                json: shared.json.clone(),
                rule: shared.rule.clone(),
                special,
                vocab_size: shared.vocab_size,
                id_limit: shared.id_limit,
            },
        };
        Tokenizer { inner: Arc::new(inner) }
    }

    /// The ids of `text`. With `add_special` the ids a text begins and ends with are added, as the tokenizer's own
    /// post-processor says. Special tokens spelled out in the text are recognised in both cases.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let encoding = guarded(|| self.inner.hf.encode_fast(text, add_special)).map_err(cannot_encode)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The ids of `text` with the bytes of it that each stands for, without the ids a text begins and ends with.
    pub fn encode_with_offsets(&self, text: &str) -> Result<Vec<(u32, Range<usize>)>> {
        let encoding = guarded(|| self.inner.hf.encode(text, false)).map_err(cannot_encode)?;
        let spans = encoding.get_offsets().iter().map(|&(start, end)| start..end);
        Ok(encoding.get_ids().iter().copied().zip(spans).collect())
    }

    /// The ids of a text, or of a pair of texts, and the type of each; for encoders such as BERT.
    pub fn encode_with_types(&self, text: &str, pair: Option<&str>, add_special: bool) -> Result<Encoded> {
        let encoding = guarded(|| match pair {
            Some(pair) => self.inner.hf.encode_fast((text, pair), add_special),
            None => self.inner.hf.encode_fast(text, add_special),
        })
        .map_err(cannot_encode)?;
        Ok(Encoded { ids: encoding.get_ids().to_vec(), type_ids: encoding.get_type_ids().to_vec() })
    }

    /// The text of `ids`; ids the tokenizer doesn't have are left out, and so are special tokens with `skip_special`.
    /// Bytes that are no UTF-8 become U+FFFD. Equal to what [`Tokenizer::stream`] gives piece by piece.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        let mut stream = self.stream(skip_special);
        let mut text = String::new();
        for &id in ids {
            if let Some(piece) = stream.push(id)? {
                text.push_str(&piece);
            }
        }
        if let Some(piece) = stream.finish()? {
            text.push_str(&piece);
        }
        Ok(text)
    }

    /// Decodes ids that begin a text as they come.
    pub fn stream(&self, skip_special: bool) -> DetokenStream {
        DetokenStream::new(self.clone(), skip_special, false)
    }

    /// Decodes ids that go on from an earlier text: the space before the first word is kept, where
    /// [`Tokenizer::stream`] would drop it.
    pub fn stream_continuing(&self, skip_special: bool) -> DetokenStream {
        DetokenStream::new(self.clone(), skip_special, true)
    }

    /// The token with this id as the vocabulary spells it (`Ġthe`, `▁the`, `##ing`, `<0x0A>`).
    pub fn piece(&self, id: u32) -> Option<String> {
        self.inner.hf.id_to_token(id)
    }

    /// The bytes this id adds inside a text; empty for an id the tokenizer doesn't have.
    pub fn piece_bytes(&self, id: u32) -> Vec<u8> {
        self.piece(id).map(|piece| self.inner.rule.bytes_inside(&piece)).unwrap_or_default()
    }

    /// What each id adds inside a text, for people to read: a byte that is part of a character is shown as `<0xE2>`,
    /// an unknown id as `<id 50000>`.
    pub fn pieces(&self, ids: &[u32]) -> Vec<String> {
        ids.iter()
            .map(|&id| match self.piece(id) {
                Some(piece) => bytes::readable(&self.inner.rule.bytes_inside(&piece)),
                None => format!("<id {id}>"),
            })
            .collect()
    }

    /// How many tokens there are. The embedding of a model may have more rows than this.
    pub fn vocab_size(&self) -> usize {
        self.inner.vocab_size
    }

    /// One more than the highest id; above [`Tokenizer::vocab_size`] when ids are left out.
    pub fn id_limit(&self) -> u32 {
        self.inner.id_limit
    }

    /// Whether this id is a special token, which [`Tokenizer::decode`] can skip.
    pub fn is_special(&self, id: u32) -> bool {
        self.piece(id).is_some_and(|piece| self.inner.hf.get_added_vocabulary().is_special_token(&piece))
    }

    /// The id of a token, spelled as in the vocabulary.
    pub fn id(&self, piece: &str) -> Option<u32> {
        self.inner.hf.token_to_id(piece)
    }

    /// The first id that means another token in `other`, with both pieces; none if the vocabularies are the same.
    pub fn first_difference(&self, other: &Tokenizer) -> Option<(u32, Option<String>, Option<String>)> {
        let pieces =
            (0..self.id_limit().max(other.id_limit())).map(|id| (id, self.piece(id), other.piece(id)));
        pieces.into_iter().find(|(_, own, others)| own != others)
    }

    /// The ids with a meaning for the model.
    pub fn special(&self) -> &SpecialIds {
        &self.inner.special
    }

    /// Whether this id ends a text or a turn.
    pub fn is_end(&self, id: u32) -> bool {
        self.inner.special.eos.contains(&id)
    }

    /// Whether [`Tokenizer::encode`] puts the beginning-of-text id in front.
    pub fn adds_bos(&self) -> bool {
        let Some(bos) = self.inner.special.bos else { return false };
        self.encode("", true).is_ok_and(|ids| ids.first() == Some(&bos))
    }

    /// Whether [`Tokenizer::encode`] puts an end-of-text id at the end.
    pub fn adds_eos(&self) -> bool {
        // A text that is not empty: in an empty one, a token that both begins and ends texts would stand for either.
        self.encode("a", true).is_ok_and(|ids| ids.last().is_some_and(|id| self.is_end(*id)))
    }

    /// The content of a `tokenizer.json` for this tokenizer: the text it was read from, or a written-out one if it
    /// came from another kind of file.
    pub fn to_json(&self) -> Result<String> {
        match &self.inner.json {
            Some(json) => Ok(json.to_string()),
            None => guarded(|| self.inner.hf.to_string(true)).map_err(|what| {
                Error::text(format!("the tokenizer can't be written as tokenizer.json ({what})"))
            }),
        }
    }

    pub(crate) fn hf(&self) -> &tokenizers::Tokenizer {
        &self.inner.hf
    }

    pub(crate) fn rule(&self) -> &DecodeRule {
        &self.inner.rule
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.inner.vocab_size)
            .field("special", &self.inner.special)
            .finish_non_exhaustive()
    }
}

fn cannot_encode(what: String) -> Error {
    Error::text(format!("the text can't be tokenized ({what}); the tokenizer file may be damaged"))
}

/// Runs the `tokenizers` crate, which trusts its files: damaged tables make it panic far from where they were read.
pub(crate) fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("its tables contradict each other".into()),
    }
}
