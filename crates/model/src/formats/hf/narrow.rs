//! 8-bit floats, MXFP4 and NF4 as other tools store them, for writing: compressed-tensors' `float-quantized`, a scale for each
//! row or one for all, its `mxfp4-pack-quantized`, neighbours in a byte and powers of two beside them, and bitsandbytes' 4 bits,
//! a largest magnitude for each block of the flattened matrix.

use half::{bf16, f16};
use ounce_kernels::{DType, quant};
use serde_json::{Value, json};

use super::packing::{Part, Piece};
use crate::weights::Tensor;

/// Values of the flattened matrix that share a magnitude.
const BLOCK: usize = 64;

/// Bytes of a block of 32 values in MXFP4: the power, and two codes a byte.
const MX_BYTES: usize = 17;

/// The largest number of E4M3.
const LARGEST: f32 = 448.0;

/// NF4 (Dettmers et al., 2023, "QLoRA", appendix E): quantiles of the normal distribution, scaled to ±1, with a 0 among them.
const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// What linear layers become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// E4M3 with a scale for each row.
    Float8,
    /// E4M3 with one scale.
    MatrixFloat8,
    /// E2M1 in blocks of 32 with a power of two.
    Mxfp4,
    /// Codes of NF4 with a magnitude for each block.
    Nf4,
}

impl Kind {
    /// The format in which a weight is put together before it is taken apart.
    pub fn built(self) -> DType {
        // Codes that a quantizer chose are kept.
        if self == Kind::Mxfp4 { DType::MXFP4 } else { DType::F32 }
    }
}

/// How a model's linear layers are stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Narrow {
    pub kind: Kind,
    /// The format that other tools compute the model in: that of scales, too.
    pub float: DType,
}

impl Narrow {
    /// The pieces of a weight `[rows, columns]`, the largest elements first: name, format and shape of each.
    ///
    /// # Errors
    /// If it is no matrix, or another name than a weight's.
    pub fn pieces(&self, name: &str, shape: &[usize]) -> Result<Vec<Part>, String> {
        let &[rows, columns] = shape else { return Err("is no matrix".to_string()) };
        let module = name.strip_suffix(".weight").ok_or("is no weight")?;
        Ok(match self.kind {
            Kind::Float8 => vec![
                (Piece::RowScales, format!("{module}.weight_scale"), self.float, vec![rows, 1]),
                (Piece::Floats, name.to_string(), DType::F8E4M3, shape.to_vec()),
            ],
            Kind::MatrixFloat8 => vec![
                (Piece::RowScales, format!("{module}.weight_scale"), self.float, vec![1]),
                (Piece::Floats, name.to_string(), DType::F8E4M3, shape.to_vec()),
            ],
            Kind::Mxfp4 => vec![
                (Piece::Pairs, format!("{module}.weight_packed"), DType::U8, vec![rows, columns / 2]),
                (Piece::Powers, format!("{module}.weight_scale"), DType::U8, vec![rows, columns / 32]),
            ],
            Kind::Nf4 => {
                let count = rows * columns;
                let state = format!("{name}.quant_state.bitsandbytes__nf4");
                let size = self.state(shape).len();
                vec![
                    (Piece::Magnitudes, format!("{name}.absmax"), DType::F32, vec![count.div_ceil(BLOCK)]),
                    (Piece::Numbers, format!("{name}.quant_map"), DType::F32, vec![NF4.len()]),
                    (Piece::Pairs, name.to_string(), DType::U8, vec![count.div_ceil(2), 1]),
                    (Piece::State, state, DType::U8, vec![size]),
                ]
            }
        })
    }

    /// torch's name of the format that other tools compute in.
    fn float_name(&self) -> &'static str {
        match self.float {
            DType::F16 => "float16",
            DType::BF16 => "bfloat16",
            _ => "float32",
        }
    }

    /// What bitsandbytes notes beside a weight.
    fn state(&self, shape: &[usize]) -> String {
        json!({"quant_type": "nf4", "blocksize": BLOCK, "dtype": self.float_name(), "shape": shape})
            .to_string()
    }

    /// `quantization_config` for a model whose linear layers of these names of the file stay as they are.
    pub fn config(&self, plain: &[&str]) -> Value {
        let module = |name: &&str| name.strip_suffix(".weight").unwrap_or(name).to_string();
        let left: Vec<String> = plain.iter().map(module).collect();
        match self.kind {
            Kind::Float8 | Kind::MatrixFloat8 => json!({
                "quant_method": "compressed-tensors", "format": "float-quantized",
                "quantization_status": "compressed",
                "config_groups": {"group_0": {
                    "targets": ["Linear"],
                    "weights": {
                        "num_bits": 8, "type": "float", "symmetric": true,
                        "strategy": if self.kind == Kind::Float8 { "channel" } else { "tensor" },
                        "group_size": null, "dynamic": false, "actorder": null, "block_structure": null,
                        "observer": "minmax", "observer_kwargs": {},
                    },
                    "input_activations": null,
                    "output_activations": null,
                    "format": "float-quantized",
                }},
                "ignore": left, "kv_cache_scheme": null, "global_compression_ratio": null,
            }),
            Kind::Mxfp4 => json!({
                "quant_method": "compressed-tensors", "format": "mxfp4-pack-quantized",
                "quantization_status": "compressed",
                "config_groups": {"group_0": {
                    "targets": ["Linear"],
                    "weights": {
                        "num_bits": 4, "type": "float", "symmetric": true, "strategy": "group",
                        "group_size": 32, "dynamic": false, "scale_dtype": "torch.uint8",
                    },
                    "input_activations": null,
                    "output_activations": null,
                    "format": "mxfp4-pack-quantized",
                }},
                "ignore": left, "kv_cache_scheme": null, "global_compression_ratio": null,
            }),
            Kind::Nf4 => json!({
                "quant_method": "bitsandbytes", "load_in_4bit": true, "load_in_8bit": false,
                "_load_in_4bit": true, "_load_in_8bit": false,
                "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": self.float_name(),
                "bnb_4bit_use_double_quant": false, "bnb_4bit_quant_storage": "uint8",
                "llm_int8_skip_modules": left, "llm_int8_threshold": 6.0,
                "llm_int8_enable_fp32_cpu_offload": false, "llm_int8_has_fp16_weight": false,
            }),
        }
    }

    /// A piece's bytes, from its tensor in F32.
    ///
    /// # Errors
    /// If a value is no number.
    pub fn bytes(&self, piece: Piece, tensor: &Tensor) -> Result<Vec<u8>, String> {
        if self.kind == Kind::Mxfp4 {
            return microscaled(piece, tensor);
        }
        let values = tensor.to_f32().map_err(|error| error.to_string())?;
        if values.iter().any(|value| !value.is_finite()) {
            return Err("holds a value that is no number; take the model from where it is whole".to_string());
        }
        let whole = (self.kind == Kind::MatrixFloat8).then(|| self.scale(&values));
        let scales =
            || values.chunks_exact(tensor.row_len()).map(|row| whole.unwrap_or_else(|| self.scale(row)));
        Ok(match piece {
            Piece::RowScales => {
                let mut out = Vec::new();
                let scales: Vec<f32> = whole.map_or_else(|| scales().collect(), |scale| vec![scale]);
                quant::encode(self.float, &scales, &mut out).map_err(|error| error.to_string())?;
                out
            }
            Piece::Floats => {
                let mut out = Vec::new();
                for (row, scale) in values.chunks_exact(tensor.row_len()).zip(scales()) {
                    let row: Vec<f32> =
                        row.iter().map(|value| (value / scale).clamp(-LARGEST, LARGEST)).collect();
                    quant::encode(DType::F8E4M3, &row, &mut out).map_err(|error| error.to_string())?;
                }
                out
            }
            Piece::Magnitudes => {
                values.chunks(BLOCK).flat_map(|block| magnitude(block).to_le_bytes()).collect()
            }
            Piece::Numbers => NF4.iter().flat_map(|number| number.to_le_bytes()).collect(),
            Piece::Pairs => {
                let codes = values.chunks(BLOCK).flat_map(|block| {
                    let largest = magnitude(block);
                    block.iter().map(move |value| code(if largest > 0.0 { value / largest } else { 0.0 }))
                });
                let codes: Vec<u8> = codes.collect();
                codes.chunks(2).map(|pair| pair[0] << 4 | pair.get(1).copied().unwrap_or(0)).collect()
            }
            Piece::State => self.state(&tensor.shape).into_bytes(),
            _ => return Err("is no piece of it".to_string()),
        })
    }

    /// The scale of a row, which its largest magnitude fits, as it is stored.
    fn scale(&self, row: &[f32]) -> f32 {
        let wanted = magnitude(row) / LARGEST;
        let scale = match self.float {
            DType::F16 => f16::from_f32(wanted).to_f32(),
            DType::BF16 => bf16::from_f32(wanted).to_f32(),
            _ => wanted,
        };
        if scale > 0.0 && scale.is_finite() { scale } else { 1.0 }
    }
}

/// A piece of a matrix in [`DType::MXFP4`]: ggml's blocks have values 0..16 in low halves and 16..32 in high ones, here
/// neighbours share a byte, the first in the low half.
fn microscaled(piece: Piece, tensor: &Tensor) -> Result<Vec<u8>, String> {
    let blocks = || tensor.data.as_chunks::<MX_BYTES>().0.iter();
    match piece {
        Piece::Powers => Ok(blocks().map(|block| block[0]).collect()),
        Piece::Pairs => Ok(blocks()
            .flat_map(|block| {
                let code = |at: usize| if at < 16 { block[1 + at] & 15 } else { block[1 + at - 16] >> 4 };
                std::array::from_fn::<u8, 16, _>(|pair| code(2 * pair) | code(2 * pair + 1) << 4)
            })
            .collect()),
        _ => Err("is no piece of it".to_string()),
    }
}

fn magnitude(values: &[f32]) -> f32 {
    values.iter().fold(0.0f32, |most, value| most.max(value.abs()))
}

/// The code of the number nearest to a value from −1 to 1.
fn code(value: f32) -> u8 {
    // Below the middle of its pair a value belongs to the lower number.
    (1..NF4.len()).take_while(|&at| value > (NF4[at - 1] + NF4[at]) / 2.0).count() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_takes_the_nearest_number() {
        for step in -1000..=1000 {
            let value = step as f32 / 1000.0;
            let found = (NF4[usize::from(code(value))] - value).abs();
            let least = NF4.iter().map(|number| (number - value).abs()).fold(f32::INFINITY, f32::min);
            assert_eq!(found, least, "{value}");
        }
        for (index, &number) in NF4.iter().enumerate() {
            assert_eq!(usize::from(code(number)), index);
        }
    }

    #[test]
    fn scales_are_stored_ones_and_rows_of_zeros_have_one() {
        let narrow = Narrow { kind: Kind::Float8, float: DType::BF16 };
        let tensor = Tensor::from_f32(&[2, 2], &[0.0, 0.0, 0.3, -0.7]);
        let scales = narrow.bytes(Piece::RowScales, &tensor).unwrap();
        let scale = bf16::from_le_bytes([scales[2], scales[3]]);
        assert_eq!(bf16::from_le_bytes([scales[0], scales[1]]).to_f32(), 1.0);
        assert_eq!(scale, bf16::from_f32(0.7 / 448.0));
        let floats = narrow.bytes(Piece::Floats, &tensor).unwrap();
        let mut decoded = [0.0; 4];
        quant::decode(DType::F8E4M3, &floats, &mut decoded).unwrap();
        assert!((decoded[3] * scale.to_f32() + 0.7).abs() < 0.7 / 16.0, "{decoded:?}");
        let broken = Tensor::from_f32(&[1, 2], &[f32::NAN, 1.0]);
        assert!(narrow.bytes(Piece::Floats, &broken).is_err());
    }
}
