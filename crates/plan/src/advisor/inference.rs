//! Which formats of weights and cache make a model fit, at the least risk.

use ounce_compress::quantize::{Plan, Unit, units};
use ounce_compress::{Error, Result};
use ounce_kernels::DType;
use ounce_model::Model;
use ounce_model::formats::{WriteOptions, gguf_model, hf};
use serde::Serialize;
use std::path::Path;

use super::technique::Risk;

/// What must be kept.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Limits {
    /// Bytes of weights and cache together.
    pub memory: Option<u64>,
    /// Bytes of the file.
    pub disk: Option<u64>,
    /// Tokens that the cache holds.
    pub context: usize,
}

/// One way to run a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Choice {
    /// Ids of the techniques, in their order.
    pub techniques: Vec<&'static str>,
    /// The format of the matrices; none if they stay as they are.
    pub weights: Option<String>,
    /// Bytes of the file.
    pub disk: u64,
    /// Bytes of the cache.
    pub cache: u64,
    /// Bytes of weights and cache.
    pub memory: u64,
    /// The greatest risk among the techniques.
    pub risk: Risk,
    /// Whether it keeps the limits.
    pub fits: bool,
}

/// Formats of weights, from no to most risk: the technique that leads there without text, and with; none where it takes text.
type Format = (Option<DType>, [&'static str; 2], Risk);
const WEIGHTS: [Format; 5] = [
    (None, ["as it is", "as it is"], Risk::None),
    (Some(DType::Q8_0), ["8-bit", "8-bit"], Risk::Low),
    (Some(DType::Q6K), ["6-bit", "6-bit"], Risk::Low),
    (Some(DType::Q4_0), ["4-bit-rounded", "4-bit-gptq"], Risk::Medium),
    (Some(DType::G3x32), ["", "3-bit-gptq"], Risk::High),
];
/// Bytes a cached value takes, and the technique. 8 bits have a scale of four bytes a head besides.
const CACHES: [(f64, Option<&str>, Risk); 2] = [(2.0, None, Risk::None), (1.0, Some("kv-8bit"), Risk::Low)];

/// All ways, those that keep the limits first, then by risk, then by size. `calibration` says whether there is text.
///
/// # Errors
/// If GGUF has no place for the model.
pub fn choices(model: &Model, limits: &Limits, calibration: bool) -> Result<Vec<Choice>> {
    let all = units(model)?;
    let mut found = Vec::new();
    for (dtype, techniques, risk) in WEIGHTS {
        let technique = techniques[usize::from(calibration)];
        if technique.is_empty() {
            continue;
        }
        let Some(disk) = file_bytes(model, &all, dtype)? else { continue };
        for (value, cache_technique, cache_risk) in CACHES {
            let cache = cache_bytes(model, value, limits.context);
            let memory = disk + cache;
            let within = |limit: Option<u64>, bytes: u64| limit.is_none_or(|limit| bytes <= limit);
            found.push(Choice {
                techniques: dtype.map(|_| technique).into_iter().chain(cache_technique).collect(),
                weights: dtype.map(|it| it.name().to_lowercase()),
                disk,
                cache,
                memory,
                risk: risk.max(cache_risk),
                fits: within(limits.memory, memory) && within(limits.disk, disk),
            });
        }
    }
    // What fits comes by its risk; of what does not, the smallest is the nearest.
    found.sort_by_key(|it| {
        (!it.fits, if it.fits { (it.risk, it.techniques.len()) } else { (Risk::None, 0) }, it.memory)
    });
    Ok(found)
}

/// Bytes of a file whose matrices have this format; none if the format is no smaller than what is there, or doesn't fit
/// the rows.
///
/// # Errors
/// If the model has no place in GGUF.
pub fn file_bytes(model: &Model, units: &[Unit], dtype: Option<DType>) -> Result<Option<u64>> {
    let plan = match dtype {
        None => Plan::default(),
        Some(dtype) => {
            let stored =
                |unit: &Unit| unit.matrices.first().and_then(|it| model.weights.info(it)).map(|it| it.0);
            let smaller =
                |unit: &Unit| stored(unit).is_some_and(|it| it.bits_per_value() > dtype.bits_per_value());
            if !units.iter().any(smaller) {
                return Ok(None);
            }
            let of = |unit: &Unit| if unit.is_outer() { outer(dtype) } else { Some(dtype) };
            match Plan::new(units.iter().map(|unit| (unit, of(unit).filter(|_| smaller(unit))))) {
                Ok(plan) => plan,
                Err(Error::Matrix { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    };
    Ok(Some(forecast_bytes(&plan.placeholder(model)?)?))
}

/// The format of token vectors and head beside one of the other matrices, as `ounce quantize` chooses it: six bits at least,
/// and none, which leaves them as they are, in folders.
pub(super) fn outer(dtype: DType) -> Option<DType> {
    let few = dtype.bits_per_value() < DType::Q6K.bits_per_value();
    if dtype.group_shape().is_some() { None } else { Some(if few { DType::Q6K } else { dtype }) }
}

/// Whether a model needs a folder: ounce's group formats have no place in GGUF.
pub(super) fn needs_folder(model: &Model) -> bool {
    let mut formats = model.weights.names().filter_map(|name| model.weights.info(name));
    formats.any(|(dtype, _)| dtype.group_shape().is_some())
}

/// Bytes of the file, or the folder's weights, that a model would be written to.
pub(super) fn forecast_bytes(model: &Model) -> Result<u64> {
    let options = WriteOptions { overwrite: true, ..WriteOptions::default() };
    Ok(match needs_folder(model) {
        true => hf::forecast(model, Path::new("forecast"), &options)?.bytes,
        false => gguf_model::forecast(model, Path::new("forecast.gguf"), &options)?.bytes,
    })
}

/// Bytes of the cache for so many tokens, each value of `value` bytes; 8 bits have a scale of four bytes a head besides.
pub fn cache_bytes(model: &Model, value: f64, tokens: usize) -> u64 {
    let layers = model.spec.layers.iter().filter_map(|layer| layer.attention.as_ref());
    let a_token: f64 = layers
        .map(|it| {
            2.0 * (it.kv_width() as f64 * value + if value < 2.0 { 4.0 * it.kv_heads as f64 } else { 0.0 })
        })
        .sum();
    (a_token * tokens as f64) as u64
}
