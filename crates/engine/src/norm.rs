//! A norm with its weights.

use ounce_kernels::norm::{layer_norm, rms_norm};
use ounce_kernels::pool::Pool;
use ounce_model::Weights;
use ounce_model::spec::{Norm as NormSpec, NormKind};

use crate::error::Result;
use crate::scratch::Scratch;

/// Values from which threads share a batch; fewer are done sooner than threads are told of them.
const SHARED_FROM: usize = 1 << 13;

/// A norm with its weights, applied to each vector of a batch.
#[derive(Debug)]
pub(crate) struct Norm {
    spec: NormSpec,
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
}

impl Norm {
    /// Takes `{name}.weight` and `{name}.bias`, if `spec` says there is such a norm.
    pub(crate) fn load(weights: &Weights, name: &str, spec: Option<NormSpec>) -> Result<Option<Norm>> {
        let Some(spec) = spec else { return Ok(None) };
        let weight = weights.f32(&format!("{name}.weight"))?;
        let bias = if spec.bias { Some(weights.f32(&format!("{name}.bias"))?) } else { None };
        Ok(Some(Norm { spec, weight, bias }))
    }

    /// Normalises every consecutive vector of the weight's width in `x`.
    pub(crate) fn apply(&self, x: &mut [f32]) {
        for_vectors(x, self.weight.len(), |x| self.apply_one(x));
    }

    /// Writes the normalised vectors of `x` to `out`.
    fn apply_to(&self, x: &[f32], out: &mut [f32]) {
        for_pairs(out, x, self.weight.len(), |out, x| {
            out.copy_from_slice(x);
            self.apply_one(out);
        });
    }

    fn apply_one(&self, x: &mut [f32]) {
        let offset = if self.spec.plus_one { 1.0 } else { 0.0 };
        match self.spec.kind {
            NormKind::Rms => rms_norm(x, &self.weight, offset, self.spec.eps),
            NormKind::Layer => layer_norm(x, &self.weight, offset, self.bias.as_deref(), self.spec.eps),
        }
    }
}

/// Calls `function` on every consecutive `width` values of `x`; threads share a large batch.
pub(crate) fn for_vectors(x: &mut [f32], width: usize, function: impl Fn(&mut [f32]) + Sync) {
    if x.len() < SHARED_FROM {
        x.chunks_exact_mut(width).for_each(function);
    } else {
        Pool::global().split_chunks(x, width, |_, x| function(x));
    }
}

/// As [`for_vectors`], with the vectors' numbers.
pub(crate) fn for_indexed(x: &mut [f32], width: usize, function: impl Fn(usize, &mut [f32]) + Sync) {
    if x.len() < SHARED_FROM {
        x.chunks_exact_mut(width).enumerate().for_each(|(index, x)| function(index, x));
    } else {
        Pool::global().split_chunks(x, width, function);
    }
}

/// Calls `function` on every consecutive `width` values of `x` and of `y`, which is as long; the last may be fewer.
/// Threads share a large batch.
pub(crate) fn for_pairs(
    x: &mut [f32],
    y: &[f32],
    width: usize,
    function: impl Fn(&mut [f32], &[f32]) + Sync,
) {
    if x.len() < SHARED_FROM {
        x.chunks_mut(width).zip(y.chunks(width)).for_each(|(x, y)| function(x, y));
    } else {
        Pool::global().split_chunks(x, width, |index, x| {
            let at = index * width;
            function(x, &y[at..at + x.len()]);
        });
    }
}

/// The three norms of one half of a layer.
#[derive(Debug)]
pub(crate) struct Norms {
    pub before: Option<Norm>,
    pub after: Option<Norm>,
    pub residual: Option<Norm>,
}

impl Norms {
    /// Takes `{name}.before_norm`, `.after_norm` and `.residual_norm` as far as `spec` has them.
    pub(crate) fn load(weights: &Weights, name: &str, spec: &ounce_model::spec::Norms) -> Result<Norms> {
        Ok(Norms {
            before: Norm::load(weights, &format!("{name}.before_norm"), spec.before)?,
            after: Norm::load(weights, &format!("{name}.after_norm"), spec.after)?,
            residual: Norm::load(weights, &format!("{name}.residual_norm"), spec.residual)?,
        })
    }
}

/// A buffer with the normalised vectors of `x`, or a copy where there is no norm.
pub(crate) fn normed(norm: &Option<Norm>, x: &[f32], scratch: &mut Scratch) -> Vec<f32> {
    let mut out = scratch.take(x.len());
    match norm {
        Some(norm) => norm.apply_to(x, &mut out),
        None => out.copy_from_slice(x),
    }
    out
}

/// Applies a norm that may be absent.
pub(crate) fn apply(norm: &Option<Norm>, x: &mut [f32]) {
    if let Some(norm) = norm {
        norm.apply(x);
    }
}
