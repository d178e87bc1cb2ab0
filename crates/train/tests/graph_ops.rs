//! Every operation's gradients against finite differences, and its results and gradients against candle's own
//! operations, on ragged sizes.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use candle_core::{D, Device, Tensor, Var};
use ounce_kernels::DType;
use ounce_kernels::grad::attention::Shape;
use ounce_model::spec::{Norm, NormKind};
use ounce_train::graph::ops::activation::{Activation, gated, plain};
use ounce_train::graph::ops::{self, Factor, Head, Kernels};
use ounce_train::loss::CrossEntropy;
use ounce_train::net::Rotation;
use ounce_train::{IGNORE, Result};

/// Values between −1 and 1 that look like noise.
fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn var(shape: &[usize], seed: u32) -> Var {
    Var::from_vec(noise(shape.iter().product(), seed), shape, &Device::Cpu).expect("golden")
}

fn on() -> Kernels {
    Kernels::default()
}

type Operation<'a> = dyn Fn(&[Tensor]) -> Result<Tensor> + 'a;

/// The inputs' gradients of the result, weighed with noise.
fn gradients(inputs: &[Var], operation: &Operation<'_>) -> (Tensor, Vec<Tensor>) {
    let tensors: Vec<Tensor> = inputs.iter().map(|it| it.as_tensor().clone()).collect();
    let out = operation(&tensors).expect("golden");
    let weights = Tensor::from_vec(noise(out.elem_count(), 99), out.shape(), &Device::Cpu).expect("golden");
    let gradients = (&out * weights).expect("golden").sum_all().expect("golden").backward().expect("golden");
    (out, inputs.iter().map(|it| gradients.get(it).expect("golden").clone()).collect())
}

fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().expect("golden").to_vec1().expect("golden")
}

fn assert_close(what: &str, ours: &Tensor, theirs: &Tensor, tolerance: f32) {
    assert_eq!(ours.dims(), theirs.dims(), "{what}");
    let (ours, theirs) = (values(ours), values(theirs));
    let largest = theirs.iter().fold(1e-3f32, |max, it| max.max(it.abs()));
    for (index, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        assert!((ours - theirs).abs() <= tolerance * largest, "{what}[{index}]: {ours} for {theirs}");
    }
}

/// Moves the inputs along a direction and back; the result must change by what the gradients say.
fn assert_differences(what: &str, inputs: &[Var], operation: &Operation<'_>) {
    const STEP: f64 = 2e-3;
    let (_, gradients) = gradients(inputs, operation);
    for (index, (input, gradient)) in inputs.iter().zip(&gradients).enumerate() {
        for seed in 0..3 {
            let direction = noise(input.elem_count(), 7 + seed);
            let direction = Tensor::from_vec(direction, input.shape(), &Device::Cpu).expect("golden");
            let at = |step: f64| -> f64 {
                let moved = (input.as_tensor() + (&direction * step).expect("golden")).expect("golden");
                let mut tensors: Vec<Tensor> = inputs.iter().map(|it| it.as_detached_tensor()).collect();
                tensors[index] = moved.detach();
                let out = values(&operation(&tensors).expect("golden"));
                out.iter().zip(noise(out.len(), 99)).map(|(x, w)| f64::from(*x) * f64::from(w)).sum()
            };
            let difference = (at(STEP) - at(-STEP)) / (2.0 * STEP);
            let (gradient, direction) = (values(gradient), values(&direction));
            let products = gradient.iter().zip(&direction).map(|(g, d)| f64::from(g * d));
            let (expected, size) = products.fold((0.0, 1e-2), |(sum, size), it| (sum + it, size + it.abs()));
            assert!(
                (difference - expected).abs() < 4e-3 * size,
                "{what}, input {index}: {difference} by difference, {expected} by gradient"
            );
        }
    }
}

/// Both comparisons.
fn check(what: &str, inputs: &[Var], ours: &Operation<'_>, stock: &Operation<'_>) {
    let (out, own) = gradients(inputs, ours);
    let (expected, theirs) = gradients(inputs, stock);
    assert_close(what, &out, &expected, 1e-5);
    for (index, (own, theirs)) in own.iter().zip(&theirs).enumerate() {
        assert_close(&format!("{what}, gradient {index}"), own, theirs, 2e-5);
    }
    assert_differences(what, inputs, ours);
    // What is not tracked costs nothing and changes nothing.
    let detached: Vec<Tensor> = inputs.iter().map(|it| it.as_detached_tensor()).collect();
    let out = ours(&detached).expect("golden");
    assert!(!out.track_op(), "{what}");
    for kept in 0..inputs.len() {
        let mut tensors = detached.clone();
        tensors[kept] = inputs[kept].as_tensor().clone();
        let out = ours(&tensors).expect("golden");
        let weights =
            Tensor::from_vec(noise(out.elem_count(), 99), out.shape(), &Device::Cpu).expect("golden");
        let gradients =
            (out * weights).expect("golden").sum_all().expect("golden").backward().expect("golden");
        assert_close(
            &format!("{what}, {kept} alone"),
            gradients.get(&inputs[kept]).expect("golden"),
            &own[kept],
            1e-6,
        );
        for other in (0..inputs.len()).filter(|&other| other != kept) {
            assert!(gradients.get(&inputs[other]).is_none(), "{what}: {other} beside {kept}");
        }
    }
}

#[test]
fn linear() {
    for (rows, input, output) in [(1, 1, 1), (7, 33, 5), (19, 48, 70)] {
        let inputs = [var(&[rows, input], 1), var(&[output, input], 2), var(&[output], 3)];
        let dense = |x: &[Tensor]| ops::linear(on(), &x[0], &Factor::Dense(x[1].clone()), x.get(2));
        let stock = |x: &[Tensor]| {
            let y = x[0].matmul(&x[1].t()?)?;
            Ok(if let Some(bias) = x.get(2) { y.broadcast_add(bias)? } else { y })
        };
        check("linear", &inputs[..2], &dense, &stock);
        check("linear with bias", &inputs, &dense, &stock);
    }
    // Of any rank, and from operands that do not lie in one piece.
    let inputs = [var(&[5, 3, 4], 1), var(&[5, 6], 2)];
    let ours = |x: &[Tensor]| ops::linear(on(), &x[0].transpose(0, 2)?, &Factor::Dense(x[1].t()?), None);
    let stock = |x: &[Tensor]| Ok(x[0].transpose(0, 2)?.contiguous()?.broadcast_matmul(&x[1])?);
    check("linear of a transpose", &inputs, &ours, &stock);
    assert!(ops::linear(on(), &inputs[0], &Factor::Dense(inputs[1].as_tensor().clone()), None).is_err());
}

#[test]
fn linear_of_a_stored_matrix() {
    let (rows, input, output) = (7, 64, 5);
    let mut bytes = Vec::new();
    ounce_kernels::quant::encode_rows(DType::Q8_0, &noise(output * input, 4), input, &mut bytes)
        .expect("golden");
    let stored = ounce_model::Tensor { dtype: DType::Q8_0, shape: vec![output, input], data: bytes.into() };
    let decoded =
        Tensor::from_vec(stored.to_f32().expect("golden"), (output, input), &Device::Cpu).expect("golden");
    let inputs = [var(&[rows, input], 1), var(&[output], 3)];
    let factor = Factor::Stored(stored);
    let ours = |x: &[Tensor]| ops::linear(on(), &x[0], &factor, x.get(1));
    let stock = |x: &[Tensor]| {
        let y = x[0].matmul(&decoded.t()?)?;
        Ok(if let Some(bias) = x.get(1) { y.broadcast_add(bias)? } else { y })
    };
    check("stored", &inputs[..1], &ours, &stock);
    check("stored with bias", &inputs, &ours, &stock);
}

#[test]
fn norms() {
    for (rows, width) in [(1, 3), (5, 37), (70, 64)] {
        let inputs = [var(&[rows, width], 1), var(&[width], 2), var(&[width], 3)];
        for plus_one in [false, true] {
            let offset = if plus_one { 1.0 } else { 0.0 };
            let spec = Norm { kind: NormKind::Rms, eps: 1e-5, bias: false, plus_one };
            let ours = |x: &[Tensor]| ops::norm(on(), &x[0], &x[1], None, &spec);
            let stock = |x: &[Tensor]| {
                let square = (x[0].sqr()?.mean_keepdim(D::Minus1)? + 1e-5)?.sqrt()?;
                Ok(x[0].broadcast_div(&square)?.broadcast_mul(&(&x[1] + offset)?)?)
            };
            check("rms", &inputs[..2], &ours, &stock);
            let spec = Norm { kind: NormKind::Layer, ..spec };
            let ours = |x: &[Tensor]| ops::norm(on(), &x[0], &x[1], x.get(2), &spec);
            let stock = |x: &[Tensor]| {
                let x0 = x[0].broadcast_sub(&x[0].mean_keepdim(D::Minus1)?)?;
                let square = (x0.sqr()?.mean_keepdim(D::Minus1)? + 1e-5)?.sqrt()?;
                let y = x0.broadcast_div(&square)?.broadcast_mul(&(&x[1] + offset)?)?;
                Ok(if let Some(bias) = x.get(2) { y.broadcast_add(bias)? } else { y })
            };
            check("layer", &inputs, &ours, &stock);
            check("layer without bias", &inputs[..2], &ours, &stock);
        }
    }
}

#[test]
fn rotation() {
    let (tokens, heads, head_dim, half) = (5, 3, 10, 4);
    let angles = noise(tokens * half, 5);
    let by = Rotation {
        cos: angles.iter().map(|it| it.cos()).collect(),
        sin: angles.iter().map(|it| it.sin()).collect(),
    };
    let table = |values: &[f32]| Tensor::from_slice(values, (tokens, 1, half), &Device::Cpu).expect("golden");
    let (cos, sin) = (table(&by.cos), table(&by.sin));
    let by = Arc::new(by);
    let ours = |x: &[Tensor]| ops::rotate(on(), &x[0], heads, head_dim, &by);
    let stock = |x: &[Tensor]| {
        let x = x[0].reshape((tokens, heads, head_dim))?;
        let (a, b, rest) = (x.narrow(2, 0, half)?, x.narrow(2, half, half)?, x.narrow(2, 2 * half, 2)?);
        let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
        let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
        Ok(Tensor::cat(&[first, second, rest], 2)?.reshape((tokens, heads * head_dim))?)
    };
    check("rotate", &[var(&[tokens, heads * head_dim], 1)], &ours, &stock);
    assert!(ops::rotate(on(), var(&[3, 30], 1).as_tensor(), heads, head_dim, &by).is_err());
}

/// Attention by candle's operations, one sequence and head after the other.
fn stock_attention(shape: &Shape, lengths: &[usize], x: &[Tensor]) -> Result<Tensor> {
    let dim = shape.head_dim;
    let mut sequences = Vec::new();
    let mut start = 0;
    for &length in lengths {
        let mut mask = vec![0.0f32; length * length];
        for (index, mask) in mask.iter_mut().enumerate() {
            let (query, key) = (index / length, index % length);
            let near = shape.window.is_none_or(|window| query.abs_diff(key) < window);
            if (shape.causal && key > query) || !near {
                *mask = f32::NEG_INFINITY;
            }
        }
        let mask = Tensor::from_vec(mask, (length, length), &Device::Cpu)?;
        let mut heads = Vec::new();
        for head in 0..shape.heads {
            let own = head / (shape.heads / shape.kv_heads);
            let part = |x: &Tensor, head: usize| {
                x.narrow(0, start, length)?.narrow(1, head * dim, dim)?.contiguous()
            };
            let (q, k, v) = (part(&x[0], head)?, part(&x[1], own)?, part(&x[2], own)?);
            let mut scores = (q.matmul(&k.t()?)? * f64::from(shape.scale))?;
            if let Some(cap) = shape.softcap {
                scores = ((scores / f64::from(cap))?.tanh()? * f64::from(cap))?;
            }
            let exponentials = (scores + &mask)?.exp()?;
            let p = exponentials.broadcast_div(&exponentials.sum_keepdim(1)?)?;
            heads.push(p.matmul(&v)?);
        }
        sequences.push(Tensor::cat(&heads, 1)?);
        start += length;
    }
    Ok(Tensor::cat(&sequences, 0)?)
}

#[test]
fn attention() {
    let base =
        Shape { heads: 4, kv_heads: 2, head_dim: 6, scale: 0.4, softcap: None, window: None, causal: true };
    let shapes = [
        base,
        Shape { causal: false, kv_heads: 4, ..base },
        Shape { softcap: Some(1.5), window: Some(3), ..base },
        Shape { window: Some(2), causal: false, kv_heads: 1, ..base },
    ];
    let lengths: Arc<[usize]> = [1, 9, 4].into();
    for shape in shapes {
        let kv = [14, shape.kv_heads * shape.head_dim];
        let inputs = [var(&[14, 24], 1), var(&kv, 2), var(&kv, 3)];
        let ours = |x: &[Tensor]| ops::attention(on(), shape, &lengths, &x[0], &x[1], &x[2]);
        let stock = |x: &[Tensor]| stock_attention(&shape, &lengths, x);
        check("attention", &inputs, &ours, &stock);
    }
    let short: Arc<[usize]> = [13].into();
    let x = var(&[14, 24], 1).into_inner();
    let error = ops::attention(on(), Shape { kv_heads: 4, ..base }, &short, &x, &x, &x).unwrap_err();
    assert!(error.to_string().contains("for 13 tokens"));
}

#[test]
fn activations() {
    use Activation::*;
    let stock = |function: Activation, x: &Tensor| -> Result<Tensor> {
        Ok(match function {
            Silu => (x / (x.neg()?.exp()? + 1.0)?)?,
            Gelu => x.gelu_erf()?,
            GeluTanh => x.gelu()?,
            GeluQuick => (x / ((x * -1.702)?.exp()? + 1.0)?)?,
            Relu => x.relu()?,
            Relu2 => x.relu()?.sqr()?,
            Tanh => x.tanh()?,
        })
    };
    for function in [Silu, Gelu, GeluTanh, GeluQuick, Relu, Relu2, Tanh] {
        let inputs = [var(&[7, 19], 1), var(&[7, 19], 2)];
        let (one, two) =
            (|x: &[Tensor]| plain(on(), function, &x[0]), |x: &[Tensor]| gated(on(), function, &x[0], &x[1]));
        check("plain", &inputs[..1], &one, &|x| stock(function, &x[0]));
        check("gated", &inputs, &two, &|x| Ok((stock(function, &x[0])? * &x[1])?));
    }
}

#[test]
fn softmax() {
    let stock = |x: &[Tensor]| {
        let exponentials = x[0].exp()?;
        Ok(exponentials.broadcast_div(&exponentials.sum_keepdim(D::Minus1)?)?)
    };
    check("softmax", &[var(&[9, 13], 1)], &|x| ops::softmax(on(), &x[0]), &stock);
}

#[test]
fn rows_by_number() {
    let ids: Arc<[u32]> = [3, 0, 3, 5, 1].into();
    let index = Tensor::new(&ids[..], &Device::Cpu).expect("golden");
    let table = [var(&[6, 11], 1)];
    let stock = |x: &[Tensor]| Ok((x[0].index_select(&index, 0)? * 1.5)?);
    check("gather", &table, &|x| ops::gather(on(), &x[0], &ids, 1.5, 1.0), &stock);
    let rows = [var(&[5, 11], 2)];
    let zeros = Tensor::zeros((6, 11), candle_core::DType::F32, &Device::Cpu).expect("golden");
    let stock = |x: &[Tensor]| Ok(zeros.index_add(&index, &x[0], 0)?);
    check("scatter", &rows, &|x| ops::scatter(on(), &x[0], &ids, 6), &stock);
    // The factor on the gradient alone.
    let (_, full) = gradients(&table, &|x| ops::gather(on(), &x[0], &ids, 1.5, 1.0));
    let (_, less) = gradients(&table, &|x| ops::gather(on(), &x[0], &ids, 1.5, 0.5));
    assert_close("shrunk", &less[0], &(&full[0] * 0.5).expect("golden"), 1e-6);
    assert!(
        ops::gather(on(), &table[0], &[6].into(), 1.0, 1.0).unwrap_err().to_string().contains("row 6 of 6")
    );
}

/// `Σ ln Σ exp(logits) − logit[target]` over the rows that count, by candle's operations.
fn stock_loss(logits: Tensor, softcap: Option<f32>, targets: &[u32]) -> Result<Tensor> {
    let logits = match softcap {
        Some(cap) => ((logits / f64::from(cap))?.tanh()? * f64::from(cap))?,
        None => logits,
    };
    let counts: Vec<f32> = targets.iter().map(|&target| f32::from(u8::from(target != IGNORE))).collect();
    let ids: Vec<u32> = targets.iter().map(|&target| if target == IGNORE { 0 } else { target }).collect();
    let count = targets.len();
    let own = logits.gather(&Tensor::from_vec(ids, (count, 1), &Device::Cpu)?, 1)?;
    let total = logits.exp()?.sum_keepdim(1)?.log()?;
    Ok(((total - own)? * Tensor::from_vec(counts, (count, 1), &Device::Cpu)?)?.sum_all()?)
}

#[test]
fn losses() {
    // The large vocabulary makes chunks of three rows.
    for (rows, width, vocab) in [(5, 8, 13), (7, 3, (1 << 22) / 3)] {
        let targets: Vec<u32> =
            (0..rows as u32).map(|row| if row == 2 { IGNORE } else { row * 31 % vocab as u32 }).collect();
        let numbers: Vec<usize> = (0..rows).collect();
        let large = vocab > 1000;
        for (scale, softcap) in if large { vec![(0.5, None)] } else { vec![(1.0, None), (0.5, Some(0.8))] } {
            let inputs = [var(&[rows, width], 1), var(&[vocab, width], 2), var(&[vocab], 3)];
            let ours = |x: &[Tensor]| {
                let matrix = Factor::Dense(x[1].clone());
                let head = Head { matrix, bias: x.get(2).cloned(), scale, softcap };
                let (value, sum) =
                    ops::linear_loss(on(), &x[0], &head, &targets, &numbers, &mut CrossEntropy)?;
                assert!((f64::from(value.to_scalar::<f32>()?) / sum - 1.0).abs() < 1e-6);
                Ok(value)
            };
            let stock = |x: &[Tensor]| {
                let mut logits = x[0].matmul(&x[1].t()?)?;
                if let Some(bias) = x.get(2) {
                    logits = logits.broadcast_add(bias)?;
                }
                stock_loss((logits * f64::from(scale))?, softcap, &targets)
            };
            if large {
                let ((out, own), (expected, theirs)) =
                    (gradients(&inputs, &ours), gradients(&inputs, &stock));
                assert_close("chunks", &out, &expected, 1e-5);
                own.iter().zip(&theirs).for_each(|(own, theirs)| assert_close("chunks", own, theirs, 1e-4));
                continue;
            }
            check("linear loss", &inputs[..2], &ours, &stock);
            check("linear loss with bias", &inputs, &ours, &stock);
            let ours = |x: &[Tensor]| {
                Ok(ops::logit_loss(on(), &x[0], softcap, &targets, &numbers, &mut CrossEntropy)?.0)
            };
            let stock = |x: &[Tensor]| stock_loss(x[0].clone(), softcap, &targets);
            check("loss of logits", &[var(&[rows, vocab], 4)], &ours, &stock);
        }
    }
}

#[test]
fn own_operations_are_checked() {
    let x = var(&[2, 3], 1);
    let double = |gradient: fn(&Tensor) -> candle_core::Result<Vec<Option<Tensor>>>| {
        let out = values(&x).iter().map(|it| 2.0 * it).collect();
        ops::node("double", &[&x], out, (2, 3), move |behind| gradient(&behind.gradient)).expect("golden")
    };
    let good = double(|dy| Ok(vec![Some((dy * 2.0)?)])).backward().expect("golden");
    assert_eq!(values(good.get(&x).expect("golden")), [2.0; 6]);
    for (wrong, says) in [
        (double(|_| Ok(vec![None])), "no gradient of input 0"),
        (double(|_| Ok(vec![])), "0 gradients for 1 inputs"),
        (double(|dy| Ok(vec![Some(dy.t()?)])), "a gradient of shape [3, 2] for input 0"),
    ] {
        assert!(wrong.backward().unwrap_err().to_string().contains(says), "{says}");
    }
    assert!(ops::node("short", &[&x], vec![0.0], (2, 3), |_| Ok(vec![])).is_err());
    assert!(ops::node("alone", &[], vec![0.0], 1, |_| Ok(vec![])).is_err());
    assert!(ops::read([&x.t().expect("golden")], |_| ()).unwrap_err().to_string().contains("in one piece"));
}
