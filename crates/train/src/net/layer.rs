//! One layer, forward and backward: its halves and how they meet the residual stream.
//!
//! `x = residual_norm(x + after_norm(part(before_norm(x))))` for attention, then for the feed-forward half; beside each
//! other in the parallel arrangements.

use ounce_model::spec::{Layer as LayerSpec, Residual};

use super::attention::{self, Attention};
use super::build::Builder;
use super::context::Context;
use super::feed_forward::{self, FeedForward};
use super::norm::{Norm, Norms, Stats};
use super::rotation::Rotations;
use crate::Result;

/// One layer.
#[derive(Debug)]
pub(crate) struct Layer {
    attention: Option<Attention>,
    feed_forward: Option<FeedForward>,
    residual: Residual,
    residual_scale: f32,
}

/// A half's input behind its norm; nothing where there is no norm and the input itself is used.
#[derive(Debug, Default)]
struct Entered {
    normed: Option<Vec<f32>>,
    stats: Stats,
}

impl Entered {
    fn new(norm: &Option<Norm>, x: &[f32], cx: &mut Context<'_>) -> Entered {
        match norm {
            Some(norm) => {
                let (normed, stats) = norm.forward(x, cx);
                Entered { normed: Some(normed), stats }
            }
            None => Entered::default(),
        }
    }

    /// Gives the normed input up: it is quickly made again, and as large as the stream.
    fn forget(&mut self, cx: &mut Context<'_>) {
        self.normed.take().into_iter().for_each(|normed| cx.buffers.give(normed));
    }

    /// Makes the normed input again, to the same bits.
    fn recall(&mut self, norm: &Option<Norm>, x: &[f32], cx: &mut Context<'_>) {
        if let (None, Some(norm)) = (&self.normed, norm) {
            let (normed, stats) = norm.forward(x, cx);
            stats.release(cx);
            self.normed = Some(normed);
        }
    }

    /// Given the input, what the half sees.
    fn seen<'a>(&'a self, x: &'a [f32]) -> &'a [f32] {
        self.normed.as_deref().unwrap_or(x)
    }

    /// Adds the gradient of the half's input to that of the stream.
    fn backward(
        self,
        norm: &Option<Norm>,
        x: &[f32],
        dnormed: Vec<f32>,
        dx: &mut [f32],
        cx: &mut Context<'_>,
    ) {
        match norm {
            Some(norm) => norm.backward(x, &self.stats, &dnormed, dx, cx),
            None => cx.add(1.0, &dnormed, dx),
        }
        cx.buffers.give(dnormed);
        self.release(cx);
    }

    fn release(self, cx: &mut Context<'_>) {
        self.normed.into_iter().for_each(|normed| cx.buffers.give(normed));
        self.stats.release(cx);
    }
}

/// What joining a branch to the stream keeps where norms follow.
#[derive(Debug, Default)]
struct Joined {
    branch: Option<(Vec<f32>, Stats)>,
    sum: Option<(Vec<f32>, Stats)>,
}

impl Joined {
    fn release(self, cx: &mut Context<'_>) {
        for (buffer, stats) in self.branch.into_iter().chain(self.sum) {
            cx.buffers.give(buffer);
            stats.release(cx);
        }
    }
}

/// The stream behind a half: `run` adds the branch to what it is given.
fn join<S>(
    norms: &Norms,
    scale: f32,
    stream: &[f32],
    cx: &mut Context<'_>,
    run: impl FnOnce(&mut [f32], &mut Context<'_>) -> S,
) -> (Vec<f32>, Joined, S) {
    let mut joined = Joined::default();
    let mut out = cx.copy(stream);
    let saved = match &norms.after {
        // Without a norm in between, the last product adds to the stream itself.
        None if scale == 1.0 => run(&mut out, cx),
        None => {
            let mut branch = cx.zeros(stream.len());
            let saved = run(&mut branch, cx);
            cx.add(scale, &branch, &mut out);
            cx.buffers.give(branch);
            saved
        }
        Some(norm) => {
            let mut branch = cx.zeros(stream.len());
            let saved = run(&mut branch, cx);
            let (normed, stats) = norm.forward(&branch, cx);
            cx.add(scale, &normed, &mut out);
            cx.buffers.give(normed);
            joined.branch = Some((branch, stats));
            saved
        }
    };
    if let Some(norm) = &norms.residual {
        let (normed, stats) = norm.forward(&out, cx);
        joined.sum = Some((std::mem::replace(&mut out, normed), stats));
    }
    (out, joined, saved)
}

/// From the gradient of the joined stream to that of the stream before; `run` gives, for the branch's gradient, that of
/// the half's input.
fn unjoin(
    norms: &Norms,
    scale: f32,
    joined: Joined,
    mut d: Vec<f32>,
    cx: &mut Context<'_>,
    run: impl FnOnce(&[f32], &mut Context<'_>) -> Vec<f32>,
) -> (Vec<f32>, Vec<f32>) {
    if let (Some(norm), Some((sum, stats))) = (&norms.residual, joined.sum) {
        let mut dsum = cx.zeros(d.len());
        norm.backward(&sum, &stats, &d, &mut dsum, cx);
        cx.buffers.give(std::mem::replace(&mut d, dsum));
        cx.buffers.give(sum);
        stats.release(cx);
    }
    let scaled = (scale != 1.0).then(|| {
        let mut scaled = cx.zeros(d.len());
        cx.add(scale, &d, &mut scaled);
        scaled
    });
    let dout = scaled.as_deref().unwrap_or(&d);
    let dinput = match (&norms.after, joined.branch) {
        (Some(norm), Some((branch, stats))) => {
            let mut dbranch = cx.zeros(d.len());
            norm.backward(&branch, &stats, dout, &mut dbranch, cx);
            cx.buffers.give(branch);
            stats.release(cx);
            let dinput = run(&dbranch, cx);
            cx.buffers.give(dbranch);
            dinput
        }
        _ => run(dout, cx),
    };
    scaled.into_iter().for_each(|scaled| cx.buffers.give(scaled));
    (d, dinput)
}

/// What a forward pass keeps.
#[derive(Debug)]
pub(crate) struct Saved {
    /// The stream before the layer.
    x: Vec<f32>,
    /// The stream between the halves.
    between: Option<Vec<f32>>,
    attention: Option<(Entered, Joined, attention::Saved)>,
    feed_forward: Option<(Entered, Joined, feed_forward::Saved)>,
}

impl Saved {
    /// Gives everything back and the stream before the layer out.
    pub fn into_input(self, cx: &mut Context<'_>) -> Vec<f32> {
        self.between.into_iter().for_each(|between| cx.buffers.give(between));
        if let Some((entered, joined, saved)) = self.attention {
            entered.release(cx);
            joined.release(cx);
            saved.release(cx);
        }
        if let Some((entered, joined, saved)) = self.feed_forward {
            entered.release(cx);
            joined.release(cx);
            saved.release(cx);
        }
        self.x
    }
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

    /// The stream behind the layer, `[tokens, hidden]`, and what the backward pass needs.
    pub fn forward(&self, x: Vec<f32>, cx: &mut Context<'_>) -> (Vec<f32>, Saved) {
        let mut saved = Saved { x, between: None, attention: None, feed_forward: None };
        let mut stream: Option<Vec<f32>> = None;
        if let Some(attention) = &self.attention {
            let mut entered = Entered::new(&attention.norms.before, &saved.x, cx);
            let seen = entered.seen(&saved.x);
            let (out, joined, kept) = join(&attention.norms, self.residual_scale, &saved.x, cx, |out, cx| {
                attention.forward(seen, out, cx)
            });
            if self.residual == Residual::Sequential {
                entered.forget(cx);
            }
            saved.attention = Some((entered, joined, kept));
            stream = Some(out);
        }
        if let Some(feed_forward) = &self.feed_forward {
            let before = stream.as_deref().unwrap_or(&saved.x);
            let shared = self.shares_norm().then_some(saved.attention.as_ref()).flatten();
            let source = if self.residual == Residual::Sequential { before } else { &saved.x };
            let mut entered = match shared {
                Some(_) => Entered::default(),
                None => Entered::new(&feed_forward.norms.before, source, cx),
            };
            let seen = match shared {
                Some((attention, ..)) => attention.seen(&saved.x),
                None => entered.seen(source),
            };
            let (out, joined, kept) =
                join(&feed_forward.norms, self.residual_scale, before, cx, |out, cx| {
                    feed_forward.forward(seen, out, cx)
                });
            if self.residual == Residual::Sequential {
                entered.forget(cx);
            }
            saved.feed_forward = Some((entered, joined, kept));
            if self.residual == Residual::Sequential {
                saved.between = stream.take();
            } else {
                stream.take().into_iter().for_each(|stream| cx.buffers.give(stream));
            }
            stream = Some(out);
        }
        let stream = stream.unwrap_or_else(|| cx.copy(&saved.x));
        (stream, saved)
    }

    fn shares_norm(&self) -> bool {
        self.residual == Residual::ParallelSharedNorm && self.attention.is_some()
    }

    /// From the gradient of the stream behind the layer to that of the stream before it.
    pub fn backward(&self, saved: Saved, mut d: Vec<f32>, cx: &mut Context<'_>) -> Vec<f32> {
        let Saved { x, between, attention: kept_attention, feed_forward: kept_feed_forward } = saved;
        let mut waiting = None;
        if let (Some(feed_forward), Some((mut entered, joined, kept))) =
            (&self.feed_forward, kept_feed_forward)
        {
            let source = between.as_deref().unwrap_or(&x);
            let shared = kept_attention.as_ref().filter(|_| self.shares_norm());
            if shared.is_none() {
                entered.recall(&feed_forward.norms.before, source, cx);
            }
            let seen = match shared {
                Some((attention, ..)) => attention.seen(&x),
                None => entered.seen(source),
            };
            let (mut stream, dinput) =
                unjoin(&feed_forward.norms, self.residual_scale, joined, d, cx, |dout, cx| {
                    feed_forward.backward(seen, kept, dout, cx)
                });
            if shared.is_some() {
                waiting = Some((dinput, None));
            } else if self.residual == Residual::Sequential {
                entered.backward(&feed_forward.norms.before, source, dinput, &mut stream, cx);
            } else {
                // The attention's branch must see the gradient without this half's.
                waiting = Some((dinput, Some(entered)));
            }
            d = stream;
        }
        if let (Some(attention), Some((mut entered, joined, kept))) = (&self.attention, kept_attention) {
            entered.recall(&attention.norms.before, &x, cx);
            let seen = entered.seen(&x);
            let (mut stream, mut dinput) =
                unjoin(&attention.norms, self.residual_scale, joined, d, cx, |dout, cx| {
                    let dinput = attention.backward(seen, &kept, dout, cx);
                    kept.release(cx);
                    dinput
                });
            if let Some((shared, None)) = &waiting {
                cx.add(1.0, shared, &mut dinput);
            }
            entered.backward(&attention.norms.before, &x, dinput, &mut stream, cx);
            d = stream;
        }
        match (waiting, &self.feed_forward) {
            (Some((dinput, Some(entered))), Some(feed_forward)) => {
                entered.backward(&feed_forward.norms.before, &x, dinput, &mut d, cx);
            }
            (Some((dinput, None)), _) => cx.buffers.give(dinput),
            _ => {}
        }
        between.into_iter().for_each(|between| cx.buffers.give(between));
        cx.buffers.give(x);
        d
    }
}
