//! Throughput of the products of training: `cargo bench -p ounce-kernels --bench gemm`.
//!
//! The figure to read is elements per second: an element is one operation, so Gelem/s are GFLOP/s.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ounce_kernels::gemm::{Compute, Operand, Workspace, gemm_with};
use ounce_kernels::pool::Pool;
use ounce_kernels::{DType, isa::Isa, quant};

/// `y = x · Wᵀ`, `dx = dy · W`, `dW += dyᵀ · x`.
#[derive(Clone, Copy, PartialEq)]
enum Use {
    Forward,
    Backward,
    Weight,
}

const CASES: [(Use, (usize, usize, usize)); 5] = [
    (Use::Forward, (2048, 1024, 256)),
    (Use::Forward, (2048, 256, 1024)),
    (Use::Backward, (2048, 256, 1024)),
    (Use::Forward, (1024, 1024, 1024)),
    (Use::Weight, (256, 1024, 2048)),
];

fn products(criterion: &mut Criterion) {
    let values: Vec<f32> = (0..2048 * 1024).map(|i| ((i * 7919) % 1009) as f32 / 504.0 - 1.0).collect();
    let mut workspace = Workspace::default();
    for (wanted, (m, n, k)) in CASES {
        let (name, a, b) = match wanted {
            Use::Forward => ("forward", Operand::rows(&values, k), Operand::columns(&values, k)),
            Use::Backward => ("backward", Operand::rows(&values, k), Operand::rows(&values, n)),
            Use::Weight => ("weight", Operand::columns(&values, m), Operand::rows(&values, n)),
        };
        let mut bytes = Vec::new();
        quant::encode(DType::Q8_0, &values[..n * k], &mut bytes).expect("whole blocks");
        let stored = match wanted {
            Use::Forward => Some(Operand::stored_columns(DType::Q8_0, &bytes, k)),
            Use::Backward => Some(Operand::stored_rows(DType::Q8_0, &bytes, n)),
            Use::Weight => None,
        };
        let mut group = criterion.benchmark_group(format!("gemm {name} {m}x{n}x{k}"));
        group.throughput(Throughput::Elements((2 * m * n * k) as u64));
        let mut out = vec![0.0; m * n];
        for threads in [1, 2] {
            let pool = Pool::new(threads);
            let mut run = |name: String, isa, compute, b| {
                group.bench_function(BenchmarkId::new(name, threads), |bench| {
                    bench.iter(|| {
                        let accumulate = wanted == Use::Weight;
                        gemm_with(
                            isa,
                            &pool,
                            compute,
                            (m, n, k),
                            a,
                            b,
                            accumulate,
                            &mut out,
                            n,
                            &mut workspace,
                        );
                    });
                });
            };
            for isa in Isa::available().into_iter().filter(|isa| *isa != Isa::Plain) {
                run(isa.name().to_string(), isa, Compute::F32, b);
            }
            let isa = Isa::current();
            run(format!("{} bf16", isa.name()), isa, Compute::Bf16, b);
            if let Some(stored) = stored {
                run(format!("{} Q8_0", isa.name()), isa, Compute::F32, stored);
            }
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(1));
    targets = products
}
criterion_main!(benches);
