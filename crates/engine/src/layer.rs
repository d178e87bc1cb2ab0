//! One layer: its halves and how they meet the residual stream.

use ounce_model::Weights;
use ounce_model::spec::{Layer as LayerSpec, Residual};

use crate::arithmetic::Arithmetic;
use crate::attention::{Attention, Span};
use crate::cache::LayerCache;
use crate::error::Result;
use crate::feed_forward::FeedForward;
use crate::norm::apply;

/// One layer with its weights.
#[derive(Debug)]
pub(crate) struct Layer {
    pub attention: Option<Attention>,
    feed_forward: Option<FeedForward>,
    residual: Residual,
}

impl Layer {
    pub(crate) fn load(weights: &Weights, index: usize, spec: &LayerSpec) -> Result<Layer> {
        let name = |part: &str| format!("layers.{index}.{part}");
        let attention = spec.attention.as_ref().map(|it| Attention::load(weights, &name("attention"), it));
        let feed_forward =
            spec.feed_forward.as_ref().map(|it| FeedForward::load(weights, &name("feed_forward"), it));
        Ok(Layer {
            attention: attention.transpose()?,
            feed_forward: feed_forward.transpose()?,
            residual: spec.residual,
        })
    }

    /// Adds the layer's results to the residual stream `x`, `[count, hidden]`.
    pub(crate) fn forward(
        &self,
        x: &mut [f32],
        hidden: usize,
        span: Span,
        cache: &mut LayerCache,
        math: Arithmetic,
    ) {
        // What the feed-forward half sees if it stands beside the attention, not behind it.
        let beside = (self.residual == Residual::Parallel).then(|| x.to_vec());
        let mut shared = None;
        if let Some(attention) = &self.attention {
            let mut input = x.to_vec();
            apply(&attention.norms.before, &mut input);
            let mut branch = attention.forward(&input, span, cache, math);
            apply(&attention.norms.after, &mut branch);
            add(x, &branch);
            apply(&attention.norms.residual, x);
            shared = (self.residual == Residual::ParallelSharedNorm).then_some(input);
        }
        if let Some(feed_forward) = &self.feed_forward {
            let mut input = beside.or(shared).unwrap_or_else(|| x.to_vec());
            apply(&feed_forward.norms.before, &mut input);
            let mut branch = feed_forward.forward(&input, hidden, math.linear);
            apply(&feed_forward.norms.after, &mut branch);
            add(x, &branch);
            apply(&feed_forward.norms.residual, x);
        }
    }
}

fn add(x: &mut [f32], branch: &[f32]) {
    x.iter_mut().zip(branch).for_each(|(x, branch)| *x += branch);
}
