//! Throughput of the packed products: `cargo bench -p ounce-kernels --bench packed`.
//!
//! One token is bound by memory: the figure to read is bytes per second. Many tokens are bound by arithmetic: the
//! figure is elements per second, where one element is one multiply-add.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ounce_kernels::packed::{Activations, PackedMatrix};
use ounce_kernels::pool::Pool;
use ounce_kernels::{DType, isa::Isa, quant};

const ROWS: usize = 2048;
const COLUMNS: usize = 2048;

fn products(criterion: &mut Criterion) {
    let values: Vec<f32> = (0..ROWS * COLUMNS).map(|i| ((i * 7919) % 1009) as f32 / 504.0 - 1.0).collect();
    let pool = Pool::global();
    for dtype in [DType::F32, DType::BF16, DType::Q8_0, DType::Q4_0, DType::Q4K, DType::Q6K] {
        let mut bytes = Vec::new();
        quant::encode(dtype, &values, &mut bytes).expect("a format that is written");
        let packed = PackedMatrix::pack(dtype, &bytes, ROWS, COLUMNS).expect("a format with a kernel");
        let mut group = criterion.benchmark_group(format!("packed {dtype} {ROWS}x{COLUMNS}"));
        for tokens in [1, 2, 8, 128] {
            let mut x = Activations::new();
            packed.prepare(&values[..tokens * COLUMNS], pool, &mut x);
            let mut out = vec![0.0; tokens * ROWS];
            group.throughput(if tokens == 1 {
                Throughput::Bytes(packed.bytes() as u64)
            } else {
                Throughput::Elements((ROWS * COLUMNS * tokens) as u64)
            });
            for isa in Isa::available().into_iter().filter(|isa| *isa != Isa::Plain) {
                let id = BenchmarkId::new(isa.name(), tokens);
                group
                    .bench_function(id, |bench| bench.iter(|| packed.multiply_with(isa, &x, pool, &mut out)));
            }
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(2));
    targets = products
}
criterion_main!(benches);
