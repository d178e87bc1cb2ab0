//! Products of packed matrices with vectors.

use ounce_kernels::DType;
use ounce_kernels::matmul::dot;
use ounce_kernels::packed::{Activations, PackedMatrix};
use ounce_kernels::pool::Pool;
use ounce_model::machine::{Memory, host};

use super::super::{Level, Preparation, Product, Stream};
use super::{Best, Clock};
use crate::Result;
use crate::shapes::fill;

/// Rows and columns of the matrices.
const SIDE: usize = 2048;
/// Vectors at once.
const VECTORS: [usize; 7] = [1, 2, 4, 8, 16, 64, 256];
/// Vectors at once whose preparation is timed.
const PREPARED: [usize; 3] = [1, 16, 256];
/// Bytes that are read from memory and not from caches, at least and at most. Much more than a cache holds: of three times as
/// much, read in turn, a third-level cache was seen to keep enough to double the rate.
const FAR: (u64, u64) = (512 << 20, 1 << 30);
/// Share of the free memory that they may take.
const OF_FREE: u64 = 8;
/// Bytes of weights that a burst reads, about, and multiplications that it does at most.
const BURST_BYTES: usize = 16 << 20;
const BURST_OPERATIONS: usize = 2 << 30;
/// Calls of a burst that is about the calls.
const CALLS: usize = 200;
/// A core's second-level cache where the system does not tell.
const USUAL_L2: u64 = 1 << 20;

/// What was timed so far; seconds.
pub(super) struct Rates {
    far_bytes: u64,
    near_bytes: u64,
    calls: f64,
    /// Seconds of a call.
    products: Best<(DType, bool, usize, Level)>,
    /// Operations of a call.
    operations: Best<(DType, bool, usize, Level)>,
    /// Seconds for a value.
    preparations: Best<(DType, usize)>,
    /// Seconds of reading so many bytes in so many calls.
    streams: Best<(u64, usize)>,
}

impl Rates {
    pub fn new(pool: &Pool, clock: &mut Clock) -> Rates {
        let caches = host::caches();
        let largest = caches.iter().map(|it| it.bytes).max().unwrap_or(0);
        let second = caches.iter().filter(|it| it.level == 2).map(|it| it.bytes / it.shared_by.max(1) as u64);
        let free = Memory::now().map_or(u64::MAX, |memory| memory.available_bytes);
        let near = second.max().unwrap_or(USUAL_L2) / 2 * pool.threads() as u64;
        let mut rates = Rates {
            far_bytes: (16 * largest).clamp(FAR.0, FAR.1).min(free / OF_FREE).max(1),
            near_bytes: near,
            calls: f64::INFINITY,
            products: Best::default(),
            operations: Best::default(),
            preparations: Best::default(),
            streams: Best::default(),
        };
        rates.time_stored(pool, clock);
        rates
    }

    pub fn measure(&mut self, dtype: DType, bursts: usize, pool: &Pool, clock: &mut Clock) -> Result<()> {
        let noise: Vec<f32> = (0..1 << 14).map(|i| (i as f32 * 12.9898).sin() * 0.05).collect();
        let matrix = |rows: usize, columns: usize| -> Result<PackedMatrix> {
            let bytes = fill(dtype, &[rows, columns], &noise, 1)?;
            Ok(PackedMatrix::pack(dtype, &bytes, rows, columns)?)
        };
        let bytes = PackedMatrix::bytes_for(dtype, SIDE, SIDE).unwrap_or(1).max(1);
        let count = (self.far_bytes as usize).div_ceil(bytes);
        let far = (0..count).map(|_| matrix(SIDE, SIDE)).collect::<Result<Vec<_>>>()?;
        let near_rows = (self.near_bytes as usize * SIDE / bytes).next_multiple_of(16 * pool.threads());
        let near = matrix(near_rows, SIDE)?;
        let tiny = matrix(16 * pool.threads(), 256)?;
        let x: Vec<f32> = (0..256 * SIDE).map(|i| (i as f32 * 0.37).sin()).collect();
        let mut activations = Activations::new();
        let mut out = vec![0.0; 256 * near_rows.max(SIDE)];
        let mut next = 0;
        for _ in 0..bursts {
            tiny.prepare(&x[..256], pool, &mut activations);
            let seconds = clock.time(|| {
                for _ in 0..CALLS {
                    tiny.multiply(&activations, pool, &mut out[..tiny.rows()]);
                }
            });
            self.calls = self.calls.min(seconds / CALLS as f64);
            for vectors in VECTORS {
                let x = &x[..vectors * SIDE];
                if PREPARED.contains(&vectors) {
                    let times = (256 / vectors).max(1);
                    let seconds = clock.time(|| {
                        (0..times).for_each(|_| near.prepare(x, pool, &mut activations));
                    });
                    self.preparations.least((dtype, vectors), seconds / (times * x.len()) as f64);
                }
                near.prepare(x, pool, &mut activations);
                let operations = 2 * vectors * SIDE * SIDE;
                let some = (BURST_BYTES / bytes).min(BURST_OPERATIONS / operations).clamp(1, count);
                let seconds = clock.time(|| {
                    for _ in 0..some {
                        far[next % count].multiply(&activations, pool, &mut out[..vectors * SIDE]);
                        next += 1;
                    }
                });
                let key = (dtype, true, vectors, Level::Memory);
                self.products.least(key, seconds / some as f64);
                self.operations.least(key, operations as f64);

                let operations = 2 * vectors * near_rows * SIDE;
                let times = (BURST_OPERATIONS / 16 / operations).clamp(1, 64);
                let out = &mut out[..vectors * near_rows];
                near.multiply(&activations, pool, out);
                let seconds = clock.time(|| {
                    (0..times).for_each(|_| near.multiply(&activations, pool, out));
                });
                let key = (dtype, true, vectors, Level::Cache);
                self.products.least(key, seconds / times as f64);
                self.operations.least(key, operations as f64);
            }
            if dtype == DType::Q8_0 {
                self.time_streams(&near, &far, &x[..SIDE], pool, clock);
            }
        }
        Ok(())
    }

    /// How fast sets of matrices are read that grow out of the caches.
    fn time_streams(
        &mut self,
        near: &PackedMatrix,
        far: &[PackedMatrix],
        x: &[f32],
        pool: &Pool,
        clock: &mut Clock,
    ) {
        let mut activations = Activations::new();
        near.prepare(x, pool, &mut activations);
        let mut out = vec![0.0; near.rows().max(SIDE)];
        let sets = [1usize, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, far.len()];
        let sets = sets.into_iter().filter(|&count| count <= far.len()).map(|count| &far[..count]);
        for set in std::iter::once(std::slice::from_ref(near)).chain(sets) {
            let bytes: usize = set.iter().map(PackedMatrix::bytes).sum();
            let mut read = || {
                for matrix in set {
                    matrix.multiply(&activations, pool, &mut out[..matrix.rows()]);
                }
            };
            read();
            let seconds = clock.time(read);
            self.streams.least((bytes as u64, set.len()), seconds);
        }
    }

    /// Products with rows that stay as they are stored: routers, and formats without a kernel.
    fn time_stored(&mut self, pool: &Pool, clock: &mut Clock) {
        let rows: Vec<f32> = (0..64 * SIDE).map(|i| (i as f32 * 0.7).cos()).collect();
        let mut sums = vec![0.0f32; 64];
        for _ in 0..8 {
            let seconds = clock.time(|| {
                pool.split_chunks(&mut sums, 16, |task, sums| {
                    for (sum, row) in sums.iter_mut().zip(rows[task * 16 * SIDE..].chunks_exact(SIDE)) {
                        *sum = dot(row, &rows[..SIDE]);
                    }
                });
            });
            for level in [Level::Cache, Level::Memory] {
                let key = (DType::F32, false, 1, level);
                self.products.least(key, seconds);
                self.operations.least(key, (2 * rows.len()) as f64);
            }
        }
    }

    pub fn call_seconds(&self) -> f64 {
        if self.calls.is_finite() { self.calls } else { 0.0 }
    }

    /// Seconds without those of handing work to threads, which are known only when all is timed: subtracted from each burst, a
    /// disturbed one would make the kernel look faster.
    fn without_calls(&self, seconds: f64, calls: usize) -> f64 {
        (seconds - calls as f64 * self.call_seconds()).max(seconds / 2.0)
    }

    pub fn streams(&self) -> Vec<Stream> {
        let rows = self.streams.0.iter();
        let stream = |&((bytes, calls), seconds): &((u64, usize), f64)| Stream {
            bytes,
            bytes_per_second: bytes as f64 / self.without_calls(seconds, calls),
        };
        rows.map(stream).collect()
    }

    pub fn finish(self) -> (Vec<Product>, Vec<Preparation>) {
        let rows = self.products.0.iter().zip(&self.operations.0);
        /// What was multiplied, and a number of it.
        type Row = ((DType, bool, usize, Level), f64);
        let product = |(&((dtype, packed, vectors, level), seconds), &(_, operations)): (&Row, &Row)| {
            let operations_per_second = operations / self.without_calls(seconds, 1);
            Product { dtype: dtype.name().to_string(), packed, vectors, level, operations_per_second }
        };
        let products = rows.map(product).collect();
        let preparation = |((dtype, vectors), seconds_per_value): ((DType, usize), f64)| Preparation {
            dtype: dtype.name().to_string(),
            vectors,
            seconds_per_value,
        };
        (products, self.preparations.0.into_iter().map(preparation).collect())
    }
}
