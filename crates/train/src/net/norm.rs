//! Norms with their gradients.

use ounce_kernels::grad::norm::{layer_norm, layer_norm_backward, rms_norm, rms_norm_backward};
use ounce_model::spec::{Norm as NormSpec, NormKind, Norms as NormsSpec};

use super::build::Builder;
use super::context::Context;
use crate::Result;

/// One norm.
#[derive(Debug)]
pub(crate) struct Norm {
    spec: NormSpec,
    weight: usize,
    bias: Option<usize>,
    width: usize,
}

/// What the backward pass needs of the forward pass besides the input: one number a row each.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    inverse: Vec<f32>,
    mean: Vec<f32>,
}

impl Stats {
    pub fn release(self, cx: &mut Context<'_>) {
        cx.buffers.give(self.inverse);
        cx.buffers.give(self.mean);
    }
}

impl Norm {
    /// Takes `{name}.weight` and `{name}.bias`, if `spec` says there is such a norm.
    pub fn build(from: &mut Builder<'_>, name: &str, spec: Option<NormSpec>) -> Result<Option<Norm>> {
        let Some(spec) = spec else { return Ok(None) };
        let weight = from.param(&format!("{name}.weight"))?;
        let bias = if spec.bias { Some(from.param(&format!("{name}.bias"))?) } else { None };
        Ok(Some(Norm { spec, weight, bias, width: from.params[weight].value.len() }))
    }

    fn offset(&self) -> f32 {
        if self.spec.plus_one { 1.0 } else { 0.0 }
    }

    /// Normalises every row of `x`.
    pub fn forward(&self, x: &[f32], cx: &mut Context<'_>) -> (Vec<f32>, Stats) {
        let rows = x.len() / self.width;
        let mut out = cx.buffers.take(x.len());
        let mut stats = Stats { inverse: cx.buffers.take(rows), mean: Vec::new() };
        let weight = &cx.params[self.weight].value;
        let (offset, eps) = (self.offset(), self.spec.eps);
        match self.spec.kind {
            NormKind::Rms => {
                rms_norm(cx.pool, x, self.width, weight, offset, eps, &mut out, &mut stats.inverse);
            }
            NormKind::Layer => {
                stats.mean = cx.buffers.take(rows);
                let bias = self.bias.map(|bias| cx.params[bias].value.as_slice());
                let Stats { mean, inverse } = &mut stats;
                layer_norm(cx.pool, x, self.width, weight, offset, bias, eps, &mut out, mean, inverse);
            }
        }
        (out, stats)
    }

    /// Adds to `dx` and to the gradients of weight and bias.
    pub fn backward(&self, x: &[f32], stats: &Stats, dy: &[f32], dx: &mut [f32], cx: &mut Context<'_>) {
        let offset = self.offset();
        // Taken out for the call, because weight and gradients lie in one list.
        let mut dweight = std::mem::take(&mut cx.params[self.weight].grad);
        let mut dbias = self.bias.map(|bias| std::mem::take(&mut cx.params[bias].grad));
        let weight = &cx.params[self.weight].value;
        {
            let dweight = Some(&mut dweight).filter(|it| !it.is_empty()).map(Vec::as_mut_slice);
            match self.spec.kind {
                NormKind::Rms => {
                    rms_norm_backward(
                        cx.pool,
                        x,
                        self.width,
                        weight,
                        offset,
                        &stats.inverse,
                        dy,
                        dx,
                        dweight,
                    );
                }
                NormKind::Layer => {
                    let dbias = dbias.as_mut().filter(|it| !it.is_empty()).map(Vec::as_mut_slice);
                    let Stats { mean, inverse } = stats;
                    let width = self.width;
                    layer_norm_backward(
                        cx.pool, x, width, weight, offset, mean, inverse, dy, dx, dweight, dbias,
                    );
                }
            }
        }
        cx.params[self.weight].grad = dweight;
        if let (Some(bias), Some(grad)) = (self.bias, dbias) {
            cx.params[bias].grad = grad;
        }
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
    pub fn build(from: &mut Builder<'_>, name: &str, spec: &NormsSpec) -> Result<Norms> {
        Ok(Norms {
            before: Norm::build(from, &format!("{name}.before_norm"), spec.before)?,
            after: Norm::build(from, &format!("{name}.after_norm"), spec.after)?,
            residual: Norm::build(from, &format!("{name}.residual_norm"), spec.residual)?,
        })
    }
}
