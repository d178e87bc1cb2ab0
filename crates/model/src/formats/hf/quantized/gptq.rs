//! GPTQ checkpoints: `qweight` `[in · bits / 32, out]`, `qzeros` `[groups, out · bits / 32]`, `scales` `[groups, out]`
//! and `g_idx` `[in]`, the group of each column. Both versions of the format are read: the first stores zero points
//! less one.

use ounce_kernels::DType;

use super::grid::{Codes, Grid, Groups, ScaleLayout, Scales, Zeros};
use super::words::words_for;
use super::{Files, Layer, SCALES, Weight, check_shape, matrix};
use crate::{Config, Result};

pub(super) struct Settings {
    bits: usize,
    /// Columns of a group; none for one group a row.
    group: Option<usize>,
    /// Whether zero points are stored less one.
    less_one: bool,
}

impl Settings {
    pub fn read(config: &Config) -> Result<Settings> {
        let bits = config.size("bits")?;
        if ![2, 3, 4, 8].contains(&bits) {
            let what = format!(
                "GPTQ with {bits} bits is not read; ounce reads 2, 3, 4 and 8: take another checkpoint"
            );
            return Err(config.error("bits", what));
        }
        let format = match config.text_opt("checkpoint_format")? {
            Some(format) => format,
            None => config.text_opt("format")?.unwrap_or("gptq"),
        };
        let less_one = match format {
            "gptq" => true,
            "gptq_v2" => false,
            other => {
                let what = format!(
                    "GPTQ packed for {other} is not read; ounce reads gptq and gptq_v2: take such a checkpoint"
                );
                return Err(config.error("checkpoint_format", what));
            }
        };
        if let Some(words) = config.text_opt("pack_dtype")?.filter(|words| *words != "int32") {
            let what = format!("GPTQ packed into {words} is not read; take a checkpoint packed into int32");
            return Err(config.error("pack_dtype", what));
        }
        Ok(Settings { bits, group: group_size(config)?, less_one })
    }
}

/// `group_size`, which is −1 for one group a row.
pub(super) fn group_size(config: &Config) -> Result<Option<usize>> {
    if config.get("group_size").is_some_and(|value| value.as_i64() == Some(-1)) {
        return Ok(None);
    }
    match config.size_opt("group_size")? {
        Some(0) => Err(config.error("group_size", "should not be 0")),
        group => Ok(group),
    }
}

pub(super) fn find(settings: &Settings, files: &Files<'_>, name: &str) -> Result<Option<Layer>, String> {
    let Some(module) = name.strip_suffix(".qweight") else { return Ok(None) };
    let named = |end: &str| format!("{module}.{end}");
    let (zeros_name, scales_name, index_name) = (named("qzeros"), named("scales"), named("g_idx"));
    let codes = files.need(name, &[DType::I32])?;
    let zeros = files.need(&zeros_name, &[DType::I32])?;
    let scales = files.need(&scales_name, &SCALES)?;
    let index = files.get(&index_name)?.map(|_| files.need(&index_name, &[DType::I32])).transpose()?;
    let [words, rows] = matrix(&codes.shape)?;
    // A model may have layers of other bits than most; a list of groups tells how many columns the words hold.
    let (bits, columns) = match &index {
        Some(index) => {
            let columns = index.values();
            let bits =
                [2, 3, 4, 8].into_iter().find(|&bits| columns > 0 && words_for(bits, columns) == words);
            let bits = bits.ok_or_else(|| {
                format!("is packed, but its {words} words do not hold {columns} columns of 2, 3, 4 or 8 bits")
            })?;
            (bits, columns)
        }
        None if (words * 32).is_multiple_of(settings.bits) => (settings.bits, words * 32 / settings.bits),
        None => {
            return Err(format!(
                "is packed, but {words} words are no whole number of {} bits",
                settings.bits
            ));
        }
    };
    let group = settings.group.unwrap_or(columns).max(1);
    let &[groups, _] = scales.shape.as_slice() else {
        return Err(format!("is packed, but {scales_name} has shape {:?} and is no matrix", scales.shape));
    };
    check_shape(&scales_name, &scales.shape, &[groups, rows])?;
    check_shape(&zeros_name, &zeros.shape, &[groups, words_for(bits, rows)])?;
    let of_groups = match &index {
        Some(index) => match Groups::listed(&index_name, index, columns, groups)? {
            Groups::Listed(list) if list.iter().enumerate().all(|(at, &of)| at / group == of as usize) => {
                Groups::Even(group)
            }
            listed => listed,
        },
        None => {
            check_shape(&scales_name, &scales.shape, &[columns.div_ceil(group), rows])?;
            Groups::Even(group)
        }
    };
    let grid = Grid {
        rows,
        columns,
        bits,
        codes: Codes::Down { data: codes.data },
        zeros: Zeros::Groups { data: zeros.data, words: words_for(bits, rows), less_one: settings.less_one },
        scales: Scales { tensor: scales, groups, layout: ScaleLayout::ByGroup },
        groups: of_groups,
    };
    let (dtype, decoded) = grid.choose();
    Ok(Some(Layer {
        shape: [rows, columns],
        dtype,
        decoded,
        parts: vec![name.to_string(), zeros_name, scales_name, index_name],
        module: module.to_string(),
        weight: Weight::Grid(grid),
    }))
}
