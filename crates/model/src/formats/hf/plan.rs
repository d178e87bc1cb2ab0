//! What a folder's weight files will hold: every tensor's format, and how weights in groups are packed.

use ounce_kernels::DType;
use serde_json::Value;

use super::narrow::{Kind, Narrow};
use super::packing::{Facts, Part, Piece, Scheme, is_linear};
use crate::formats::{Packing, WriteOptions};
use crate::model::Model;
use crate::names::FileTensor;
use crate::weights::{Tensor, bytes_of};
use crate::{Error, Result};

/// A tensor of the file: what it is made of, which piece of that it is, its format and its size.
pub(super) struct Planned {
    pub tensor: FileTensor,
    /// The format in which `tensor` is put together.
    pub built: DType,
    pub piece: Piece,
    pub name: String,
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub bytes: u64,
}

/// All that is to be written.
pub(super) struct Plan {
    pub tensors: Vec<Planned>,
    /// How linear layers are packed, and what other tools are told of it.
    pub packed: Option<(Packed, Value)>,
}

/// How linear layers are packed.
pub(super) enum Packed {
    /// Those in group formats.
    Groups(Scheme),
    /// As 8-bit floats or in NF4.
    Narrow(Narrow),
}

impl Packed {
    /// The format that other tools compute the model in.
    pub fn float(&self) -> DType {
        match self {
            Packed::Groups(scheme) => scheme.float(),
            Packed::Narrow(narrow) => narrow.float,
        }
    }

    /// A piece's bytes, from its tensor.
    ///
    /// # Errors
    /// If the tensor has no such piece.
    pub fn bytes(&self, piece: Piece, tensor: &Tensor) -> Result<Vec<u8>, String> {
        match self {
            Packed::Groups(scheme) => scheme.bytes(piece, tensor),
            Packed::Narrow(narrow) => narrow.bytes(piece, tensor),
        }
    }
}

/// What linear layers become if it is no group format; without a word about it, MXFP4 if some are in it.
fn narrow(model: &Model, tensors: &[FileTensor], options: &WriteOptions) -> Result<Option<Kind>> {
    let is_microscaled = |it: &FileTensor| is_linear(it) && it.stored_dtype(&model.weights) == DType::MXFP4;
    match (options.packing, options.dtype) {
        (Some(Packing::CompressedTensors), Some(DType::F8E4M3)) => Ok(Some(Kind::Float8)),
        (Some(Packing::MatrixFloats), Some(DType::F8E4M3)) => Ok(Some(Kind::MatrixFloat8)),
        (Some(Packing::MatrixFloats), _) => Err(Error::unsupported(
            "one scale for each matrix is a way to store 8-bit floats; ask for F8_E4M3 with it",
        )),
        (None | Some(Packing::CompressedTensors), Some(DType::MXFP4)) => Ok(Some(Kind::Mxfp4)),
        (None | Some(Packing::CompressedTensors), None) if tensors.iter().any(is_microscaled) => {
            Ok(Some(Kind::Mxfp4))
        }
        (Some(Packing::Nf4), Some(dtype)) if ![DType::F32, DType::F16, DType::BF16].contains(&dtype) => {
            Err(Error::unsupported(format!(
                "NF4 is a format of its own, so linear layers can't be {dtype} as well; leave that out, or choose F32, F16 or BF16 \
                 for all other weights"
            )))
        }
        (Some(Packing::Nf4), _) => Ok(Some(Kind::Nf4)),
        _ => Ok(None),
    }
}

/// Chooses each tensor's format: as asked, else as stored; block formats, which safetensors has not, become F16, but
/// for linear layers in group formats, which are packed. A vector or small table kept in F32 by the source joins the
/// matrices' format if that loses nothing.
pub(super) fn plan(model: &Model, tensors: Vec<FileTensor>, options: &WriteOptions) -> Result<Plan> {
    let kind = narrow(model, &tensors, options)?;
    let narrow_dtype = |dtype: DType| dtype == DType::F8E4M3 || dtype == DType::MXFP4;
    let asked = options.dtype.filter(|dtype| kind.is_none() || !narrow_dtype(*dtype));
    let known = |dtype: &DType| dtype.safetensors_name().is_some() && dtype.is_weight();
    if let Some(dtype) = asked.filter(|dtype| !known(dtype) && dtype.group_shape().is_none()) {
        return Err(Error::unsupported(format!(
            "safetensors can't hold {dtype}; choose F32, F16, BF16, MXFP4 or groups (G4_128), or write a .gguf file"
        )));
    }
    let stored = |tensor: &FileTensor| match tensor.stored_dtype(&model.weights) {
        dtype if dtype.is_block() => DType::F16,
        dtype => dtype,
    };
    let common =
        tensors.iter().filter(|it| it.shape.len() > 1).map(stored).find(|dtype| *dtype != DType::F32);
    let mut whole = Vec::with_capacity(tensors.len());
    let mut packed = Vec::new();
    let mut thin = Vec::new();
    for tensor in tensors {
        let inner = !tensor.parts.iter().any(|it| it == "head.weight");
        // Formats by blocks can't be transposed, and neither can what other tools take for a linear layer.
        let takes = |kind: Kind| match kind {
            // What a quantizer left in another format was meant to stay in it.
            Kind::Mxfp4 => {
                tensor.shape.last().is_some_and(|columns| columns.is_multiple_of(32))
                    && (options.dtype.is_some() || tensor.stored_dtype(&model.weights) == DType::MXFP4)
            }
            _ => true,
        };
        if kind.is_some_and(takes) && inner && is_linear(&tensor) && tensor.copies(DType::G8x32) {
            thin.push(tensor);
            continue;
        }
        if let Some(dtype) = packed_dtype(model, &tensor, asked).filter(|_| kind.is_none()) {
            let built = tensor.build(&model.weights, dtype)?;
            let facts = Facts::of(&built).map_err(|what| bad(model, &tensor, what))?;
            packed.push((tensor, dtype, facts));
            continue;
        }
        // Norms and biases do not bear 8 bits; groups are for linear layers only.
        let asked = asked.filter(|dtype| dtype.block_bytes() > 1 || tensor.shape.len() > 1);
        let asked = asked.filter(|dtype| dtype.group_shape().is_none());
        let mut dtype = asked.unwrap_or_else(|| stored(&tensor));
        let small = tensor.shape.len() == 1 || tensor.shape[0] <= 512;
        let joins = asked.is_none() && small && dtype == DType::F32;
        if let Some(common) = common.filter(|_| joins) {
            dtype = if is_lossless(model, &tensor, common)? { common } else { dtype };
        }
        whole.push((tensor, dtype));
    }
    if packed.is_empty()
        && thin.is_empty()
        && (options.packing.is_some() || asked.is_some_and(|it| it.group_shape().is_some()))
    {
        return Err(Error::unsupported(
            "no weight of this model can be packed: packed weights are linear layers in groups; add --dtype g4_64 or, \
             for GPT-2 and rows of no multiple of 32 values, choose F16",
        ));
    }
    let scheme = match (kind, packed.is_empty()) {
        (Some(kind), _) => {
            let float = asked.or(common).filter(|it| [DType::F16, DType::BF16].contains(it));
            let narrow = Narrow { kind, float: float.unwrap_or(DType::F32) };
            let config = narrow.config(&left_plain(&whole, false));
            Some((Packed::Narrow(narrow), config))
        }
        (None, true) => None,
        (None, false) => {
            let facts: Vec<Facts> = packed.iter().map(|(.., facts)| *facts).collect();
            let packing = options.packing.unwrap_or(Packing::CompressedTensors);
            let scheme = Scheme::new(packing, &facts, common.unwrap_or(DType::F32));
            let scheme = scheme.map_err(Error::unsupported)?;
            let named: Vec<(&str, Facts)> =
                packed.iter().map(|(tensor, _, facts)| (tensor.name.as_str(), *facts)).collect();
            let head = packed.iter().any(|(tensor, ..)| tensor.name == "lm_head.weight");
            let plain = left_plain(&whole, head);
            let config = scheme.config(&named, &plain);
            Some((Packed::Groups(scheme), config))
        }
    };
    let mut planned = Vec::new();
    for (tensor, dtype) in whole {
        let (name, shape) = (tensor.name.clone(), tensor.shape.clone());
        planned.push(sized(model, tensor, dtype, (Piece::Whole, name, dtype, shape))?);
    }
    for (tensor, built, facts) in packed {
        let Some((Packed::Groups(scheme), _)) = &scheme else { continue };
        let pieces = scheme.pieces(&tensor.name, &facts, &tensor.shape);
        for piece in pieces.map_err(|what| bad(model, &tensor, what))? {
            planned.push(sized(model, tensor.clone(), built, piece)?);
        }
    }
    for tensor in thin {
        let Some((Packed::Narrow(narrow), _)) = &scheme else { continue };
        let pieces = narrow.pieces(&tensor.name, &tensor.shape);
        for piece in pieces.map_err(|what| bad(model, &tensor, what))? {
            planned.push(sized(model, tensor.clone(), narrow.kind.built(), piece)?);
        }
    }
    // Larger elements first keeps every tensor aligned to its own size.
    planned.sort_by_key(|planned| std::cmp::Reverse(planned.dtype.block_bytes()));
    Ok(Plan { tensors: planned, packed: scheme })
}

/// The names of linear layers that stay as they are.
fn left_plain(whole: &[(FileTensor, DType)], head_is_packed: bool) -> Vec<&str> {
    let linear = whole.iter().map(|(it, _)| it).filter(|it| is_linear(it));
    let mut plain: Vec<&str> = linear.map(|it| it.name.as_str()).collect();
    // An output matrix tied to the embedding is no tensor of the file, but a linear layer all the same.
    if !head_is_packed && !plain.contains(&"lm_head.weight") {
        plain.push("lm_head");
    }
    plain
}

/// The group format in which a tensor is packed, if it is.
fn packed_dtype(model: &Model, tensor: &FileTensor, asked: Option<DType>) -> Option<DType> {
    let stored = tensor.stored_dtype(&model.weights);
    let dtype = match asked {
        // The output matrix bears fewer bits than the layers do.
        Some(_) if stored.group_shape().is_none() && tensor.parts.iter().any(|it| it == "head.weight") => {
            return None;
        }
        Some(asked) => asked.fitting(tensor.shape.last().copied()?)?,
        None => stored,
    };
    (dtype.group_shape().is_some() && is_linear(tensor) && tensor.copies(dtype)).then_some(dtype)
}

/// An error about a tensor.
pub(super) fn bad(model: &Model, tensor: &FileTensor, what: impl Into<String>) -> Error {
    Error::tensor(model.weights.path(), tensor.name.as_str(), what)
}

/// Adds a planned tensor's size.
fn sized(
    model: &Model,
    tensor: FileTensor,
    built: DType,
    (piece, name, dtype, shape): Part,
) -> Result<Planned> {
    let bytes = bytes_of(dtype, &shape).ok_or_else(|| bad(model, &tensor, "its size overflows"))? as u64;
    Ok(Planned { tensor, built, piece, name, dtype, shape, bytes })
}

fn is_lossless(model: &Model, tensor: &FileTensor, dtype: DType) -> Result<bool> {
    let wide = tensor.build(&model.weights, DType::F32)?;
    let Ok(narrow) = tensor.build(&model.weights, dtype) else { return Ok(false) };
    let numbers = |tensor: &Tensor| tensor.to_f32().map_err(|error| Error::unsupported(error.to_string()));
    Ok(numbers(&wide)? == numbers(&narrow)?)
}
