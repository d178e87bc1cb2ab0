//! Norms of a network.

use candle_core::Tensor;
use ounce_model::spec::{Norm as NormSpec, Norms as NormsSpec};

use super::build::Builder;
use super::ops::{self, Kernels};
use super::weight::Weight;
use crate::Result;

/// One norm.
#[derive(Debug)]
pub(super) struct Norm {
    pub on: Kernels,
    pub spec: NormSpec,
    pub weight: Weight,
    pub bias: Option<Weight>,
}

impl Norm {
    /// Normalises every row of `x`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let bias = self.bias.as_ref().map(Weight::tensor).transpose()?;
        ops::norm(self.on, x, &self.weight.tensor()?, bias.as_ref(), &self.spec)
    }
}

/// `x` behind a norm that may not be there.
pub(super) fn apply(norm: &Option<Norm>, x: Tensor) -> Result<Tensor> {
    match norm {
        Some(norm) => norm.forward(&x),
        None => Ok(x),
    }
}

/// The three norms of one half of a layer.
#[derive(Debug)]
pub(super) struct Norms {
    pub before: Option<Norm>,
    pub after: Option<Norm>,
    pub residual: Option<Norm>,
}

impl Norms {
    pub fn build(from: &mut Builder<'_>, name: &str, spec: &NormsSpec) -> Result<Norms> {
        Ok(Norms {
            before: from.norm(&format!("{name}.before_norm"), spec.before)?,
            after: from.norm(&format!("{name}.after_norm"), spec.after)?,
            residual: from.norm(&format!("{name}.residual_norm"), spec.residual)?,
        })
    }

    /// The stream behind a half whose branch gave `branch`.
    pub fn join(&self, stream: &Tensor, branch: Tensor, scale: f32) -> Result<Tensor> {
        let branch = apply(&self.after, branch)?;
        let branch = if scale == 1.0 { branch } else { branch.affine(f64::from(scale), 0.0)? };
        apply(&self.residual, (stream + branch)?)
    }
}
