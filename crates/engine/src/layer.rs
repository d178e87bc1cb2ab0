//! One layer: its halves and how they meet the residual stream.

use ounce_kernels::matmul::add_scaled;
use ounce_kernels::vector::add;
use ounce_model::Weights;
use ounce_model::spec::{Layer as LayerSpec, Residual};

use crate::arithmetic::Mode;
use crate::attention::Attention;
use crate::batch::Part;
use crate::error::Result;
use crate::feed_forward::FeedForward;
use crate::norm::{Norm, Norms, apply, for_pairs, normed};
use crate::profile::Operator;
use crate::rotation::Rotation;
use crate::scratch::Scratch;

/// How far a batch has come into a layer: at most one of the places that linear layers start from, and what they need there.
#[derive(Debug, Default)]
pub(crate) struct Way {
    /// Attention's weighted sums, before their projection.
    mixed: Option<Vec<f32>>,
    /// The residual stream between attention and feed-forward part.
    stream: Option<Vec<f32>>,
    /// What the feed-forward part's last projection is given.
    inner: Option<Vec<f32>>,
}

/// One layer with its weights.
#[derive(Debug)]
pub(crate) struct Layer {
    pub attention: Option<Attention>,
    feed_forward: Option<FeedForward>,
    residual: Residual,
    residual_scale: f32,
}

impl Layer {
    /// `copied` says whether a layer behind copies its attention.
    pub(crate) fn load(
        weights: &Weights,
        index: usize,
        spec: &LayerSpec,
        copied: bool,
        mode: Mode,
    ) -> Result<Layer> {
        let name = |part: &str| format!("layers.{index}.{part}");
        let attention =
            spec.attention.as_ref().map(|it| Attention::load(weights, &name("attention"), it, copied, mode));
        let feed_forward =
            spec.feed_forward.as_ref().map(|it| FeedForward::load(weights, &name("feed_forward"), it, mode));
        Ok(Layer {
            attention: attention.transpose()?,
            feed_forward: feed_forward.transpose()?,
            residual: spec.residual,
            residual_scale: spec.residual_scale,
        })
    }

    /// Bytes of packed weights.
    pub(crate) fn packed_bytes(&self) -> usize {
        self.attention.as_ref().map_or(0, Attention::packed_bytes)
            + self.feed_forward.as_ref().map_or(0, FeedForward::packed_bytes)
    }

    /// Adds the layer's results to the residual stream `x`, the batch's vectors of `hidden` values. `index` is the
    /// layer's number.
    pub(crate) fn forward(
        &self,
        x: &mut [f32],
        hidden: usize,
        index: usize,
        batch: &mut [Part<'_>],
        rotation: Option<&Rotation>,
        scratch: &mut Scratch,
    ) {
        // What the feed-forward half sees if it stands beside the attention, not behind it.
        let mut beside = (self.residual == Residual::Parallel).then(|| scratch.copy(x));
        if let Some(attention) = &self.attention {
            let input = measured_norm(&attention.norms.before, x, scratch);
            let mut branch = attention.forward(&input, index, batch, rotation, scratch);
            self.join(&attention.norms, x, &mut branch, scratch);
            scratch.give(branch);
            if self.residual == Residual::ParallelSharedNorm {
                beside = Some(input);
            } else {
                scratch.give(input);
            }
        }
        if let Some(feed_forward) = &self.feed_forward {
            let input = match beside {
                Some(mut input) if self.residual == Residual::Parallel => {
                    let start = scratch.meter.start();
                    apply(&feed_forward.norms.before, &mut input);
                    scratch.meter.stop(start, Operator::Norm, || (0, 4 * input.len()));
                    input
                }
                // Normed already, with the attention.
                Some(input) => input,
                None => measured_norm(&feed_forward.norms.before, x, scratch),
            };
            let mut branch = feed_forward.forward(&input, hidden, scratch);
            self.join(&feed_forward.norms, x, &mut branch, scratch);
            scratch.give(branch);
            scratch.give(input);
        }
    }

    /// Goes through the layer from where `way` stands, with `x` what the layer is given, until a tap has enough: then `way` is
    /// the last place before the linear layers that it wanted to see. Otherwise gives the residual stream behind the layer.
    pub(crate) fn go_on(
        &self,
        x: &[f32],
        hidden: usize,
        index: usize,
        batch: &mut [Part<'_>],
        rotation: Option<&Rotation>,
        way: &mut Way,
        scratch: &mut Scratch,
    ) -> Option<Vec<f32>> {
        if self.residual != Residual::Sequential {
            let mut stream = scratch.copy(x);
            self.forward(&mut stream, hidden, index, batch, rotation, scratch);
            return (!scratch.enough).then_some(stream);
        }
        let mut stream = match (way.stream.take(), &self.attention) {
            (Some(stream), _) => stream,
            (None, None) => scratch.copy(x),
            (None, Some(attention)) => {
                let mixed = match way.mixed.take() {
                    Some(mixed) => mixed,
                    None => {
                        let input = measured_norm(&attention.norms.before, x, scratch);
                        let mixed = attention.mixed(&input, index, batch, rotation, scratch);
                        scratch.give(input);
                        mixed
                    }
                };
                if scratch.enough {
                    scratch.give(mixed);
                    return None;
                }
                let mut branch = attention.project(&mixed, scratch);
                if scratch.enough {
                    way.mixed = Some(mixed);
                    return None;
                }
                scratch.give(mixed);
                let mut stream = scratch.copy(x);
                self.join(&attention.norms, &mut stream, &mut branch, scratch);
                scratch.give(branch);
                stream
            }
        };
        let Some(feed_forward) = &self.feed_forward else { return Some(stream) };
        let Some(mut branch) = feed_forward.go_on(&stream, hidden, &mut way.inner, scratch) else {
            way.stream = Some(stream);
            return None;
        };
        // Who watches experts sees all of them and never has enough.
        way.stream = scratch.tap.is_some().then(|| scratch.copy(&stream));
        self.join(&feed_forward.norms, &mut stream, &mut branch, scratch);
        scratch.give(branch);
        Some(stream)
    }

    /// Adds a branch to the residual stream, with the norms behind it.
    fn join(&self, norms: &Norms, x: &mut [f32], branch: &mut [f32], scratch: &mut Scratch) {
        let start = scratch.meter.start();
        apply(&norms.after, branch);
        if self.residual_scale == 1.0 {
            for_pairs(x, branch, ADD_CHUNK, add);
        } else {
            for_pairs(x, branch, ADD_CHUNK, |x, branch| add_scaled(self.residual_scale, branch, x));
        }
        apply(&norms.residual, x);
        scratch.meter.stop(start, Operator::Residual, || (0, x.len()));
    }
}

/// Values that a thread adds at a time.
const ADD_CHUNK: usize = 4096;

/// [`normed`], measured.
fn measured_norm(norm: &Option<Norm>, x: &[f32], scratch: &mut Scratch) -> Vec<f32> {
    let start = scratch.meter.start();
    let out = normed(norm, x, scratch);
    scratch.meter.stop(start, Operator::Norm, || (0, 4 * x.len()));
    out
}
