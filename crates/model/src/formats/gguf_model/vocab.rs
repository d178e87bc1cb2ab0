//! The `tokenizer.ggml.*` keys, chat templates and sampling settings of a GGUF file.

use serde_json::{Map, Value as Json, json};

use crate::Result;
use crate::chat::ChatTemplate;
use crate::formats::gguf::{GgufFile, GgufHeader, Value};
use crate::tokenizer::{GgufVocab, Tokenizer};

/// The vocabulary; none if the file says that it has none.
pub(super) fn read(file: &GgufFile) -> Result<Option<GgufVocab>> {
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let model: Option<&str> = file.get(&key("model"))?;
    let Some(model) = model.filter(|model| !matches!(*model, "none" | "no_vocab")) else { return Ok(None) };
    let texts = |name: &str| Ok(file.get::<&[String]>(&key(name))?.map(<[String]>::to_vec));
    let text = |name: &str| file.get::<&str>(name).map(|text| text.map(str::to_string));
    let id = |name: &str| file.get::<u32>(&key(&format!("{name}_token_id")));
    let flag = |name: &str| file.get::<bool>(&key(name));
    let charsmap: Option<Vec<i64>> = file.get(&key("precompiled_charsmap"))?;
    Ok(Some(GgufVocab {
        model: model.to_string(),
        pre: text(&key("pre"))?,
        tokens: texts("tokens")?.unwrap_or_default(),
        scores: file.get::<&[f32]>(&key("scores"))?.map(<[f32]>::to_vec),
        token_types: file.get(&key("token_type"))?,
        merges: texts("merges")?,
        bos: id("bos")?,
        eos: id("eos")?,
        eot: id("eot")?,
        eom: id("eom")?,
        unk: id("unknown")?,
        pad: id("padding")?,
        sep: id("seperator")?,
        cls: id("cls")?,
        mask: id("mask")?,
        add_bos: flag("add_bos_token")?,
        add_eos: flag("add_eos_token")?,
        add_space_prefix: flag("add_space_prefix")?,
        remove_extra_whitespaces: flag("remove_extra_whitespaces")?,
        // Writers disagree whether the bytes are signed.
        precompiled_charsmap: charsmap.map(|bytes| bytes.into_iter().map(|byte| byte as u8).collect()),
        lowercase: flag("normalizer.lowercase")?,
        strip_accents: flag("normalizer.strip_accents")?,
        huggingface_json: text("tokenizer.huggingface.json")?,
    }))
}

/// Writes the vocabulary, filled up to `rows` tokens; without a tokenizer, that there is none.
///
/// # Errors
/// If GGUF has no kind for the tokenizer.
pub(super) fn write(tokenizer: Option<&Tokenizer>, rows: usize, header: &mut GgufHeader) -> Result<()> {
    let Some(tokenizer) = tokenizer else {
        header.set("tokenizer.ggml.model", "none");
        return Ok(());
    };
    let mut vocab = GgufVocab::from_tokenizer(tokenizer)?;
    vocab.pad_to(rows);
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            header.set(format!("tokenizer.{name}"), value);
        }
    };
    set("ggml.model", Some(vocab.model.into()));
    set("ggml.pre", vocab.pre.map(Value::from));
    set("ggml.tokens", Some(vocab.tokens.into()));
    set("ggml.scores", vocab.scores.map(Value::from));
    set("ggml.token_type", vocab.token_types.map(Value::from));
    set("ggml.merges", vocab.merges.map(Value::from));
    let ids = [
        ("bos", vocab.bos),
        ("eos", vocab.eos),
        ("eot", vocab.eot),
        ("eom", vocab.eom),
        ("unknown", vocab.unk),
        ("padding", vocab.pad),
        ("seperator", vocab.sep),
        ("cls", vocab.cls),
        ("mask", vocab.mask),
    ];
    for (name, id) in ids {
        set(&format!("ggml.{name}_token_id"), id.map(Value::from));
    }
    let flags = [
        ("add_bos_token", vocab.add_bos),
        ("add_eos_token", vocab.add_eos),
        ("add_space_prefix", vocab.add_space_prefix),
        ("remove_extra_whitespaces", vocab.remove_extra_whitespaces),
        ("normalizer.lowercase", vocab.lowercase),
        ("normalizer.strip_accents", vocab.strip_accents),
    ];
    for (name, flag) in flags {
        set(&format!("ggml.{name}"), flag.map(Value::from));
    }
    set("ggml.precompiled_charsmap", vocab.precompiled_charsmap.map(Value::from));
    set("huggingface.json", vocab.huggingface_json.map(Value::from));
    Ok(())
}

/// Key of the chat template; others follow behind a dot.
const TEMPLATE: &str = "tokenizer.chat_template";

/// The chat templates of a file.
///
/// # Errors
/// If one is no template.
pub(super) fn read_chat(file: &GgufFile, tokenizer: Option<&Tokenizer>) -> Result<Option<ChatTemplate>> {
    let named = |key: &str| match key.strip_prefix(TEMPLATE)? {
        "" => Some("default".to_string()),
        rest => rest.strip_prefix('.').map(str::to_string),
    };
    let mut sources = Vec::new();
    for (key, value) in file.metadata().iter() {
        if let (Some(name), Value::String(source)) = (named(key), value) {
            sources.push((name, source.clone()));
        }
    }
    if sources.is_empty() {
        return Ok(None);
    }
    let tokens = tokenizer.map(|tokenizer| tokenizer.special().names.clone()).unwrap_or_default();
    ChatTemplate::named(sources, tokens).map(Some)
}

/// Writes the chat templates.
pub(super) fn write_chat(chat: &ChatTemplate, header: &mut GgufHeader) {
    let mut names = Vec::new();
    for (name, source) in chat.sources() {
        if name != "default" {
            names.push(name.clone());
            header.set(format!("{TEMPLATE}.{name}"), source.as_str());
        }
    }
    header.set(TEMPLATE, chat.source());
    if !names.is_empty() {
        header.set("tokenizer.chat_templates", names);
    }
}

/// Sampling settings: GGUF's key behind `general.sampling.`, and `generation_config.json`'s.
const SAMPLING: [(&str, &str); 5] = [
    ("temp", "temperature"),
    ("top_k", "top_k"),
    ("top_p", "top_p"),
    ("min_p", "min_p"),
    ("penalty_repeat", "repetition_penalty"),
];

/// What a file says of generating, in the keys of `generation_config.json`.
pub(super) fn read_generation(file: &GgufFile, tokenizer: Option<&Tokenizer>) -> Map<String, Json> {
    let mut map = Map::new();
    for (suffix, key) in SAMPLING {
        let value = file.metadata().get(&format!("general.sampling.{suffix}"));
        if let Some(json) = value.and_then(super::keys::to_json) {
            map.insert(key.to_string(), json);
        }
    }
    if let Some(special) = tokenizer.map(Tokenizer::special) {
        if let Some(bos) = special.bos {
            map.insert("bos_token_id".to_string(), json!(bos));
        }
        match special.eos.as_slice() {
            [] => {}
            [eos] => drop(map.insert("eos_token_id".to_string(), json!(eos))),
            several => drop(map.insert("eos_token_id".to_string(), json!(several))),
        }
    }
    map
}

/// Writes the sampling settings that GGUF has keys for.
pub(super) fn write_sampling(generation: &Map<String, Json>, header: &mut GgufHeader) {
    for (suffix, key) in SAMPLING {
        let Some(number) = generation.get(key).and_then(Json::as_f64) else { continue };
        let value = if suffix == "top_k" { Value::I32(number as i32) } else { Value::F32(number as f32) };
        header.set(format!("general.sampling.{suffix}"), value);
    }
}
