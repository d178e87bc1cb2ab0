//! The attention half of a layer, forward and backward.
//!
//! Kept for the backward pass: queries, keys and values as they were attended with, the mixed values, and one
//! log-sum-exp a query and head. Probabilities are computed again, so memory is linear in the length.

use ounce_kernels::grad::attention::{Shape, attention, attention_backward};
use ounce_kernels::grad::rope::rotate;
use ounce_model::spec::{Attention as AttentionSpec, QkScope};

use super::build::Builder;
use super::context::Context;
use super::linear::Linear;
use super::norm::{Norm, Norms, Stats};
use super::rotation::Rotations;
use crate::Result;

/// The attention half of a layer.
#[derive(Debug)]
pub(crate) struct Attention {
    pub norms: Norms,
    spec: AttentionSpec,
    causal: bool,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    query_norm: QkNorm,
    key_norm: QkNorm,
    rotation: Option<usize>,
}

/// What a forward pass keeps.
#[derive(Debug)]
pub(crate) struct Saved {
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    raw_queries: QkSaved,
    raw_keys: QkSaved,
    mixed: Vec<f32>,
    lse: Vec<f32>,
}

impl Saved {
    pub fn release(self, cx: &mut Context<'_>) {
        for buffer in [self.queries, self.keys, self.values, self.mixed, self.lse] {
            cx.buffers.give(buffer);
        }
        self.raw_queries.release(cx);
        self.raw_keys.release(cx);
    }
}

impl Attention {
    pub fn build(
        from: &mut Builder<'_>,
        name: &str,
        spec: &AttentionSpec,
        causal: bool,
        rotations: &mut Rotations,
    ) -> Result<Attention> {
        let bias = spec.qkv_bias;
        Ok(Attention {
            norms: Norms::build(from, name, &spec.norms)?,
            query: from.linear(&format!("{name}.query"), bias)?,
            key: from.linear(&format!("{name}.key"), bias)?,
            value: from.linear(&format!("{name}.value"), bias)?,
            output: from.linear(&format!("{name}.output"), spec.output_bias)?,
            query_norm: QkNorm::build(from, &format!("{name}.query_norm"), spec, spec.heads)?,
            key_norm: QkNorm::build(from, &format!("{name}.key_norm"), spec, spec.kv_heads)?,
            rotation: spec.rope.as_ref().map(|rope| rotations.add(rope)),
            spec: spec.clone(),
            causal,
        })
    }

    fn shape(&self) -> Shape {
        Shape {
            heads: self.spec.heads,
            kv_heads: self.spec.kv_heads,
            head_dim: self.spec.head_dim,
            scale: self.spec.scale,
            softcap: self.spec.softcap,
            window: self.spec.window,
            causal: self.causal,
        }
    }

    /// Adds the branch's result for the normed input `x` to `out`, both `[tokens, hidden]`.
    pub fn forward(&self, x: &[f32], out: &mut [f32], cx: &mut Context<'_>) -> Saved {
        let (heads, kv_heads, head_dim) = (self.spec.heads, self.spec.kv_heads, self.spec.head_dim);
        let queries = self.query.apply(x, cx);
        let keys = self.key.apply(x, cx);
        let values = self.value.apply(x, cx);
        let (mut queries, raw_queries) = self.query_norm.forward(queries, cx);
        let (mut keys, raw_keys) = self.key_norm.forward(keys, cx);
        if let Some(rotation) = self.rotation {
            let rotation = &cx.rotations[rotation];
            rotate(cx.pool, &mut queries, heads, head_dim, &rotation.cos, &rotation.sin, false);
            rotate(cx.pool, &mut keys, kv_heads, head_dim, &rotation.cos, &rotation.sin, false);
        }
        let tokens = queries.len() / (heads * head_dim);
        let mut mixed = cx.buffers.take(queries.len());
        let mut lse = cx.buffers.take(tokens * heads);
        attention(cx.pool, &self.shape(), cx.lengths, &queries, &keys, &values, &mut mixed, &mut lse);
        self.output.forward(&mixed, out, true, cx);
        Saved { queries, keys, values, raw_queries, raw_keys, mixed, lse }
    }

    /// Adds to the weights' gradients and gives that of the normed input.
    pub fn backward(&self, x: &[f32], saved: &Saved, dout: &[f32], cx: &mut Context<'_>) -> Vec<f32> {
        let (heads, kv_heads, head_dim) = (self.spec.heads, self.spec.kv_heads, self.spec.head_dim);
        self.output.backward_weights(&saved.mixed, dout, cx);
        let mut dmixed = cx.buffers.take(saved.mixed.len());
        self.output.backward_input(dout, &mut dmixed, false, cx);
        let mut dqueries = cx.buffers.take(saved.queries.len());
        let mut dkeys = cx.buffers.take(saved.keys.len());
        let mut dvalues = cx.buffers.take(saved.values.len());
        attention_backward(
            cx.pool,
            &self.shape(),
            cx.lengths,
            &saved.queries,
            &saved.keys,
            &saved.values,
            &saved.mixed,
            &saved.lse,
            &dmixed,
            &mut dqueries,
            &mut dkeys,
            &mut dvalues,
            &mut cx.buffers.attention,
        );
        cx.buffers.give(dmixed);
        if let Some(rotation) = self.rotation {
            let rotation = &cx.rotations[rotation];
            rotate(cx.pool, &mut dqueries, heads, head_dim, &rotation.cos, &rotation.sin, true);
            rotate(cx.pool, &mut dkeys, kv_heads, head_dim, &rotation.cos, &rotation.sin, true);
        }
        let dqueries = self.query_norm.backward(&saved.raw_queries, dqueries, cx);
        let dkeys = self.key_norm.backward(&saved.raw_keys, dkeys, cx);
        let mut dx = cx.buffers.take(x.len());
        let parts = [(&self.query, dqueries), (&self.key, dkeys), (&self.value, dvalues)];
        for (index, (linear, dy)) in parts.into_iter().enumerate() {
            linear.backward_weights(x, &dy, cx);
            linear.backward_input(&dy, &mut dx, index > 0, cx);
            cx.buffers.give(dy);
        }
        dx
    }
}

/// Norms of queries or keys: none, one for all heads or the whole width, or one for each head.
#[derive(Debug)]
struct QkNorm {
    norms: Vec<Norm>,
    head_dim: usize,
}

/// Queries or keys before their norm; nothing where there is none.
#[derive(Debug, Default)]
struct QkSaved {
    raw: Vec<f32>,
    stats: Vec<Stats>,
}

impl QkSaved {
    fn release(self, cx: &mut Context<'_>) {
        cx.buffers.give(self.raw);
        self.stats.into_iter().for_each(|stats| stats.release(cx));
    }
}

impl QkNorm {
    fn build(from: &mut Builder<'_>, name: &str, spec: &AttentionSpec, heads: usize) -> Result<QkNorm> {
        let mut norms = Vec::new();
        if let Some(norm) = spec.qk_norm {
            let names: Vec<String> = match norm.scope {
                QkScope::Head | QkScope::Width => vec![name.to_string()],
                QkScope::EachHead => (0..heads).map(|head| format!("{name}.{head}")).collect(),
            };
            for name in names {
                norms.extend(Norm::build(from, &name, Some(norm.norm))?);
            }
        }
        Ok(QkNorm { norms, head_dim: spec.head_dim })
    }

    fn forward(&self, x: Vec<f32>, cx: &mut Context<'_>) -> (Vec<f32>, QkSaved) {
        match self.norms.as_slice() {
            [] => (x, QkSaved::default()),
            [norm] => {
                let (out, stats) = norm.forward(&x, cx);
                (out, QkSaved { raw: x, stats: vec![stats] })
            }
            norms => {
                let mut out = cx.buffers.take(x.len());
                let mut saved = QkSaved::default();
                for (head, norm) in norms.iter().enumerate() {
                    let own = self.gather(&x, head, cx);
                    let (normed, stats) = norm.forward(&own, cx);
                    self.scatter(&normed, head, &mut out);
                    cx.buffers.give(own);
                    cx.buffers.give(normed);
                    saved.stats.push(stats);
                }
                saved.raw = x;
                (out, saved)
            }
        }
    }

    /// The gradient before the norm of a gradient behind it.
    fn backward(&self, saved: &QkSaved, dy: Vec<f32>, cx: &mut Context<'_>) -> Vec<f32> {
        if self.norms.is_empty() {
            return dy;
        }
        let mut dx = cx.zeros(dy.len());
        match self.norms.as_slice() {
            [norm] => norm.backward(&saved.raw, &saved.stats[0], &dy, &mut dx, cx),
            norms => {
                for (head, norm) in norms.iter().enumerate() {
                    let raw = self.gather(&saved.raw, head, cx);
                    let own = self.gather(&dy, head, cx);
                    let mut part = cx.zeros(raw.len());
                    norm.backward(&raw, &saved.stats[head], &own, &mut part, cx);
                    self.scatter(&part, head, &mut dx);
                    [raw, own, part].into_iter().for_each(|buffer| cx.buffers.give(buffer));
                }
            }
        }
        cx.buffers.give(dy);
        dx
    }

    /// One head's vectors, `[tokens, head_dim]`.
    fn gather(&self, x: &[f32], head: usize, cx: &mut Context<'_>) -> Vec<f32> {
        let width = self.norms.len() * self.head_dim;
        let mut out = cx.buffers.take(x.len() / self.norms.len());
        for (out, x) in out.chunks_exact_mut(self.head_dim).zip(x.chunks_exact(width)) {
            out.copy_from_slice(&x[head * self.head_dim..][..self.head_dim]);
        }
        out
    }

    fn scatter(&self, x: &[f32], head: usize, out: &mut [f32]) {
        let width = self.norms.len() * self.head_dim;
        for (x, out) in x.chunks_exact(self.head_dim).zip(out.chunks_exact_mut(width)) {
            out[head * self.head_dim..][..self.head_dim].copy_from_slice(x);
        }
    }
}
