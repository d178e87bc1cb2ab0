//! Attention of one layer: projections, query/key norms, rotation, scores, weighted sum, output.

use ounce_kernels::attention::{LayerCache, Shape, Task, attend};
use ounce_kernels::pool::Pool;
use ounce_kernels::rope::rotate_half;
use ounce_kernels::softmax::{softcap, softmax};
use ounce_model::Weights;
use ounce_model::spec::{Attention as AttentionSpec, QkNorm, QkScope};

use crate::arithmetic::{Mode, Product};
use crate::error::Result;
use crate::linear::{Linear, forward_all};
use crate::norm::{Norm, Norms};
use crate::rotation::Rotation;
use crate::scratch::Scratch;

/// The attention half of a layer.
#[derive(Debug)]
pub(crate) struct Attention {
    pub spec: AttentionSpec,
    pub norms: Norms,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    query_norms: Vec<Norm>,
    key_norms: Vec<Norm>,
    product: Product,
}

/// Where a batch of positions stands in its sequence.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    /// Position of the first vector.
    pub start: usize,
    /// Number of vectors.
    pub count: usize,
    /// Whether a position sees only itself and what is before it.
    pub causal: bool,
}

impl Attention {
    pub(crate) fn load(weights: &Weights, name: &str, spec: &AttentionSpec, mode: Mode) -> Result<Attention> {
        let linear = |part: &str| Linear::load(weights, &format!("{name}.{part}"), mode);
        let norms = |part: &str, heads| qk_norms(weights, &format!("{name}.{part}"), spec.qk_norm, heads);
        Ok(Attention {
            norms: Norms::load(weights, name, &spec.norms)?,
            query: linear("query")?,
            key: linear("key")?,
            value: linear("value")?,
            output: linear("output")?,
            query_norms: norms("query_norm", spec.heads)?,
            key_norms: norms("key_norm", spec.kv_heads)?,
            product: mode.arithmetic().attention,
            spec: spec.clone(),
        })
    }

    /// Bytes of packed weights.
    pub(crate) fn packed_bytes(&self) -> usize {
        [&self.query, &self.key, &self.value, &self.output].map(Linear::packed_bytes).iter().sum()
    }

    /// Attends from `span.count` vectors `x` (`[count, hidden]`, already normed) to what `cache` holds and to
    /// themselves; appends their keys and values to the cache. Gives `[count, hidden]`.
    pub(crate) fn forward(
        &self,
        x: &[f32],
        span: Span,
        rotation: Option<&Rotation>,
        cache: &mut LayerCache,
        scratch: &mut Scratch,
    ) -> Vec<f32> {
        let (heads, kv_heads, head_dim) = (self.spec.heads, self.spec.kv_heads, self.spec.head_dim);
        let [mut queries, mut keys, values] = forward_all([&self.query, &self.key, &self.value], x, scratch);
        apply_qk_norms(&self.query_norms, &mut queries, heads, head_dim);
        apply_qk_norms(&self.key_norms, &mut keys, kv_heads, head_dim);
        if let Some(rotation) = rotation {
            for (x, heads) in [(&mut queries, heads), (&mut keys, kv_heads)] {
                for (index, head) in x.chunks_exact_mut(head_dim).enumerate() {
                    let (cos, sin) = rotation.at(index / heads);
                    rotate_half(head, cos, sin);
                }
            }
        }
        cache.push(&keys, &values);
        let shape = Shape {
            heads,
            scale: self.spec.scale,
            softcap: self.spec.softcap,
            window: self.spec.window,
            causal: span.causal,
        };
        let mut mixed = scratch.take(queries.len());
        match self.product {
            Product::Exact => {
                let task = Task { cache, queries: &queries, start: span.start, out: &mut mixed };
                attend(&mut [task], &shape, Pool::global());
            }
            Product::Emulated(dot) => {
                mix_emulated(&queries, span, cache, (kv_heads, head_dim), &shape, dot, &mut mixed);
            }
        }
        let out = self.output.forward(&mixed, scratch);
        [queries, keys, values, mixed].into_iter().for_each(|buffer| scratch.give(buffer));
        out
    }
}

/// The weighted sums of values with another inner product, one query at a time.
fn mix_emulated(
    queries: &[f32],
    span: Span,
    cache: &LayerCache,
    (kv_heads, head_dim): (usize, usize),
    shape: &Shape,
    dot: fn(&[f32], &[f32]) -> f32,
    mixed: &mut [f32],
) {
    let sharing = shape.heads / kv_heads;
    let len = span.start + span.count;
    Pool::global().split_chunks(mixed, head_dim, |index, out| {
        let kv_head = index % shape.heads / sharing;
        let query = &queries[index * head_dim..(index + 1) * head_dim];
        let visible = shape.visible(span.start + index / shape.heads, len);
        let mut key = vec![0.0; head_dim];
        let mut scores: Vec<f32> = visible
            .clone()
            .map(|position| {
                cache.key(position, kv_head, &mut key);
                dot(query, &key) * shape.scale
            })
            .collect();
        if let Some(cap) = shape.softcap {
            softcap(&mut scores, cap);
        }
        softmax(&mut scores);
        // Values column by column, `[head_dim][visible]`, as the inner product takes them.
        let mut columns = vec![0.0; scores.len() * head_dim];
        let mut value = vec![0.0; head_dim];
        for (index, position) in visible.enumerate() {
            cache.value(position, kv_head, &mut value);
            for (column, &value) in columns.chunks_exact_mut(scores.len()).zip(&value) {
                column[index] = value;
            }
        }
        for (out, column) in out.iter_mut().zip(columns.chunks_exact(scores.len())) {
            *out = dot(&scores, column);
        }
    });
}

/// Loads the query or key norms: none, one for all heads, or one a head.
fn qk_norms(weights: &Weights, name: &str, spec: Option<QkNorm>, heads: usize) -> Result<Vec<Norm>> {
    let Some(spec) = spec else { return Ok(Vec::new()) };
    let names: Vec<String> = match spec.scope {
        QkScope::Head | QkScope::Width => vec![name.to_string()],
        QkScope::EachHead => (0..heads).map(|head| format!("{name}.{head}")).collect(),
    };
    names.iter().filter_map(|name| Norm::load(weights, name, Some(spec.norm)).transpose()).collect()
}

/// Norms `[count, heads · head_dim]`; a single norm covers heads or whole rows by its own width.
fn apply_qk_norms(norms: &[Norm], x: &mut [f32], heads: usize, head_dim: usize) {
    match norms {
        [] => {}
        [norm] => norm.apply(x),
        norms => {
            for (index, head) in x.chunks_exact_mut(head_dim).enumerate() {
                norms[index % heads].apply(head);
            }
        }
    }
}
