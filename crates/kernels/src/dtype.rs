//! The element types and block formats in which weights are stored, and their sizes.
//!
//! A *block format* stores a fixed number of consecutive values of one row in a fixed number of bytes.
//! Plain types are blocks of one value. Sizes and numbers follow the GGUF specification (ggml's type ids).

use std::fmt;

use crate::quant::groups;

/// How the values of a stored tensor are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // the variants are the formats' own names
pub enum DType {
    F64,
    F32,
    F16,
    BF16,
    F8E4M3,
    F8E5M2,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    IQ4NL,
    IQ4XS,
    MXFP4,
    IQ1S,
    IQ1M,
    IQ2XXS,
    IQ2XS,
    IQ2S,
    IQ3XXS,
    IQ3S,
    TQ1_0,
    TQ2_0,
    G2x32,
    G2x64,
    G2x128,
    G2x256,
    G3x32,
    G3x64,
    G3x128,
    G3x256,
    G4x32,
    G4x64,
    G4x128,
    G4x256,
    G8x32,
    G8x64,
    G8x128,
    G8x256,
}

/// One row of the table of formats.
struct Facts {
    dtype: DType,
    name: &'static str,
    block_len: usize,
    block_bytes: usize,
    ggml: Option<u32>,
    safetensors: Option<&'static str>,
}

const fn plain(
    dtype: DType,
    name: &'static str,
    bytes: usize,
    ggml: Option<u32>,
    safetensors: &'static str,
) -> Facts {
    Facts { dtype, name, block_len: 1, block_bytes: bytes, ggml, safetensors: Some(safetensors) }
}

const fn block(dtype: DType, name: &'static str, block_len: usize, block_bytes: usize, ggml: u32) -> Facts {
    Facts { dtype, name, block_len, block_bytes, ggml: Some(ggml), safetensors: None }
}

/// ounce's own: no other tool's files have them.
const fn group(dtype: DType, name: &'static str, bits: usize, group: usize) -> Facts {
    let block_bytes = groups::block_bytes(bits, group);
    Facts { dtype, name, block_len: group, block_bytes, ggml: None, safetensors: None }
}

/// Every format, in the order of the enum.
const TABLE: [Facts; 50] = [
    plain(DType::F64, "F64", 8, Some(28), "F64"),
    plain(DType::F32, "F32", 4, Some(0), "F32"),
    plain(DType::F16, "F16", 2, Some(1), "F16"),
    plain(DType::BF16, "BF16", 2, Some(30), "BF16"),
    plain(DType::F8E4M3, "F8_E4M3", 1, None, "F8_E4M3"),
    plain(DType::F8E5M2, "F8_E5M2", 1, None, "F8_E5M2"),
    plain(DType::I64, "I64", 8, Some(27), "I64"),
    plain(DType::I32, "I32", 4, Some(26), "I32"),
    plain(DType::I16, "I16", 2, Some(25), "I16"),
    plain(DType::I8, "I8", 1, Some(24), "I8"),
    plain(DType::U8, "U8", 1, None, "U8"),
    plain(DType::Bool, "BOOL", 1, None, "BOOL"),
    block(DType::Q4_0, "Q4_0", 32, 18, 2),
    block(DType::Q4_1, "Q4_1", 32, 20, 3),
    block(DType::Q5_0, "Q5_0", 32, 22, 6),
    block(DType::Q5_1, "Q5_1", 32, 24, 7),
    block(DType::Q8_0, "Q8_0", 32, 34, 8),
    block(DType::Q2K, "Q2_K", 256, 84, 10),
    block(DType::Q3K, "Q3_K", 256, 110, 11),
    block(DType::Q4K, "Q4_K", 256, 144, 12),
    block(DType::Q5K, "Q5_K", 256, 176, 13),
    block(DType::Q6K, "Q6_K", 256, 210, 14),
    block(DType::IQ4NL, "IQ4_NL", 32, 18, 20),
    block(DType::IQ4XS, "IQ4_XS", 256, 136, 23),
    block(DType::MXFP4, "MXFP4", 32, 17, 39),
    block(DType::IQ1S, "IQ1_S", 256, 50, 19),
    block(DType::IQ1M, "IQ1_M", 256, 56, 29),
    block(DType::IQ2XXS, "IQ2_XXS", 256, 66, 16),
    block(DType::IQ2XS, "IQ2_XS", 256, 74, 17),
    block(DType::IQ2S, "IQ2_S", 256, 82, 22),
    block(DType::IQ3XXS, "IQ3_XXS", 256, 98, 18),
    block(DType::IQ3S, "IQ3_S", 256, 110, 21),
    block(DType::TQ1_0, "TQ1_0", 256, 54, 34),
    block(DType::TQ2_0, "TQ2_0", 256, 66, 35),
    group(DType::G2x32, "G2_32", 2, 32),
    group(DType::G2x64, "G2_64", 2, 64),
    group(DType::G2x128, "G2_128", 2, 128),
    group(DType::G2x256, "G2_256", 2, 256),
    group(DType::G3x32, "G3_32", 3, 32),
    group(DType::G3x64, "G3_64", 3, 64),
    group(DType::G3x128, "G3_128", 3, 128),
    group(DType::G3x256, "G3_256", 3, 256),
    group(DType::G4x32, "G4_32", 4, 32),
    group(DType::G4x64, "G4_64", 4, 64),
    group(DType::G4x128, "G4_128", 4, 128),
    group(DType::G4x256, "G4_256", 4, 256),
    group(DType::G8x32, "G8_32", 8, 32),
    group(DType::G8x64, "G8_64", 8, 64),
    group(DType::G8x128, "G8_128", 8, 128),
    group(DType::G8x256, "G8_256", 8, 256),
];

/// Bits of the codes of ounce's group formats, in the order of the enum.
const GROUP_BITS: [usize; 4] = [2, 3, 4, 8];
/// Values of their groups, in the order of the enum.
const GROUP_SIZES: [usize; 4] = [32, 64, 128, 256];

impl DType {
    /// Every format there is.
    pub fn all() -> impl Iterator<Item = DType> {
        TABLE.iter().map(|facts| facts.dtype)
    }

    fn facts(self) -> &'static Facts {
        &TABLE[self as usize]
    }

    /// The format's usual name, as GGUF tools print it (`Q4_K`, `BF16`).
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// The format of a given name; case, `-` and `_` do not matter (`q4_k`, `Q4K`).
    pub fn parse(name: &str) -> Option<DType> {
        let squash = |s: &str| s.replace(['_', '-'], "").to_ascii_uppercase();
        let wanted = squash(name);
        TABLE.iter().find(|facts| squash(facts.name) == wanted).map(|facts| facts.dtype)
    }

    /// This format, or the one that takes its place where rows of `columns` values are no whole blocks of it: of 32
    /// values, with as many bits or one more, the same that llama.cpp's quantizer chooses; of ounce's own group
    /// formats the largest group that fits. Nothing, if that does not fit either.
    pub fn fitting(self, columns: usize) -> Option<DType> {
        if let Some((bits, group)) = self.group_shape() {
            let sizes = GROUP_SIZES.into_iter().rev().filter(|&size| size <= group);
            return sizes.filter_map(|size| DType::groups(bits, size)).find(|it| it.divides(columns));
        }
        let smaller = match self {
            DType::Q2K | DType::Q3K | DType::IQ4XS => DType::IQ4NL,
            DType::IQ1S | DType::IQ1M | DType::IQ2XXS | DType::IQ2XS | DType::IQ2S => DType::IQ4NL,
            DType::IQ3XXS | DType::IQ3S | DType::TQ1_0 | DType::TQ2_0 => DType::IQ4NL,
            DType::Q4K => DType::Q5_0,
            DType::Q5K => DType::Q5_1,
            DType::Q6K => DType::Q8_0,
            other => other,
        };
        [self, smaller].into_iter().find(|dtype| dtype.divides(columns))
    }

    fn divides(self, columns: usize) -> bool {
        columns.is_multiple_of(self.block_len())
    }

    /// ounce's group format of this many bits (2, 3, 4 or 8) for groups of this many values (32, 64, 128 or 256).
    pub fn groups(bits: usize, group: usize) -> Option<DType> {
        let row = GROUP_BITS.iter().position(|&it| it == bits)?;
        let column = GROUP_SIZES.iter().position(|&it| it == group)?;
        let first = DType::G2x32 as usize;
        Some(TABLE[first + row * GROUP_SIZES.len() + column].dtype)
    }

    /// Bits of a code and values of a group, if this is one of ounce's group formats.
    pub fn group_shape(self) -> Option<(usize, usize)> {
        let index = (self as usize).checked_sub(DType::G2x32 as usize)?;
        Some((GROUP_BITS[index / GROUP_SIZES.len()], GROUP_SIZES[index % GROUP_SIZES.len()]))
    }

    /// Values in one block; 1 for plain types.
    pub fn block_len(self) -> usize {
        self.facts().block_len
    }

    /// Bytes of one block; the size of one value for plain types.
    pub fn block_bytes(self) -> usize {
        self.facts().block_bytes
    }

    /// Average bits for one value.
    pub fn bits_per_value(self) -> f64 {
        self.block_bytes() as f64 * 8.0 / self.block_len() as f64
    }

    /// Whether several values share a scale.
    pub fn is_block(self) -> bool {
        self.block_len() > 1
    }

    /// Whether a weight can be read from this format (integers and booleans are bookkeeping, not weights).
    pub fn is_weight(self) -> bool {
        !matches!(self, DType::I64 | DType::I32 | DType::I16 | DType::I8 | DType::U8 | DType::Bool)
    }

    /// Bytes that `values` consecutive values of one row take; `None` if they are no whole number of
    /// blocks or the size overflows.
    pub fn bytes_for(self, values: usize) -> Option<usize> {
        if !values.is_multiple_of(self.block_len()) {
            return None;
        }
        (values / self.block_len()).checked_mul(self.block_bytes())
    }

    /// The format's id in GGUF files, if it has one.
    pub fn ggml_id(self) -> Option<u32> {
        self.facts().ggml
    }

    /// The format with this GGUF id, if ounce reads it.
    pub fn from_ggml_id(id: u32) -> Option<DType> {
        TABLE.iter().find(|facts| facts.ggml == Some(id)).map(|facts| facts.dtype)
    }

    /// The format's name in safetensors headers, if it has one.
    pub fn safetensors_name(self) -> Option<&'static str> {
        self.facts().safetensors
    }

    /// The format with this safetensors name, if ounce reads it.
    pub fn from_safetensors_name(name: &str) -> Option<DType> {
        TABLE.iter().find(|facts| facts.safetensors == Some(name)).map(|facts| facts.dtype)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_in_enum_order_and_names_round_trip() {
        for (index, dtype) in DType::all().enumerate() {
            assert_eq!(dtype as usize, index, "{dtype}");
            assert_eq!(DType::parse(&dtype.name().to_lowercase()), Some(dtype));
            if let Some(id) = dtype.ggml_id() {
                assert_eq!(DType::from_ggml_id(id), Some(dtype));
            }
        }
    }

    #[test]
    fn group_formats_are_found_by_their_numbers() {
        let shapes: Vec<_> = DType::all().filter_map(|dtype| Some((dtype, dtype.group_shape()?))).collect();
        assert_eq!(shapes.len(), 16);
        for (dtype, (bits, group)) in shapes {
            assert_eq!(dtype.name(), format!("G{bits}_{group}"));
            assert_eq!(DType::groups(bits, group), Some(dtype));
            assert_eq!(dtype.block_len(), group);
        }
        assert_eq!(DType::groups(5, 32), None);
        assert_eq!(DType::groups(4, 512), None);
        assert_eq!(DType::G4x128.bytes_for(256), Some(2 * 67));
        assert_eq!(DType::G3x128.fitting(192), Some(DType::G3x64));
        assert_eq!(DType::G3x128.fitting(48), None);
        assert_eq!(DType::MXFP4.group_shape(), None);
    }

    #[test]
    fn bytes_for_rejects_partial_blocks_and_overflow() {
        assert_eq!(DType::Q4K.bytes_for(512), Some(288));
        assert_eq!(DType::Q4K.bytes_for(300), None);
        assert_eq!(DType::F32.bytes_for(usize::MAX), None);
    }
}
