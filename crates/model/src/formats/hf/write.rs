//! Writes a model as a Hugging Face folder: whole or not at all, one tensor in memory at a time.

use std::fs;
use std::io::Write;
use std::path::Path;

use ounce_kernels::DType;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::files::stays_inside;
use super::packing::Piece;
use super::plan::{Plan, Planned, bad, plan};
use crate::families;
use crate::formats::{Forecast, PlannedTensor, Progress, WriteOptions, check_target};
use crate::model::Model;
use crate::names;
use crate::storage::AtomicFile;
use crate::weights::Tensor;
use crate::{Error, Result};

/// Writes `model` into `folder`, which is made. Returns the bytes of the weights.
///
/// With [`WriteOptions::overwrite`] an older model's folder gives way, with all it holds, once the new one is
/// complete; a folder of anything else is never replaced.
///
/// # Errors
/// If the folder exists and may not be replaced, a tensor can't be read, or writing fails; nothing is left
/// half-written then, and an older model stands as it was.
pub fn write_model(
    model: &Model,
    folder: &Path,
    options: &WriteOptions,
    progress: Progress<'_>,
) -> Result<u64> {
    let (family, plan) = prepare(model, folder, options)?;
    let parent = folder.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(Error::io(parent))?;
    let draft = beside(folder, parent)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // A temporary folder is its owner's alone; a model's folder is not.
        fs::set_permissions(draft.path(), fs::Permissions::from_mode(0o755))
            .map_err(Error::io(draft.path()))?;
    }
    let total = write_weights(model, &plan, draft.path(), options.shard_bytes, progress)?;
    write_texts(model, family, &plan, draft.path())?;
    put_in_place(draft, folder, parent)?;
    Ok(total)
}

/// What [`write_model`] would write, bytes of weights in all; writes nothing.
///
/// # Errors
/// As [`write_model`], before it writes.
pub fn forecast(model: &Model, folder: &Path, options: &WriteOptions) -> Result<Forecast> {
    let planned = prepare(model, folder, options)?.1.tensors;
    let bytes = planned.iter().map(|planned| planned.bytes).sum();
    let tensor = |Planned { name, dtype, shape, bytes, .. }| PlannedTensor { name, dtype, shape, bytes };
    Ok(Forecast { tensors: planned.into_iter().map(tensor).collect(), bytes })
}

/// Everything that can be checked and chosen before writing.
fn prepare(
    model: &Model,
    folder: &Path,
    options: &WriteOptions,
) -> Result<(&'static families::Family, Plan)> {
    check_target(folder, options.overwrite)?;
    check_replaceable(folder)?;
    let family = families::by_name(&model.spec.family).ok_or_else(|| {
        Error::unsupported(format!("the family {} has no folder format", model.spec.family))
    })?;
    Ok((family, plan(model, names::plan(&model.spec, &family.names)?, options)?))
}

/// Refuses to replace what is no model's folder: a name typed wrong must not cost a home directory.
fn check_replaceable(folder: &Path) -> Result<()> {
    if folder.file_name().is_none() {
        return Err(Error::format(folder, "is no name for a new folder; name one to be made"));
    }
    let Ok(facts) = folder.symlink_metadata() else { return Ok(()) };
    let is_model = || folder.join("config.json").is_file();
    let is_empty = || fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
    if facts.is_dir() && (is_model() || is_empty()) {
        return Ok(());
    }
    Err(Error::format(folder, "is no model's folder, so it is not replaced; choose another name"))
}

/// A temporary folder beside `folder`, removed again unless it is kept.
fn beside(folder: &Path, parent: &Path) -> Result<TempDir> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let mut builder = tempfile::Builder::new();
    builder.prefix(&format!(".{name}.")).suffix(".tmp").tempdir_in(parent).map_err(Error::io(parent))
}

/// Gives the finished draft its name. An older folder is moved aside first and moved back if that fails.
fn put_in_place(draft: TempDir, folder: &Path, parent: &Path) -> Result<()> {
    let old = if folder.is_dir() { Some(beside(folder, parent)?) } else { None };
    let aside = old.as_ref().map(|old| old.path().join("old"));
    if let Some(aside) = &aside {
        fs::rename(folder, aside).map_err(Error::io(folder))?;
    }
    if let Err(error) = fs::rename(draft.path(), folder) {
        let lost = aside.filter(|aside| fs::rename(aside, folder).is_err());
        if let (Some(lost), Some(old)) = (lost, old) {
            let _ = old.keep();
            let what = format!("could not be replaced ({error}); the older model is now {}", lost.display());
            return Err(Error::format(folder, what));
        }
        return Err(Error::io(folder)(error));
    }
    // It has another name now, which dropping the draft would not find.
    let _ = draft.keep();
    Ok(())
}

/// Splits the tensors into files of at most `limit` bytes (a larger tensor has a file of its own).
fn shards(planned: &[Planned], limit: Option<u64>) -> Vec<&[Planned]> {
    let Some(limit) = limit else { return vec![planned] };
    let mut shards = Vec::new();
    let (mut start, mut size) = (0, 0);
    for (index, planned_tensor) in planned.iter().enumerate() {
        if index > start && size + planned_tensor.bytes > limit {
            shards.push(&planned[start..index]);
            (start, size) = (index, 0);
        }
        size += planned_tensor.bytes;
    }
    shards.push(&planned[start..]);
    shards
}

fn write_weights(
    model: &Model,
    plan: &Plan,
    folder: &Path,
    limit: Option<u64>,
    progress: Progress<'_>,
) -> Result<u64> {
    let total: u64 = plan.tensors.iter().map(|planned| planned.bytes).sum();
    let shards = shards(&plan.tensors, limit);
    let mut weight_map = Map::new();
    let mut done = 0;
    for (index, shard) in shards.iter().enumerate() {
        let name = match shards.len() {
            1 => "model.safetensors".to_string(),
            count => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
        };
        for planned in *shard {
            weight_map.insert(planned.name.clone(), Value::String(name.clone()));
        }
        write_file(model, plan, shard, &folder.join(name), &mut |bytes| {
            done += bytes;
            progress(done, total)
        })?;
    }
    if shards.len() > 1 {
        let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
        write_json(&folder.join("model.safetensors.index.json"), &index)?;
    }
    Ok(total)
}

/// One safetensors file: length of the header, header, data.
fn write_file(
    model: &Model,
    plan: &Plan,
    shard: &[Planned],
    path: &Path,
    written: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<()> {
    let mut header = Map::new();
    // Some Python loaders refuse a file that does not say which framework it is for.
    header.insert("__metadata__".to_string(), json!({"format": "pt"}));
    let mut offset = 0;
    for planned in shard {
        let info = json!({
            "dtype": planned.dtype.safetensors_name(),
            "shape": planned.shape,
            "data_offsets": [offset, offset + planned.bytes],
        });
        header.insert(planned.name.clone(), info);
        offset += planned.bytes;
    }
    let mut text = Value::Object(header).to_string();
    text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
    let mut file = AtomicFile::create(path)?;
    file.write_all(&(text.len() as u64).to_le_bytes()).map_err(Error::io(path))?;
    file.write_all(text.as_bytes()).map_err(Error::io(path))?;
    // Pieces of one weight mostly lie side by side.
    let mut last: Option<(&str, Tensor)> = None;
    for planned in shard {
        let tensor = match last.take().filter(|(name, _)| *name == planned.tensor.name) {
            Some((_, tensor)) => tensor,
            None => planned.tensor.build(&model.weights, planned.built)?,
        };
        match plan.packed.as_ref().filter(|_| planned.piece != Piece::Whole) {
            Some((scheme, _)) => {
                let bytes = scheme.bytes(planned.piece, &tensor);
                let bytes = bytes.map_err(|what| bad(model, &planned.tensor, what))?;
                file.write_all(&bytes).map_err(Error::io(path))?;
                last = Some((&planned.tensor.name, tensor));
            }
            None => file.write_all(&tensor.data).map_err(Error::io(path))?,
        }
        written(planned.bytes)?;
    }
    file.commit()
}

fn write_texts(model: &Model, family: &families::Family, plan: &Plan, folder: &Path) -> Result<()> {
    let mut config = model.config.map().clone();
    let matrix = || plan.tensors.iter().find(|it| it.shape.len() > 1).map(|planned| planned.dtype);
    let dtype = plan.packed.as_ref().map(|(scheme, _)| scheme.float()).or_else(matrix).unwrap_or(DType::F32);
    let name = match dtype {
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        DType::F64 => "float64",
        _ => "float32",
    };
    config.remove("dtype");
    config.insert("torch_dtype".to_string(), json!(name));
    if let Some((_, quantization)) = &plan.packed {
        config.insert("quantization_config".to_string(), quantization.clone());
    }
    if !config.contains_key("architectures") {
        config.insert("architectures".to_string(), json!([family.architectures[0]]));
    }
    write_json(&folder.join("config.json"), &Value::Object(config))?;
    for extra in &model.extras {
        let path = folder.join(&extra.name);
        if !stays_inside(&extra.name) {
            let what = "belongs to the model, but would be written outside its folder";
            return Err(Error::format(path, what));
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(Error::io(parent))?;
        }
        fs::write(&path, &extra.content).map_err(Error::io(&path))?;
    }
    let has = |name: &str| model.extras.iter().any(|extra| extra.name == name);
    if !has("generation_config.json") && !model.generation.map().is_empty() {
        let settings = Value::Object(model.generation.map().clone());
        write_json(&folder.join("generation_config.json"), &settings)?;
    }
    let Some(tokenizer) = &model.tokenizer else { return Ok(()) };
    let path = folder.join("tokenizer.json");
    fs::write(&path, tokenizer.to_json()?).map_err(Error::io(&path))?;
    if !has("tokenizer_config.json") {
        write_json(&folder.join("tokenizer_config.json"), &tokenizer_config(model, tokenizer))?;
    }
    Ok(())
}

/// A `tokenizer_config.json` for a tokenizer that came without one (from a GGUF or llama2.c file, or for a new model).
fn tokenizer_config(model: &Model, tokenizer: &crate::tokenizer::Tokenizer) -> Value {
    let special = tokenizer.special();
    let piece = |id: Option<u32>| id.and_then(|id| tokenizer.piece(id));
    let mut config = Map::new();
    config.insert("tokenizer_class".to_string(), json!("PreTrainedTokenizerFast"));
    config.insert("model_max_length".to_string(), json!(model.spec.context_length));
    config.insert("clean_up_tokenization_spaces".to_string(), json!(false));
    let named = [
        ("bos_token", special.bos),
        ("eos_token", special.eos.first().copied()),
        ("pad_token", special.pad),
        ("unk_token", special.unk),
        ("cls_token", special.cls),
        ("sep_token", special.sep),
        ("mask_token", special.mask),
    ];
    for (key, id) in named {
        if let Some(piece) = piece(id) {
            config.insert(key.to_string(), json!(piece));
        }
    }
    if let Some(chat) = &model.chat {
        config.insert("chat_template".to_string(), json!(chat.source()));
    }
    Value::Object(config)
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::format(path, format!("can't be written ({error})")))?;
    fs::write(path, text + "\n").map_err(Error::io(path))
}
