//! Attention of one layer: projections, query/key norms, rotation, scores, weighted sum, output.

use ounce_kernels::matmul::add_scaled;
use ounce_kernels::rope::rotate_half;
use ounce_kernels::softmax::{softcap, softmax};
use ounce_model::Weights;
use ounce_model::rope::Rope;
use ounce_model::spec::{Attention as AttentionSpec, QkNorm, QkScope};
use rayon::prelude::*;

use crate::arithmetic::{Arithmetic, Product};
use crate::cache::LayerCache;
use crate::error::Result;
use crate::linear::Linear;
use crate::norm::{Norm, Norms};

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
    pub(crate) fn load(weights: &Weights, name: &str, spec: &AttentionSpec) -> Result<Attention> {
        let linear = |part: &str| Linear::load(weights, &format!("{name}.{part}"));
        let norms = |part: &str, heads| qk_norms(weights, &format!("{name}.{part}"), spec.qk_norm, heads);
        Ok(Attention {
            norms: Norms::load(weights, name, &spec.norms)?,
            query: linear("query")?,
            key: linear("key")?,
            value: linear("value")?,
            output: linear("output")?,
            query_norms: norms("query_norm", spec.heads)?,
            key_norms: norms("key_norm", spec.kv_heads)?,
            spec: spec.clone(),
        })
    }

    /// Attends from `span.count` vectors `x` (`[count, hidden]`, already normed) to what `cache` holds and to
    /// themselves; appends their keys and values to the cache. Gives `[count, hidden]`.
    pub(crate) fn forward(
        &self,
        x: &[f32],
        span: Span,
        cache: &mut LayerCache,
        math: Arithmetic,
    ) -> Vec<f32> {
        let head_dim = self.spec.head_dim;
        let mut queries = self.query.forward(x, math.linear);
        let mut keys = self.key.forward(x, math.linear);
        apply_qk_norms(&self.query_norms, &mut queries, self.spec.heads, head_dim);
        apply_qk_norms(&self.key_norms, &mut keys, self.spec.kv_heads, head_dim);
        cache.values.extend(self.value.forward(x, math.linear));
        let length = span.start + span.count;
        if let Some(rope) = &self.spec.rope {
            rotate(rope, &mut queries, self.spec.query_width(), head_dim, span.start, length);
            rotate(rope, &mut keys, self.spec.kv_width(), head_dim, span.start, length);
        }
        cache.keys.extend_from_slice(&keys);
        let mixed = self.mix(&queries, &cache.keys, &cache.values, span, math.attention);
        self.output.forward(&mixed, math.linear)
    }

    /// The weighted sums of values: `[count, heads · head_dim]`.
    fn mix(&self, queries: &[f32], keys: &[f32], values: &[f32], span: Span, product: Product) -> Vec<f32> {
        let head_dim = self.spec.head_dim;
        let kv_width = self.spec.kv_width();
        let length = span.start + span.count;
        let sharing = self.spec.heads / self.spec.kv_heads;
        let mut mixed = vec![0.0f32; queries.len()];
        mixed.par_chunks_mut(head_dim).zip(queries.par_chunks(head_dim)).enumerate().for_each_init(
            Vec::new,
            |scores: &mut Vec<f32>, (index, (out, query))| {
                let position = span.start + index / self.spec.heads;
                let offset = index % self.spec.heads / sharing * head_dim;
                let seen = visible(position, length, self.spec.window, span.causal);
                let at =
                    |position: usize| position * kv_width + offset..position * kv_width + offset + head_dim;
                scores.clear();
                scores.extend(
                    seen.clone().map(|position| product.dot(query, &keys[at(position)]) * self.spec.scale),
                );
                if let Some(cap) = self.spec.softcap {
                    softcap(scores, cap);
                }
                softmax(scores);
                match product {
                    Product::Exact => {
                        for (position, &score) in seen.zip(scores.iter()) {
                            add_scaled(score, &values[at(position)], out);
                        }
                    }
                    Product::Emulated(dot) => {
                        let mut column = Vec::with_capacity(scores.len());
                        for (dim, out) in out.iter_mut().enumerate() {
                            column.clear();
                            column.extend(seen.clone().map(|position| values[at(position).start + dim]));
                            *out = dot(scores, &column);
                        }
                    }
                }
            },
        );
        mixed
    }
}

/// The positions that `position` attends to in a sequence of `length`. A window counts the position itself;
/// without causality it reaches to both sides.
fn visible(position: usize, length: usize, window: Option<usize>, causal: bool) -> std::ops::Range<usize> {
    let reach = window.unwrap_or(length).max(1) - 1;
    let end = if causal { position + 1 } else { (position + reach).saturating_add(1).min(length) };
    position.saturating_sub(reach)..end
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

/// Rotates the heads of consecutive positions from `start` on, `x` is `[positions, width]`, with the
/// frequencies of a sequence of `length`.
fn rotate(rope: &Rope, x: &mut [f32], width: usize, head_dim: usize, start: usize, length: usize) {
    let frequencies = rope.frequencies(length);
    x.par_chunks_mut(width).enumerate().for_each(|(index, heads)| {
        let position = (start + index) as f32;
        let angles = frequencies.radians.iter().map(|radians| position * radians);
        let (cos, sin): (Vec<f32>, Vec<f32>) = angles
            .map(|angle| (angle.cos() * frequencies.amplitude, angle.sin() * frequencies.amplitude))
            .unzip();
        for head in heads.chunks_exact_mut(head_dim) {
            rotate_half(head, &cos, &sin);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::visible;

    #[test]
    fn windows_and_causality_bound_what_a_position_sees() {
        assert_eq!(visible(5, 8, None, true), 0..6);
        assert_eq!(visible(5, 8, Some(2), true), 4..6);
        assert_eq!(visible(5, 8, None, false), 0..8);
        assert_eq!(visible(0, 1, Some(16), true), 0..1);
        assert_eq!(visible(4, 8, Some(2), false), 3..6);
    }
}
