//! GPTQ of one linear layer: the Hessian's factorisation and the codes, without and with coordinate descent. The same
//! layer, damping and groups as in `tests/compare/gptq_speed.py`, which times the authors' way in PyTorch.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ounce_compress::quantize::gptq::{Hessian, Options, quantize};
use ounce_compress::quantize::moments::Collector;
use ounce_engine::Tap;
use ounce_kernels::DType;
use ounce_kernels::quant::grid::Grid;

/// Bell-shaped numbers.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..count).map(|_| (0..6).map(|_| uniform()).sum::<f32>() - 3.0).collect()
}

fn layers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("gptq");
    group.sample_size(10);
    for (rows, columns) in [(2048, 2048), (2048, 8192)] {
        // Inputs that lie mostly in 64 directions.
        let (hidden, mixing) = (numbers(2 * columns * 64, 1), numbers(64 * columns, 2));
        let mut collector = Collector::new(true);
        for (token, noise) in hidden.chunks_exact(64).zip(numbers(2 * columns, 3)) {
            let mut x: Vec<f32> = (0..columns).map(|column| noise * 0.3 * (column as f32).sin()).collect();
            for (factor, row) in token.iter().zip(mixing.chunks_exact(columns)) {
                x.iter_mut().zip(row).for_each(|(x, row)| *x += factor * row);
            }
            collector.observe(&["layer"], &x, columns);
        }
        let weights: Vec<f32> = numbers(rows * columns, 4).iter().map(|x| 0.02 * x).collect();
        group.throughput(Throughput::Elements((rows * columns) as u64));
        let Some(moments) = collector.moments("layer") else { continue };
        for (dtype, descent) in [(DType::G4x128, 0), (DType::G4x128, 4), (DType::Q4K, 4)] {
            let Some(grid) = Grid::of(dtype) else { continue };
            let options = Options { descent, ..Options::default() };
            group.bench_function(format!("{rows}x{columns} {dtype} descent {descent}"), |bencher| {
                bencher.iter(|| {
                    let hessian = Hessian::new(black_box(moments), &options).expect("moments");
                    quantize(black_box(&weights), grid, &hessian, &options)
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, layers);
criterion_main!(benches);
