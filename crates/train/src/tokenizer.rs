//! Trains a tokenizer on text: which pieces of words a model will read and write.

use std::path::{Path, PathBuf};

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use ounce_model::storage::AtomicFile;
use ounce_model::tokenizer::Tokenizer;
use serde_json::{Value, json};
use tokenizers::AddedToken;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::models::unigram::{Unigram, UnigramTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use crate::data::encode::pieces;
use crate::data::form::{Example, Form};
use crate::data::readers::{ReadOptions, Records};
use crate::{Error, Result};

/// Texts are given to the trainer in pieces of about so many bytes.
const PIECE: usize = 1 << 16;

/// What stands for characters that have no piece, in unigram vocabularies; bytes do before it is needed.
const UNKNOWN: &str = "<unk>";

/// Bytes are pieces of their own in both kinds, so that every text can be spelled.
const BYTES: usize = 256;

/// How a vocabulary is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TokenizerKind {
    /// Byte pair encoding on bytes, as GPT-2 has it: the most frequent pair becomes a piece, again and again.
    #[default]
    Bpe,
    /// Pieces with probabilities, as SentencePiece has it: the least useful are dropped, again and again.
    Unigram,
}

/// What tokenizer is trained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizerSettings {
    /// How the vocabulary is chosen.
    pub kind: TokenizerKind,
    /// Tokens of the vocabulary, special ones and bytes among them. Little text gives fewer.
    pub vocab_size: usize,
    /// Special tokens, which get the first ids. Their usual names tell what they are for; if none is known, the first
    /// ends texts.
    pub special: Vec<String>,
    /// How often a pair must occur to become a piece; for [`TokenizerKind::Bpe`].
    pub min_frequency: u64,
}

impl Default for TokenizerSettings {
    fn default() -> TokenizerSettings {
        TokenizerSettings {
            kind: TokenizerKind::Bpe,
            vocab_size: 4096,
            special: vec!["<|endoftext|>".into()],
            min_frequency: 2,
        }
    }
}

/// Told the bytes read and the bytes of all files; an error ends the work.
pub type OnProgress<'a> = &'a mut (dyn FnMut(u64, u64) -> ounce_model::Result<()> + Send);

/// The texts of files, of all columns that have a meaning.
///
/// # Errors
/// If there is no such file; the iterator gives errors of reading.
pub fn texts<'p>(
    paths: &[PathBuf],
    read: &ReadOptions,
    form: Option<Form>,
    progress: OnProgress<'p>,
) -> Result<impl Iterator<Item = Result<String>> + Send + use<'p>> {
    let mut records = Records::open(paths, read)?;
    let mut form = form;
    let examples = std::iter::from_fn(move || {
        let record = match records.next()? {
            Ok(record) => record,
            Err(error) => return Some(Err(error)),
        };
        let told = progress(records.bytes_read(), records.bytes_total());
        Some(told.map_err(Error::from).and_then(|()| {
            let known = form.take().map_or_else(|| Form::detect(&record), Ok)?;
            form.insert(known).example(record)
        }))
    });
    Ok(examples.flat_map(|example| match example {
        Ok(example) => {
            let mut texts = Vec::new();
            collect(example, &mut texts);
            texts.into_iter().map(Ok).collect()
        }
        Err(error) => vec![Err(error)],
    }))
}

fn collect(example: Example, texts: &mut Vec<String>) {
    match example {
        Example::Text(text) => texts.push(text),
        Example::Alpaca { instruction, input, output } => texts.extend([instruction, input, output]),
        Example::Chat { messages, .. } => texts.extend(messages.iter().map(|message| message.text())),
        Example::Completion { prompt, answer } => texts.extend([prompt, answer]),
        Example::Preference(pair) => pair.into_iter().for_each(|example| collect(example, texts)),
    }
}

/// Trains a tokenizer. Byte pair encoding gives the same for the same texts; unigram may differ in the last digits of its
/// probabilities, because threads add them up in different orders.
///
/// # Errors
/// If there is no text, the vocabulary is too small for bytes and special tokens or, for unigram, for all characters, or
/// a text can't be read.
pub fn train(
    texts: impl Iterator<Item = Result<String>> + Send,
    settings: &TokenizerSettings,
) -> Result<Tokenizer> {
    check(settings)?;
    let mut failed = None;
    let mut bytes = 0u64;
    // The trainer takes texts, not results: an error ends them, and is looked at afterwards.
    let parts = Mutex::new((&mut failed, &mut bytes));
    let texts = texts.map_while(|text| {
        let mut parts = parts.lock().ok()?;
        match text {
            Ok(text) => {
                *parts.1 += text.len() as u64;
                Some(text)
            }
            Err(error) => {
                *parts.0 = Some(error);
                None
            }
        }
    });
    let texts = texts.flat_map(|text| pieces(&text, PIECE).map(str::to_string).collect::<Vec<_>>());
    let trained = catch_unwind(AssertUnwindSafe(|| match settings.kind {
        TokenizerKind::Bpe => bpe(texts, settings),
        TokenizerKind::Unigram => unigram(texts, settings),
    }));
    if let Some(error) = failed {
        return Err(error);
    }
    if bytes == 0 {
        return Err(Error::Settings("there is no text to learn a vocabulary from".into()));
    }
    let json = match trained {
        Ok(Ok(json)) => json,
        Ok(Err(error)) => return Err(explain(error.as_ref(), settings)),
        Err(_) => return Err(explain(&std::fmt::Error, settings)),
    };
    Ok(Tokenizer::from_json_bytes(json.to_string().as_bytes())?)
}

fn check(settings: &TokenizerSettings) -> Result<()> {
    let special = settings.special.len();
    if let Some(twice) =
        settings.special.iter().enumerate().find(|(i, it)| settings.special[..*i].contains(it))
    {
        return Err(Error::Settings(format!("the special token {:?} is given twice", twice.1)));
    }
    if settings.special.iter().any(|token| token.trim().is_empty()) {
        return Err(Error::Settings("a special token can't be empty".into()));
    }
    let unknown = usize::from(settings.kind == TokenizerKind::Unigram);
    let least = BYTES + special + unknown + 1;
    if settings.vocab_size < least || settings.vocab_size > 1 << 20 {
        return Err(Error::Settings(format!(
            "a vocabulary of {} is not possible: {BYTES} bytes, {special} special tokens and a piece of text make {least}, \
             and no model has more than {}",
            settings.vocab_size,
            1 << 20
        )));
    }
    Ok(())
}

fn explain(error: &(dyn std::error::Error + 'static), settings: &TokenizerSettings) -> Error {
    let said = error.to_string();
    Error::Settings(if said.contains("not large enough") || said == std::fmt::Error.to_string() {
        format!(
            "no vocabulary of {} could be learned from these texts: they have too many different characters or too few \
             words; try another size, or kind bpe",
            settings.vocab_size
        )
    } else {
        format!("the tokenizer could not be trained ({said})")
    })
}

fn special_tokens(names: &[String]) -> Vec<AddedToken> {
    names.iter().map(|name| AddedToken::from(name.as_str(), true)).collect()
}

fn bpe(
    texts: impl Iterator<Item = String> + Send,
    settings: &TokenizerSettings,
) -> tokenizers::Result<Value> {
    let trainer = BpeTrainer::builder()
        .vocab_size(settings.vocab_size)
        .min_frequency(settings.min_frequency)
        .special_tokens(special_tokens(&settings.special))
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .show_progress(false)
        .build();
    let mut tokenizer = tokenizers::Tokenizer::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    tokenizer.with_decoder(Some(ByteLevel::new(false, true, true)));
    tokenizer.train(&mut TrainerWrapper::BpeTrainer(trainer), texts)?;
    let mut json = serde_json::to_value(&tokenizer)?;
    classify(&mut json, settings);
    Ok(json)
}

fn unigram(
    texts: impl Iterator<Item = String> + Send,
    settings: &TokenizerSettings,
) -> tokenizers::Result<Value> {
    let mut special = settings.special.clone();
    if !special.iter().any(|token| token == UNKNOWN) {
        special.push(UNKNOWN.into());
    }
    let trainer = UnigramTrainer::builder()
        .vocab_size((settings.vocab_size - BYTES) as u32)
        .special_tokens(special_tokens(&special))
        .unk_token(Some(UNKNOWN.to_string()))
        .show_progress(false)
        .build()?;
    // Spaces belong to the word behind them; a line's end is a piece of its own.
    let mut tokenizer = tokenizers::Tokenizer::new(Unigram::default());
    let before = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"String": "\n"}, "behavior": "Isolated", "invert": false},
        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": true},
    ]});
    tokenizer.with_pre_tokenizer(Some(serde_json::from_value::<tokenizers::PreTokenizerWrapper>(before)?));
    tokenizer.train(&mut TrainerWrapper::UnigramTrainer(trainer), texts)?;

    let mut json = serde_json::to_value(&tokenizer)?;
    json["decoder"] = json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]});
    json["model"]["byte_fallback"] = json!(true);
    if let Some(vocab) = json["model"]["vocab"].as_array_mut() {
        let scores = vocab.iter().filter_map(|piece| piece[1].as_f64());
        let least = scores.fold(0.0, f64::min);
        // Less likely than any piece, so that the spelling of a byte token in a text is not taken for it.
        vocab.extend((0..BYTES).map(|byte| json!([format!("<0x{byte:02X}>"), least - 100.0])));
    }
    classify(&mut json, settings);
    Ok(json)
}

/// With `[CLS]` and `[SEP]` among the special tokens, texts begin and end as encoders have them.
fn classify(json: &mut Value, settings: &TokenizerSettings) {
    let id = |name: &str| settings.special.iter().position(|token| token == name);
    let (Some(cls), Some(sep)) = (id("[CLS]"), id("[SEP]")) else { return };
    let token = |name: &str, kind: u32| json!({"SpecialToken": {"id": name, "type_id": kind}});
    let text = |name: &str, kind: u32| json!({"Sequence": {"id": name, "type_id": kind}});
    let named = |name: &str, id: usize| json!({"id": name, "ids": [id], "tokens": [name]});
    json["post_processor"] = json!({
        "type": "TemplateProcessing",
        "single": [token("[CLS]", 0), text("A", 0), token("[SEP]", 0)],
        "pair": [token("[CLS]", 0), text("A", 0), token("[SEP]", 0), text("B", 1), token("[SEP]", 1)],
        "special_tokens": {"[CLS]": named("[CLS]", cls), "[SEP]": named("[SEP]", sep)},
    });
}

/// Writes `tokenizer.json` and `tokenizer_config.json`, each whole or not at all, into a folder that is made if needed.
///
/// # Errors
/// If the folder can't be written.
pub fn save(tokenizer: &Tokenizer, settings: &TokenizerSettings, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(ounce_model::Error::io(folder))?;
    let mut config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": false,
    });
    for (name, token) in &tokenizer.special().names {
        config[name] = json!(token);
    }
    let is_encoder = tokenizer.special().cls.is_some();
    if let (None, false, Some(first)) = (config.get("eos_token"), is_encoder, settings.special.first()) {
        config["eos_token"] = json!(first);
    }
    let json: Value = serde_json::from_str(&tokenizer.to_json()?)
        .map_err(|error| Error::Settings(format!("the tokenizer can't be written as JSON ({error})")))?;
    for (name, value) in [("tokenizer.json", json), ("tokenizer_config.json", config)] {
        let path = folder.join(name);
        let mut file = AtomicFile::create(&path)?;
        writeln!(file, "{value:#}").map_err(ounce_model::Error::io(&path))?;
        file.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Once upon a time, there was a cat.\nThe cat had a hat, and the hat was red.\n";
    const HARD: &str = "Zoë  paid 5 € \t for 🎉\r\n\n end ";

    fn trained(settings: &TokenizerSettings) -> Result<Tokenizer> {
        train((0..200).map(|i| Ok(format!("{TEXT}Number {i}."))), settings)
    }

    fn both() -> [TokenizerSettings; 2] {
        [TokenizerKind::Bpe, TokenizerKind::Unigram].map(|kind| TokenizerSettings {
            kind,
            vocab_size: 360,
            ..TokenizerSettings::default()
        })
    }

    #[test]
    fn every_text_can_be_spelled_and_known_words_are_short() {
        for settings in both() {
            let tokenizer = trained(&settings).unwrap();
            assert!(
                tokenizer.vocab_size() <= 360 && tokenizer.vocab_size() > 300,
                "{}",
                tokenizer.vocab_size()
            );
            for text in [TEXT, HARD, " a", "a", ""] {
                let ids = tokenizer.encode(text, false).unwrap();
                assert_eq!(tokenizer.decode(&ids, true).unwrap(), text, "{:?}", settings.kind);
            }
            let pieces = tokenizer.pieces(&tokenizer.encode(TEXT, false).unwrap());
            // Of 79 characters; a trainer of probabilities finds few words in so little text.
            let most = if settings.kind == TokenizerKind::Bpe { 40 } else { 60 };
            assert!(pieces.len() < most, "{:?}: {pieces:?}", settings.kind);
            assert_eq!(tokenizer.encode("a<|endoftext|>", false).unwrap().last(), Some(&0));
        }
    }

    #[test]
    fn the_same_texts_give_the_same_pairs() {
        let [settings, _] = both();
        assert_eq!(
            trained(&settings).unwrap().to_json().unwrap(),
            trained(&settings).unwrap().to_json().unwrap()
        );
    }

    #[test]
    fn what_is_saved_is_read_with_its_special_tokens() {
        let folder = tempfile::tempdir().unwrap();
        for settings in both() {
            for (special, eos, cls) in [
                (vec!["<|endoftext|>"], Some("<|endoftext|>"), None),
                (vec!["<stop>", "<other>"], Some("<stop>"), None),
                (vec!["[PAD]", "[CLS]", "[SEP]", "[MASK]"], None, Some("[CLS]")),
            ] {
                let special = special.into_iter().map(String::from).collect();
                let settings = TokenizerSettings { special, ..settings.clone() };
                let tokenizer = trained(&settings).unwrap();
                save(&tokenizer, &settings, folder.path()).unwrap();
                let read = Tokenizer::from_folder(folder.path(), &Value::Null, &Value::Null).unwrap();
                let id = |name: Option<&str>| name.map(|name| read.id(name).unwrap());
                assert_eq!(read.special().eos.first().copied(), id(eos));
                assert_eq!(read.special().cls, id(cls));
                let ids = read.encode(HARD, true).unwrap();
                assert_eq!(ids, tokenizer.encode(HARD, true).unwrap());
                if cls.is_some() {
                    assert_eq!((ids.first(), ids.last()), (Some(&1), Some(&2)));
                }
            }
        }
    }

    #[test]
    fn impossible_vocabularies_are_refused() {
        for settings in both() {
            let says = |settings: &TokenizerSettings, text: &str| {
                train([Ok(text.to_string())].into_iter(), settings).unwrap_err().to_string()
            };
            assert!(says(&settings, "").contains("no text"));
            let small = TokenizerSettings { vocab_size: 256, ..settings.clone() };
            assert!(says(&small, TEXT).contains("256 bytes, 1 special tokens"));
            let twice = TokenizerSettings { special: vec!["a".into(), "a".into()], ..settings.clone() };
            assert!(says(&twice, TEXT).contains("given twice"));
            let failing = [Ok(TEXT.to_string()), Err(Error::data("a.txt", "is broken"))];
            let error = train(failing.into_iter(), &settings).unwrap_err().to_string();
            assert_eq!(error, "a.txt: is broken");
        }
        let characters: String = ('一'..).take(500).flat_map(|c| [c, ' ']).collect();
        let [_, unigram] = both();
        let error = train([Ok(characters)].into_iter(), &unigram).unwrap_err().to_string();
        assert!(error.contains("too many different characters"), "{error}");
    }
}
