//! Which format each weight of a model is stored in.

use std::collections::BTreeMap;

use ounce_kernels::DType;
use ounce_kernels::packed::PackedMatrix;

use super::sizes::{has_tied_head, is_packed};
use crate::spec::Spec;
use crate::spec_tensors::TensorSpec;
use crate::weights::bytes_of;
use crate::{Error, Result, Weights};

/// The format of every weight of a model, by ounce's name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Formats {
    formats: BTreeMap<String, DType>,
    /// Bytes of the matrices that the fast mode packs without their zeros.
    sparse: BTreeMap<String, u64>,
}

impl Formats {
    /// The formats in which weights are stored.
    pub fn of(weights: &Weights) -> Formats {
        let format = |name: &str| Some((name.to_owned(), weights.info(name)?.0));
        Formats { formats: weights.names().filter_map(format).collect(), sparse: BTreeMap::new() }
    }

    /// As [`Formats::of`], and what the fast mode makes of zeros: matrices of floats are looked at, those with many zeros read.
    ///
    /// # Errors
    /// If a weight can't be read.
    pub fn with_zeros_of(spec: &Spec, weights: &Weights) -> Result<Formats> {
        let mut formats = Formats::of(weights);
        let tied = has_tied_head(spec);
        for TensorSpec { name, shape } in spec.tensors() {
            let (Some(stored), [rows, columns]) = (formats.get(&name), shape.as_slice()) else { continue };
            if is_packed(&name, tied) && !stored.is_block() {
                let tensor = weights.get(&name)?;
                let bytes = PackedMatrix::sparse_bytes(stored, &tensor.data, *rows, *columns);
                formats.sparse.extend(bytes.map(|bytes| (name, bytes as u64)));
            }
        }
        Ok(formats)
    }

    /// These formats, with a share of zeros in the matrices of layers, as pruning single weights leaves them.
    #[must_use]
    pub fn with_share_of_zeros(mut self, spec: &Spec, zeros: f64) -> Formats {
        for TensorSpec { name, shape } in spec.tensors() {
            let (Some(stored), [rows, columns]) = (self.get(&name), shape.as_slice()) else { continue };
            if name.starts_with("layers.") && is_packed(&name, false) {
                let bytes = PackedMatrix::sparse_bytes_for(stored, *rows, *columns, zeros);
                self.sparse.extend(bytes.map(|bytes| (name, bytes as u64)));
            }
        }
        self
    }

    /// Bytes of a matrix that the fast mode packs without its zeros, in the format it is stored in.
    pub fn sparse_bytes(&self, name: &str) -> Option<u64> {
        self.sparse.get(name).copied()
    }

    /// Matrices in one format, or in what takes its place where rows are no whole blocks ([`DType::fitting`], else F16);
    /// norms and biases in F32.
    pub fn uniform(spec: &Spec, dtype: DType) -> Formats {
        let format = |shape: &[usize]| match shape {
            [_] => DType::F32,
            [.., columns] => dtype.fitting(*columns).unwrap_or(DType::F16),
            [] => DType::F32,
        };
        let tensors = spec.tensors().into_iter();
        let formats = tensors.map(|tensor| (tensor.name, format(&tensor.shape))).collect();
        Formats { formats, sparse: BTreeMap::new() }
    }

    /// These formats with others for some weights: what a plan's map says.
    #[must_use]
    pub fn with(mut self, formats: impl IntoIterator<Item = (String, DType)>) -> Formats {
        for (name, dtype) in formats {
            self.sparse.remove(&name);
            self.formats.insert(name, dtype);
        }
        self
    }

    /// The format of a weight.
    pub fn get(&self, name: &str) -> Option<DType> {
        self.formats.get(name).copied()
    }

    /// Names and formats, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, DType)> {
        self.formats.iter().map(|(name, dtype)| (name.as_str(), *dtype))
    }

    /// Checks that every weight of a spec has a format of which its rows are whole blocks.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with the first weight that has none or does not fit.
    pub fn check(&self, spec: &Spec) -> Result<()> {
        for tensor in spec.tensors() {
            let name = &tensor.name;
            let Some(dtype) = self.get(name) else {
                return Err(Error::unsupported(format!("no format is given for {name}")));
            };
            if bytes_of(dtype, &tensor.shape).is_none() {
                let what = format!("{name} has rows that are no whole blocks of {dtype}: {:?}", tensor.shape);
                return Err(Error::unsupported(what));
            }
        }
        Ok(())
    }
}
