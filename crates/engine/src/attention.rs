//! Attention of one layer: projections, query/key norms, rotation, scores, weighted sum, output.

use ounce_kernels::attention::{LayerCache, Shape, Task, attend};
use ounce_kernels::pool::Pool;
use ounce_kernels::rope::rotate_heads;
use ounce_kernels::softmax::{softcap, softmax};
use ounce_model::Weights;
use ounce_model::spec::{Attention as AttentionSpec, QkNorm, QkScope};
use smallvec::SmallVec;

use crate::arithmetic::{Mode, Product};
use crate::batch::{Part, Span};
use crate::error::Result;
use crate::linear::{Linear, forward_all};
use crate::norm::{Norm, Norms, for_indexed};
use crate::profile::Operator;
use crate::rotation::Rotation;
use crate::scratch::Scratch;

/// The attention half of a layer.
#[derive(Debug)]
pub(crate) struct Attention {
    pub spec: AttentionSpec,
    pub norms: Norms,
    /// None where the layer copies another's attention.
    query_key: Option<[Linear; 2]>,
    value: Linear,
    output: Linear,
    /// Whether a layer behind it copies its attention.
    copied: bool,
    query_norms: Vec<Norm>,
    key_norms: Vec<Norm>,
    product: Product,
}

impl Attention {
    /// `copied` says whether a layer behind copies its attention.
    pub(crate) fn load(
        weights: &Weights,
        name: &str,
        spec: &AttentionSpec,
        copied: bool,
        mode: Mode,
    ) -> Result<Attention> {
        let linear = |part: &str| Linear::load(weights, &format!("{name}.{part}"), mode);
        let own = spec.copies.is_none();
        let qk_norm = spec.qk_norm.filter(|_| own);
        let norms = |part: &str, heads| qk_norms(weights, &format!("{name}.{part}"), qk_norm, heads);
        Ok(Attention {
            norms: Norms::load(weights, name, &spec.norms)?,
            query_key: if own { Some([linear("query")?, linear("key")?]) } else { None },
            copied,
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
        let own = self.query_key.iter().flatten().chain([&self.value, &self.output]);
        own.map(Linear::packed_bytes).sum()
    }

    /// Attends from the vectors `x` of a batch (already normed) to what the sequences' caches hold and to themselves;
    /// appends their keys and values to the caches of layer `index`. Gives as many vectors of the hidden size.
    pub(crate) fn forward(
        &self,
        x: &[f32],
        index: usize,
        batch: &mut [Part<'_>],
        rotation: Option<&Rotation>,
        scratch: &mut Scratch,
    ) -> Vec<f32> {
        let mixed = self.mixed(x, index, batch, rotation, scratch);
        let out = self.project(&mixed, scratch);
        scratch.give(mixed);
        out
    }

    /// [`Attention::forward`] as far as the weighted sums of values, before their projection.
    pub(crate) fn mixed(
        &self,
        x: &[f32],
        index: usize,
        batch: &mut [Part<'_>],
        rotation: Option<&Rotation>,
        scratch: &mut Scratch,
    ) -> Vec<f32> {
        let (heads, kv_heads, head_dim) = (self.spec.heads, self.spec.kv_heads, self.spec.head_dim);
        let Some([query, key]) = &self.query_key else { return self.echoed(x, index, batch, scratch) };
        let projections = [query, key, &self.value];
        let [mut queries, mut keys, values] = forward_all(projections, x, Operator::QueryKeyValue, scratch);

        let start = scratch.meter.start();
        apply_qk_norms(&self.query_norms, &mut queries, heads, head_dim);
        apply_qk_norms(&self.key_norms, &mut keys, kv_heads, head_dim);
        if let Some(rotation) = rotation {
            for (x, heads) in [(&mut queries, heads), (&mut keys, kv_heads)] {
                for_indexed(x, heads * head_dim, |index, x| {
                    let (cos, sin) = rotation.at(index);
                    rotate_heads(x, head_dim, cos, sin);
                });
            }
        }
        scratch.meter.stop(start, Operator::Rotation, || (0, 3 * (queries.len() + keys.len())));

        let start = scratch.meter.start();
        push(batch, index, kv_heads * head_dim, &keys, &values);
        scratch.meter.stop(start, Operator::CacheWrite, || (0, 0));

        let start = scratch.meter.start();
        let mut mixed = scratch.take(queries.len());
        if !scratch.enough {
            self.mix(&queries, index, batch, &mut mixed);
            if !scratch.beside.is_empty() {
                scratch.beside.look(index, &self.spec, &queries, &mut mixed);
            }
        }
        scratch.meter.stop(start, Operator::Attention, || self.volume(index, batch));
        if self.copied {
            scratch.echo.clear();
            scratch.echo.extend_from_slice(&queries);
        }
        [queries, keys, values].into_iter().for_each(|buffer| scratch.give(buffer));
        mixed
    }

    /// [`Attention::mixed`] of a layer that copies another's attention: its own values, by the queries and keys of the other. The matrix itself
    /// is never kept, so its scores are computed again; products, norms and rotation of queries and keys, and their cache, are what is saved.
    fn echoed(&self, x: &[f32], index: usize, batch: &mut [Part<'_>], scratch: &mut Scratch) -> Vec<f32> {
        let [values] = forward_all([&self.value], x, Operator::QueryKeyValue, scratch);
        let start = scratch.meter.start();
        push(batch, index, self.spec.kv_heads * self.spec.head_dim, &[], &values);
        scratch.meter.stop(start, Operator::CacheWrite, || (0, 0));
        let start = scratch.meter.start();
        let queries = std::mem::take(&mut scratch.echo);
        let mut mixed = scratch.take(queries.len());
        if !scratch.enough {
            self.mix(&queries, index, batch, &mut mixed);
            if !scratch.beside.is_empty() {
                scratch.beside.look(index, &self.spec, &queries, &mut mixed);
            }
        }
        scratch.echo = queries;
        scratch.meter.stop(start, Operator::Attention, || self.volume(index, batch));
        scratch.give(values);
        mixed
    }

    /// What follows [`Attention::mixed`].
    pub(crate) fn project(&self, mixed: &[f32], scratch: &mut Scratch) -> Vec<f32> {
        self.output.forward(mixed, Operator::Output, scratch)
    }

    /// The weighted sums of values for every query.
    fn mix(&self, queries: &[f32], index: usize, batch: &[Part<'_>], mixed: &mut [f32]) {
        let width = self.spec.heads * self.spec.head_dim;
        let mut shape = Shape {
            heads: self.spec.heads,
            scale: self.spec.scale,
            softcap: self.spec.softcap,
            window: self.spec.window,
            causal: true,
        };
        let (mut queries, mut mixed) = (queries, mixed);
        let mut tasks: SmallVec<[Task<'_>; 4]> = SmallVec::new();
        for part in batch {
            shape.causal = part.span.causal;
            let (own, rest) = queries.split_at(part.span.count * width);
            let (out, more) = mixed.split_at_mut(own.len());
            (queries, mixed) = (rest, more);
            let cache = &part.cache.layers[index];
            let keys = &part.cache.layers[self.spec.copies.unwrap_or(index)];
            match self.product {
                Product::Exact => tasks.push(Task { cache, keys, queries: own, start: part.span.start, out }),
                Product::Emulated(dot) => {
                    let kv = (self.spec.kv_heads, self.spec.head_dim);
                    mix_emulated(own, part.span, [keys, cache], kv, &shape, dot, out);
                }
            }
        }
        attend(&mut tasks, &shape, Pool::global());
    }

    /// Bytes of cache that attention reads at least, and its operations.
    fn volume(&self, index: usize, batch: &[Part<'_>]) -> (usize, usize) {
        let width = self.spec.heads * self.spec.head_dim;
        let reach = self.spec.window.unwrap_or(usize::MAX);
        let operations = batch.iter().map(|part| {
            let seen = |position: usize| {
                if part.span.causal { (position + 1).min(reach) } else { part.span.count }
            };
            let range = part.span.start..part.span.start + part.span.count;
            4 * width * range.map(seen).sum::<usize>()
        });
        (batch.iter().map(|part| part.cache.layers[index].bytes()).sum(), operations.sum())
    }
}

/// Appends the keys and values of each sequence, `width` numbers a position, to its cache of a layer; no keys where it holds values
/// only. Threads share the sequences of a batch.
fn push(batch: &mut [Part<'_>], index: usize, width: usize, keys: &[f32], values: &[f32]) {
    let (mut keys, mut values) = (keys, values);
    let mut take = |count: usize| {
        let (own_keys, more_keys) = keys.split_at(count.min(keys.len()));
        let (own_values, more_values) = values.split_at(count);
        (keys, values) = (more_keys, more_values);
        (own_keys, own_values)
    };
    /// A sequence's cache, and the keys and values that it gets.
    type New<'n> = (&'n mut LayerCache, &'n [f32], &'n [f32]);
    let news = batch.iter_mut().map(|part| {
        let (keys, values) = take(part.span.count * width);
        (&mut part.cache.layers[index], keys, values)
    });
    let mut news: SmallVec<[New<'_>; 16]> = news.collect();
    let pool = if news.len() > 1 { Pool::global() } else { Pool::single() };
    pool.split_chunks(&mut news, 1, |_, news| {
        for (cache, keys, values) in news {
            cache.push(keys, values);
        }
    });
}

/// The weighted sums of values with another inner product, one query at a time.
fn mix_emulated(
    queries: &[f32],
    span: Span,
    [keys, values]: [&LayerCache; 2],
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
                keys.key(position, kv_head, &mut key);
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
            values.value(position, kv_head, &mut value);
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
