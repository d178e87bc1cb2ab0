//! Checkpoints that other tools quantized (`quantization_config`): each packed weight is shown as one tensor
//! `<module>.weight` of shape `[out, in]`.
//!
//! Whole-number codes with a scale and a zero point for a group go without loss into ounce's group formats
//! ([`DType::groups`]); what does not fit is decoded. Opening looks at headers, and at scales and group indices where
//! the choice of the format needs them; a weight is brought to its new form when it is asked for.

mod awq;
mod bitsandbytes;
mod compressed_tensors;
mod gptq;
mod grid;
mod scaled;
mod words;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use ounce_kernels::DType;

use crate::storage::Bytes;
use crate::weights::{Tensor, TensorSource, bytes_of};
use crate::{Config, Error, Result};

/// What `quantization_config` says, checked before any weight is looked at.
pub(super) struct Method {
    name: String,
    kind: Kind,
}

enum Kind {
    Gptq(gptq::Settings),
    Awq(awq::Settings),
    CompressedTensors(compressed_tensors::Settings),
    BitsAndBytes,
}

/// The keys that say it, the usual one first.
const KEYS: [&str; 2] = ["quantization_config", "compression_config"];

impl Method {
    /// Takes the method out of a model's configuration, which then describes the model as ounce sees it.
    ///
    /// # Errors
    /// If the method, or a variant of it, is not read.
    pub(super) fn take(config: &mut Config) -> Result<Option<Method>> {
        let Some(key) = KEYS.into_iter().find(|key| config.get(key).is_some()) else { return Ok(None) };
        let Some(settings) = config.object_opt(key)? else { return Ok(None) };
        let name = settings.text_opt("quant_method")?.unwrap_or("an unnamed method");
        let kind = match name {
            "gptq" => Kind::Gptq(gptq::Settings::read(&settings)?),
            "awq" => Kind::Awq(awq::Settings::read(&settings)?),
            "compressed-tensors" => {
                let float = float_of(config)?;
                Kind::CompressedTensors(compressed_tensors::Settings::read(&settings, float)?)
            }
            "bitsandbytes" => {
                bitsandbytes::check(&settings)?;
                Kind::BitsAndBytes
            }
            other => {
                let what = format!(
                    "the weights are packed by {other}, which ounce does not read; it reads gptq, awq, \
                     compressed-tensors and bitsandbytes: take such a model, the original or a GGUF"
                );
                return Err(config.error(key, what));
            }
        };
        let name = name.to_string();
        KEYS.iter().for_each(|key| drop(config.map_mut().remove(*key)));
        Ok(Some(Method { name, kind }))
    }

    /// Shows the packed weights of `source` as tensors of their own.
    ///
    /// # Errors
    /// If a part of a packed weight is missing or has another shape than its neighbours ask for, or there is none.
    pub(super) fn unpack(&self, source: Arc<dyn TensorSource>) -> Result<Arc<dyn TensorSource>> {
        let files = Files(source.as_ref());
        let mut found = Vec::new();
        for name in source.names() {
            let layer = match &self.kind {
                Kind::Gptq(settings) => gptq::find(settings, &files, name),
                Kind::Awq(settings) => awq::find(settings, &files, name),
                Kind::CompressedTensors(settings) => compressed_tensors::find(settings, &files, name),
                Kind::BitsAndBytes => bitsandbytes::find(&files, name),
            };
            if let Some(layer) = layer.map_err(|what| Error::tensor(source.path(), name, what))? {
                found.push((name.to_string(), layer));
            }
        }
        let may_be_plain = matches!(&self.kind, Kind::CompressedTensors(settings) if settings.may_be_plain);
        if found.is_empty() && !may_be_plain {
            let what = format!(
                "config.json says that the weights are packed by {}, but there is no such weight; take configuration \
                 and weights from the same model",
                self.name
            );
            return Err(Error::format(source.path(), what));
        }
        let unpacked = Unpacked::new(source, found)?;
        unpacked.report(&self.name);
        Ok(Arc::new(unpacked))
    }
}

/// The format in which the model is meant to be computed; none if it does not say.
fn float_of(config: &Config) -> Result<Option<DType>> {
    let name = match config.text_opt("dtype")? {
        Some(name) => Some(name),
        None => config.text_opt("torch_dtype")?,
    };
    Ok(name.and_then(float_named))
}

/// The format of torch's name for it.
fn float_named(name: &str) -> Option<DType> {
    match name.trim_start_matches("torch.") {
        "float16" => Some(DType::F16),
        "bfloat16" => Some(DType::BF16),
        "float32" => Some(DType::F32),
        _ => None,
    }
}

/// A packed weight: how to see it as one tensor.
struct Layer {
    /// Rows and columns: `[out, in]`.
    shape: [usize; 2],
    /// The format in which it is shown.
    dtype: DType,
    /// Why it is decoded, if it could have been kept.
    decoded: Option<&'static str>,
    /// Names of all the tensors that it is made of.
    parts: Vec<String>,
    /// The module's name, to which `.weight` is appended.
    module: String,
    weight: Weight,
}

enum Weight {
    Grid(grid::Grid),
    Scaled(scaled::Scaled),
    Microscaled(scaled::Microscaled),
    Table(bitsandbytes::Table),
}

impl Weight {
    /// The bytes of a row in `dtype`, row after row.
    fn build(&self, dtype: DType, shape: [usize; 2]) -> Result<Vec<u8>, String> {
        let bytes = bytes_of(dtype, &shape).ok_or("its size overflows")?;
        let mut out = vec![0; bytes];
        let row_bytes = bytes.checked_div(shape[0]).unwrap_or(0);
        match self {
            Weight::Grid(grid) => grid.build(dtype, row_bytes, &mut out)?,
            Weight::Scaled(scaled) => scaled.build(dtype, row_bytes, &mut out)?,
            Weight::Microscaled(scaled) => scaled.build(&mut out),
            Weight::Table(table) => table.build(dtype, row_bytes, shape[1], &mut out)?,
        }
        Ok(out)
    }

    /// The mapped bytes that nobody looks at once the weight has its new form.
    fn source(&self) -> &Bytes {
        match self {
            Weight::Grid(grid) => grid.source(),
            Weight::Scaled(scaled) => &scaled.data,
            Weight::Microscaled(scaled) => &scaled.codes,
            Weight::Table(table) => &table.data,
        }
    }
}

/// The tensors of a checkpoint, with helpers that say what is missing.
struct Files<'a>(&'a dyn TensorSource);

impl Files<'_> {
    /// A tensor, if it is there.
    fn get(&self, name: &str) -> Result<Option<Tensor>, String> {
        match self.0.info(name) {
            Some(_) => self.0.tensor(name).map(Some).map_err(|error| error.to_string()),
            None => Ok(None),
        }
    }

    /// A tensor of one of these formats that must be there.
    fn need(&self, name: &str, dtypes: &[DType]) -> Result<Tensor, String> {
        let tensor = self.get(name)?.ok_or_else(|| {
            format!(
                "is packed, but {name}, without which it means nothing, is missing; fetch the model again"
            )
        })?;
        if dtypes.contains(&tensor.dtype) {
            return Ok(tensor);
        }
        let names = dtypes.iter().map(|dtype| dtype.name()).collect::<Vec<_>>().join(" or ");
        Err(format!("is packed, but {name} holds {} in place of {names}", tensor.dtype))
    }
}

/// Rows and columns of a packed matrix, neither of them 0: with no bytes behind it the other could be any number.
fn matrix(shape: &[usize]) -> Result<[usize; 2], String> {
    match *shape {
        [rows, columns] if rows > 0 && columns > 0 => Ok([rows, columns]),
        _ => Err(format!("is packed, but has shape {shape:?} and is no matrix; fetch the model again")),
    }
}

/// Refuses a tensor of another shape.
fn check_shape(name: &str, found: &[usize], expected: &[usize]) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    Err(format!(
        "is packed, but {name} has shape {found:?} where {expected:?} belongs; take configuration and weights from the \
         same model"
    ))
}

/// Formats of scales.
const SCALES: [DType; 3] = [DType::F16, DType::BF16, DType::F32];

/// A source in which packed weights stand as tensors of their own.
struct Unpacked {
    source: Arc<dyn TensorSource>,
    order: Vec<String>,
    layers: HashMap<String, Layer>,
    hidden: HashSet<String>,
}

impl Unpacked {
    fn new(source: Arc<dyn TensorSource>, found: Vec<(String, Layer)>) -> Result<Unpacked> {
        let hidden: HashSet<String> =
            found.iter().flat_map(|(_, layer)| layer.parts.iter().cloned()).collect();
        let mut places: HashMap<String, String> = HashMap::new();
        let mut layers = HashMap::new();
        for (at, layer) in found {
            let name = format!("{}.weight", layer.module);
            if source.info(&name).is_some() && !hidden.contains(&name) {
                let what = "is there both packed and as it is; fetch the model again";
                return Err(Error::tensor(source.path(), name, what));
            }
            places.insert(at, name.clone());
            layers.insert(name, layer);
        }
        let shown = |name: &str| match places.get(name) {
            Some(weight) => Some(weight.clone()),
            None if hidden.contains(name) || compressed_tensors::is_bookkeeping(name) => None,
            None => Some(name.to_string()),
        };
        let order = source.names().into_iter().filter_map(shown).collect();
        Ok(Unpacked { source, order, layers, hidden })
    }

    /// Says what was made of the packed weights.
    fn report(&self, method: &str) {
        let decoded = || self.order.iter().filter_map(|name| Some((name, self.layers.get(name)?)));
        let mut reasons: Vec<(&str, DType, &str, usize)> = Vec::new();
        for (name, layer) in decoded() {
            let Some(reason) = layer.decoded else { continue };
            match reasons.iter_mut().find(|it| (it.0, it.1) == (reason, layer.dtype)) {
                Some(known) => known.3 += 1,
                None => reasons.push((reason, layer.dtype, name, 1)),
            }
        }
        for (reason, dtype, first, count) in &reasons {
            tracing::warn!(
                "{count} of {} weights packed by {method} are decoded to {dtype}, because {reason}; the first is {first}",
                self.layers.len()
            );
        }
        if reasons.is_empty() {
            tracing::info!("{} weights packed by {method}", self.layers.len());
        }
    }
}

impl TensorSource for Unpacked {
    fn path(&self) -> &Path {
        self.source.path()
    }

    fn names(&self) -> Vec<&str> {
        self.order.iter().map(String::as_str).collect()
    }

    fn info(&self, name: &str) -> Option<(DType, &[usize])> {
        match self.layers.get(name) {
            Some(layer) => Some((layer.dtype, &layer.shape)),
            None if self.hidden.contains(name) || compressed_tensors::is_bookkeeping(name) => None,
            None => self.source.info(name),
        }
    }

    fn tensor(&self, name: &str) -> Result<Tensor> {
        let Some(layer) = self.layers.get(name) else { return self.source.tensor(name) };
        let data = layer.weight.build(layer.dtype, layer.shape);
        let data = data.map_err(|what| Error::tensor(self.path(), name, what))?;
        layer.weight.source().release();
        Ok(Tensor { dtype: layer.dtype, shape: layer.shape.to_vec(), data: Bytes::from(data) })
    }
}
