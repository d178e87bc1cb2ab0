//! Throughput of the packed products: `cargo bench -p ounce-kernels --bench packed`, and `-- q4_k` for one format.
//!
//! One token is bound by memory: the figure to read is bytes per second (GB/s are 10⁹, criterion prints 2^30). Many tokens
//! are bound by arithmetic: the figure is elements per second, where one element is one operation, a multiplication or an
//! addition (Gelem/s are GFLOP/s).

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::f16;
use ounce_kernels::packed::{Activations, Groups, PackedMatrix};
use ounce_kernels::pool::Pool;
use ounce_kernels::{DType, isa::Isa, quant};

const ROWS: usize = 2048;
const COLUMNS: usize = 2048;

const FORMATS: [DType; 16] = [
    DType::F32,
    DType::F16,
    DType::BF16,
    DType::Q8_0,
    DType::Q4_0,
    DType::Q4_1,
    DType::Q5_0,
    DType::Q5_1,
    DType::IQ4NL,
    DType::IQ4XS,
    DType::MXFP4,
    DType::Q2K,
    DType::Q3K,
    DType::Q4K,
    DType::Q5K,
    DType::Q6K,
];

/// A matrix of a format: encoded where there is an encoder, else of bytes whose scales are all small and finite.
fn matrix(dtype: DType, values: &[f32]) -> PackedMatrix {
    let mut bytes = Vec::new();
    if quant::can_encode(dtype) {
        quant::encode(dtype, values, &mut bytes).expect("a format that is written");
    } else {
        bytes = vec![0x11; dtype.bytes_for(ROWS * COLUMNS).expect("whole blocks")];
    }
    PackedMatrix::pack(dtype, &bytes, ROWS, COLUMNS).expect("a format with a kernel")
}

fn products(criterion: &mut Criterion) {
    let values: Vec<f32> = (0..ROWS * COLUMNS).map(|i| ((i * 7919) % 1009) as f32 / 504.0 - 1.0).collect();
    for dtype in FORMATS {
        measure(criterion, &dtype.to_string(), || matrix(dtype, &values));
    }
    for zeros in [40, 50, 70] {
        let some = |(index, value): (usize, &f32)| if index * 7919 % 101 < zeros { 0.0 } else { *value };
        let values: Vec<f32> = values.iter().enumerate().map(some).collect();
        measure(criterion, &format!("BF16 with {zeros} zeros of 101"), || matrix(DType::BF16, &values));
    }
    for (bits, group) in [(2, 64), (3, 64), (4, 64), (4, 128), (8, 128)] {
        let codes: Vec<u8> = (0..ROWS * COLUMNS).map(|i| ((i * 7919) % (1 << bits)) as u8).collect();
        let count = ROWS * COLUMNS / group;
        let (scales, zeros) = (vec![f16::from_f32(0.01); count], vec![1 << (bits - 1); count]);
        let groups = Groups {
            bits,
            group,
            rows: ROWS,
            columns: COLUMNS,
            codes: &codes,
            scales: &scales,
            zeros: &zeros,
        };
        let name = format!("groups of {group} with {bits} bits");
        measure(criterion, &name, || PackedMatrix::pack_groups(&groups).expect("codes that fit"));
    }
}

/// A benchmark of each instruction set and number of tokens.
fn measure(criterion: &mut Criterion, name: &str, packed: impl FnOnce() -> PackedMatrix) {
    let (packed, pool) = (packed(), Pool::global());
    let mut group = criterion.benchmark_group(format!("packed {name} {ROWS}x{COLUMNS}"));
    for tokens in [1, 2, 8, 128] {
        let values: Vec<f32> =
            (0..tokens * COLUMNS).map(|i| ((i * 7919) % 1009) as f32 / 504.0 - 1.0).collect();
        let mut x = Activations::for_every_path();
        packed.prepare(&values, pool, &mut x);
        let mut out = vec![0.0; tokens * ROWS];
        group.throughput(if tokens == 1 {
            Throughput::Bytes(packed.bytes() as u64)
        } else {
            Throughput::Elements((2 * ROWS * COLUMNS * tokens) as u64)
        });
        for isa in Isa::available().into_iter().filter(|isa| *isa != Isa::Plain) {
            let id = BenchmarkId::new(isa.name(), tokens);
            group.bench_function(id, |bench| bench.iter(|| packed.multiply_with(isa, &x, pool, &mut out)));
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(std::time::Duration::from_millis(300))
        .measurement_time(std::time::Duration::from_secs(1));
    targets = products
}
criterion_main!(benches);
