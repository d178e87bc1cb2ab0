//! A model as a whole: architecture, weights, tokenizer, chat template and the settings that came with them.

use std::path::{Path, PathBuf};

use crate::chat::ChatTemplate;
use crate::formats::{gguf_model, hf, llama2c};
use crate::spec::Spec;
use crate::tokenizer::Tokenizer;
use crate::{Config, Error, Result, Weights};

/// A model, opened but not read: weights stay in their files until they are used.
#[derive(Debug, Clone)]
pub struct Model {
    /// The architecture.
    pub spec: Spec,
    /// The weights, under ounce's names.
    pub weights: Weights,
    /// The tokenizer, if the files have one.
    pub tokenizer: Option<Tokenizer>,
    /// The chat template, if the files have one.
    pub chat: Option<ChatTemplate>,
    /// The settings under Hugging Face's keys, unknown ones included.
    pub config: Config,
    /// `generation_config.json`, or what other formats say of sampling; empty if nothing.
    pub generation: Config,
    /// Where it came from.
    pub origin: Origin,
    /// Small files of the folder that are carried along when it is written again.
    pub extras: Vec<Extra>,
}

/// A small file carried along unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extra {
    /// Its path within the model's folder, with `/`.
    pub name: String,
    /// Its content.
    pub content: Vec<u8>,
}

/// Where a model came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The file or folder; a name in angle brackets for one that is part of the program.
    pub path: PathBuf,
    /// Its format.
    pub format: Format,
    /// What its file calls it; none where files say nothing of that.
    pub name: Option<String>,
}

impl Origin {
    /// What people call it: as its file does, else as its file or folder is called.
    pub fn called(&self) -> Option<String> {
        let path = &self.path;
        let named = || if path.is_dir() { path.file_name() } else { path.file_stem() };
        let plain = || Some(named()?.to_string_lossy().trim_matches(['<', '>']).to_owned());
        self.name.clone().or_else(plain)
    }
}

/// File formats of whole models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// A folder with `config.json` and safetensors.
    HuggingFace,
    /// One GGUF file, or its shards.
    Gguf,
    /// A llama2.c checkpoint.
    Llama2c,
    /// Part of the program.
    BuiltIn,
}

impl Format {
    /// The format's usual name.
    pub fn name(self) -> &'static str {
        match self {
            Format::HuggingFace => "Hugging Face folder",
            Format::Gguf => "GGUF",
            Format::Llama2c => "llama2.c",
            Format::BuiltIn => "built-in",
        }
    }
}

impl Model {
    /// Opens a model: a Hugging Face folder, a `.gguf` file, or a llama2.c `.bin`.
    ///
    /// # Errors
    /// If there is no such file, its format is unknown, or its headers are damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<Model> {
        let path = path.as_ref();
        let kind = std::fs::metadata(path).map_err(Error::io(path))?;
        if kind.is_dir() {
            return open_folder(path);
        }
        if !kind.is_file() {
            return Err(Error::format(path, "is neither a file nor a folder; name a model's file or folder"));
        }
        let mut start = [0u8; 8];
        let read = read_start(path, &mut start)?;
        let extension = path.extension().and_then(|it| it.to_str()).unwrap_or_default().to_ascii_lowercase();
        if start.starts_with(b"GGUF") || extension == "gguf" {
            return gguf_model::open_model(path);
        }
        match extension.as_str() {
            "bin" => llama2c::open_model(path),
            "safetensors" | "json" => Err(Error::format(
                path,
                "is a part of a model; name the folder that holds config.json and the weights",
            )),
            _ if read == 0 => Err(Error::format(path, "is empty; fetch it again")),
            _ => Err(Error::format(
                path,
                "is no model that ounce reads; it reads Hugging Face folders, .gguf files and llama2.c .bin files",
            )),
        }
    }

    /// Bytes of all weights as stored, by ounce's names, tied ones once.
    pub fn weight_bytes(&self) -> u64 {
        let infos = self.weights.names().filter_map(|name| self.weights.info(name));
        infos
            .filter_map(|(dtype, shape)| crate::weights::bytes_of(dtype, shape))
            .map(|bytes| bytes as u64)
            .sum()
    }

    /// Tokens that end a text: of the generation settings, the configuration and the tokenizer.
    pub fn end_ids(&self) -> Vec<u32> {
        let mut ids = self.generation.ids("eos_token_id").unwrap_or_default();
        ids.extend(self.config.ids("eos_token_id").unwrap_or_default());
        if let Some(tokenizer) = &self.tokenizer {
            ids.extend(&tokenizer.special().eos);
        }
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}

/// A folder is a Hugging Face model if it has a `config.json`; one that holds a single GGUF file is that file.
fn open_folder(path: &Path) -> Result<Model> {
    if path.join("config.json").is_file() {
        return hf::open_model(path);
    }
    let entries = std::fs::read_dir(path).map_err(Error::io(path))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|file| file.extension().is_some_and(|it| it.eq_ignore_ascii_case("gguf")))
        .collect();
    files.sort();
    match files.as_slice() {
        [] => Err(Error::format(path, "has no config.json and no .gguf file, so it is no model's folder")),
        [file] => gguf_model::open_model(file),
        [first, ..] if gguf_model::is_first_shard(first) => gguf_model::open_model(first),
        several => Err(Error::format(path, format!("holds {} GGUF files; name one of them", several.len()))),
    }
}

fn read_start(path: &Path, start: &mut [u8]) -> Result<usize> {
    use std::io::Read;
    let mut file = std::fs::File::open(path).map_err(Error::io(path))?;
    file.read(start).map_err(Error::io(path))
}
