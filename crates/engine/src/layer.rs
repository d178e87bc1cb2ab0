//! One layer: its halves and how they meet the residual stream.

use ounce_kernels::attention::LayerCache;
use ounce_model::Weights;
use ounce_model::spec::{Layer as LayerSpec, Residual};

use crate::arithmetic::Mode;
use crate::attention::{Attention, Span};
use crate::error::Result;
use crate::feed_forward::FeedForward;
use crate::norm::apply;
use crate::rotation::Rotation;
use crate::scratch::Scratch;

/// One layer with its weights.
#[derive(Debug)]
pub(crate) struct Layer {
    pub attention: Option<Attention>,
    feed_forward: Option<FeedForward>,
    residual: Residual,
}

impl Layer {
    pub(crate) fn load(weights: &Weights, index: usize, spec: &LayerSpec, mode: Mode) -> Result<Layer> {
        let name = |part: &str| format!("layers.{index}.{part}");
        let attention =
            spec.attention.as_ref().map(|it| Attention::load(weights, &name("attention"), it, mode));
        let feed_forward =
            spec.feed_forward.as_ref().map(|it| FeedForward::load(weights, &name("feed_forward"), it, mode));
        Ok(Layer {
            attention: attention.transpose()?,
            feed_forward: feed_forward.transpose()?,
            residual: spec.residual,
        })
    }

    /// Bytes of packed weights.
    pub(crate) fn packed_bytes(&self) -> usize {
        self.attention.as_ref().map_or(0, Attention::packed_bytes)
            + self.feed_forward.as_ref().map_or(0, FeedForward::packed_bytes)
    }

    /// Adds the layer's results to the residual stream `x`, `[count, hidden]`.
    pub(crate) fn forward(
        &self,
        x: &mut [f32],
        hidden: usize,
        span: Span,
        rotation: Option<&Rotation>,
        cache: &mut LayerCache,
        scratch: &mut Scratch,
    ) {
        // What the feed-forward half sees if it stands beside the attention, not behind it.
        let mut beside = (self.residual == Residual::Parallel).then(|| scratch.copy(x));
        if let Some(attention) = &self.attention {
            let mut input = scratch.copy(x);
            apply(&attention.norms.before, &mut input);
            let mut branch = attention.forward(&input, span, rotation, cache, scratch);
            apply(&attention.norms.after, &mut branch);
            add(x, &branch);
            apply(&attention.norms.residual, x);
            scratch.give(branch);
            if self.residual == Residual::ParallelSharedNorm {
                beside = Some(input);
            } else {
                scratch.give(input);
            }
        }
        if let Some(feed_forward) = &self.feed_forward {
            let mut input = beside.unwrap_or_else(|| scratch.copy(x));
            apply(&feed_forward.norms.before, &mut input);
            let mut branch = feed_forward.forward(&input, hidden, scratch);
            apply(&feed_forward.norms.after, &mut branch);
            add(x, &branch);
            apply(&feed_forward.norms.residual, x);
            scratch.give(branch);
            scratch.give(input);
        }
    }
}

fn add(x: &mut [f32], branch: &[f32]) {
    x.iter_mut().zip(branch).for_each(|(x, branch)| *x += branch);
}
