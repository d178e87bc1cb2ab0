//! From ounce's tensors to a file's: the list of tensors a format wants, and how each is put together.

use std::collections::{HashMap, HashSet};

use ounce_kernels::{DType, quant};

use super::read::{UNEVEN_THIRDS, file_shape, permute_heads};
use super::{Key, Layout, Names, Rule, heads_of, stack_len};
use crate::spec::Spec;
use crate::spec_tensors::is_factor;
use crate::storage::Bytes;
use crate::weights::{Tensor, Weights, bytes_of};
use crate::{Error, Result};

/// A tensor of the file to be written.
#[derive(Debug, Clone)]
pub struct FileTensor {
    /// The file's name for it.
    pub name: String,
    /// Its row-major shape in the file.
    pub shape: Vec<usize>,
    /// ounce's names of what goes into it, in order.
    pub parts: Vec<String>,
    layout: Layout,
    heads: usize,
}

impl FileTensor {
    /// Whether it holds several of ounce's matrices, one below the other or side by side; experts are no such parts.
    pub fn is_stack(&self) -> bool {
        let experts = || self.parts.iter().any(|part| part.contains(".experts."));
        self.parts.len() > 1 && matches!(self.layout, Layout::Rows | Layout::Columns) && !experts()
    }

    /// Whether it holds one of ounce's matrices alone, as it is or transposed.
    pub fn is_whole(&self) -> bool {
        self.parts.len() == 1 && matches!(self.layout, Layout::Rows | Layout::Columns)
    }
}

/// The file tensors that hold all of `spec` in this table's format, in the order of use.
///
/// # Errors
/// If the format has no place for one of the tensors.
pub fn plan(spec: &Spec, names: &Names) -> Result<Vec<FileTensor>> {
    let mut by_template: HashMap<&str, &Rule> = HashMap::new();
    for rule in names.rules.iter().copied().flatten() {
        for ours in rule.ours {
            by_template.entry(ours).or_insert(rule);
        }
    }
    let tensors = spec.tensors();
    let shapes: HashMap<&str, &[usize]> =
        tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.shape.as_slice())).collect();
    // A model without a head is saved as the bare module, whose names carry no prefix.
    let bare = spec.head.is_none() && spec.classifier.is_none() && names.prefixes.contains(&"");
    let prefix = if bare { "" } else { names.prefixes.first().copied().unwrap_or("") };
    let mut planned = HashSet::new();
    let mut list = Vec::new();
    for tensor in &tensors {
        if is_factor(&tensor.name) {
            let (name, shape) = (tensor.name.clone(), tensor.shape.clone());
            let parts = vec![name.clone()];
            list.push(FileTensor { name, shape, parts, layout: Layout::Rows, heads: 1 });
            continue;
        }
        let no_place =
            || Error::unsupported(format!("the format has no place for {} of this model", tensor.name));
        let key = Key::within(spec, names, &tensor.name);
        let rule = by_template.get(key.template.as_str()).ok_or_else(no_place)?;
        let name = rule.file_name(prefix, &key).ok_or_else(no_place)?;
        if !planned.insert(name.clone()) {
            continue;
        }
        let stack = if rule.stacked() {
            Some(stack_len(spec, key.layer, &key.template).ok_or_else(no_place)?)
        } else {
            None
        };
        let experts: Vec<Option<usize>> = match stack {
            Some(count) => (0..count).map(Some).collect(),
            None => vec![key.expert],
        };
        let parts: Vec<String> = experts
            .iter()
            .flat_map(|&expert| rule.ours.iter().map(move |ours| (ours, expert)))
            .map(|(ours, expert)| key.sibling(ours, expert))
            .collect();
        let part_shapes: Vec<&[usize]> = parts[..rule.ours.len()]
            .iter()
            .map(|part| shapes.get(part.as_str()).copied())
            .collect::<Option<_>>()
            .ok_or_else(no_place)?;
        let shape = file_shape(rule.layout, &part_shapes, stack);
        let heads = heads_of(spec, key.layer, &key.template).unwrap_or(1);
        list.push(FileTensor { name, shape, parts, layout: rule.layout, heads });
    }
    Ok(list)
}

impl FileTensor {
    /// The stored format all parts share, or F32 if they differ.
    pub fn stored_dtype(&self, weights: &Weights) -> DType {
        let mut dtypes = self.parts.iter().filter_map(|part| weights.info(part)).map(|(dtype, _)| dtype);
        let first = dtypes.next().unwrap_or(DType::F32);
        if dtypes.all(|dtype| dtype == first) && !(first.is_block() && self.layout == Layout::Columns) {
            first
        } else {
            DType::F32
        }
    }

    /// Whether the parts' stored bytes can be copied in any format; layouts that compute or transpose can't
    /// take block formats.
    pub(crate) fn copies(&self, dtype: DType) -> bool {
        match self.layout {
            Layout::Rows | Layout::HeadThirds | Layout::Interleaved => true,
            Layout::Columns => !dtype.is_block(),
            Layout::PlusOne => false,
        }
    }

    /// Puts the tensor together in `dtype`; bytes are copied where nothing needs to be computed.
    ///
    /// # Errors
    /// If a part can't be read, ounce does not write `dtype`, or rows are no whole blocks of it.
    pub fn build(&self, weights: &Weights, dtype: DType) -> Result<Tensor> {
        let bad = |what: String| Error::tensor(weights.path(), self.name.as_str(), what);
        if bytes_of(dtype, &self.shape).is_none() {
            return Err(bad(format!("its rows of {:?} are no whole {dtype} blocks; choose F16", self.shape)));
        }
        let parts: Vec<Tensor> = self.parts.iter().map(|part| weights.get(part)).collect::<Result<_>>()?;
        if parts.iter().all(|part| part.dtype == dtype) && self.copies(dtype) {
            return self.join(parts).map_err(bad);
        }
        let mut decoded = Vec::with_capacity(parts.len());
        for part in parts {
            let mut values = part.to_f32().map_err(|error| bad(error.to_string()))?;
            if self.layout == Layout::PlusOne {
                values.iter_mut().for_each(|value| *value += 1.0);
            }
            decoded.push(Tensor::from_f32(&part.shape, &values));
        }
        let joined = self.join(decoded).map_err(bad)?;
        if dtype == DType::F32 {
            return Ok(joined);
        }
        let values = joined.to_f32().map_err(|error| bad(error.to_string()))?;
        let mut data = Vec::new();
        quant::encode_rows(dtype, &values, joined.row_len(), &mut data)
            .map_err(|error| bad(error.to_string()))?;
        Ok(Tensor { dtype, shape: self.shape.clone(), data: Bytes::from(data) })
    }

    /// Joins parts of one format by the layout.
    fn join(&self, parts: Vec<Tensor>) -> Result<Tensor, String> {
        let first = parts.first().ok_or("has no parts")?;
        let dtype = first.dtype;
        let room = || Vec::with_capacity(parts.iter().map(|part| part.data.len()).sum());
        let data = match self.layout {
            Layout::Interleaved => {
                permute_heads(first, &self.shape, self.heads, |row, half| row / 2 + (row % 2) * half)?
            }
            Layout::Columns if self.shape.len() > 1 => {
                let size = dtype.block_bytes();
                let mut data = room();
                for row in 0..self.shape[0] {
                    for part in &parts {
                        let stride = part.row_len();
                        for column in 0..part.rows() {
                            let at = (column * stride + row) * size;
                            data.extend_from_slice(&part.data[at..at + size]);
                        }
                    }
                }
                Bytes::from(data)
            }
            Layout::HeadThirds => {
                let chunk = first.data.len() / self.heads;
                if parts.iter().any(|part| part.data.len() != chunk * self.heads) {
                    return Err(UNEVEN_THIRDS.to_string());
                }
                let mut data = room();
                for head in 0..self.heads {
                    for part in &parts {
                        data.extend_from_slice(&part.data[head * chunk..(head + 1) * chunk]);
                    }
                }
                Bytes::from(data)
            }
            Layout::Rows | Layout::PlusOne | Layout::Columns if parts.len() == 1 => first.data.clone(),
            Layout::Rows | Layout::PlusOne | Layout::Columns => {
                let mut data = room();
                parts.iter().for_each(|part| data.extend_from_slice(&part.data));
                Bytes::from(data)
            }
        };
        let joined = Tensor { dtype, shape: self.shape.clone(), data };
        if joined.is_whole() { Ok(joined) } else { Err("its parts do not add up to its shape".to_string()) }
    }
}
