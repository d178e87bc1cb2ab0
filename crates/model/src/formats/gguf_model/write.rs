//! Writes a model as one GGUF file: whole or not at all, a few rows in memory at a time.

use std::path::Path;

use ounce_kernels::{DType, quant};

use super::draft::Draft;
use super::read::{FILES, GENERATION, POOLING, POSITION_TABLE, POSITIONS, pooling_type, text_of};
use super::{config, types, vocab};
use crate::formats::gguf::{GgufHeader, GgufWriter};
use crate::formats::{Forecast, PlannedTensor, Progress, WriteOptions, check_target};
use crate::model::Model;
use crate::names::FileTensor;
use crate::weights::{Tensor, bytes_of};
use crate::{Error, Result};

/// Values that are decoded and encoded at a time.
const CHUNK_VALUES: usize = 1 << 22;

/// Version of the block formats, which readers ask for.
const QUANTIZATION_VERSION: u32 = 2;

/// A tensor to be written.
struct Planned<'a> {
    tensor: &'a FileTensor,
    dtype: DType,
    /// Its shape in the file, less the leading rows that GGUF leaves out.
    shape: Vec<usize>,
    /// How many those are.
    skipped: usize,
}

impl Planned<'_> {
    /// Bytes in the file.
    fn bytes(&self) -> u64 {
        bytes_of(self.dtype, &self.shape).unwrap_or(0) as u64
    }
}

/// Writes `model` to the file `path`. Returns the file's size in bytes.
///
/// # Errors
/// If the file exists and may not be replaced, GGUF has no place for the model or its tokenizer, the format asked for
/// is none that ounce writes, a tensor can't be read, or writing fails; nothing is left half-written then.
pub fn write_model(
    model: &Model,
    path: &Path,
    options: &WriteOptions,
    progress: Progress<'_>,
) -> Result<u64> {
    let draft = prepare(model, path, options)?;
    let unexpressed = draft.unexpressed()?;
    if !unexpressed.is_empty() {
        tracing::warn!(
            "GGUF's architecture {} has no keys for {}: ounce reads them from {}, other programs compute without them",
            draft.arch.name,
            unexpressed.join(", "),
            config::CONFIG,
        );
    }
    let planned = plan(model, &draft, options.dtype);
    let header = header(model, &draft, &planned)?;
    let total = planned.iter().map(Planned::bytes).sum();
    let mut writer = GgufWriter::create(path, &header)?;
    let mut done = 0;
    for (name, values) in &draft.settings {
        writer.write(name, &little_endian(values))?;
    }
    for planned in &planned {
        write_tensor(model, planned, &mut writer)?;
        done += planned.bytes();
        progress(done, total)?;
    }
    writer.finish()
}

/// What [`write_model`] would write, and the size of the file; writes nothing.
///
/// # Errors
/// As [`write_model`], before it writes.
pub fn forecast(model: &Model, path: &Path, options: &WriteOptions) -> Result<Forecast> {
    let draft = prepare(model, path, options)?;
    let planned = plan(model, &draft, options.dtype);
    let bytes = header(model, &draft, &planned)?.file_bytes()?;
    let tensor = |Planned { tensor, dtype, shape, .. }: Planned<'_>| {
        let bytes = bytes_of(dtype, &shape).unwrap_or(0) as u64;
        PlannedTensor { name: tensor.name.clone(), dtype, shape, bytes }
    };
    Ok(Forecast { tensors: planned.into_iter().map(tensor).collect(), bytes })
}

/// The matrices of a GGUF file, in file order: the file's name for each, and ounce's names of the weights that lie in it.
/// Those of one tensor are stored in one format.
///
/// # Errors
/// If GGUF has no place for the model.
pub fn matrices(model: &Model) -> Result<Vec<(String, Vec<String>)>> {
    let draft = Draft::of(&model.spec, &model.config)?;
    let matrices = draft.tensors.iter().filter(|tensor| !types::is_small(&tensor.name, &tensor.shape));
    Ok(matrices.map(|tensor| (tensor.name.clone(), tensor.parts.clone())).collect())
}

/// Everything that can be checked before formats are chosen.
fn prepare(model: &Model, path: &Path, options: &WriteOptions) -> Result<Draft> {
    check_target(path, options.overwrite)?;
    types::check(options.dtype)?;
    if options.shard_bytes.is_some() {
        return Err(Error::unsupported("a GGUF file is written whole; leave out the size of shards"));
    }
    Draft::of(&model.spec, &model.config)
}

/// Chooses each tensor's format.
fn plan<'a>(model: &Model, draft: &'a Draft, asked: Option<DType>) -> Vec<Planned<'a>> {
    let skipped_rows = draft.spec.embedding.positions.map_or(0, |positions| positions.offset);
    let mut replaced = 0;
    let planned = draft.tensors.iter().map(|tensor| {
        let stored = tensor.stored_dtype(&model.weights);
        let dtype = types::target(&tensor.name, &tensor.shape, stored, asked);
        replaced +=
            usize::from(asked.is_some_and(|asked| asked.is_block() && dtype != asked && dtype != DType::F32));
        let skipped = if tensor.name == POSITION_TABLE { skipped_rows } else { 0 };
        let mut shape = tensor.shape.clone();
        shape[0] -= skipped.min(shape[0]);
        Planned { tensor, dtype, shape, skipped }
    });
    let planned = planned.collect();
    if let (Some(asked), true) = (asked, replaced > 0) {
        tracing::warn!(
            "{replaced} tensors have rows that are no whole {asked} blocks and take another format"
        );
    }
    planned
}

/// Everything before the data.
fn header(model: &Model, draft: &Draft, planned: &[Planned<'_>]) -> Result<GgufHeader> {
    let mut header = GgufHeader::new();
    header.set("general.architecture", draft.arch.name);
    header.set("general.type", "model");
    if let Some(name) = model.origin.called() {
        header.set("general.name", name.as_str());
    }
    if let Some(file_type) = prevailing(planned).and_then(types::file_type) {
        header.set("general.file_type", file_type);
    }
    header.set("general.quantization_version", QUANTIZATION_VERSION);
    vocab::write_sampling(model.generation.map(), &mut header);
    for (key, value) in draft.metadata.iter() {
        header.set(key, value.clone());
    }
    if let Some(pooling) = model.spec.pooling {
        if let Some(number) = pooling_type(pooling.mode) {
            header.set(format!("{}.pooling_type", draft.arch.name), number);
        }
        header.set(POOLING, serde_json::json!(pooling).to_string());
    }
    vocab::write(model.tokenizer.as_ref(), draft.spec.vocab_size, &mut header)?;
    if let Some(chat) = &model.chat {
        vocab::write_chat(chat, &mut header);
    }
    header.set(config::CONFIG, text_of(&draft.config));
    if !model.generation.map().is_empty() {
        header.set(GENERATION, text_of(&model.generation));
    }
    for extra in model.extras.iter().filter(|extra| extra.name != "generation_config.json") {
        if let Ok(text) = std::str::from_utf8(&extra.content) {
            header.set(format!("{FILES}{}", extra.name), text);
        }
    }
    if let Some(skipping) = planned.iter().find(|planned| planned.skipped > 0) {
        let table = model.weights.f32(&skipping.tensor.parts[0])?;
        let kept = skipping.skipped * skipping.tensor.shape.get(1).copied().unwrap_or(1);
        header.set(POSITIONS, table[..kept.min(table.len())].to_vec());
    }
    for (name, values) in &draft.settings {
        header.tensor(*name, DType::F32, &[values.len()]);
    }
    for planned in planned {
        header.tensor(planned.tensor.name.as_str(), planned.dtype, &planned.shape);
    }
    Ok(header)
}

/// The format of most values.
fn prevailing(planned: &[Planned<'_>]) -> Option<DType> {
    let values = |dtype: DType| -> u64 {
        let same = planned.iter().filter(|planned| planned.dtype == dtype);
        same.map(|planned| planned.shape.iter().map(|&size| size as u64).product::<u64>()).sum()
    };
    DType::all().filter(|&dtype| values(dtype) > 0).max_by_key(|&dtype| values(dtype))
}

fn write_tensor(model: &Model, planned: &Planned<'_>, writer: &mut GgufWriter) -> Result<()> {
    let (tensor, weights) = (planned.tensor, &model.weights);
    let name = tensor.name.as_str();
    let source = weights.path();
    // Experts, and projections in one tensor: one part behind another, each taken as it is.
    if let [_, _, ..] = tensor.parts.as_slice() {
        let mut parts = tensor.parts.iter();
        return parts.try_for_each(|part| write_rows(source, planned, &weights.get(part)?, 0, writer));
    }
    // What may be computed with (norms to which one is added) must not be rounded before that.
    let small = types::is_small(name, &tensor.shape);
    let as_stored = if small { DType::F32 } else { tensor.stored_dtype(weights) };
    let built = tensor.build(weights, as_stored)?;
    write_rows(source, planned, &built, planned.skipped, writer)
}

/// Writes the rows of `part` from `first` on: as they are, or a chunk at a time decoded and encoded. `source` is
/// where they come from, for messages.
fn write_rows(
    source: &Path,
    planned: &Planned<'_>,
    part: &Tensor,
    first: usize,
    writer: &mut GgufWriter,
) -> Result<()> {
    let name = planned.tensor.name.as_str();
    let start = first.min(part.rows()) * part.row_bytes();
    if part.dtype == planned.dtype {
        return writer.write(name, &part.data[start..]);
    }
    let bad = |error: quant::QuantError| Error::tensor(source, name, error.to_string());
    let row = part.row_len();
    let rows = (CHUNK_VALUES / row.max(1)).max(1);
    let (mut values, mut encoded) = (Vec::new(), Vec::new());
    for bytes in part.data[start..].chunks((rows * part.row_bytes()).max(1)) {
        values.resize(bytes.len() / part.row_bytes() * row, 0.0);
        quant::decode_rows(part.dtype, bytes, row, &mut values).map_err(bad)?;
        encoded.clear();
        quant::encode_rows(planned.dtype, &values, row, &mut encoded).map_err(bad)?;
        writer.write(name, &encoded)?;
    }
    Ok(())
}

/// The bytes of F32 values in a file.
fn little_endian(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
