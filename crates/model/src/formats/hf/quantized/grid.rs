//! Weights in whole-number codes, `w = d (c − z)`: what GPTQ, AWQ and compressed-tensors have in common, and how each of
//! them lays codes, scales and zero points out.

use half::f16;
use ounce_kernels::{DType, quant};
use rayon::prelude::*;

use super::words::{field, unpack, word};
use crate::storage::Bytes;
use crate::weights::Tensor;

/// A matrix of codes, `[rows, columns]`. Whoever makes one has checked that its parts have the sizes that follow.
pub(super) struct Grid {
    pub rows: usize,
    pub columns: usize,
    /// Bits of a code, 1 to 8.
    pub bits: usize,
    pub codes: Codes,
    pub scales: Scales,
    pub zeros: Zeros,
    pub groups: Groups,
}

/// How codes lie.
pub(super) enum Codes {
    /// A stream of bits for each row, of so many words (compressed-tensors).
    Rows { data: Bytes, words: usize },
    /// A stream of bits down each column of a matrix of words with a column for each row (GPTQ).
    Down { data: Bytes },
    /// Words of eight rows' codes in AWQ's order, words of a column of the weight side by side.
    Awq { data: Bytes },
    /// Signed bytes.
    Signed { data: Bytes },
}

/// Where in an AWQ word the code of each of its eight rows lies.
const AWQ_SLOTS: [usize; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

impl Codes {
    fn row(&self, grid: &Grid, row: usize, out: &mut [u8]) {
        match self {
            Codes::Rows { data, words } => {
                unpack(grid.bits, (row * words..).take(*words).map(|at| word(data, at)), out);
            }
            Codes::Down { data } => {
                unpack(grid.bits, (0..).map(|down| word(data, down * grid.rows + row)), out);
            }
            Codes::Awq { data } => {
                let shift = AWQ_SLOTS[row % 8] * 4;
                for (column, code) in out.iter_mut().enumerate() {
                    *code = (word(data, column * (grid.rows / 8) + row / 8) >> shift) as u8 & 15;
                }
            }
            Codes::Signed { data } => {
                let stored = &data[row * grid.columns..][..grid.columns];
                out.iter_mut().zip(stored).for_each(|(code, &stored)| *code = stored ^ 0x80);
            }
        }
    }
}

/// How zero points lie.
pub(super) enum Zeros {
    /// The same for all.
    All(u8),
    /// A stream of bits for each group, of so many words, a field a row (GPTQ). Less one in the first version.
    Groups { data: Bytes, words: usize, less_one: bool },
    /// Words of eight rows in AWQ's order for each group.
    Awq { data: Bytes },
    /// A stream of bits down the rows for each group (compressed-tensors).
    Down { data: Bytes },
    /// Signed bytes, `[rows, groups]`.
    Signed { data: Bytes },
}

impl Zeros {
    fn get(&self, grid: &Grid, row: usize, group: usize) -> u8 {
        let groups = grid.scales.groups;
        match self {
            Zeros::All(zero) => *zero,
            Zeros::Groups { data, words, less_one } => {
                let at = |index| word(data, group * words + index);
                if !less_one {
                    return field(grid.bits, row, at);
                }
                // The first version took one from whole words, so a zero point of 0 borrowed from its neighbours.
                match grid.bits {
                    2 => field(2, row, |index| at(index).wrapping_add(0x5555_5555)),
                    4 => field(4, row, |index| at(index).wrapping_add(0x1111_1111)),
                    8 => field(8, row, |index| at(index).wrapping_add(0x0101_0101)),
                    bits => field(bits, row, at).wrapping_add(1) & (u8::MAX >> (8 - bits)),
                }
            }
            Zeros::Awq { data } => {
                (word(data, group * (grid.rows / 8) + row / 8) >> (AWQ_SLOTS[row % 8] * 4)) as u8 & 15
            }
            Zeros::Down { data } => field(grid.bits, row, |down| word(data, down * groups + group)),
            // One zero point for all is a matrix of one.
            Zeros::Signed { data } if data.len() == 1 => data[0] ^ 0x80,
            Zeros::Signed { data } => data[row * groups + group] ^ 0x80,
        }
    }
}

/// Scales: numbers in a plain format.
pub(super) struct Scales {
    pub tensor: Tensor,
    /// Groups of a row.
    pub groups: usize,
    pub layout: ScaleLayout,
}

/// How scales lie.
pub(super) enum ScaleLayout {
    /// `[groups, rows]`.
    ByGroup,
    /// `[rows, groups]`.
    ByRow,
    /// One for all.
    One,
}

impl Scales {
    fn get(&self, rows: usize, row: usize, group: usize) -> f32 {
        let at = match self.layout {
            ScaleLayout::ByGroup => group * rows + row,
            ScaleLayout::ByRow => row * self.groups + group,
            ScaleLayout::One => 0,
        };
        let data = &self.tensor.data;
        match self.tensor.dtype {
            DType::F16 => f16::from_le_bytes([data[at * 2], data[at * 2 + 1]]).to_f32(),
            DType::BF16 => half::bf16::from_le_bytes([data[at * 2], data[at * 2 + 1]]).to_f32(),
            _ => f32::from_bits(word(data, at)),
        }
    }

    /// Whether F16 holds every scale exactly.
    fn fit_f16(&self) -> bool {
        let fits = |&x: &f32| f16::from_f32(x).to_f32() == x;
        self.tensor.dtype == DType::F16 || self.tensor.to_f32().is_ok_and(|scales| scales.iter().all(fits))
    }
}

/// Which columns share a scale.
pub(super) enum Groups {
    /// So many neighbours; a last group may have fewer.
    Even(usize),
    /// As listed, a group for each column.
    Listed(Vec<u32>),
}

impl Groups {
    /// From a tensor of indices, one a column, each below `count`.
    pub fn listed(name: &str, tensor: &Tensor, columns: usize, count: usize) -> Result<Groups, String> {
        super::check_shape(name, &tensor.shape, &[columns])?;
        let list: Vec<u32> = (0..columns).map(|at| word(&tensor.data, at)).collect();
        if let Some(column) = list.iter().position(|&group| group as usize >= count) {
            let group = list[column] as i32;
            return Err(format!(
                "is packed, but {name} puts column {column} into group {group} of {count}; fetch the model again"
            ));
        }
        Ok(Groups::Listed(list))
    }

    fn of(&self, column: usize) -> usize {
        match self {
            Groups::Even(size) => column / size,
            Groups::Listed(list) => list[column] as usize,
        }
    }

    /// Whether columns that share a block of this many share a group.
    fn hold(&self, block: usize, columns: usize) -> bool {
        columns.is_multiple_of(block)
            && match self {
                Groups::Even(size) => size.is_multiple_of(block) || *size >= columns,
                Groups::Listed(list) => {
                    list.chunks(block).all(|list| list.iter().all(|&group| group == list[0]))
                }
            }
    }
}

impl Grid {
    /// The format in which nothing is lost, or the one to decode to and why.
    pub fn choose(&self) -> (DType, Option<&'static str>) {
        let float = self.scales.tensor.dtype;
        let block = [256, 128, 64, 32].into_iter().find(|&block| self.groups.hold(block, self.columns));
        let Some(block) = block else {
            let reason = match self.groups {
                Groups::Listed(_) => "columns that lie side by side do not share their scales (act-order)",
                Groups::Even(_) => "its groups are no multiple of 32 columns",
            };
            return (float, Some(reason));
        };
        let Some(dtype) = DType::groups(self.bits, block) else {
            return (float, Some("ounce has group formats for 2, 3, 4 and 8 bits only"));
        };
        if self.scales.fit_f16() {
            return (dtype, None);
        }
        // An F32 is what the product of such a scale with a code needs.
        (float, Some("F16 does not hold its scales exactly"))
    }

    pub fn source(&self) -> &Bytes {
        match &self.codes {
            Codes::Rows { data, .. }
            | Codes::Down { data }
            | Codes::Awq { data }
            | Codes::Signed { data } => data,
        }
    }

    /// Stores the rows in `dtype`, one of what [`Grid::choose`] gives.
    pub fn build(&self, dtype: DType, row_bytes: usize, out: &mut [u8]) -> Result<(), String> {
        let rooms = || (vec![0; self.columns], vec![0.0; self.columns], Vec::new());
        out.par_chunks_exact_mut(row_bytes.max(1)).enumerate().try_for_each_init(
            rooms,
            |(codes, values, bytes), (row, out)| {
                self.codes.row(self, row, codes);
                if let Some((bits, block)) = dtype.group_shape() {
                    for (index, (codes, out)) in
                        codes.chunks_exact(block).zip(out.chunks_exact_mut(dtype.block_bytes())).enumerate()
                    {
                        let group = self.groups.of(index * block);
                        let scale = f16::from_f32(self.scales.get(self.rows, row, group));
                        quant::groups::write_block(bits, scale, self.zeros.get(self, row, group), codes, out);
                    }
                    return Ok(());
                }
                // Columns side by side mostly share a group.
                let (mut last, mut scale, mut zero) = (usize::MAX, 0.0, 0.0);
                for (column, (value, &code)) in values.iter_mut().zip(&*codes).enumerate() {
                    let group = self.groups.of(column);
                    if group != last {
                        scale = self.scales.get(self.rows, row, group);
                        zero = f32::from(self.zeros.get(self, row, group));
                        last = group;
                    }
                    *value = scale * (f32::from(code) - zero);
                }
                bytes.clear();
                quant::encode(dtype, values, bytes).map_err(|error| error.to_string())?;
                out.copy_from_slice(bytes);
                Ok(())
            },
        )
    }
}
