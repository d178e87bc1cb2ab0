//! Opens a GGUF file as a model: its header is read, weights stay in the file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ounce_kernels::{DType, quant};
use serde_json::{Value as Json, json};

use super::facts::Facts;
use super::{config, vocab};
use crate::families;
use crate::formats::gguf::GgufFile;
use crate::formats::hf;
use crate::model::{Extra, Format, Model, Origin};
use crate::names;
use crate::spec::{Pooling, PoolingMode, Spec};
use crate::storage::Bytes;
use crate::tokenizer::Tokenizer;
use crate::weights::{Tensor, TensorSource};
use crate::{Config, Error, Result};

/// Key of the embedded `generation_config.json`.
pub(super) const GENERATION: &str = "ounce.generation_config";
/// Key of the pooling as ounce knows it.
pub(super) const POOLING: &str = "ounce.pooling";
/// Key of the position rows that GGUF leaves out.
pub(super) const POSITIONS: &str = "ounce.positions";
/// Start of the keys of embedded files.
pub(super) const FILES: &str = "ounce.file.";
/// The table of learned positions.
pub(super) const POSITION_TABLE: &str = "position_embd.weight";

/// Opens the model in a GGUF file, or in the parts of a split one, of which any may be named.
///
/// # Errors
/// If the file is damaged or cut off, its architecture is unknown, or it asks for something ounce does not compute.
pub fn open_model(path: &Path) -> Result<Model> {
    let file = GgufFile::open(path)?;
    let facts = Facts::of(&file)?;
    let mut config = config::of(&facts)?;
    let (_, mut spec) = families::spec_of(&config)?;
    spec.pooling = pooling(&facts)?;
    let arch = facts.arch;
    let tokenizer = vocab::read(&file)?.map(|vocab| vocab.to_tokenizer()).transpose()?;
    if let Some(tokenizer) = tokenizer.as_ref().filter(|_| file.metadata().get(config::CONFIG).is_none()) {
        add_special_ids(tokenizer, &mut config);
    }
    let chat = vocab::read_chat(&file, tokenizer.as_ref())?;
    let generation = match file.get::<&str>(GENERATION)? {
        Some(text) => Config::parse(path, text.as_bytes())?,
        None => Config::new(path, vocab::read_generation(&file, tokenizer.as_ref())),
    };
    let extras = extras(&file);
    // Whatever stands there is no reason to refuse a file.
    let name = file.get::<&str>("general.name").ok().flatten().map(str::to_owned);
    let source = Source::new(file, &spec)?;
    let weights = names::resolve(&spec, &arch.names, Arc::new(source))?;
    let origin = Origin { path: path.to_path_buf(), format: Format::Gguf, name };
    Ok(Model { spec, weights, tokenizer, chat, config, generation, origin, extras })
}

/// Whether a file name is that of the first shard of several (`…-00001-of-00003.gguf`).
pub fn is_first_shard(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().contains("-00001-of-"))
}

/// Names the special ids in a configuration that had no original to say them.
fn add_special_ids(tokenizer: &Tokenizer, config: &mut Config) {
    let special = tokenizer.special();
    let ids = [
        ("bos_token_id", special.bos),
        ("eos_token_id", special.eos.first().copied()),
        ("pad_token_id", special.pad),
    ];
    for (key, id) in ids {
        if let Some(id) = id {
            config.map_mut().insert(key.to_string(), json!(id));
        }
    }
}

/// GGUF's numbers for pooling.
pub(super) fn pooling_type(mode: PoolingMode) -> Option<u32> {
    match mode {
        PoolingMode::Mean => Some(1),
        PoolingMode::Cls => Some(2),
        PoolingMode::Last => Some(3),
        PoolingMode::Max => None,
    }
}

/// How sentences are pooled. Files of other programs don't say whether vectors are scaled to length one; the models
/// they hold are.
fn pooling(facts: &Facts<'_>) -> Result<Option<Pooling>> {
    let number: Option<u32> = facts.get("pooling_type")?;
    let modes = [PoolingMode::Mean, PoolingMode::Cls, PoolingMode::Last];
    let mode = modes.into_iter().find(|&mode| number.is_some() && pooling_type(mode) == number);
    let embedded = match facts.metadata.get(POOLING) {
        Some(crate::formats::gguf::Value::String(text)) => serde_json::from_str::<Pooling>(text).ok(),
        _ => None,
    };
    Ok(match (mode, embedded) {
        (Some(mode), Some(embedded)) => Some(Pooling { mode, ..embedded }),
        (Some(mode), None) => Some(Pooling { mode, normalise: true }),
        (None, embedded) => embedded,
    })
}

/// The embedded files that a folder may have; other names are passed over, because they would be written.
fn extras(file: &GgufFile) -> Vec<Extra> {
    let mut extras = Vec::new();
    for name in hf::EXTRAS {
        if let Ok(Some(content)) = file.get::<&str>(&format!("{FILES}{name}")) {
            extras.push(Extra { name: name.to_string(), content: content.as_bytes().to_vec() });
        }
    }
    extras
}

/// The tensors of a GGUF file, with RoBERTa's position table made whole.
struct Source {
    file: GgufFile,
    path: PathBuf,
    positions: Option<WholePositions>,
}

/// The rows that come before those of the file.
struct WholePositions {
    shape: Vec<usize>,
    before: Vec<u8>,
}

impl Source {
    fn new(file: GgufFile, spec: &Spec) -> Result<Source> {
        let path = file.path().to_path_buf();
        let positions = whole_positions(&file, spec)?;
        Ok(Source { file, path, positions })
    }
}

/// The missing rows of a table whose positions start at an offset; zeros if the file does not keep them.
fn whole_positions(file: &GgufFile, spec: &Spec) -> Result<Option<WholePositions>> {
    let Some(positions) = spec.embedding.positions.filter(|positions| positions.offset > 0) else {
        return Ok(None);
    };
    let missing = |shape: &[usize]| shape.first() == positions.count.checked_sub(positions.offset).as_ref();
    let Some(tensor) = file.tensor(POSITION_TABLE).filter(|tensor| missing(&tensor.shape)) else {
        return Ok(None);
    };
    let row = tensor.shape.get(1).copied().unwrap_or(1);
    let kept: Option<&[f32]> = file.get(POSITIONS)?;
    let bad = |what: String| Error::tensor(file.path(), POSITION_TABLE, what);
    let values = match kept {
        Some(kept) if Some(kept.len()) == positions.offset.checked_mul(row) => kept.to_vec(),
        Some(kept) => {
            let what =
                format!("lacks {} rows, for which {POSITIONS} has {} values", positions.offset, kept.len());
            return Err(bad(what));
        }
        None => vec![0.0; positions.offset.checked_mul(row).ok_or_else(|| bad("is too large".to_string()))?],
    };
    let mut before = Vec::new();
    quant::encode(tensor.dtype, &values, &mut before).map_err(|error| bad(error.to_string()))?;
    Ok(Some(WholePositions { shape: vec![positions.count, row], before }))
}

impl TensorSource for Source {
    fn path(&self) -> &Path {
        &self.path
    }

    fn names(&self) -> Vec<&str> {
        self.file.tensors().iter().map(|tensor| tensor.name.as_str()).collect()
    }

    fn info(&self, name: &str) -> Option<(DType, &[usize])> {
        let tensor = self.file.tensor(name)?;
        let whole = self.positions.as_ref().filter(|_| name == POSITION_TABLE);
        Some((tensor.dtype, whole.map_or(&tensor.shape, |whole| &whole.shape)))
    }

    fn tensor(&self, name: &str) -> Result<Tensor> {
        let stored = self.file.tensor(name);
        let stored = stored.ok_or_else(|| Error::tensor(&self.path, name, "is missing"))?;
        let (dtype, shape) = (stored.dtype, stored.shape.clone());
        match self.positions.as_ref().filter(|_| name == POSITION_TABLE) {
            Some(whole) => {
                let data = Bytes::from([whole.before.as_slice(), &stored.data].concat());
                Ok(Tensor { dtype, shape: whole.shape.clone(), data })
            }
            None => Ok(Tensor { dtype, shape, data: stored.data.clone() }),
        }
    }
}

/// A JSON object as one line of text.
pub(super) fn text_of(config: &Config) -> String {
    Json::Object(config.map().clone()).to_string()
}
