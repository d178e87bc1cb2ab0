//! Group formats as other tools store them, for writing: compressed-tensors' `pack-quantized` and GPTQ. Each weight becomes
//! several tensors of the file, its pieces; `quantization_config` says what they mean.

use half::{bf16, f16};
use ounce_kernels::{DType, quant::groups};
use serde_json::{Map, Value, json};

use crate::formats::Packing;
use crate::names::FileTensor;
use crate::weights::Tensor;

/// What becomes a tensor of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    /// The tensor as it is.
    Whole,
    /// compressed-tensors: rows and columns.
    Shape,
    /// compressed-tensors: the codes' stream of bits for each row.
    Codes,
    /// compressed-tensors: zero points, a stream of bits down the rows for each group.
    Zeros,
    /// compressed-tensors: scales, `[rows, groups]`.
    Scales,
    /// GPTQ: the codes' streams of bits down the columns of a matrix of words.
    CodesDown,
    /// GPTQ: zero points, a stream of bits for each group; less one, if so.
    ZerosAcross { less_one: bool },
    /// GPTQ: scales, `[groups, rows]`.
    ScalesDown,
    /// GPTQ: the group of each column.
    Index,
    /// 8-bit floats: the scale of each row.
    RowScales,
    /// 8-bit floats: what is scaled.
    Floats,
    /// NF4: the largest magnitude of each block.
    Magnitudes,
    /// NF4: what codes stand for.
    Numbers,
    /// NF4, MXFP4: two codes a byte.
    Pairs,
    /// MXFP4: exponents of blocks.
    Powers,
    /// NF4: what bitsandbytes notes beside a weight.
    State,
}

/// A piece with its name, format and shape in the file.
pub(super) type Part = (Piece, String, DType, Vec<usize>);

/// What must be known of a weight before its pieces are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    pub bits: usize,
    pub group: usize,
    /// Whether every zero point is the middle of the codes' range.
    pub symmetric: bool,
    /// Whether a zero point is 0, which GPTQ's first version has no place for.
    pub has_zero: bool,
    /// Whether BF16 holds every scale.
    pub fits_bf16: bool,
}

impl Facts {
    /// Looks at every block of a tensor in a group format.
    ///
    /// # Errors
    /// If a zero point is no code, which other tools can't store.
    pub fn of(tensor: &Tensor) -> Result<Facts, String> {
        let (bits, group) = tensor.dtype.group_shape().ok_or("is in no group format")?;
        let mut facts = Facts { bits, group, symmetric: true, has_zero: false, fits_bf16: true };
        for block in tensor.data.chunks_exact(tensor.dtype.block_bytes()) {
            let (scale, zero) = (f16::from_le_bytes([block[0], block[1]]).to_f32(), block[2]);
            if bits < 8 && zero >> bits != 0 {
                return Err(format!(
                    "has a zero point of {zero}, for which other tools have no place with {bits} bits; choose --dtype f16"
                ));
            }
            facts.symmetric &= zero == 1 << (bits - 1);
            facts.has_zero |= zero == 0;
            facts.fits_bf16 &= bf16::from_f32(scale).to_f32() == scale;
        }
        Ok(facts)
    }
}

/// How a whole model is packed.
#[derive(Debug)]
pub(super) struct Scheme {
    pub packing: Packing,
    /// GPTQ's first version, which stores zero points less one.
    less_one: bool,
    /// The format of compressed-tensors' scales.
    scales: DType,
}

impl Scheme {
    /// The scheme for weights with these facts in a model whose other matrices have the format `float`.
    ///
    /// # Errors
    /// If GPTQ can't hold them: it has one number of bits and one size of groups for all.
    pub fn new(packing: Packing, weights: &[Facts], float: DType) -> Result<Scheme, String> {
        let shape = |facts: &Facts| (facts.bits, facts.group);
        if let (Packing::Gptq, Some(first)) = (packing, weights.first())
            && let Some(other) = weights.iter().find(|facts| shape(facts) != shape(first))
        {
            return Err(format!(
                "GPTQ has one number of bits and one size of groups for all weights, but this model has G{}_{} and \
                 G{}_{}; write it with --packing compressed-tensors",
                first.bits, first.group, other.bits, other.group
            ));
        }
        let bf16 = float == DType::BF16 && weights.iter().all(|facts| facts.fits_bf16);
        Ok(Scheme {
            packing,
            less_one: !weights.iter().any(|facts| facts.has_zero),
            scales: if bf16 { DType::BF16 } else { DType::F16 },
        })
    }

    /// The format that other tools compute the model in, so that they keep the scales.
    pub fn float(&self) -> DType {
        self.scales
    }

    /// The pieces of a weight `[rows, columns]`, the largest elements first: name, format and shape of each.
    ///
    /// # Errors
    /// If the rows do not fill GPTQ's words.
    pub fn pieces(&self, name: &str, facts: &Facts, shape: &[usize]) -> Result<Vec<Part>, String> {
        let &[rows, columns] = shape else { return Err("is no matrix".to_string()) };
        let module = name.strip_suffix(".weight").ok_or("is no weight")?;
        let (groups, words) = (columns / facts.group, columns * facts.bits / 32);
        let piece = |piece, end: &str, dtype, shape| (piece, format!("{module}.{end}"), dtype, shape);
        Ok(match self.packing {
            Packing::Nf4 | Packing::MatrixFloats => return Err("is no weight in groups".to_string()),
            Packing::CompressedTensors => {
                let zeros = vec![(rows * facts.bits).div_ceil(32), groups];
                let mut pieces = vec![
                    piece(Piece::Shape, "weight_shape", DType::I64, vec![2]),
                    piece(Piece::Codes, "weight_packed", DType::I32, vec![rows, words]),
                    piece(Piece::Zeros, "weight_zero_point", DType::I32, zeros),
                    piece(Piece::Scales, "weight_scale", self.scales, vec![rows, groups]),
                ];
                pieces.retain(|piece| piece.0 != Piece::Zeros || !facts.symmetric);
                pieces
            }
            Packing::Gptq => {
                if !(rows * facts.bits).is_multiple_of(32) {
                    return Err(format!(
                        "has {rows} rows, whose zero points of {} bits fill no whole number of GPTQ's words; write it \
                         with --packing compressed-tensors",
                        facts.bits
                    ));
                }
                let zeros = Piece::ZerosAcross { less_one: self.less_one };
                vec![
                    piece(Piece::CodesDown, "qweight", DType::I32, vec![words, rows]),
                    piece(zeros, "qzeros", DType::I32, vec![groups, rows * facts.bits / 32]),
                    piece(Piece::Index, "g_idx", DType::I32, vec![columns]),
                    piece(Piece::ScalesDown, "scales", DType::F16, vec![groups, rows]),
                ]
            }
        })
    }

    /// `quantization_config` for weights packed under these names of the file, and matrices that are not.
    pub fn config(&self, packed: &[(&str, Facts)], plain: &[&str]) -> Value {
        let module = |name: &str| name.strip_suffix(".weight").unwrap_or(name).to_string();
        match self.packing {
            Packing::Nf4 | Packing::MatrixFloats => Value::Null,
            Packing::CompressedTensors => {
                let mut kinds: Vec<((usize, usize, bool), Vec<String>)> = Vec::new();
                for (name, facts) in packed {
                    let kind = (facts.bits, facts.group, facts.symmetric);
                    match kinds.iter_mut().find(|(known, _)| *known == kind) {
                        Some((_, modules)) => modules.push(module(name)),
                        None => kinds.push((kind, vec![module(name)])),
                    }
                }
                let alone = kinds.len() == 1;
                let mut groups = Map::new();
                for (index, ((bits, group, symmetric), modules)) in kinds.into_iter().enumerate() {
                    let targets = if alone { vec!["Linear".to_string()] } else { modules };
                    let group = json!({
                        "targets": targets,
                        "weights": {
                            "num_bits": bits, "type": "int", "symmetric": symmetric, "strategy": "group",
                            "group_size": group, "dynamic": false, "actorder": null, "block_structure": null,
                            "observer": "minmax", "observer_kwargs": {},
                        },
                        "input_activations": null,
                        "output_activations": null,
                        "format": "pack-quantized",
                    });
                    groups.insert(format!("group_{index}"), group);
                }
                let ignore: Vec<String> = plain.iter().map(|name| module(name)).collect();
                json!({
                    "quant_method": "compressed-tensors", "format": "pack-quantized",
                    "quantization_status": "compressed", "config_groups": groups, "ignore": ignore,
                    "kv_cache_scheme": null, "global_compression_ratio": null,
                })
            }
            Packing::Gptq => {
                let (bits, group) = packed.first().map_or((4, 128), |(_, facts)| (facts.bits, facts.group));
                let mut config = json!({
                    "quant_method": "gptq", "bits": bits, "group_size": group,
                    "sym": packed.iter().all(|(_, facts)| facts.symmetric), "desc_act": false,
                    "static_groups": false, "true_sequential": true, "damp_percent": 0.01, "pack_dtype": "int32",
                    "checkpoint_format": if self.less_one { "gptq" } else { "gptq_v2" },
                    "lm_head": packed.iter().any(|(name, _)| module(name).ends_with("lm_head")),
                    "meta": {"quantizer": [concat!("ounce:", env!("CARGO_PKG_VERSION"))]},
                });
                // A minus before a pattern leaves what it matches as it is.
                let left: Map<String, Value> = (plain.iter().filter(|name| !name.ends_with("lm_head")))
                    .map(|name| (format!("-:^{}$", module(name).replace('.', "\\.")), json!({})))
                    .collect();
                if !left.is_empty() {
                    config["dynamic"] = Value::Object(left);
                }
                config
            }
        }
    }

    /// A piece's bytes, from its tensor in a group format.
    pub fn bytes(&self, piece: Piece, tensor: &Tensor) -> Result<Vec<u8>, String> {
        let (bits, group) = tensor.dtype.group_shape().ok_or("is in no group format")?;
        let (rows, columns) = (tensor.rows(), tensor.row_len());
        let block_bytes = tensor.dtype.block_bytes();
        let block = |row: usize, index: usize| {
            &tensor.data[(row * (columns / group) + index) * block_bytes..][..block_bytes]
        };
        let count = columns / group;
        // A block's codes fill whole words: 32 codes of b bits are b of them.
        let words = bits * group / 32;
        let field_words = |fields: usize| (fields * bits).div_ceil(32);
        Ok(match piece {
            Piece::Whole
            | Piece::RowScales
            | Piece::Floats
            | Piece::Magnitudes
            | Piece::Numbers
            | Piece::Pairs
            | Piece::Powers
            | Piece::State => return Err("is no piece of a weight in groups".to_string()),
            Piece::Shape => [rows, columns].iter().flat_map(|&size| (size as i64).to_le_bytes()).collect(),
            Piece::Codes => tensor
                .data
                .chunks_exact(block_bytes)
                .flat_map(|block| &block[groups::HEAD..])
                .copied()
                .collect(),
            Piece::CodesDown => {
                let mut out = vec![0; rows * count * words * 4];
                for row in 0..rows {
                    for index in 0..count {
                        let codes = block(row, index)[groups::HEAD..].as_chunks::<4>().0;
                        for (word, codes) in codes.iter().enumerate() {
                            let at = ((index * words + word) * rows + row) * 4;
                            out[at..at + 4].copy_from_slice(codes);
                        }
                    }
                }
                out
            }
            Piece::Zeros => {
                let mut out = vec![0u32; field_words(rows) * count];
                for row in 0..rows {
                    for index in 0..count {
                        let at = |word: usize| word * count + index;
                        put_field(bits, row, block(row, index)[2], |word, value| out[at(word)] |= value);
                    }
                }
                out.iter().flat_map(|word| word.to_le_bytes()).collect()
            }
            Piece::ZerosAcross { less_one } => {
                let each = field_words(rows);
                let mut out = vec![0u32; each * count];
                for row in 0..rows {
                    for index in 0..count {
                        let zero = block(row, index)[2] - u8::from(less_one);
                        put_field(bits, row, zero, |word, value| out[index * each + word] |= value);
                    }
                }
                out.iter().flat_map(|word| word.to_le_bytes()).collect()
            }
            Piece::Scales | Piece::ScalesDown => {
                let by_row = piece == Piece::Scales;
                let (outer, inner) = if by_row { (rows, count) } else { (count, rows) };
                let mut out = Vec::with_capacity(outer * inner * 2);
                for a in 0..outer {
                    for b in 0..inner {
                        let block = if by_row { block(a, b) } else { block(b, a) };
                        let scale = f16::from_le_bytes([block[0], block[1]]);
                        if by_row && self.scales == DType::BF16 {
                            out.extend(bf16::from_f32(scale.to_f32()).to_le_bytes());
                        } else {
                            out.extend(scale.to_le_bytes());
                        }
                    }
                }
                out
            }
            Piece::Index => (0..columns).flat_map(|column| ((column / group) as i32).to_le_bytes()).collect(),
        })
    }
}

/// Puts a field of a stream of bits into the words that it lies in.
fn put_field(bits: usize, index: usize, field: u8, mut or: impl FnMut(usize, u32)) {
    let (word, shift) = (index * bits / 32, index * bits % 32);
    let field = u64::from(field) << shift;
    or(word, field as u32);
    if shift + bits > 32 {
        or(word + 1, (field >> 32) as u32);
    }
}

/// Whether a tensor of the file is a weight of a linear layer, which other tools pack. Routers stay as they are.
pub(super) fn is_linear(tensor: &FileTensor) -> bool {
    let ours =
        |part: &String| (part.starts_with("layers.") || part == "head.weight") && !part.contains(".router.");
    tensor.shape.len() == 2 && tensor.name.ends_with(".weight") && tensor.parts.iter().all(ours)
}
