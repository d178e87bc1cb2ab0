//! What a command's MODEL may be: `builtin`, a folder or file, or a model of the hub that was pulled before.

use std::path::{Path, PathBuf};

use anyhow::bail;
use ounce_lab::builtin::{self, Embedded};
use ounce_model::Model;
use ounce_model::hub::{Cache, HubModel};

use crate::suggest;

/// The reference of the model that is part of the program.
pub const BUILT_IN: &str = builtin::LANGUAGE.reference;

/// How MODEL is explained in help texts.
pub const MODEL_HELP: &str =
    "Folder, .gguf file, llama2.c .bin, org/name[@revision][:QUANT] pulled before, or `builtin`";

/// Where a reference leads.
#[derive(Debug, Clone)]
pub enum Place {
    /// A model that is part of the program.
    BuiltIn(&'static Embedded),
    /// A folder or file.
    Path(PathBuf),
}

/// Whether a text is meant as a model and not as a prompt.
pub fn is_reference(text: &str) -> bool {
    built_in(text).is_some()
        || Path::new(text).exists()
        || (!text.contains(char::is_whitespace) && (is_path_like(text) || HubModel::parse(text).is_some()))
}

/// Finds a model; reads nothing of it.
///
/// # Errors
/// If there is no such file, or the hub's model was never pulled.
pub fn locate(reference: &str) -> anyhow::Result<Place> {
    let path = Path::new(reference);
    if let Some(model) = built_in(reference) {
        return Ok(Place::BuiltIn(model));
    }
    if path.exists() {
        return Ok(Place::Path(path.to_path_buf()));
    }
    let cache = Cache::from_env();
    match HubModel::parse(reference).filter(|_| !is_path_like(reference)) {
        Some(model) => Ok(Place::Path(cache.find(&model)?)),
        None => {
            let names = neighbours(path);
            let repos = cache.repos();
            let all = names.iter().chain(&repos).map(String::as_str);
            let all = all.chain(builtin::ALL.iter().map(|model| model.reference));
            let near = suggest::question(&suggest::close(reference, all));
            bail!("{reference}: there is no such file or folder{near}")
        }
    }
}

/// Opens a model; its weights are not read yet.
///
/// # Errors
/// As [`locate`], and if the model's files are damaged or not supported.
pub fn open(reference: &str) -> anyhow::Result<Model> {
    let model = match locate(reference)? {
        Place::BuiltIn(model) => model.open()?,
        Place::Path(path) => Model::open(path)?,
    };
    tracing::info!(path = %model.origin.path.display(), family = %model.spec.family, "opened");
    Ok(model)
}

/// A model's tokenizer, or a sentence that there is none.
///
/// # Errors
/// If the model came without one.
pub fn tokenizer(model: &Model) -> anyhow::Result<&ounce_model::tokenizer::Tokenizer> {
    let path = model.origin.path.display();
    model.tokenizer.as_ref().ok_or_else(|| {
        anyhow::anyhow!(
            "{path} has no tokenizer; put its tokenizer.json beside the weights, or give token ids"
        )
    })
}

/// What stands before a text: the token that begins texts, else one that ends them.
pub fn text_start(model: &Model) -> Option<u32> {
    let special = model.tokenizer.as_ref()?.special();
    special.bos.or_else(|| special.eos.first().copied())
}

fn built_in(text: &str) -> Option<&'static Embedded> {
    builtin::ALL.into_iter().find(|model| text == model.reference || text == model.name)
}

fn is_path_like(text: &str) -> bool {
    let ends = [".gguf", ".bin", ".safetensors", ".json"];
    text.starts_with(['.', '/', '~']) || ends.iter().any(|end| text.ends_with(end))
}

/// Names in the folder where `path` would be, spelt as `path` is.
fn neighbours(path: &Path) -> Vec<String> {
    let parent = path.parent().unwrap_or(Path::new(""));
    let folder = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| parent.join(entry.file_name()).to_str().map(String::from)).collect()
}
