//! What a grid compares: a way to teach, and the format of the base's matrices below it.

use std::fmt;

use ounce_kernels::{DType, quant};
use ounce_model::spec::Spec;
use ounce_model::{Model, Weights};

use crate::adapter::Adapter;
use crate::kind::of_width;
use crate::merge::encoded;
use crate::{Error, Kind, Result};

/// A way to teach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Teach {
    /// Not at all: the model as it is.
    Nothing,
    /// A new head alone.
    Head,
    /// All weights.
    Full,
    /// An adapter.
    Adapter(Kind),
    /// So many solved examples in front of the question, drawn by chance or those nearest to it.
    Examples {
        /// How many.
        count: usize,
        /// Whether they are the nearest.
        nearest: bool,
    },
    /// The answer of the example nearest to the question, copied.
    Copied,
}

/// A way to teach on a base in some format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// How.
    pub teach: Teach,
    /// The format of the base's matrices; none for that in which it came.
    pub base: Option<DType>,
}

/// A rate for all weights of a model of width 768.
const FULL_RATE: f64 = 5e-5;
/// The same for a new head.
const HEAD_RATE: f64 = 1e-3;

impl Way {
    /// A way on the base as it came.
    pub const fn of(teach: Teach) -> Way {
        Way { teach, base: None }
    }

    /// A method's.
    pub const fn adapter(kind: Kind) -> Way {
        Way::of(Teach::Adapter(kind))
    }

    /// As a user writes it: `none`, `head`, `full`, a method's name, `shots-3` (examples drawn by chance), `nearest-3` or `copied`, and
    /// `@q8_0` behind it for a base in that format.
    ///
    /// # Errors
    /// If there is no such way.
    pub fn parse(text: &str) -> Result<Way> {
        let (name, format) = text.split_once('@').map_or((text, None), |(name, format)| (name, Some(format)));
        let base = match format {
            None => None,
            Some(format) => {
                Some(DType::parse(format).filter(|it| quant::can_encode(*it)).ok_or_else(|| {
                    Error::Option(format!(
                        "{format:?} is no format that a base can be stored in; q8_0 and q4_0 are"
                    ))
                })?)
            }
        };
        let count = |rest: &str| {
            rest.parse().ok().filter(|count| (1..=64).contains(count)).ok_or_else(|| {
                Error::Option(format!("{name:?} should end in a number of examples from 1 to 64"))
            })
        };
        let teach = match name {
            "none" => Teach::Nothing,
            "head" => Teach::Head,
            "full" => Teach::Full,
            "copied" => Teach::Copied,
            _ => match (name.strip_prefix("shots-"), name.strip_prefix("nearest-")) {
                (Some(rest), _) => Teach::Examples { count: count(rest)?, nearest: false },
                (_, Some(rest)) => Teach::Examples { count: count(rest)?, nearest: true },
                _ => Teach::Adapter(Kind::parse(name).map_err(|error| {
                    Error::Option(format!(
                        "{error}; besides them none, head, full, shots-N, nearest-N and copied can be compared"
                    ))
                })?),
            },
        };
        Ok(Way { teach, base })
    }

    /// Whether anything is trained.
    pub fn trains(self) -> bool {
        matches!(self.teach, Teach::Head | Teach::Full | Teach::Adapter(_))
    }

    /// A learning rate that is usual for it on a model of that shape.
    pub fn usual_rate(self, base: &Spec) -> f64 {
        match self.teach {
            Teach::Adapter(kind) => kind.usual_rate(base),
            Teach::Full => FULL_RATE * of_width(base),
            _ => HEAD_RATE * of_width(base),
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.teach {
            Teach::Nothing => f.write_str("none")?,
            Teach::Head => f.write_str("head")?,
            Teach::Full => f.write_str("full")?,
            Teach::Copied => f.write_str("copied")?,
            Teach::Adapter(kind) => f.write_str(kind.name())?,
            Teach::Examples { count, nearest: false } => write!(f, "shots-{count}")?,
            Teach::Examples { count, nearest: true } => write!(f, "nearest-{count}")?,
        }
        match self.base {
            Some(format) => write!(f, "@{}", format.name().to_lowercase()),
            None => Ok(()),
        }
    }
}

/// Takes the place of an adapter where the model's own weights are trained: all of them, or none but what the settings name.
pub(crate) struct Own {
    pub all: bool,
}

impl Adapter for Own {
    fn parameters(&self, base: &Spec) -> u64 {
        if self.all { base.parameters() } else { 0 }
    }

    fn trains(&self, _weight: &str) -> bool {
        self.all
    }
}

/// The model with the matrices of its layers in another format; rows that its blocks don't divide stay as they are.
///
/// # Errors
/// If a weight can't be read.
pub fn stored_in(model: &Model, format: DType) -> Result<Model> {
    let mut changed = Vec::new();
    for info in model.spec.tensors() {
        let matrix = info.shape.len() == 2 && info.name.starts_with("layers.");
        let row = info.shape.last().copied().unwrap_or(0);
        if matrix && row.is_multiple_of(format.block_len()) {
            let values = model.weights.f32(&info.name)?;
            changed.push((info.name.clone(), encoded(&info.name, format, &info.shape, &values)?));
        }
    }
    let weights: Weights = model.weights.replaced(changed)?;
    Ok(Model { weights, ..model.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_written_as_they_are_read() {
        for text in
            ["none", "head", "full", "lora", "gated-prefix", "shots-3", "nearest-1", "copied", "lora@q8_0"]
        {
            assert_eq!(Way::parse(text).expect(text).to_string(), text);
        }
        for text in ["loro", "shots-0", "nearest-x", "lora@q99"] {
            assert!(Way::parse(text).is_err(), "{text}");
        }
    }
}
