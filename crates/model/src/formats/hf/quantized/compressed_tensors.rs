//! compressed-tensors checkpoints: `pack-quantized` (whole numbers of up to 8 bits in words), `int-quantized` (signed
//! bytes), `float-quantized` (8-bit floats) and `mxfp4-pack-quantized` (4-bit floats in blocks with a power of two). Bits and groups of a weight follow from its tensors' shapes, so the
//! targets of the configuration's groups need no matching. Quantized activations are not imitated.

use ounce_kernels::DType;
use serde_json::Value;

use super::grid::{Codes, Grid, Groups, ScaleLayout, Scales, Zeros};
use super::scaled::{Microscaled, Scaled};
use super::words::{word, words_for};
use super::{Files, Layer, SCALES, Weight, check_shape, matrix};
use crate::weights::Tensor;
use crate::{Config, Result};

pub(super) struct Settings {
    /// Bits of packed weights, as the groups of the configuration name them.
    bits: Vec<usize>,
    /// What 8-bit floats are decoded to, where the model says.
    float: Option<DType>,
    /// Whether there may be no packed weight at all.
    pub may_be_plain: bool,
}

/// The layouts that are read.
const FORMATS: [&str; 7] = [
    "pack-quantized",
    "int-quantized",
    "float-quantized",
    "mxfp4-pack-quantized",
    "naive-quantized",
    "mixed-precision",
    "dense",
];

impl Settings {
    pub fn read(config: &Config, float: Option<DType>) -> Result<Settings> {
        let format = check_format(config)?.unwrap_or("dense").to_string();
        if let Some(sparsity) = config.object_opt("sparsity_config")? {
            let sparse = sparsity.text_opt("format")?.unwrap_or("dense");
            if sparse != "dense" {
                let what =
                    format!("weights stored as {sparse} are not read; take a checkpoint that is not sparse");
                return Err(config.error("sparsity_config", what));
            }
        }
        let groups = config.object_opt("config_groups")?;
        let mut bits = Vec::new();
        for (name, group) in groups.iter().flat_map(|groups| groups.map()) {
            let Value::Object(group) = group else {
                return Err(config.error("config_groups", format!("{name} should be an object")));
            };
            let group = Config::new(config.path(), group.clone());
            check_format(&group)?;
            let Some(weights) = group.object_opt("weights")? else { continue };
            let count = weights.size_or("num_bits", 8)?;
            if !(1..=8).contains(&count) {
                let what = format!("weights of {count} bits are not read; ounce reads 1 to 8");
                return Err(config.error("num_bits", what));
            }
            if !bits.contains(&count) {
                bits.push(count);
            }
        }
        let plain = format == "dense"
            || config.text_opt("quantization_status")?.unwrap_or("compressed") != "compressed";
        Ok(Settings { bits, float, may_be_plain: plain })
    }
}

/// The format that a configuration or a group names, if ounce reads it.
fn check_format(config: &Config) -> Result<Option<&str>> {
    let format = config.text_opt("format")?;
    match format.filter(|format| !FORMATS.contains(format)) {
        None => Ok(format),
        Some(other) => {
            let what = format!(
                "compressed-tensors of the format {other} is not read; ounce reads {}: take another checkpoint",
                FORMATS.join(", ")
            );
            Err(config.error("format", what))
        }
    }
}

/// Whether a tensor only describes how activations or caches were quantized.
pub(super) fn is_bookkeeping(name: &str) -> bool {
    const ENDS: [&str; 8] = [
        ".input_scale",
        ".input_zero_point",
        ".output_scale",
        ".output_zero_point",
        ".k_scale",
        ".v_scale",
        ".k_zero_point",
        ".v_zero_point",
    ];
    ENDS.iter().any(|end| name.ends_with(end))
}

pub(super) fn find(settings: &Settings, files: &Files<'_>, name: &str) -> Result<Option<Layer>, String> {
    if let Some(module) = name.strip_suffix(".weight_packed") {
        return match files.0.info(name) {
            Some((DType::U8, _)) => microscaled(files, name, module).map(Some),
            _ => packed(settings, files, name, module).map(Some),
        };
    }
    let Some(module) = name.strip_suffix(".weight") else { return Ok(None) };
    match files.0.info(name) {
        Some((DType::I8, _)) => whole(files, name, module).map(Some),
        Some((DType::F8E4M3 | DType::F8E5M2, _)) => float(settings, files, name, module),
        _ => Ok(None),
    }
}

/// The names of all that may belong to a module's weight.
fn parts(module: &str, weight: &str) -> Vec<String> {
    let ends = ["weight_scale", "weight_zero_point", "weight_g_idx", "weight_shape"];
    let ends = ends.iter().map(|end| format!("{module}.{end}"));
    ends.chain([weight.to_string()]).collect()
}

/// Scales of a matrix of so many rows, and how many groups of a row they say there are.
fn scales(files: &Files<'_>, module: &str, rows: usize) -> Result<Scales, String> {
    let name = format!("{module}.weight_scale");
    let tensor = files.need(&name, &SCALES)?;
    let (groups, layout) = match tensor.shape.as_slice() {
        [] | [1] => (1, ScaleLayout::One),
        [1, 1] if rows != 1 => (1, ScaleLayout::One),
        [count] if *count == rows => (1, ScaleLayout::ByRow),
        [count, groups] if *count == rows && *groups > 0 => (*groups, ScaleLayout::ByRow),
        found => {
            return Err(format!(
                "is packed, but {name} has shape {found:?}, which belongs to no matrix of {rows} rows; take \
                 configuration and weights from the same model"
            ));
        }
    };
    Ok(Scales { tensor, groups, layout })
}

/// Which columns share a scale.
fn groups(files: &Files<'_>, module: &str, columns: usize, groups: usize) -> Result<Groups, String> {
    let name = format!("{module}.weight_g_idx");
    let listed = match files.get(&name)? {
        None => None,
        Some(_) => Some(files.need(&name, &[DType::I32])?),
    };
    // A list of −1 stands for columns in their order.
    let listed = listed.filter(|list| (0..list.values()).any(|at| word(&list.data, at) != u32::MAX));
    match listed {
        Some(list) => Groups::listed(&name, &list, columns, groups),
        None if columns.is_multiple_of(groups) => Ok(Groups::Even((columns / groups).max(1))),
        None => Err(format!("is packed, but {groups} groups do not divide its {columns} columns evenly")),
    }
}

/// A zero point for each row and group in signed bytes, or one for all.
fn signed_zeros(name: &str, zeros: Tensor, rows: usize, groups: usize) -> Result<Zeros, String> {
    if zeros.values() != 1 && !(groups == 1 && zeros.shape == [rows]) {
        check_shape(name, &zeros.shape, &[rows, groups])?;
    }
    Ok(Zeros::Signed { data: zeros.data })
}

fn packed(settings: &Settings, files: &Files<'_>, name: &str, module: &str) -> Result<Layer, String> {
    let codes = files.need(name, &[DType::I32])?;
    let shape_name = format!("{module}.weight_shape");
    let shape = files.need(&shape_name, &[DType::I64, DType::I32])?;
    let [rows, words] = matrix(&codes.shape)?;
    check_shape(&shape_name, &shape.shape, &[2])?;
    let step = shape.dtype.block_bytes() / 4;
    let size = |at: usize| match (word(&shape.data, at * step), step) {
        (size, 2) if word(&shape.data, at * 2 + 1) == 0 => size as usize,
        (size, 1) => size as usize,
        _ => usize::MAX,
    };
    let (said, columns) = (size(0), size(1));
    // So many columns would need more bits than the words have.
    if said != rows || columns == 0 || columns > words.saturating_mul(32) {
        return Err(format!(
            "is packed, but {shape_name} says [{said}, {columns}], which {rows} rows of {words} words do not hold; fetch \
             the model again"
        ));
    }
    let bits = settings.bits.iter().copied().find(|&bits| words_for(bits, columns) == words);
    let bits = bits.ok_or_else(|| {
        format!(
            "is packed, but {words} words a row do not hold {columns} columns of {:?} bits, which config_groups names",
            settings.bits
        )
    })?;
    let scales = scales(files, module, rows)?;
    let zeros_name = format!("{module}.weight_zero_point");
    let zeros = match files.get(&zeros_name)? {
        None => Zeros::All(1 << (bits - 1)),
        Some(_) => {
            let zeros = files.need(&zeros_name, &[DType::I32, DType::I8])?;
            if zeros.dtype == DType::I8 && bits == 8 {
                signed_zeros(&zeros_name, zeros, rows, scales.groups)?
            } else {
                check_shape(&zeros_name, &zeros.shape, &[words_for(bits, rows), scales.groups])?;
                files.need(&zeros_name, &[DType::I32])?;
                Zeros::Down { data: zeros.data }
            }
        }
    };
    let groups = groups(files, module, columns, scales.groups)?;
    let codes = Codes::Rows { data: codes.data, words };
    let grid = Grid { rows, columns, bits, codes, scales, zeros, groups };
    Ok(layer(grid, parts(module, name), module))
}

/// A weight in MXFP4.
fn microscaled(files: &Files<'_>, name: &str, module: &str) -> Result<Layer, String> {
    let codes = files.need(name, &[DType::U8])?;
    let [rows, pairs] = matrix(&codes.shape)?;
    if !pairs.is_multiple_of(16) {
        return Err(format!(
            "is packed in 4-bit floats, but its rows of {} are no whole blocks of 32",
            pairs * 2
        ));
    }
    let scales_name = format!("{module}.weight_scale");
    let powers = files.need(&scales_name, &[DType::U8])?;
    check_shape(&scales_name, &powers.shape, &[rows, pairs / 16])?;
    Ok(Layer {
        shape: [rows, pairs * 2],
        dtype: DType::MXFP4,
        decoded: None,
        parts: parts(module, name),
        module: module.to_string(),
        weight: Weight::Microscaled(Microscaled { codes: codes.data, powers: powers.data }),
    })
}

fn layer(grid: Grid, parts: Vec<String>, module: &str) -> Layer {
    let (dtype, decoded) = grid.choose();
    let shape = [grid.rows, grid.columns];
    Layer { shape, dtype, decoded, parts, module: module.to_string(), weight: Weight::Grid(grid) }
}

/// A weight in signed bytes.
fn whole(files: &Files<'_>, name: &str, module: &str) -> Result<Layer, String> {
    let codes = files.need(name, &[DType::I8])?;
    let [rows, columns] = matrix(&codes.shape)?;
    let scales = scales(files, module, rows)?;
    let zeros_name = format!("{module}.weight_zero_point");
    let zeros = match files.get(&zeros_name)? {
        None => Zeros::All(128),
        Some(_) => signed_zeros(&zeros_name, files.need(&zeros_name, &[DType::I8])?, rows, scales.groups)?,
    };
    let groups = groups(files, module, columns, scales.groups)?;
    let codes = Codes::Signed { data: codes.data };
    let grid = Grid { rows, columns, bits: 8, codes, scales, zeros, groups };
    Ok(layer(grid, parts(module, name), module))
}

/// A weight in 8-bit floats; one without scales is a plain tensor.
fn float(settings: &Settings, files: &Files<'_>, name: &str, module: &str) -> Result<Option<Layer>, String> {
    let weight = files.need(name, &[DType::F8E4M3, DType::F8E5M2])?;
    let [rows, columns] = matrix(&weight.shape)?;
    let scales = scales(files, module, rows)?;
    if scales.groups != 1 {
        return Err("is packed with 8-bit floats in groups, which ounce does not read; take a checkpoint with a scale a \
                    row or one for all"
            .to_string());
    }
    let dtype = settings.float.unwrap_or(scales.tensor.dtype);
    let numbers = scales.tensor.to_f32().map_err(|error| error.to_string())?;
    Ok(Some(Layer {
        shape: [rows, columns],
        dtype,
        decoded: Some("8-bit floats with scales have no format of ounce's"),
        parts: parts(module, name),
        module: module.to_string(),
        weight: Weight::Scaled(Scaled { stored: weight.dtype, data: weight.data, scales: numbers }),
    }))
}
