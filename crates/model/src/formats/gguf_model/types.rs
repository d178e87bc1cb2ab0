//! In which format each tensor of a GGUF file is stored.
//!
//! Vectors, norms and token types are F32, which other programs require, and so are routers: programs that round
//! activations to the weights' format would choose other experts. Everything else keeps its format or takes the one
//! asked for, except a position table, which is F32 then. Rows that are no whole number of blocks take the nearest
//! format with smaller blocks, or F16.

use ounce_kernels::{DType, quant};

use crate::{Error, Result};

/// Refuses a format that ounce does not write or GGUF does not have.
pub(super) fn check(asked: Option<DType>) -> Result<()> {
    let writable = |dtype: &DType| dtype.ggml_id().is_some() && quant::can_encode(*dtype);
    let Some(dtype) = asked.filter(|dtype| !writable(dtype)) else { return Ok(()) };
    let known: Vec<&str> = DType::all().filter(writable).map(DType::name).collect();
    Err(Error::unsupported(format!(
        "ounce does not write {dtype} to GGUF files; it writes {}",
        known.join(", ")
    )))
}

/// Whether a tensor is F32 whatever is asked for.
pub(super) fn is_small(name: &str, shape: &[usize]) -> bool {
    shape.len() < 2 || name.contains("_norm.") || name == "token_types.weight"
}

/// The format of a tensor in the file.
pub(super) fn target(name: &str, shape: &[usize], stored: DType, asked: Option<DType>) -> DType {
    if is_small(name, shape) {
        return DType::F32;
    }
    let router = name.contains("ffn_gate_inp");
    let Some(asked) = asked else {
        return match stored {
            dtype if router && !dtype.is_block() => DType::F32,
            DType::F64 => DType::F32,
            // Nearer to a scale times a whole number than BF16 is.
            dtype if dtype.group_shape().is_some() => DType::F16,
            dtype if dtype.ggml_id().is_none() => DType::BF16,
            dtype => dtype,
        };
    };
    if router || name == "position_embd.weight" {
        return DType::F32;
    }
    fitting(asked, shape.last().copied().unwrap_or(1))
}

/// `dtype`, or what takes its place for rows of `row` values.
fn fitting(dtype: DType, row: usize) -> DType {
    dtype.fitting(row).unwrap_or(DType::F16)
}

/// The number of `general.file_type` for files mostly of this format; none for formats without one.
pub(super) fn file_type(dtype: DType) -> Option<u32> {
    Some(match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::Q4_0 => 2,
        DType::Q4_1 => 3,
        DType::Q8_0 => 7,
        DType::Q5_0 => 8,
        DType::Q5_1 => 9,
        DType::Q2K => 10,
        DType::Q3K => 11,
        DType::Q4K => 14,
        DType::Q5K => 16,
        DType::Q6K => 18,
        DType::IQ2XXS => 19,
        DType::IQ2XS => 20,
        DType::IQ3XXS => 23,
        DType::IQ1S => 24,
        DType::IQ4NL => 25,
        DType::IQ3S => 26,
        DType::IQ2S => 28,
        DType::IQ4XS => 30,
        DType::IQ1M => 31,
        DType::BF16 => 32,
        DType::TQ1_0 => 36,
        DType::TQ2_0 => 37,
        DType::MXFP4 => 38,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_do_not_fit_take_smaller_blocks_or_f16() {
        assert_eq!(fitting(DType::Q4K, 512), DType::Q4K);
        assert_eq!(fitting(DType::Q4K, 96), DType::Q5_0);
        assert_eq!(fitting(DType::Q6K, 96), DType::Q8_0);
        assert_eq!(fitting(DType::Q8_0, 48), DType::F16);
        assert_eq!(fitting(DType::BF16, 48), DType::BF16);
    }

    #[test]
    fn small_and_sensitive_tensors_stay_f32() {
        let asked = Some(DType::Q8_0);
        assert_eq!(target("blk.0.attn_norm.weight", &[64], DType::BF16, None), DType::F32);
        assert_eq!(target("blk.0.attn_q_norm.weight", &[4, 64], DType::BF16, None), DType::F32);
        assert_eq!(target("blk.0.ffn_gate_inp.weight", &[8, 64], DType::BF16, asked), DType::F32);
        assert_eq!(target("blk.0.ffn_gate_inp.weight", &[8, 64], DType::BF16, None), DType::F32);
        assert_eq!(target("blk.0.attn_q.weight", &[64, 64], DType::BF16, asked), DType::Q8_0);
        assert_eq!(target("blk.0.attn_q.weight", &[64, 64], DType::F8E4M3, None), DType::BF16);
    }
}
