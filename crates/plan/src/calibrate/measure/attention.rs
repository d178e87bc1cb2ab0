//! Attention over caches: of one query, and of a prompt's neighbouring positions.

use ounce_kernels::attention::{KvType, LayerCache, Shape, Task, attend};
use ounce_kernels::pool::Pool;

use super::super::{Attention, kv_name};
use super::{Best, Clock};

/// The types of caches.
pub(super) const TYPES: [KvType; 5] = KvType::ALL;

const KV_HEADS: usize = 4;
const HEAD_DIM: usize = 64;
/// Query heads that share one.
const SHARING: [usize; 3] = [1, 4, 8];
/// Positions before a single query.
const BEFORE: [usize; 4] = [32, 256, 1024, 2048];
/// Positions before those of a prompt, and how many they are.
const BEFORE_PROMPT: [usize; 3] = [0, 768, 1792];
const PROMPT: usize = 256;
/// Caches that together are larger than the processor's, so that each is read from memory.
const CACHES: usize = 16;

/// Seconds for an operation.
#[derive(Default)]
pub(super) struct Rates(Best<(KvType, usize, usize, usize)>);

impl Rates {
    pub fn measure(&mut self, kv: KvType, bursts: usize, pool: &Pool, clock: &mut Clock) {
        let width = KV_HEADS * HEAD_DIM;
        let positions = BEFORE[BEFORE.len() - 1] + 1;
        let values: Vec<f32> = (0..positions * width).map(|i| (i as f32 * 0.61).sin()).collect();
        let cache = |_| {
            let mut cache = LayerCache::new(KV_HEADS, HEAD_DIM, kv);
            cache.push(&values, &values);
            cache
        };
        let caches: Vec<LayerCache> = (0..CACHES).map(cache).collect();
        let most = SHARING[SHARING.len() - 1] * width * PROMPT;
        let queries: Vec<f32> = (0..most).map(|i| (i as f32 * 0.37).cos()).collect();
        let mut out = vec![0.0; most];
        for _ in 0..bursts {
            for sharing in SHARING {
                let heads = sharing * KV_HEADS;
                let shape = Shape { heads, scale: 0.125, softcap: None, window: None, causal: true };
                let mut run = |caches: &[LayerCache], start: usize, count: usize| {
                    let length = count * heads * HEAD_DIM;
                    let seconds = clock.time(|| {
                        for cache in caches {
                            let (queries, out) = (&queries[..length], &mut out[..length]);
                            attend(&mut [Task { cache, keys: cache, queries, start, out }], &shape, pool);
                        }
                    });
                    let seen: usize = (start..start + count).map(|at| at + 1).sum();
                    seconds / (caches.len() * 4 * heads * HEAD_DIM * seen) as f64
                };
                for before in BEFORE {
                    let seconds = run(&caches, before, 1);
                    self.0.least((kv, sharing, 1, before), seconds);
                }
                for before in BEFORE_PROMPT {
                    let seconds = run(&caches[..1], before, PROMPT);
                    self.0.least((kv, sharing, PROMPT, before), seconds);
                }
            }
        }
    }

    pub fn finish(self) -> Vec<Attention> {
        let row =
            |((kv, sharing, queries, positions), seconds): ((KvType, usize, usize, usize), f64)| Attention {
                kv: kv_name(kv).to_string(),
                sharing,
                queries,
                positions,
                operations_per_second: 1.0 / seconds,
            };
        self.0.0.into_iter().map(row).collect()
    }
}
