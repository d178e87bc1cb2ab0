//! Throughput of attention: `cargo bench -p ounce-kernels --bench attention`.
//!
//! One query position over a long cache is bound by memory: the figure to read is bytes of keys and values a
//! second. A prompt is bound by arithmetic: the figure is elements a second, where an element is one multiply-add
//! of a query that sees the position, two floating-point operations.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ounce_kernels::attention::{KvType, LayerCache, Shape, Task, attend};
use ounce_kernels::pool::Pool;

const TYPES: [KvType; 5] = KvType::ALL;

/// Query heads, key/value heads, dims.
const SHAPES: [(usize, usize, usize); 3] = [(9, 3, 64), (32, 8, 64), (32, 8, 128)];

fn noise(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919) % 1009) as f32 / 504.0 - 1.0).collect()
}

fn filled((_, kv_heads, dim): (usize, usize, usize), kv_type: KvType, len: usize) -> LayerCache {
    let mut cache = LayerCache::new(kv_heads, dim, kv_type);
    cache.reserve(len);
    let rows = noise(256 * kv_heads * dim);
    for begun in (0..len).step_by(256) {
        let rows = &rows[..(len - begun).min(256) * kv_heads * dim];
        cache.push(rows, rows);
    }
    cache
}

fn shape((heads, _, dim): (usize, usize, usize)) -> Shape {
    Shape { heads, scale: 1.0 / (dim as f32).sqrt(), softcap: None, window: None, causal: true }
}

fn name((heads, kv_heads, dim): (usize, usize, usize)) -> String {
    format!("{heads}/{kv_heads}x{dim}")
}

/// One position at the end of a cache, and eight sequences of a step at once.
fn decode(criterion: &mut Criterion) {
    let pool = Pool::global();
    for sizes @ (heads, _, dim) in SHAPES {
        let mut group = criterion.benchmark_group(format!("attention decode {}", name(sizes)));
        for kv_type in TYPES {
            for (sequences, len) in [(1, 128), (1, 1024), (1, 8192), (1, 32768), (8, 1024)] {
                let caches = vec![filled(sizes, kv_type, len); sequences];
                let queries = noise(heads * dim);
                let mut out = vec![0.0; sequences * heads * dim];
                group.throughput(Throughput::Bytes((sequences * caches[0].bytes()) as u64));
                let id = BenchmarkId::new(format!("{kv_type:?}"), format!("{sequences}x{len}"));
                group.bench_function(id, |bench| {
                    bench.iter(|| {
                        let mut tasks: Vec<Task> = out
                            .chunks_exact_mut(heads * dim)
                            .zip(&caches)
                            .map(|(out, cache)| Task {
                                cache,
                                keys: cache,
                                queries: &queries,
                                start: len - 1,
                                out,
                            })
                            .collect();
                        attend(&mut tasks, &shape(sizes), pool);
                    });
                });
            }
        }
        group.finish();
    }
}

/// A prompt of 512 positions.
fn prefill(criterion: &mut Criterion) {
    const LEN: usize = 512;
    let pool = Pool::global();
    for sizes @ (heads, _, dim) in SHAPES {
        let mut group = criterion.benchmark_group(format!("attention prefill {}", name(sizes)));
        for kv_type in TYPES {
            let cache = filled(sizes, kv_type, LEN);
            let queries = noise(LEN * heads * dim);
            let mut out = vec![0.0; LEN * heads * dim];
            group.throughput(Throughput::Elements((LEN * (LEN + 1) / 2 * heads * dim * 2) as u64));
            group.bench_function(BenchmarkId::new(format!("{kv_type:?}"), LEN), |bench| {
                bench.iter(|| {
                    let task =
                        Task { cache: &cache, keys: &cache, queries: &queries, start: 0, out: &mut out };
                    attend(&mut [task], &shape(sizes), pool);
                });
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(1));
    targets = decode, prefill
}
criterion_main!(benches);
