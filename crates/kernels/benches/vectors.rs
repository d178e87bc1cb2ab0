//! Throughput of what lies between the products: `cargo bench -p ounce-kernels --bench vectors`.
//!
//! Vectors of a model's width, in the first-level cache; the figure is elements a second.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ounce_kernels::activation::{gelu_tanh, silu};
use ounce_kernels::norm::{layer_norm, rms_norm};
use ounce_kernels::packed::{Activations, PackedMatrix};
use ounce_kernels::pool::Pool;
use ounce_kernels::rope::rotate_heads;
use ounce_kernels::softmax::softmax;
use ounce_kernels::vector::{add, multiply};
use ounce_kernels::{DType, quant};

const WIDTH: usize = 2048;
const HEAD: usize = 64;

fn vectors(criterion: &mut Criterion) {
    let values: Vec<f32> = (0..WIDTH).map(|i| (i as f32 * 0.37).sin()).collect();
    let (weight, other) = (vec![1.0f32; WIDTH], vec![0.001f32; WIDTH]);
    let (cos, sin) = (vec![0.8f32; HEAD / 2], vec![0.6f32; HEAD / 2]);
    let mut group = criterion.benchmark_group(format!("vectors of {WIDTH}"));
    group.throughput(Throughput::Elements(WIDTH as u64));
    let mut bench = |name: &str, work: &dyn Fn(&mut [f32])| {
        let mut x = values.clone();
        group.bench_function(name, |bench| {
            bench.iter(|| {
                x.copy_from_slice(&values);
                work(black_box(&mut x));
            });
        });
    };
    bench("copy", &|_| {});
    bench("rms_norm", &|x| rms_norm(x, &weight, 0.0, 1e-5));
    bench("layer_norm", &|x| layer_norm(x, &weight, 0.0, Some(&other), 1e-5));
    bench("softmax", &|x| softmax(x));
    bench("silu", &|x| silu(x));
    bench("gelu_tanh", &|x| gelu_tanh(x));
    bench("rotate_heads", &|x| rotate_heads(x, HEAD, &cos, &sin));
    bench("add", &|x| add(x, &other));
    bench("multiply", &|x| multiply(x, &other));

    for dtype in [DType::Q8_0, DType::Q4K, DType::BF16] {
        let mut bytes = Vec::new();
        quant::encode(dtype, &values, &mut bytes).expect("a format that is written");
        let matrix = PackedMatrix::pack(dtype, &bytes, 1, WIDTH).expect("a format with a kernel");
        let mut x = Activations::new();
        group.bench_function(format!("activations for {dtype}"), |bench| {
            bench.iter(|| matrix.prepare(black_box(&values), Pool::single(), &mut x));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(1));
    targets = vectors
}
criterion_main!(benches);
