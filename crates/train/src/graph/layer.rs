//! One layer: its halves and how they meet the residual stream.

use candle_core::Tensor;
use ounce_model::spec::{Layer as LayerSpec, Residual};

use super::attention::Attention;
use super::build::{Builder, Place};
use super::feed_forward::FeedForward;
use super::hook::Hook;
use super::norm::apply;
use super::pass::State;
use crate::Result;
use crate::net::Rotations;

/// One layer.
pub(super) struct Layer {
    attention: Option<Attention>,
    feed_forward: Option<FeedForward>,
    residual: Residual,
    residual_scale: f32,
}

impl Layer {
    pub fn build(
        from: &mut Builder<'_>,
        index: usize,
        spec: &LayerSpec,
        causal: bool,
        rotations: &mut Rotations,
    ) -> Result<Layer> {
        let attention = spec
            .attention
            .as_ref()
            .map(|it| Attention::build(from, &format!("layers.{index}.attention"), it, causal, rotations));
        let attention = attention.transpose()?;
        let feed_forward = spec
            .feed_forward
            .as_ref()
            .map(|it| FeedForward::build(from, &format!("layers.{index}.feed_forward"), it));
        Ok(Layer {
            attention,
            feed_forward: feed_forward.transpose()?,
            residual: spec.residual,
            residual_scale: spec.residual_scale,
        })
    }

    pub fn places(&self) -> impl Iterator<Item = &Place> {
        let attention = self.attention.iter().flat_map(Attention::places);
        attention.chain(self.feed_forward.iter().flat_map(FeedForward::places))
    }

    /// The stream behind the layer, `[tokens, hidden]`, where it is the model's layer `index`.
    pub fn forward(&self, index: usize, x: Tensor, state: &State, hook: &mut dyn Hook) -> Result<Tensor> {
        let x = hook.layer_input(index, x)?;
        let mut stream = x.clone();
        let mut shared = None;
        if let Some(attention) = &self.attention {
            let seen = apply(&attention.norms.before, x.clone())?;
            let seen = hook.attention_input(index, seen)?;
            let branch = attention.forward(index, &seen, state, hook)?;
            stream = attention.norms.join(&x, branch, self.residual_scale)?;
            shared = (self.residual == Residual::ParallelSharedNorm).then_some(seen);
        }
        if let Some(feed_forward) = &self.feed_forward {
            let source = if self.residual == Residual::Sequential { &stream } else { &x };
            let seen = match shared {
                Some(seen) => seen,
                None => apply(&feed_forward.norms.before, source.clone())?,
            };
            let branch = feed_forward.forward(&seen)?;
            stream = feed_forward.norms.join(&stream, branch, self.residual_scale)?;
        }
        hook.layer_output(index, stream)
    }
}
