//! Which format each weight of a model is stored in.

use std::collections::BTreeMap;

use ounce_kernels::DType;

use crate::spec::Spec;
use crate::weights::bytes_of;
use crate::{Error, Result, Weights};

/// The format of every weight of a model, by ounce's name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Formats {
    formats: BTreeMap<String, DType>,
}

impl Formats {
    /// The formats in which weights are stored.
    pub fn of(weights: &Weights) -> Formats {
        let format = |name: &str| Some((name.to_owned(), weights.info(name)?.0));
        Formats { formats: weights.names().filter_map(format).collect() }
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
        Formats { formats: tensors.map(|tensor| (tensor.name, format(&tensor.shape))).collect() }
    }

    /// These formats with others for some weights: what a plan's map says.
    #[must_use]
    pub fn with(mut self, formats: impl IntoIterator<Item = (String, DType)>) -> Formats {
        self.formats.extend(formats);
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
