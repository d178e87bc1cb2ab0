//! Writes a model as a Hugging Face folder: whole or not at all, one tensor in memory at a time.

use std::fs;
use std::io::Write;
use std::path::Path;

use ounce_kernels::DType;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::files::stays_inside;
use crate::families;
use crate::formats::{Forecast, PlannedTensor, Progress, WriteOptions, check_target};
use crate::model::Model;
use crate::names::{self, FileTensor};
use crate::storage::AtomicFile;
use crate::weights::bytes_of;
use crate::{Error, Result};

/// A tensor to be written: what it is made of, its format and its size.
struct Planned {
    tensor: FileTensor,
    dtype: DType,
    bytes: u64,
}

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
    let (family, planned) = prepare(model, folder, options)?;
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
    let total = write_weights(model, &planned, draft.path(), options.shard_bytes, progress)?;
    write_texts(model, family, &planned, draft.path())?;
    put_in_place(draft, folder, parent)?;
    Ok(total)
}

/// What [`write_model`] would write, bytes of weights in all; writes nothing.
///
/// # Errors
/// As [`write_model`], before it writes.
pub fn forecast(model: &Model, folder: &Path, options: &WriteOptions) -> Result<Forecast> {
    let (_, planned) = prepare(model, folder, options)?;
    let bytes = planned.iter().map(|planned| planned.bytes).sum();
    let tensor = |Planned { tensor, dtype, bytes }| {
        let FileTensor { name, shape, .. } = tensor;
        PlannedTensor { name, dtype, shape, bytes }
    };
    Ok(Forecast { tensors: planned.into_iter().map(tensor).collect(), bytes })
}

/// Everything that can be checked and chosen before writing.
fn prepare(
    model: &Model,
    folder: &Path,
    options: &WriteOptions,
) -> Result<(&'static families::Family, Vec<Planned>)> {
    check_target(folder, options.overwrite)?;
    check_replaceable(folder)?;
    let family = families::by_name(&model.spec.family).ok_or_else(|| {
        Error::unsupported(format!("the family {} has no folder format", model.spec.family))
    })?;
    let planned = plan(model, names::plan(&model.spec, &family.names)?, options.dtype)?;
    Ok((family, planned))
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

/// Chooses each tensor's format: as asked, else as stored; block formats, which safetensors has not, become F16.
/// A vector or small table kept in F32 by the source joins the matrices' format if that loses nothing.
fn plan(model: &Model, tensors: Vec<FileTensor>, asked: Option<DType>) -> Result<Vec<Planned>> {
    if let Some(dtype) = asked.filter(|dtype| dtype.safetensors_name().is_none() || !dtype.is_weight()) {
        return Err(Error::unsupported(format!(
            "safetensors can't hold {dtype}; choose F32, F16 or BF16, or write a .gguf file"
        )));
    }
    let stored = |tensor: &FileTensor| match tensor.stored_dtype(&model.weights) {
        dtype if dtype.is_block() => DType::F16,
        dtype => dtype,
    };
    let common =
        tensors.iter().filter(|it| it.shape.len() > 1).map(stored).find(|dtype| *dtype != DType::F32);
    let mut planned = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        // Norms and biases do not bear 8 bits.
        let asked = asked.filter(|dtype| dtype.block_bytes() > 1 || tensor.shape.len() > 1);
        let mut dtype = asked.unwrap_or_else(|| stored(&tensor));
        let small = tensor.shape.len() == 1 || tensor.shape[0] <= 512;
        let joins = asked.is_none() && small && dtype == DType::F32;
        if let Some(common) = common.filter(|_| joins) {
            dtype = if is_lossless(model, &tensor, common)? { common } else { dtype };
        }
        let bytes = bytes_of(dtype, &tensor.shape)
            .ok_or_else(|| Error::tensor(model.weights.path(), tensor.name.as_str(), "its size overflows"))?
            as u64;
        planned.push(Planned { tensor, dtype, bytes });
    }
    // Larger elements first keeps every tensor aligned to its own size.
    planned.sort_by_key(|planned| std::cmp::Reverse(planned.dtype.block_bytes()));
    Ok(planned)
}

fn is_lossless(model: &Model, tensor: &FileTensor, dtype: DType) -> Result<bool> {
    let wide = tensor.build(&model.weights, DType::F32)?;
    let Ok(narrow) = tensor.build(&model.weights, dtype) else { return Ok(false) };
    let numbers =
        |tensor: &crate::Tensor| tensor.to_f32().map_err(|error| Error::unsupported(error.to_string()));
    Ok(numbers(&wide)? == numbers(&narrow)?)
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
    planned: &[Planned],
    folder: &Path,
    limit: Option<u64>,
    progress: Progress<'_>,
) -> Result<u64> {
    let total: u64 = planned.iter().map(|planned| planned.bytes).sum();
    let shards = shards(planned, limit);
    let mut weight_map = Map::new();
    let mut done = 0;
    for (index, shard) in shards.iter().enumerate() {
        let name = match shards.len() {
            1 => "model.safetensors".to_string(),
            count => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
        };
        for planned in *shard {
            weight_map.insert(planned.tensor.name.clone(), Value::String(name.clone()));
        }
        write_file(model, shard, &folder.join(name), &mut |bytes| {
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
            "shape": planned.tensor.shape,
            "data_offsets": [offset, offset + planned.bytes],
        });
        header.insert(planned.tensor.name.clone(), info);
        offset += planned.bytes;
    }
    let mut text = Value::Object(header).to_string();
    text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
    let mut file = AtomicFile::create(path)?;
    file.write_all(&(text.len() as u64).to_le_bytes()).map_err(Error::io(path))?;
    file.write_all(text.as_bytes()).map_err(Error::io(path))?;
    for planned in shard {
        let tensor = planned.tensor.build(&model.weights, planned.dtype)?;
        file.write_all(&tensor.data).map_err(Error::io(path))?;
        written(planned.bytes)?;
    }
    file.commit()
}

fn write_texts(model: &Model, family: &families::Family, planned: &[Planned], folder: &Path) -> Result<()> {
    let mut config = model.config.map().clone();
    let dtype =
        planned.iter().find(|it| it.tensor.shape.len() > 1).map_or(DType::F32, |planned| planned.dtype);
    let name = match dtype {
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        DType::F64 => "float64",
        _ => "float32",
    };
    config.remove("dtype");
    config.insert("torch_dtype".to_string(), json!(name));
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
