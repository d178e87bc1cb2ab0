//! Parameters and bytes of weights: as stored, and as the fast mode holds them.

use std::collections::BTreeMap;

use ounce_kernels::DType;
use ounce_kernels::packed::PackedMatrix;
use serde::Serialize;

use super::Formats;
use crate::spec::Spec;
use crate::spec_tensors::TensorSpec;
use crate::weights::bytes_of;

/// Which part of a model a tensor belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// Token, position and type vectors.
    Embedding,
    /// Projections of attention.
    Attention,
    /// Multilayer perceptrons, experts and routers.
    FeedForward,
    /// Everything that normalises.
    Norms,
    /// What turns hidden states into logits.
    Head,
}

impl Group {
    /// The group of a weight, by ounce's name.
    pub fn of(name: &str) -> Group {
        if name.contains("norm") {
            Group::Norms
        } else if name.starts_with("embed.") {
            Group::Embedding
        } else if name.starts_with("head.") {
            Group::Head
        } else if name.contains(".attention.") {
            Group::Attention
        } else {
            Group::FeedForward
        }
    }

    /// The group's name for people.
    pub fn name(self) -> &'static str {
        match self {
            Group::Embedding => "embedding",
            Group::Attention => "attention",
            Group::FeedForward => "feed-forward",
            Group::Norms => "norms",
            Group::Head => "head",
        }
    }
}

/// The tensors of one group in one format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupSize {
    /// The group.
    pub group: Group,
    /// The format's name.
    pub dtype: &'static str,
    /// Tensors there are.
    pub tensors: usize,
    /// Values in them.
    pub parameters: u64,
    /// Bytes of them as stored.
    pub bytes: u64,
}

/// Bytes of a tensor as stored; 0 for rows that are no whole blocks.
pub fn stored_bytes(dtype: DType, shape: &[usize]) -> u64 {
    bytes_of(dtype, shape).unwrap_or(0) as u64
}

/// Sizes by group and format, in the order of the groups, large formats first.
pub fn groups(spec: &Spec, formats: &Formats) -> Vec<GroupSize> {
    let mut sizes: BTreeMap<(Group, DType), GroupSize> = BTreeMap::new();
    for TensorSpec { name, shape } in spec.tensors() {
        let Some(dtype) = formats.get(&name) else { continue };
        let group = Group::of(&name);
        let empty = GroupSize { group, dtype: dtype.name(), tensors: 0, parameters: 0, bytes: 0 };
        let size = sizes.entry((group, dtype)).or_insert(empty);
        size.tensors += 1;
        size.parameters += shape.iter().map(|&n| n as u64).product::<u64>();
        size.bytes += stored_bytes(dtype, &shape);
    }
    let mut sizes: Vec<GroupSize> = sizes.into_values().collect();
    sizes.sort_by_key(|size| (size.group, std::cmp::Reverse(size.bytes)));
    sizes
}

/// Bytes of all weights as stored, which is what a file holds besides its header.
pub fn weight_bytes(spec: &Spec, formats: &Formats) -> u64 {
    let bytes = |tensor: &TensorSpec| formats.get(&tensor.name).map(|it| stored_bytes(it, &tensor.shape));
    spec.tensors().iter().filter_map(bytes).sum()
}

/// The format in which the fast mode packs a matrix stored in `stored`; nothing, if it stays as it is stored for want of a
/// kernel for the format or the row length. `quantize` is the format for matrices that are not quantized yet.
pub fn packed_format(stored: DType, columns: usize, quantize: Option<DType>) -> Option<DType> {
    let quantize = quantize.and_then(|quantize| quantize.fitting(columns));
    let target = match (stored, quantize) {
        (_, Some(target)) if !stored.is_block() && PackedMatrix::supports(target, columns) => target,
        // F8 fits BF16 without loss, F64 weights were F32 once.
        (DType::F8E4M3 | DType::F8E5M2, _) => DType::BF16,
        (DType::F64, _) => DType::F32,
        _ => stored,
    };
    PackedMatrix::supports(target, columns).then_some(target)
}

/// Whether the fast mode packs a weight, if there is a kernel for its format: matrices that vectors are multiplied with.
pub fn is_packed(name: &str, tied_head: bool) -> bool {
    match name.strip_suffix(".weight") {
        Some("embed.tokens") => tied_head,
        Some("embed.positions" | "embed.types") => false,
        // Routers stay as they are stored.
        Some(name) => !(name.ends_with(".router") || name.ends_with(".shared_gate")),
        None => false,
    }
}

/// Bytes that the fast mode takes for a weight besides the file's mapping; 0 for one that is not packed or has no format.
pub fn packed_bytes_of(
    name: &str,
    shape: &[usize],
    tied_head: bool,
    formats: &Formats,
    quantize: Option<DType>,
) -> u64 {
    let (&[rows, columns], Some(stored)) = (shape, formats.get(name)) else { return 0 };
    if !is_packed(name, tied_head) {
        return 0;
    }
    let Some(format) = packed_format(stored, columns, quantize) else { return 0 };
    match formats.sparse_bytes(name).filter(|_| format == stored) {
        Some(bytes) => bytes,
        None => PackedMatrix::bytes_for(format, rows, columns).unwrap_or(0) as u64,
    }
}

/// Whether the token embedding serves as the matrix of the head.
pub fn has_tied_head(spec: &Spec) -> bool {
    spec.head.as_ref().is_some_and(|head| head.tied)
}

/// Bytes of all packed weights.
pub fn packed_bytes(spec: &Spec, formats: &Formats, quantize: Option<DType>) -> u64 {
    let tied = has_tied_head(spec);
    let bytes = |tensor: &TensorSpec| packed_bytes_of(&tensor.name, &tensor.shape, tied, formats, quantize);
    spec.tensors().iter().map(bytes).sum()
}
