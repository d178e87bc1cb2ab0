//! Opens a folder, or the same files held in memory.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::files::{self, MAX_SETTINGS_BYTES};
use super::pooling::read_modules;
use super::quantized::Method;
use crate::chat::ChatTemplate;
use crate::families::{self, Family};
use crate::formats::safetensors::SafetensorsFile;
use crate::model::{Extra, Format, Model, Origin};
use crate::names::{self, Layout, Names};
use crate::spec::Spec;
use crate::storage::Bytes;
use crate::tokenizer::{Tokenizer, load};
use crate::weights::TensorSource;
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
    let read = |name: &str| files::read(&folder.join(name), limit(name));
    let text = read("config.json")?
        .ok_or_else(|| Error::format(folder, "has no config.json, so it is no model's folder"))?;
    let config = Config::parse(folder.join("config.json"), &text)?;
    // The settings first: of a model that ounce can't run, the weights may be in a format it can't read.
    let settings = Settings::read(folder, config, &read)?;
    let source = SafetensorsFile::open_folder(folder)?;
    let tokenizer = if has_tokenizer(folder) {
        Some(Tokenizer::from_folder(folder, &json(&settings.config), &json(&settings.generation))?)
    } else {
        None
    };
    let chat = ChatTemplate::from_folder(folder)?;
    settings.with_weights(folder, Format::HuggingFace, source, (tokenizer, chat), &read)
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
    let settings = Settings::read(folder, config, &read)?;
    let weights = need("model.safetensors")?;
    let source = SafetensorsFile::parse(Bytes::from_static(weights), &folder.join("model.safetensors"))?;
    let tokenizer = match find("tokenizer.json") {
        Some(text) => Some(Tokenizer::from_embedded(
            text,
            find("tokenizer_config.json"),
            &json(&settings.config),
            &json(&settings.generation),
        )?),
        None => None,
    };
    settings.with_weights(folder, Format::BuiltIn, source, (tokenizer, None), &read)
}

/// Gives a file's content by its path within the folder.
type ReadFile<'a> = &'a dyn Fn(&str) -> Result<Option<Vec<u8>>>;

/// What the files of settings say, checked before any weight is looked at.
struct Settings {
    config: Config,
    generation: Config,
    family: &'static Family,
    spec: Spec,
    /// Files that sentence-transformers keeps in folders of their own.
    module_files: Vec<String>,
    /// How another tool quantized the weights.
    method: Option<Method>,
}

impl Settings {
    fn read(folder: &Path, mut config: Config, read: ReadFile<'_>) -> Result<Settings> {
        let method = Method::take(&mut config)?;
        let (family, mut spec) = families::spec_of(&config)?;
        let generation = read_generation(folder, read)?;
        config.ids("eos_token_id")?;
        generation.ids("eos_token_id")?;
        let modules = read_modules(folder, read)?;
        spec.pooling = modules.as_ref().map(|modules| modules.pooling);
        let module_files = modules.map(|modules| modules.files).unwrap_or_default();
        if method.is_some() && has_transposed(&family.names) {
            return Err(config.error(
                "model_type",
                "quantized checkpoints of this family, which stores its matrices transposed, are not read; take the \
                 original model or a GGUF",
            ));
        }
        Ok(Settings { config, generation, family, spec, module_files, method })
    }

    fn with_weights(
        mut self,
        folder: &Path,
        format: Format,
        source: SafetensorsFile,
        (tokenizer, chat): (Option<Tokenizer>, Option<ChatTemplate>),
        read: ReadFile<'_>,
    ) -> Result<Model> {
        let source: Arc<dyn TensorSource> = Arc::new(source);
        let source = match &self.method {
            Some(method) => method.unpack(source)?,
            None => source,
        };
        self.untie_if_told_twice(source.as_ref())?;
        let weights = names::resolve(&self.spec, &self.family.names, source)?;
        let mut extras = Vec::new();
        let modules = self.module_files.iter().map(String::as_str).filter(|name| *name != "config.json");
        let names: BTreeSet<&str> = EXTRAS.into_iter().chain(modules).collect();
        for name in names {
            if let Some(content) = read(name)? {
                extras.push(Extra { name: name.to_string(), content });
            }
        }
        let origin = Origin { path: folder.to_path_buf(), format, name: None };
        let Settings { config, generation, spec, .. } = self;
        Ok(Model { spec, weights, tokenizer, chat, config, generation, origin, extras })
    }

    /// A file that has an output matrix unlike the embedding means it, whatever `tie_word_embeddings` says; so
    /// transformers decides too.
    fn untie_if_told_twice(&mut self, source: &dyn TensorSource) -> Result<()> {
        if !self.spec.head.as_ref().is_some_and(|head| head.tied) {
            return Ok(());
        }
        let Some(head) = self.family.names.find("head.weight", source) else { return Ok(()) };
        let Some(tokens) = self.family.names.find("embed.tokens.weight", source) else { return Ok(()) };
        let (head, tokens) = (source.tensor(&head)?, source.tensor(&tokens)?);
        if head.dtype == tokens.dtype && head.shape == tokens.shape && head.data[..] == tokens.data[..] {
            return Ok(());
        }
        self.config.map_mut().insert("tie_word_embeddings".to_string(), Value::Bool(false));
        let pooling = self.spec.pooling;
        self.spec = Spec { pooling, ..families::spec_of(&self.config)?.1 };
        Ok(())
    }
}

/// Whether a family's files have matrices as `[in, out]`; quantized ones are `[out, in]` whatever the family.
fn has_transposed(names: &Names) -> bool {
    names.rules.iter().copied().flatten().any(|rule| rule.layout == Layout::Columns)
}

fn json(config: &Config) -> Value {
    Value::Object(config.map().clone())
}

/// How many bytes of a file are read at most.
fn limit(name: &str) -> u64 {
    match name {
        "tokenizer.model" | "tokenizer_config.json" => load::MAX_JSON_BYTES,
        _ => MAX_SETTINGS_BYTES,
    }
}

fn read_generation(folder: &Path, read: ReadFile<'_>) -> Result<Config> {
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
