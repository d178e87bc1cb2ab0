//! Throughput of what training computes beside the products: `cargo bench -p ounce-kernels --bench grad`.
//!
//! Attention is bound by arithmetic: the figure is elements a second, where an element is one floating-point
//! operation of its products (two forward and five backward, of the pairs that causality leaves). The others are bound
//! by memory: the figure is bytes a second, every operand counted once for each time it must be read or written.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ounce_kernels::grad::activation::{Activation, gated, gated_backward};
use ounce_kernels::grad::attention::{Shape, attention, attention_backward};
use ounce_kernels::grad::bias::bias_backward;
use ounce_kernels::grad::cross_entropy::softmax_cross_entropy;
use ounce_kernels::grad::embedding::{gather, scatter_add};
use ounce_kernels::grad::norm::{layer_norm, layer_norm_backward, rms_norm, rms_norm_backward};
use ounce_kernels::grad::rope::rotate;
use ounce_kernels::optimizer::{AdamW, Lion, Sgd, adamw8};
use ounce_kernels::pool::Pool;

/// Sequences, positions, query heads, key/value heads, dims.
const SHAPES: [(usize, usize, usize, usize, usize); 4] =
    [(8, 256, 8, 8, 32), (8, 256, 8, 2, 64), (1, 2048, 8, 8, 64), (4, 512, 4, 1, 128)];

const ROWS: usize = 2048;
const WIDTH: usize = 512;
const VOCABULARY: usize = 8192;
const PARAMETERS: usize = 4 << 20;

fn noise(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919) % 1009) as f32 / 504.0 - 1.0).collect()
}

fn attentions(criterion: &mut Criterion) {
    let pool = Pool::global();
    for (sequences, length, heads, kv_heads, head_dim) in SHAPES {
        let name = format!("grad attention {sequences}x{length} {heads}/{kv_heads}x{head_dim}");
        let mut group = criterion.benchmark_group(name);
        let scale = 1.0 / (head_dim as f32).sqrt();
        let shape = Shape { heads, kv_heads, head_dim, scale, softcap: None, window: None, causal: true };
        let lengths = vec![length; sequences];
        let tokens = sequences * length;
        let (q, k) = (noise(tokens * heads * head_dim), noise(tokens * kv_heads * head_dim));
        let (v, dout) = (k.clone(), q.clone());
        let (mut out, mut lse) = (q.clone(), vec![0.0; heads * tokens]);
        let product = (sequences * heads * length * (length + 1) * head_dim) as u64;
        group.throughput(Throughput::Elements(2 * product));
        group.bench_function("forward", |bench| {
            bench.iter(|| attention(pool, &shape, &lengths, &q, &k, &v, &mut out, &mut lse));
        });
        let (mut dq, mut dk, mut dv, mut workspace) = (q.clone(), k.clone(), v.clone(), Vec::new());
        group.throughput(Throughput::Elements(5 * product));
        group.bench_function("backward", |bench| {
            bench.iter(|| {
                attention_backward(
                    pool,
                    &shape,
                    &lengths,
                    &q,
                    &k,
                    &v,
                    &out,
                    &lse,
                    &dout,
                    &mut dq,
                    &mut dk,
                    &mut dv,
                    &mut workspace,
                );
            });
        });
        group.finish();
    }
}

fn rows(criterion: &mut Criterion) {
    let pool = Pool::global();
    let mut group = criterion.benchmark_group(format!("grad rows of {WIDTH}, {ROWS}"));
    let bytes = |operands: usize| Throughput::Bytes((operands * ROWS * WIDTH * 4) as u64);
    let (x, weight, dy) = (noise(ROWS * WIDTH), vec![1.0f32; WIDTH], noise(ROWS * WIDTH));
    let (mut out, mut dx) = (x.clone(), x.clone());
    let (mut mean, mut inverse) = (vec![0.0; ROWS], vec![0.0; ROWS]);
    let (mut dweight, mut dbias) = (weight.clone(), weight.clone());

    group.throughput(bytes(2));
    group.bench_function("rms_norm", |bench| {
        bench.iter(|| rms_norm(pool, &x, WIDTH, &weight, 0.0, 1e-5, &mut out, &mut inverse));
    });
    group.bench_function("rms_norm of heads of 32", |bench| {
        let mut inverse = vec![0.0; ROWS * WIDTH / 32];
        bench.iter(|| rms_norm(pool, &x, 32, &weight[..32], 0.0, 1e-5, &mut out, &mut inverse));
    });
    group.bench_function("layer_norm", |bench| {
        bench.iter(|| {
            layer_norm(pool, &x, WIDTH, &weight, 0.0, None, 1e-5, &mut out, &mut mean, &mut inverse)
        });
    });
    group.throughput(bytes(4));
    group.bench_function("rms_norm backward", |bench| {
        bench.iter(|| {
            rms_norm_backward(pool, &x, WIDTH, &weight, 0.0, &inverse, &dy, &mut dx, Some(&mut dweight));
        });
    });
    group.bench_function("layer_norm backward", |bench| {
        bench.iter(|| {
            let (dweight, dbias) = (Some(dweight.as_mut_slice()), Some(dbias.as_mut_slice()));
            layer_norm_backward(pool, &x, WIDTH, &weight, 0.0, &mean, &inverse, &dy, &mut dx, dweight, dbias);
        });
    });
    let (mut gate, mut up) = (x.clone(), dy.clone());
    for activation in [Activation::Silu, Activation::Gelu, Activation::GeluTanh] {
        group.throughput(bytes(3));
        group.bench_function(format!("gated {activation:?}"), |bench| {
            bench.iter(|| gated(pool, activation, &x, &dy, &mut out));
        });
        group.throughput(bytes(5));
        group.bench_function(format!("gated {activation:?} backward"), |bench| {
            bench.iter(|| gated_backward(pool, activation, &mut gate, &mut up, &dy));
        });
        // What was differentiated many times over is not what a network computes with.
        (gate, up) = (x.clone(), dy.clone());
    }
    group.throughput(bytes(2));
    group.bench_function("rotate", |bench| {
        let (cos, sin) = (vec![0.8; ROWS * 16], vec![0.6; ROWS * 16]);
        bench.iter(|| rotate(pool, &mut out, WIDTH / 32, 32, &cos, &sin, false));
    });
    group.throughput(bytes(1));
    group.bench_function("bias backward", |bench| {
        bench.iter(|| bias_backward(pool, &dy, WIDTH, &mut dbias));
    });
    let ids: Vec<u32> = (0..ROWS).map(|i| (i * 7919 % VOCABULARY) as u32).collect();
    let mut table = noise(VOCABULARY * WIDTH);
    group.throughput(bytes(2));
    group.bench_function("gather", |bench| {
        bench.iter(|| gather(pool, &table, WIDTH, &ids, 1.0, &mut out));
    });
    group.throughput(bytes(3));
    group.bench_function("scatter_add", |bench| {
        bench.iter(|| scatter_add(pool, &ids, WIDTH, 1.0, &dy, &mut table));
    });
    group.finish();

    let mut group = criterion.benchmark_group(format!("grad cross entropy {}x{VOCABULARY}", ROWS / 4));
    let (mut logits, targets) = (noise(ROWS / 4 * VOCABULARY), &ids[..ROWS / 4]);
    for (name, gradient, softcap) in
        [("loss", false, None), ("gradient", true, None), ("softcap", true, Some(30.0))]
    {
        // Read, and with a gradient read again and written.
        let operands = if gradient { 3 } else { 1 };
        group.throughput(Throughput::Bytes((operands * logits.len() * 4) as u64));
        group.bench_function(name, |bench| {
            bench.iter(|| {
                softmax_cross_entropy(
                    pool,
                    &mut logits,
                    VOCABULARY,
                    targets,
                    u32::MAX,
                    1.0,
                    gradient,
                    softcap,
                )
            });
        });
    }
    group.finish();
}

fn optimizers(criterion: &mut Criterion) {
    let pool = Pool::global();
    let mut group = criterion.benchmark_group(format!("grad optimizers, {PARAMETERS} parameters"));
    let bytes = |each: f64| Throughput::Bytes((each * PARAMETERS as f64) as u64);
    let (mut value, grad) = (noise(PARAMETERS), noise(PARAMETERS));
    let (mut m, mut v) = (vec![0.0; PARAMETERS], vec![0.0; PARAMETERS]);
    let adamw = AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1, step: 10 };
    group.throughput(bytes(28.0));
    group.bench_function("adamw", |bench| {
        bench.iter(|| adamw.update(pool, &mut value, &grad, &mut m, &mut v, 1.0));
    });
    group.throughput(bytes(16.0 + 8.0 / 256.0));
    group.bench_function("adamw, states of 8 bits", |bench| {
        let mut state = adamw8::State::new(PARAMETERS);
        bench.iter(|| adamw8::update(pool, &adamw, &mut value, &grad, &mut state, 1.0));
    });
    group.throughput(bytes(20.0));
    group.bench_function("lion", |bench| {
        let lion = Lion { lr: 1e-4, beta1: 0.9, beta2: 0.99, weight_decay: 0.1 };
        bench.iter(|| lion.update(pool, &mut value, &grad, &mut m, 1.0));
    });
    group.bench_function("sgd", |bench| {
        let sgd = Sgd { lr: 1e-4, momentum: 0.9, nesterov: true, weight_decay: 0.1 };
        bench.iter(|| sgd.update(pool, &mut value, &grad, &mut m, 1.0));
    });
    group.throughput(bytes(4.0));
    group.bench_function("sum of squares", |bench| {
        bench.iter(|| ounce_kernels::optimizer::norm::sum_of_squares(pool, &grad));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(1));
    targets = attentions, rows, optimizers
}
criterion_main!(benches);
