//! Opens a folder, or the same files held in memory.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::pooling::read_pooling;
use crate::chat::ChatTemplate;
use crate::families;
use crate::formats::safetensors::SafetensorsFile;
use crate::model::{Extra, Format, Model, Origin};
use crate::names;
use crate::storage::Bytes;
use crate::tokenizer::{Tokenizer, load};
use crate::{Config, Error, Result};

/// Files that travel with a model when it is written again.
pub(crate) const EXTRAS: [&str; 12] = [
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "modules.json",
    "1_Pooling/config.json",
    "2_Normalize/config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "LICENSE",
    "tokenizer.model",
];

/// Opens the model in a folder.
///
/// # Errors
/// If a file is missing, damaged, or asks for something ounce does not compute.
pub fn open_model(folder: &Path) -> Result<Model> {
    let read = |name: &str| load::read(&folder.join(name));
    let config_path = folder.join("config.json");
    let text = read("config.json")?
        .ok_or_else(|| Error::format(folder, "has no config.json, so it is no model's folder"))?;
    let config = Config::parse(&config_path, &text)?;
    let generation = read_generation(folder, &read)?;
    let source = SafetensorsFile::open_folder(folder)?;
    let json = |config: &Config| Value::Object(config.map().clone());
    let tokenizer = if has_tokenizer(folder) {
        Some(Tokenizer::from_folder(folder, &json(&config), &json(&generation))?)
    } else {
        None
    };
    let chat = ChatTemplate::from_folder(folder)?;
    assemble(folder, Format::HuggingFace, config, generation, source, (tokenizer, chat), &read)
}

/// Opens a model whose files are part of the program: pairs of file name and content. `name` is its name.
///
/// # Errors
/// As [`open_model`].
pub fn open_embedded(name: &str, files: &[(&str, &'static [u8])]) -> Result<Model> {
    let folder = Path::new(name);
    let find = |wanted: &str| files.iter().find(|(name, _)| *name == wanted).map(|(_, content)| *content);
    let read = |wanted: &str| Ok(find(wanted).map(<[u8]>::to_vec));
    let need =
        |wanted: &str| find(wanted).ok_or_else(|| Error::format(folder, format!("has no {wanted} built in")));
    let config = Config::parse(folder.join("config.json"), need("config.json")?)?;
    let generation = read_generation(folder, &read)?;
    let weights = need("model.safetensors")?;
    let source = SafetensorsFile::parse(Bytes::from_static(weights), &folder.join("model.safetensors"))?;
    let tokenizer = match find("tokenizer.json") {
        Some(text) => Some(Tokenizer::from_json_bytes(text)?),
        None => None,
    };
    assemble(folder, Format::BuiltIn, config, generation, source, (tokenizer, None), &read)
}

fn assemble(
    folder: &Path,
    format: Format,
    config: Config,
    generation: Config,
    source: SafetensorsFile,
    (tokenizer, chat): (Option<Tokenizer>, Option<ChatTemplate>),
    read: &dyn Fn(&str) -> Result<Option<Vec<u8>>>,
) -> Result<Model> {
    if let Some(quantization) = config.object_opt("quantization_config")? {
        let method = quantization.text_opt("quant_method")?.unwrap_or("an unnamed method");
        return Err(config.error(
            "quantization_config",
            format!("the weights are packed by {method}, which ounce does not read; take the original model or a GGUF"),
        ));
    }
    let (family, mut spec) = families::spec_of(&config)?;
    spec.pooling = read_pooling(folder, read)?;
    let weights = names::resolve(&spec, &family.names, Arc::new(source))?;
    let mut extras = Vec::new();
    for name in EXTRAS {
        if let Some(content) = read(name)? {
            extras.push(Extra { name: name.to_string(), content });
        }
    }
    let origin = Origin { path: folder.to_path_buf(), format };
    Ok(Model { spec, weights, tokenizer, chat, config, generation, origin, extras })
}

fn read_generation(folder: &Path, read: &dyn Fn(&str) -> Result<Option<Vec<u8>>>) -> Result<Config> {
    let path = folder.join("generation_config.json");
    match read("generation_config.json")? {
        Some(text) => Config::parse(path, &text),
        None => Ok(Config::new(path, Map::new())),
    }
}

fn has_tokenizer(folder: &Path) -> bool {
    ["tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model"]
        .iter()
        .any(|it| folder.join(it).is_file())
}
