//! AWQ checkpoints of the version `gemm`: 4 bits, `qweight` `[in, out / 8]`, `qzeros` `[groups, out / 8]`, `scales`
//! `[groups, out]`. A word holds eight neighbours along `out`, the even ones first.

use ounce_kernels::DType;

use super::gptq::group_size;
use super::grid::{Codes, Grid, Groups, ScaleLayout, Scales, Zeros};
use super::{Files, Layer, SCALES, Weight, check_shape, matrix};
use crate::{Config, Result};

pub(super) struct Settings {
    /// Columns of a group; none for one group a row.
    group: Option<usize>,
}

impl Settings {
    pub fn read(config: &Config) -> Result<Settings> {
        let key = if config.get("w_bit").is_some() { "w_bit" } else { "bits" };
        let bits = config.size(key)?;
        if bits != 4 {
            let what = format!("AWQ with {bits} bits is not read; ounce reads 4: take another checkpoint");
            return Err(config.error(key, what));
        }
        let version = config.text_opt("version")?.unwrap_or("gemm");
        if !version.eq_ignore_ascii_case("gemm") {
            let what = format!(
                "AWQ of the version {version} is not read; ounce reads gemm: take another checkpoint"
            );
            return Err(config.error("version", what));
        }
        match config.size_opt("q_group_size")? {
            Some(group) if group > 0 => Ok(Settings { group: Some(group) }),
            _ => Ok(Settings { group: group_size(config)? }),
        }
    }
}

pub(super) fn find(settings: &Settings, files: &Files<'_>, name: &str) -> Result<Option<Layer>, String> {
    let Some(module) = name.strip_suffix(".qweight") else { return Ok(None) };
    let named = |end: &str| format!("{module}.{end}");
    let (zeros_name, scales_name) = (named("qzeros"), named("scales"));
    let codes = files.need(name, &[DType::I32])?;
    let zeros = files.need(&zeros_name, &[DType::I32])?;
    let scales = files.need(&scales_name, &SCALES)?;
    let [columns, words] = matrix(&codes.shape)?;
    let rows = words.checked_mul(8).ok_or("its size overflows")?;
    let group = settings.group.unwrap_or(columns).max(1);
    let groups = columns.div_ceil(group);
    check_shape(&scales_name, &scales.shape, &[groups, rows])?;
    check_shape(&zeros_name, &zeros.shape, &[groups, words])?;
    let grid = Grid {
        rows,
        columns,
        bits: 4,
        codes: Codes::Awq { data: codes.data },
        zeros: Zeros::Awq { data: zeros.data },
        scales: Scales { tensor: scales, groups, layout: ScaleLayout::ByGroup },
        groups: Groups::Even(group),
    };
    let (dtype, decoded) = grid.choose();
    Ok(Some(Layer {
        shape: [rows, columns],
        dtype,
        decoded,
        parts: vec![name.to_string(), zeros_name, scales_name],
        module: module.to_string(),
        weight: Weight::Grid(grid),
    }))
}
