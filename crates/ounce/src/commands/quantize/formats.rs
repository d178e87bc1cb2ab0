//! Which formats were asked for.

use std::path::Path;

use anyhow::{Context, bail};
use ounce_compress::quantize::{Plan, Unit};
use ounce_kernels::DType;
use ounce_model::Model;
use ounce_model::formats::Packing;

use super::super::convert::{is_gguf, parse_dtype};
use super::allocation::Budget;
use crate::units as sizes;

/// Flags that choose formats.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Formats")]
pub struct FormatArgs {
    /// Format of the matrices: q8_0, q6_k, q5_k, q4_k, q3_k, q2_k, q4_0, iq4_xs … in GGUF files; bits and group as in
    /// g4_64, fp8 (a scale for each row), fp8_tensor (one for each matrix) or nf4 in folders; mxfp4 in both. Rows that are no
    /// whole blocks take the nearest format with smaller ones
    #[arg(long = "type", id = "dtype", value_name = "FORMAT", value_parser = parse_type)]
    kind: Option<Type>,
    /// Bits of a code, 2 to 8: short for the usual format with so many
    #[arg(long, value_name = "N", conflicts_with = "dtype", value_parser = clap::value_parser!(u8).range(2..=8))]
    bits: Option<u8>,
    /// Values that share a scale, in folders: 32, 64, 128 or 256
    #[arg(long, value_name = "N", requires = "bits", default_value_t = 64)]
    group: usize,
    /// Give each matrix its own format, so that the file takes at most so much and loses least: bytes, or with K, M, G
    /// (powers of 1024)
    #[arg(long, value_name = "SIZE", conflicts_with_all = ["dtype", "bits"], value_parser = sizes::parse_size)]
    bytes: Option<u64>,
    /// The same for so many bits a weight, all tensors counted
    #[arg(long, value_name = "BITS", conflicts_with_all = ["dtype", "bits", "bytes"])]
    bits_per_weight: Option<f64>,
    /// Another format for matrices whose name in a GGUF file matches the pattern; the last match counts. `keep` as the
    /// format leaves them as they are
    #[arg(long, value_name = "PATTERN=FORMAT", value_parser = parse_keep)]
    keep: Vec<(glob::Pattern, Option<DType>)>,
}

/// What `--type` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// Blocks or numbers that are chosen matrix by matrix.
    Blocks(DType),
    /// 8-bit floats or NF4: nothing is to be chosen, and the writer of folders rounds.
    Rounded(Option<DType>, Packing),
}

fn parse_type(text: &str) -> Result<Type, String> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "fp8" | "f8_e4m3" => Type::Rounded(Some(DType::F8E4M3), Packing::CompressedTensors),
        "fp8_tensor" => Type::Rounded(Some(DType::F8E4M3), Packing::MatrixFloats),
        "nf4" => Type::Rounded(None, Packing::Nf4),
        _ => Type::Blocks(parse_dtype(text).map_err(|error| format!("{error}; and fp8, fp8_tensor, nf4"))?),
    })
}

/// The format where nothing is said.
const USUAL: DType = DType::Q4K;

/// The least bits of token vectors and head where nothing else is said: few in number, they touch every token.
const OUTER: DType = DType::Q6K;

fn parse_keep(text: &str) -> Result<(glob::Pattern, Option<DType>), String> {
    let (pattern, format) = text.rsplit_once('=').ok_or("give PATTERN=FORMAT, as in output.weight=q8_0")?;
    let pattern =
        glob::Pattern::new(pattern).map_err(|error| format!("{pattern:?} is no pattern: {error}"))?;
    Ok((pattern, if format == "keep" { None } else { Some(parse_dtype(format)?) }))
}

impl FormatArgs {
    /// One format for all.
    pub fn of(dtype: DType) -> FormatArgs {
        FormatArgs { kind: Some(Type::Blocks(dtype)), ..FormatArgs::default() }
    }

    /// One format for all, token vectors and head included.
    pub fn everywhere(dtype: DType) -> FormatArgs {
        let all = glob::Pattern::new("*").unwrap_or_default();
        FormatArgs { keep: vec![(all, Some(dtype))], ..FormatArgs::of(dtype) }
    }

    /// The format that the writer of folders rounds to, if one is asked for.
    ///
    /// # Errors
    /// If the target is no folder, or some matrices are to be kept.
    pub fn rounded(&self, target: &Path) -> anyhow::Result<Option<(Option<DType>, Packing)>> {
        let Some(Type::Rounded(dtype, packing)) = self.kind else { return Ok(None) };
        let name = if packing == Packing::Nf4 { "NF4" } else { "8-bit floats" };
        if is_gguf(target) {
            bail!(
                "GGUF has no format for {name}; choose q4_0, mxfp4 or q8_0, or name a folder as the target"
            );
        }
        if !self.keep.is_empty() {
            bail!(
                "{name} are for all linear layers, and --keep names some; leave it out, or choose groups (g4_64, g8_128)"
            );
        }
        Ok(Some((dtype, packing)))
    }

    /// Bits of a code, if they were given.
    pub fn bits(&self) -> Option<u32> {
        self.bits.map(u32::from)
    }

    /// The plan for a model's units.
    ///
    /// # Errors
    /// If a format is none of the target's, or a pattern matches nothing.
    pub fn plan(&self, model: &Model, units: &[Unit], target: &Path) -> anyhow::Result<Plan> {
        let gguf = is_gguf(target);
        let dtype = self.wanted(gguf)?;
        self.check(units, gguf, Some(dtype))?;
        let choices = units.iter().map(|unit| (unit, self.choice(model, unit, dtype, gguf)));
        Ok(Plan::new(choices)?)
    }

    /// The size that was asked for, if formats are to be chosen by it.
    ///
    /// # Errors
    /// If it can't be.
    pub fn budget(&self) -> anyhow::Result<Option<Budget>> {
        if let Some(bits) = self.bits_per_weight.filter(|bits| !(*bits >= 1.0 && *bits <= 32.0)) {
            bail!("--bits-per-weight should be from 1 to 32, found {bits}");
        }
        let bits = self.bits_per_weight.map(Budget::BitsPerWeight);
        Ok(self.bytes.map(Budget::Bytes).or(bits))
    }

    /// What `--keep` says of a unit.
    pub fn kept(&self, unit: &Unit) -> Option<Option<DType>> {
        let mut matches = self.keep.iter().rev();
        matches.find(|(pattern, _)| pattern.matches(&unit.name)).map(|(_, format)| *format)
    }

    fn wanted(&self, gguf: bool) -> anyhow::Result<DType> {
        Ok(match (self.kind, self.bits) {
            (Some(Type::Blocks(dtype)), _) => dtype,
            (None, Some(bits)) if gguf => match bits {
                2 => DType::Q2K,
                3 => DType::Q3K,
                4 => DType::Q4K,
                5 => DType::Q5K,
                6 | 7 => DType::Q6K,
                _ => DType::Q8_0,
            },
            (None, bits) if !gguf => {
                let bits = usize::from(bits.unwrap_or(4));
                DType::groups(bits, self.group).with_context(|| {
                    format!("there are groups of 32, 64, 128 and 256 values with 2, 3, 4 or 8 bits, none of {} with {bits}", self.group)
                })?
            }
            _ => USUAL,
        })
    }

    /// Refuses formats that the target does not have, and patterns that match nothing. `dtype` is the format of all
    /// matrices, if there is one.
    pub(super) fn check(&self, units: &[Unit], gguf: bool, dtype: Option<DType>) -> anyhow::Result<()> {
        let all = self.keep.iter().filter_map(|(_, format)| *format).chain(dtype);
        for dtype in all {
            if gguf && dtype.ggml_id().is_none() {
                bail!("GGUF has no format {dtype}; choose q2_k to q8_0, or name a folder as the target");
            }
            if !gguf && dtype.is_block() && dtype.group_shape().is_none() && dtype != DType::MXFP4 {
                bail!(
                    "folders have no format {dtype}; choose bits and a group as in g4_64, mxfp4, nf4 or fp8, or a target \
                     ending in .gguf"
                );
            }
            if matches!(dtype, DType::F8E4M3 | DType::F8E5M2) {
                bail!(
                    "{dtype} without scales would lose most weights; choose --type fp8, which has one for each row"
                );
            }
        }
        let kinds =
            self.keep.iter().filter_map(|(_, format)| *format).chain(dtype).filter(|it| it.is_block());
        let [microscaled, groups]: [Vec<DType>; 2] =
            kinds.partition::<Vec<_>, _>(|it| *it == DType::MXFP4).into();
        if let (false, Some(_), Some(other)) = (gguf, microscaled.first(), groups.first()) {
            bail!(
                "a folder holds mxfp4 or groups, and both were asked for (mxfp4 and {other}); choose one of them"
            );
        }
        for (pattern, _) in &self.keep {
            if !units.iter().any(|unit| pattern.matches(&unit.name)) {
                let some: Vec<&str> = units.iter().take(4).map(|unit| unit.name.as_str()).collect();
                bail!("--keep {pattern}: no matrix has such a name; there are {} …", some.join(", "));
            }
        }
        Ok(())
    }

    fn choice(&self, model: &Model, unit: &Unit, dtype: DType, gguf: bool) -> Option<DType> {
        if let Some(format) = self.kept(unit) {
            return format;
        }
        let stored = unit.matrices.first().and_then(|it| model.weights.info(it)).map(|it| it.0)?;
        // What has as few bits already would only lose.
        if stored.bits_per_value() <= dtype.bits_per_value() {
            return None;
        }
        match unit.is_outer() {
            // Loaders of quantized folders expect token vectors and head as they were.
            true if !gguf => None,
            true if dtype.bits_per_value() < OUTER.bits_per_value() => Some(OUTER),
            _ => Some(dtype),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_formats_or_keep() {
        let (pattern, format) = parse_keep("blk.*.attn_v.weight=q5_k").unwrap();
        assert!(pattern.matches("blk.3.attn_v.weight") && format == Some(DType::Q5K));
        assert_eq!(parse_keep("output.weight=keep").unwrap().1, None);
        assert!(parse_keep("output.weight").unwrap_err().contains("PATTERN=FORMAT"));
        assert!(parse_keep("a=q9").unwrap_err().contains("q4_k"));
    }
}
