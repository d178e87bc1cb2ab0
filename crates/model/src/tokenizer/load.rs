//! Finds and reads the tokenizer of a Hugging Face folder.
//!
//! Looked for, in this order: `tokenizer.json`, `vocab.json` with `merges.txt` (GPT-2, RoBERTa, Qwen2), `vocab.txt`
//! (BERT), `tokenizer.model` (SentencePiece). Beside them `tokenizer_config.json` and `special_tokens_map.json` are
//! read for special tokens. Nothing is fetched, and nothing in the folder is run.

use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::build::{self, AddedToken, BpeOptions, Parts};
use super::special::{SpecialFiles, SpecialIds, token_text};
use super::{MAX_ID, Tokenizer, pre, sentencepiece};
use crate::{Error, Result};

/// The largest tokenizer file that is read; the largest in use has about 40 MB.
pub const MAX_JSON_BYTES: u64 = 256 << 20;

pub(crate) fn too_large(bytes: u64) -> String {
    format!(
        "the file has {bytes} bytes, more than the {MAX_JSON_BYTES} a tokenizer can have; is it the right file?"
    )
}

/// Reads the tokenizer of a folder; see [`Tokenizer::from_folder`].
pub(super) fn from_folder(dir: &Path, config: &Value, generation_config: &Value) -> Result<Tokenizer> {
    let tokenizer_config = read_json(&dir.join("tokenizer_config.json"))?;
    let special_tokens_map = read_json(&dir.join("special_tokens_map.json"))?;
    let tokenizer = if let Some(bytes) = read(&dir.join("tokenizer.json"))? {
        Tokenizer::parse(&bytes, &dir.join("tokenizer.json"))?
    } else if dir.join("vocab.json").is_file() && dir.join("merges.txt").is_file() {
        from_vocab_and_merges(dir, &tokenizer_config)?
    } else if let Some(bytes) = read(&dir.join("vocab.txt"))? {
        from_word_list(&bytes, &dir.join("vocab.txt"), &tokenizer_config)?
    } else if let Some(bytes) = read(&dir.join("tokenizer.model"))? {
        let path = dir.join("tokenizer.model");
        if is_tiktoken(&bytes) {
            return Err(no_tiktoken(&path));
        }
        let mut vocab = sentencepiece::read(&bytes, &path)?;
        let flag = |key: &str| tokenizer_config.get(key).and_then(Value::as_bool);
        vocab.add_bos = flag("add_bos_token").or(vocab.add_bos);
        vocab.add_eos = flag("add_eos_token").or(vocab.add_eos);
        vocab.to_tokenizer_of(&path)?
    } else {
        return Err(nothing_found(dir));
    };
    let files = SpecialFiles {
        config,
        generation_config,
        tokenizer_config: &tokenizer_config,
        special_tokens_map: &special_tokens_map,
    };
    Ok(with_special_of(tokenizer, &files))
}

/// Reads a `tokenizer.json` that is held in memory like its other files; see [`Tokenizer::from_embedded`].
pub(super) fn from_embedded(
    tokenizer: &[u8],
    tokenizer_config: Option<&[u8]>,
    config: &Value,
    generation_config: &Value,
) -> Result<Tokenizer> {
    let path = Path::new("tokenizer_config.json");
    let tokenizer_config = tokenizer_config.map_or(Ok(Value::Null), |bytes| parse_json(bytes, path))?;
    let files = SpecialFiles {
        config,
        generation_config,
        tokenizer_config: &tokenizer_config,
        special_tokens_map: &Value::Null,
    };
    Ok(with_special_of(Tokenizer::from_json_bytes(tokenizer)?, &files))
}

/// Gives a tokenizer the special ids that the files beside it name.
fn with_special_of(tokenizer: Tokenizer, files: &SpecialFiles<'_>) -> Tokenizer {
    let special = SpecialIds::from_files(files, |name| tokenizer.id(name));
    // A folder with nothing but a vocabulary: the usual names are the best there is.
    let silent = special.names.is_empty() && special.eos.is_empty() && special.bos.is_none();
    if silent { tokenizer } else { tokenizer.with_special(special) }
}

/// The bytes of a file, or `None` if there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(path)(error)),
    };
    let length = file.metadata().map_err(Error::io(path))?.len();
    if length > MAX_JSON_BYTES {
        return Err(Error::format(path, too_large(length)));
    }
    let mut bytes = Vec::new();
    // The limit is for files that grow, or that give no length.
    file.take(MAX_JSON_BYTES + 1).read_to_end(&mut bytes).map_err(Error::io(path))?;
    if bytes.len() as u64 > MAX_JSON_BYTES {
        return Err(Error::format(path, too_large(bytes.len() as u64)));
    }
    Ok(Some(bytes))
}

/// The parsed content of a JSON file, or [`Value::Null`] if there is no such file.
pub(crate) fn read_json(path: &Path) -> Result<Value> {
    let Some(bytes) = read(path)? else { return Ok(Value::Null) };
    parse_json(&bytes, path)
}

fn parse_json(bytes: &[u8], path: &Path) -> Result<Value> {
    serde_json::from_slice(bytes)
        .map_err(|e| Error::format(path, format!("not valid JSON ({e}); download the file again")))
}

fn from_vocab_and_merges(dir: &Path, tokenizer_config: &Value) -> Result<Tokenizer> {
    let class = tokenizer_config.get("tokenizer_class").and_then(Value::as_str).unwrap_or("GPT2Tokenizer");
    let (pre_name, encoder) = match class.trim_end_matches("Fast") {
        "GPT2Tokenizer" => ("gpt-2", false),
        "RobertaTokenizer" => ("gpt-2", true),
        "Qwen2Tokenizer" => ("qwen2", false),
        other => {
            return Err(Error::format(
                dir,
                format!(
                    "vocab.json and merges.txt of a {other} don't say how text is split; \
                     save the tokenizer as tokenizer.json with transformers"
                ),
            ));
        }
    };
    let vocab_path = dir.join("vocab.json");
    let vocab = read_json(&vocab_path)?;
    let ids = vocab.as_object().ok_or_else(|| Error::format(&vocab_path, "not a map from tokens to ids"))?;
    for (token, id) in ids {
        if id.as_u64().is_none_or(|id| id >= u64::from(MAX_ID)) {
            return Err(Error::format(&vocab_path, format!("the id of token {token:?} is not a token id")));
        }
    }
    let merges_path = dir.join("merges.txt");
    let text = String::from_utf8(read(&merges_path)?.unwrap_or_default())
        .map_err(|_| Error::format(&merges_path, "the file is not UTF-8; it is damaged"))?;
    let lines =
        text.lines().enumerate().filter(|(i, line)| !line.is_empty() && (*i > 0 || !is_version(line)));
    let merges = lines
        .map(|(i, line)| {
            let pair = line.split_once(' ').map(|(left, right)| (left.to_string(), right.to_string()));
            pair.ok_or_else(|| {
                Error::format(&merges_path, format!("line {} is not two tokens: {line:?}", i + 1))
            })
        })
        .collect::<Result<Vec<_>>>()?;

    let rule = pre::find(pre_name)?;
    let added = added_tokens(tokenizer_config, &read_json(&dir.join("added_tokens.json"))?);
    let known = |name: &str| ids.get(name).and_then(Value::as_u64).map(|id| id as u32);
    let post_processor = match (encoder, known("<s>"), known("</s>")) {
        (true, Some(cls), Some(sep)) => serde_json::json!({
            "type": "RobertaProcessing", "sep": ["</s>", sep], "cls": ["<s>", cls],
            "trim_offsets": true, "add_prefix_space": false,
        }),
        _ => Value::Null,
    };
    let parts = Parts {
        added,
        normalizer: rule.normalizer(),
        pre_tokenizer: build::byte_level_pre_tokenizer(rule),
        post_processor,
        decoder: build::byte_level(),
        model: build::bpe(vocab.clone(), &merges, &BpeOptions::default()),
    };
    Tokenizer::from_value(parts.into_json(), &vocab_path)
}

fn is_version(line: &str) -> bool {
    line.starts_with("#version")
}

/// The added tokens that `tokenizer_config.json` and `added_tokens.json` list, by id.
fn added_tokens(tokenizer_config: &Value, added: &Value) -> Vec<AddedToken> {
    let declared = tokenizer_config.get("added_tokens_decoder").and_then(Value::as_object);
    let mut tokens: Vec<AddedToken> = declared
        .into_iter()
        .flatten()
        .filter_map(|(id, token)| {
            let special = token.get("special").and_then(Value::as_bool).unwrap_or(false);
            Some(AddedToken { id: id.parse().ok()?, content: token_text(token)?.to_string(), special })
        })
        .collect();
    for (content, id) in added.as_object().into_iter().flatten() {
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
        if let (Some(id), false) = (id, tokens.iter().any(|t| t.content == *content)) {
            tokens.push(AddedToken { id, content: content.clone(), special: true });
        }
    }
    for key in ["bos_token", "eos_token", "unk_token", "pad_token"] {
        let Some(content) = tokenizer_config.get(key).and_then(token_text) else { continue };
        if !tokens.iter().any(|t| t.content == content) {
            // The id is taken from the vocabulary when the tokenizer is built.
            tokens.push(AddedToken { id: u32::MAX, content: content.to_string(), special: true });
        }
    }
    tokens.sort_by_key(|token| token.id);
    tokens
}

fn from_word_list(bytes: &[u8], path: &Path, tokenizer_config: &Value) -> Result<Tokenizer> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Error::format(path, "the file is not UTF-8; it is damaged"))?;
    let words: Vec<String> = text.lines().map(|line| line.trim_end_matches('\r').to_string()).collect();
    let id = |name: &str| words.iter().position(|word| word == name).map(|id| id as u32);
    let (Some(unk), Some(cls), Some(sep)) = (id("[UNK]"), id("[CLS]"), id("[SEP]")) else {
        return Err(Error::format(
            path,
            "the list has no [UNK], [CLS] and [SEP], so it is no BERT vocabulary",
        ));
    };
    if let Some((first, second)) = build::first_duplicate(&words) {
        return Err(Error::format(
            path,
            format!("lines {} and {} are the same word {:?}", first + 1, second + 1, words[first]),
        ));
    }
    let flag = |key: &str| tokenizer_config.get(key).and_then(Value::as_bool);
    let added = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        .into_iter()
        .filter_map(|name| id(name).map(|id| AddedToken { id, content: name.into(), special: true }))
        .collect();
    let parts = Parts {
        added,
        normalizer: build::bert_normalizer(flag("do_lower_case").unwrap_or(true), flag("strip_accents")),
        pre_tokenizer: serde_json::json!({"type": "BertPreTokenizer"}),
        post_processor: build::classify(("[CLS]", cls), ("[SEP]", sep)),
        decoder: serde_json::json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
        model: build::word_piece(
            build::vocab_map(words.iter().enumerate().map(|(id, word)| (word.as_str(), id as u32))),
            &words[unk as usize],
        ),
    };
    Tokenizer::from_value(parts.into_json(), path)
}

/// Whether the file is a list of base64 tokens and ranks, as tiktoken writes it.
fn is_tiktoken(bytes: &[u8]) -> bool {
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    let Some((token, rank)) = std::str::from_utf8(line).ok().and_then(|line| line.trim_end().split_once(' '))
    else {
        return false;
    };
    build::from_base64(token).is_some_and(|token| !token.is_empty()) && rank.parse::<u32>().is_ok()
}

fn no_tiktoken(path: &Path) -> Error {
    Error::format(
        path,
        "a tiktoken vocabulary doesn't say how text is split; save the tokenizer as tokenizer.json with transformers",
    )
}

fn nothing_found(dir: &Path) -> Error {
    let tiktoken = std::fs::read_dir(dir).ok().into_iter().flatten().flatten().map(|entry| entry.path());
    match tiktoken.into_iter().find(|path| path.extension().is_some_and(|e| e == "tiktoken")) {
        Some(path) => no_tiktoken(&path),
        None => Error::format(
            dir,
            "no tokenizer.json, vocab.json with merges.txt, vocab.txt or tokenizer.model in this folder; \
             copy the tokenizer's files beside the weights",
        ),
    }
}
