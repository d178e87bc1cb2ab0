//! bitsandbytes checkpoints of 4 bits (nf4, fp4): codes of a table of sixteen numbers, two a byte, the first in the high
//! half, in blocks of the flattened matrix with a largest magnitude each. With double quantization those magnitudes are
//! bytes of a table of 256 numbers, in blocks of their own.

use ounce_kernels::{DType, quant};
use rayon::prelude::*;
use serde_json::Value;

use super::words::word;
use super::{Files, Layer, Weight, check_shape, float_named, matrix};
use crate::storage::Bytes;
use crate::weights::Tensor;
use crate::{Config, Result};

/// Refuses what is no checkpoint of 4 bits.
pub(super) fn check(config: &Config) -> Result<()> {
    let four = config.flag_or("load_in_4bit", false)? || config.flag_or("_load_in_4bit", false)?;
    if four {
        return Ok(());
    }
    let what = "bitsandbytes with 8 bits is not read; ounce reads 4 bits (nf4, fp4): take such a checkpoint, the \
                original or a GGUF";
    Err(config.error("quantization_config", what))
}

/// A matrix in codes of a table.
pub(super) struct Table {
    pub data: Bytes,
    /// What the codes stand for.
    numbers: [f32; 16],
    /// Values of the flattened matrix that share a magnitude.
    block: usize,
    /// The blocks' magnitudes.
    magnitudes: Magnitudes,
}

enum Magnitudes {
    Plain(Bytes),
    /// `numbers[codes[i]] · magnitudes[i / block] + offset`.
    Nested {
        codes: Bytes,
        numbers: Vec<f32>,
        magnitudes: Vec<f32>,
        block: usize,
        offset: f32,
    },
}

impl Magnitudes {
    fn get(&self, index: usize) -> f32 {
        match self {
            Magnitudes::Plain(data) => f32::from_bits(word(data, index)),
            Magnitudes::Nested { codes, numbers, magnitudes, block, offset } => {
                numbers[usize::from(codes[index])] * magnitudes[index / block] + offset
            }
        }
    }
}

impl Table {
    /// Stores the rows in `dtype`, a plain format.
    pub fn build(
        &self,
        dtype: DType,
        row_bytes: usize,
        columns: usize,
        out: &mut [u8],
    ) -> Result<(), String> {
        out.par_chunks_exact_mut(row_bytes.max(1)).enumerate().try_for_each_init(
            || (vec![0.0; columns], Vec::new()),
            |(values, bytes), (row, out)| {
                let (mut last, mut magnitude) = (usize::MAX, 0.0);
                for (column, value) in values.iter_mut().enumerate() {
                    let at = row * columns + column;
                    if at / self.block != last {
                        last = at / self.block;
                        magnitude = self.magnitudes.get(last);
                    }
                    let pair = self.data[at / 2];
                    let code = if at.is_multiple_of(2) { pair >> 4 } else { pair & 15 };
                    *value = self.numbers[usize::from(code)] * magnitude;
                }
                bytes.clear();
                quant::encode(dtype, values, bytes).map_err(|error| error.to_string())?;
                out.copy_from_slice(bytes);
                Ok(())
            },
        )
    }
}

pub(super) fn find(files: &Files<'_>, name: &str) -> Result<Option<Layer>, String> {
    let Some(module) = name.strip_suffix(".weight") else { return Ok(None) };
    let state = |kind: &str| format!("{name}.quant_state.bitsandbytes__{kind}");
    let Some(state_name) = ["nf4", "fp4"].map(state).into_iter().find(|it| files.0.info(it).is_some()) else {
        return Ok(None);
    };
    let tensor = files.need(&state_name, &[DType::U8])?;
    let damaged = || format!("is packed, but {state_name} is damaged; fetch the model again");
    let Ok(Value::Object(map)) = serde_json::from_slice(&tensor.data) else { return Err(damaged()) };
    let state = Config::new(&state_name, map);
    let (shape, block, dtype) = read_state(&state).ok_or_else(damaged)?;
    let stored = files.get(name)?.ok_or_else(damaged)?;
    let [rows, columns] = matrix(&shape)?;
    let count = rows.checked_mul(columns).ok_or_else(damaged)?;
    if stored.data.len() != count.div_ceil(2) {
        return Err(format!(
            "is packed, but has {} bytes where a matrix of {shape:?} takes {}; fetch the model again",
            stored.data.len(),
            count.div_ceil(2)
        ));
    }
    let end = |end: &str| format!("{name}.{end}");
    let names = [end("absmax"), end("quant_map"), end("nested_absmax"), end("nested_quant_map")];
    let numbers = floats(files, &names[1], 16)?;
    let blocks = count.div_ceil(block);
    let magnitudes = match state.get("nested_blocksize") {
        None => {
            let tensor = files.need(&names[0], &[DType::F32])?;
            check_shape(&names[0], &tensor.shape, &[blocks])?;
            Magnitudes::Plain(tensor.data)
        }
        Some(_) => {
            let block = state.size("nested_blocksize").map_err(|_| damaged())?;
            let offset = state.number("nested_offset").map_err(|_| damaged())?;
            let codes = files.need(&names[0], &[DType::U8])?;
            check_shape(&names[0], &codes.shape, &[blocks])?;
            let numbers = floats(files, &names[3], 256)?;
            let magnitudes = floats(files, &names[2], blocks.div_ceil(block))?;
            Magnitudes::Nested { codes: codes.data, numbers, magnitudes, block, offset }
        }
    };
    let numbers = numbers.first_chunk().copied().ok_or_else(damaged)?;
    Ok(Some(Layer {
        shape,
        dtype,
        decoded: Some("codes of a table in blocks with any magnitude have no format of ounce's"),
        parts: names.into_iter().chain([name.to_string(), state_name]).collect(),
        module: module.to_string(),
        weight: Weight::Table(Table { data: stored.data, numbers, block, magnitudes }),
    }))
}

/// Shape, values of a block and format of a weight.
fn read_state(state: &Config) -> Option<([usize; 2], usize, DType)> {
    let sizes = state.get("shape")?.as_array()?;
    let sizes: Option<Vec<usize>> =
        sizes.iter().map(|size| size.as_u64().and_then(|size| usize::try_from(size).ok())).collect();
    let shape = sizes?.try_into().ok()?;
    Some((shape, state.size("blocksize").ok()?, float_named(state.text_opt("dtype").ok()??)?))
}

/// The numbers of a vector of this length.
fn floats(files: &Files<'_>, name: &str, count: usize) -> Result<Vec<f32>, String> {
    let tensor: Tensor = files.need(name, &[DType::F32])?;
    check_shape(name, &tensor.shape, &[count])?;
    tensor.to_f32().map_err(|error| error.to_string())
}
