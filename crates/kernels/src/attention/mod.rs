//! Attention over a cache of keys and values, in f32: scores, softmax and weighted sums for several queries at once.
//!
//! Query heads that share a key/value head are computed together, and so are neighbouring positions of a prompt: up
//! to eight queries read the cache once. Keys are kept in panels of sixteen positions, `[panel][head][dim][16]`, so that
//! scores of sixteen positions are computed side by side; values row by row, `[position][head][padded dim]`.

use std::cell::RefCell;
use std::ops::Range;

use crate::pool::{Pool, SharedOut};
use crate::softmax::{softcap, softmax};
use crate::vector::{LANES, lane_sums};

/// Queries computed together.
const TILE: usize = 8;

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KvType {
    /// As they are computed.
    #[default]
    F32,
}

/// Keys and values of one layer.
#[derive(Debug, Clone)]
pub struct LayerCache {
    kv_heads: usize,
    head_dim: usize,
    len: usize,
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl LayerCache {
    /// An empty cache for `kv_heads` heads of `head_dim`; both 0 for a layer without attention.
    pub fn new(kv_heads: usize, head_dim: usize, kv_type: KvType) -> LayerCache {
        let KvType::F32 = kv_type;
        LayerCache { kv_heads, head_dim, len: 0, keys: Vec::new(), values: Vec::new() }
    }

    /// Positions held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no position is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes in use.
    pub fn bytes(&self) -> usize {
        (self.keys.len() + self.values.len()) * size_of::<f32>()
    }

    /// Appends positions: `keys` and `values` are `[positions, kv_heads · head_dim]`.
    pub fn push(&mut self, keys: &[f32], values: &[f32]) {
        let width = self.kv_heads * self.head_dim;
        for (keys, values) in keys.chunks_exact(width).zip(values.chunks_exact(width)) {
            let lane = self.len % LANES;
            if lane == 0 {
                self.keys.resize(self.keys.len() + width * LANES, 0.0);
            }
            let panel = self.len / LANES * width * LANES;
            for (index, &key) in keys.iter().enumerate() {
                self.keys[panel + index * LANES + lane] = key;
            }
            for head in values.chunks_exact(self.head_dim) {
                self.values.extend_from_slice(head);
                self.values.resize(self.values.len() + self.padding(), 0.0);
            }
            self.len += 1;
        }
    }

    /// Forgets all positions from `len` on.
    pub fn truncate(&mut self, len: usize) {
        if len < self.len {
            self.len = len;
            self.keys.truncate(len.div_ceil(LANES) * self.kv_heads * self.head_dim * LANES);
            self.values.truncate(len * self.value_stride());
        }
    }

    /// Copies the key of a position and head into `out`.
    pub fn key(&self, position: usize, head: usize, out: &mut [f32]) {
        let panel = self.panel(position / LANES, head);
        for (out, dim) in out.iter_mut().zip(panel.chunks_exact(LANES)) {
            *out = dim[position % LANES];
        }
    }

    /// Copies the value of a position and head into `out`.
    pub fn value(&self, position: usize, head: usize, out: &mut [f32]) {
        let at = position * self.value_stride() + head * (self.head_dim + self.padding());
        out.copy_from_slice(&self.values[at..at + self.head_dim]);
    }

    /// Zeros behind each head's value, so that sixteen lanes never reach past the end.
    fn padding(&self) -> usize {
        self.head_dim.next_multiple_of(LANES) - self.head_dim
    }

    fn value_stride(&self) -> usize {
        self.kv_heads * (self.head_dim + self.padding())
    }

    /// The keys of sixteen positions and one head: `[dim][16]`.
    fn panel(&self, panel: usize, head: usize) -> &[f32] {
        let size = self.head_dim * LANES;
        let at = (panel * self.kv_heads + head) * size;
        &self.keys[at..at + size]
    }
}

/// What attention computes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Query heads, a multiple of the key/value heads.
    pub heads: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// `cap · tanh(score / cap)` on the scores.
    pub softcap: Option<f32>,
    /// Positions that a query reaches, its own included.
    pub window: Option<usize>,
    /// Whether a query sees only its own position and what is before it.
    pub causal: bool,
}

impl Shape {
    /// The positions that a query at `position` attends to when `len` are there. Without causality a window
    /// reaches to both sides.
    pub fn visible(&self, position: usize, len: usize) -> Range<usize> {
        let reach = self.window.unwrap_or(len).max(1) - 1;
        let end = if self.causal { position + 1 } else { (position + reach).saturating_add(1).min(len) };
        position.saturating_sub(reach)..end
    }
}

/// One sequence of a batch.
#[derive(Debug)]
pub struct Task<'a> {
    /// Keys and values of the sequence, those of the queries' own positions included.
    pub cache: &'a LayerCache,
    /// Queries of neighbouring positions, `[count, heads · head_dim]`.
    pub queries: &'a [f32],
    /// Position of the first query.
    pub start: usize,
    /// Takes the weighted sums of values, of the queries' shape.
    pub out: &'a mut [f32],
}

/// Attends from the queries of every sequence to what its cache holds. All sequences are one piece of work for the
/// pool; what one gets does not depend on the others, nor on the number of threads.
///
/// # Panics
/// If a task's output is not as long as its queries, or its cache lacks a query's position.
pub fn attend(tasks: &mut [Task<'_>], shape: &Shape, pool: &Pool) {
    for task in tasks {
        attend_one(task, shape, pool);
    }
}

fn attend_one(task: &mut Task<'_>, shape: &Shape, pool: &Pool) {
    let Task { cache, queries, start, out } = task;
    let (cache, queries, start): (&LayerCache, &[f32], usize) = (cache, queries, *start);
    let width = shape.heads * cache.head_dim;
    let count = queries.len() / width;
    assert_eq!(queries.len(), out.len(), "as many results as queries");
    assert!(start + count <= cache.len, "the cache holds the queries' own positions");
    let sharing = shape.heads / cache.kv_heads;
    let tiles = (count * sharing).div_ceil(TILE);
    let out = SharedOut::new(out);
    let threads = pool.threads();
    // Later tiles see more of the text, so threads take turns.
    pool.run(&|thread| {
        for task in (thread..cache.kv_heads * tiles).step_by(threads) {
            let (kv_head, tile) = (task / tiles, task % tiles);
            let members = tile * TILE..((tile + 1) * TILE).min(count * sharing);
            let places: Vec<Query> = members
                .map(|member| {
                    let (index, head) = (member / sharing, kv_head * sharing + member % sharing);
                    let at = index * width + head * cache.head_dim;
                    Query { at, visible: shape.visible(start + index, cache.len) }
                })
                .collect();
            attend_tile(queries, cache, shape, kv_head, &places, &out);
        }
    });
}

/// One query: where its values begin, and what it sees.
struct Query {
    at: usize,
    visible: Range<usize>,
}

fn attend_tile(
    queries: &[f32],
    cache: &LayerCache,
    shape: &Shape,
    kv_head: usize,
    tile: &[Query],
    out: &SharedOut<'_>,
) {
    macro_rules! tokens {
        ($($count:literal)*) => {
            match tile.len() {
                $($count => attend_queries::<$count>(queries, cache, shape, kv_head, tile, out),)*
                _ => {}
            }
        };
    }
    tokens!(1 2 3 4 5 6 7 8);
}

thread_local! {
    /// Scores of a tile; kept, so that a step allocates nothing.
    static SCORES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

fn attend_queries<const T: usize>(
    queries: &[f32],
    cache: &LayerCache,
    shape: &Shape,
    kv_head: usize,
    tile: &[Query],
    out: &SharedOut<'_>,
) {
    let dim = cache.head_dim;
    let vectors: [&[f32]; T] = std::array::from_fn(|t| &queries[tile[t].at..tile[t].at + dim]);
    let first = tile.iter().map(|query| query.visible.start).min().unwrap_or(0) / LANES;
    let last = tile.iter().map(|query| query.visible.end).max().unwrap_or(0).div_ceil(LANES);
    let (base, length) = (first * LANES, (last - first) * LANES);
    SCORES.with_borrow_mut(|scores| {
        scores.resize((length * T).max(scores.len()), 0.0);
        let mut rows = scores.chunks_exact_mut(length.max(1));
        let mut rows: [&mut [f32]; T] = std::array::from_fn(|_| rows.next().unwrap_or_default());
        for panel in first..last {
            let sums = lane_sums::<T>(cache.panel(panel, kv_head), LANES, vectors);
            for (row, sums) in rows.iter_mut().zip(sums) {
                let at = (panel - first) * LANES;
                for (score, sum) in row[at..at + LANES].iter_mut().zip(sums) {
                    *score = sum * shape.scale;
                }
            }
        }
        for (row, query) in rows.iter_mut().zip(tile) {
            let (from, to) = (query.visible.start - base, query.visible.end - base);
            if let Some(cap) = shape.softcap {
                softcap(&mut row[from..to], cap);
            }
            softmax(&mut row[from..to]);
            row[..from].fill(0.0);
            row[to..].fill(0.0);
        }
        let end = (base + length).min(cache.len);
        let (stride, padded) = (cache.value_stride(), dim + cache.padding());
        let inputs: [&[f32]; T] = std::array::from_fn(|t| &rows[t][..end - base]);
        for lanes in (0..dim).step_by(LANES) {
            let values = &cache.values[base * stride + kv_head * padded + lanes..];
            let sums = lane_sums::<T>(values, stride, inputs);
            for (query, sums) in tile.iter().zip(sums) {
                // SAFETY: each query is one task's own, and each task one thread's.
                unsafe { out.write(query.at + lanes, &sums[..LANES.min(dim - lanes)]) };
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(count: usize, seed: f32) -> Vec<f32> {
        (0..count).map(|i| ((i as f32 + seed) * 12.9898).sin() * 2.0).collect()
    }

    /// The formula, one query at a time, in f64.
    fn brute_force(
        queries: &[f32],
        start: usize,
        keys: &[f32],
        values: &[f32],
        kv: (usize, usize),
        shape: &Shape,
    ) -> Vec<f64> {
        let (kv_heads, dim) = kv;
        let len = keys.len() / (kv_heads * dim);
        let mut out = Vec::new();
        for (index, query) in queries.chunks_exact(dim).enumerate() {
            let (position, head) =
                (start + index / shape.heads, index % shape.heads * kv_heads / shape.heads);
            let at = |position: usize| (position * kv_heads + head) * dim;
            let visible = shape.visible(position, len);
            let scores: Vec<f64> = visible
                .clone()
                .map(|position| {
                    let key = &keys[at(position)..at(position) + dim];
                    let dot: f64 = query.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
                    let score = dot * f64::from(shape.scale);
                    shape.softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh()).exp()
                })
                .collect();
            let sum: f64 = scores.iter().sum();
            for d in 0..dim {
                let mixed: f64 = visible
                    .clone()
                    .zip(&scores)
                    .map(|(position, score)| f64::from(values[at(position) + d]) * score)
                    .sum();
                out.push(mixed / sum);
            }
        }
        out
    }

    #[test]
    fn results_equal_the_formula_for_every_shape() {
        for (heads, kv_heads, dim, len, count) in
            [(4, 2, 8, 40, 40), (9, 3, 64, 33, 1), (1, 1, 20, 1, 1), (8, 8, 16, 70, 5), (6, 1, 24, 100, 13)]
        {
            for (window, causal, softcap) in
                [(None, true, None), (Some(7), true, None), (None, false, Some(5.0)), (Some(3), false, None)]
            {
                let shape = Shape { heads, scale: 0.3, softcap, window, causal };
                let (keys, values) = (noise(len * kv_heads * dim, 1.0), noise(len * kv_heads * dim, 2.0));
                let mut cache = LayerCache::new(kv_heads, dim, KvType::F32);
                cache.push(&keys, &values);
                let queries = noise(count * heads * dim, 3.0);
                let exact = brute_force(&queries, len - count, &keys, &values, (kv_heads, dim), &shape);
                for threads in [1, 3] {
                    let mut out = vec![f32::NAN; queries.len()];
                    attend(
                        &mut [Task { cache: &cache, queries: &queries, start: len - count, out: &mut out }],
                        &shape,
                        &Pool::new(threads),
                    );
                    for (found, exact) in out.iter().zip(&exact) {
                        assert!(
                            (f64::from(*found) - exact).abs() < 1e-5,
                            "{heads}/{kv_heads}x{dim} {shape:?}: {found} {exact}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_query_alone_gives_what_it_gives_among_others() {
        let shape = Shape { heads: 6, scale: 0.2, softcap: None, window: Some(20), causal: true };
        let (mut cache, queries) = (LayerCache::new(2, 32, KvType::F32), noise(50 * 6 * 32, 3.0));
        let (keys, values) = (noise(50 * 64, 1.0), noise(50 * 64, 2.0));
        cache.push(&keys, &values);
        let pool = Pool::new(2);
        let mut together = vec![0.0; queries.len()];
        attend(&mut [Task { cache: &cache, queries: &queries, start: 0, out: &mut together }], &shape, &pool);
        for position in (0..50).rev() {
            cache.truncate(position + 1);
            let range = position * 192..(position + 1) * 192;
            let mut alone = vec![0.0; 192];
            attend(
                &mut [Task {
                    cache: &cache,
                    queries: &queries[range.clone()],
                    start: position,
                    out: &mut alone,
                }],
                &shape,
                &pool,
            );
            let largest = alone.iter().zip(&together[range]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(largest < 1e-6, "position {position}: {largest}");
        }
    }

    #[test]
    fn truncating_and_growing_again_gives_the_same_cache() {
        let (keys, values) = (noise(40 * 20, 1.0), noise(40 * 20, 2.0));
        let mut cache = LayerCache::new(1, 20, KvType::F32);
        cache.push(&keys, &values);
        cache.truncate(21);
        cache.push(&keys[21 * 20..], &values[21 * 20..]);
        let mut key = [0.0; 20];
        for position in 0..40 {
            cache.key(position, 0, &mut key);
            assert_eq!(key, keys[position * 20..][..20]);
            cache.value(position, 0, &mut key);
            assert_eq!(key, values[position * 20..][..20]);
        }
    }

    #[test]
    fn windows_and_causality_bound_what_a_position_sees() {
        let shape = |window, causal| Shape { heads: 1, scale: 1.0, softcap: None, window, causal };
        assert_eq!(shape(None, true).visible(5, 8), 0..6);
        assert_eq!(shape(Some(2), true).visible(5, 8), 4..6);
        assert_eq!(shape(None, false).visible(5, 8), 0..8);
        assert_eq!(shape(Some(16), true).visible(0, 1), 0..1);
        assert_eq!(shape(Some(2), false).visible(4, 8), 3..6);
    }
}
