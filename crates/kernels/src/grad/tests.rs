//! Gradients against central differences of the formulas in f64, and equal bits on any number of threads.

use super::activation::{Activation, gated, gated_backward, plain, plain_backward};
use super::bias::{add_bias, bias_backward};
use super::cross_entropy::softmax_cross_entropy;
use super::embedding::{gather, scatter_add};
use super::norm::{layer_norm, layer_norm_backward, rms_norm, rms_norm_backward};
use super::rope::rotate;
use crate::pool::Pool;

pub(crate) fn noise(count: usize, seed: f32) -> Vec<f32> {
    (0..count).map(|i| ((i as f32 + 17.0 * seed) * 12.9898).sin() * 1.5).collect()
}

pub(super) fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// `∂f/∂x` by central differences.
pub(super) fn slope(x: &[f32], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    const STEP: f64 = 1e-5;
    let (count, mut x) = (x.len(), wide(x));
    let mut at = |index: usize, step: f64| {
        x[index] += step;
        let value = f(&x);
        x[index] -= step;
        value
    };
    (0..count).map(|index| (at(index, STEP) - at(index, -STEP)) / (2.0 * STEP)).collect()
}

/// Every value within `bound` of the exact one, absolute below 1 and relative above.
pub(super) fn assert_close(found: &[f32], exact: &[f64], bound: f64, what: &str) {
    assert_eq!(found.len(), exact.len(), "{what}");
    for (index, (found, exact)) in found.iter().zip(exact).enumerate() {
        let error = (f64::from(*found) - exact).abs();
        assert!(error <= bound * (1.0 + exact.abs()), "{what} at {index}: {found} for {exact}");
    }
}

/// Whether a computation gives the same bits on one and on several threads.
pub(crate) fn assert_threads_agree(compute: impl Fn(&Pool) -> Vec<Vec<f32>>) {
    let bits = |all: Vec<Vec<f32>>| -> Vec<Vec<u32>> {
        all.iter().map(|values| values.iter().map(|x| x.to_bits()).collect()).collect()
    };
    let alone = bits(compute(&Pool::new(1)));
    for threads in [2, 3, 7] {
        assert!(bits(compute(&Pool::new(threads))) == alone, "{threads} threads");
    }
}

fn dot(a: &[f64], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * f64::from(*b)).sum()
}

/// The formula of both norms: RMSNorm where `centred` is false.
fn norm(x: &[f64], weight: &[f64], bias: &[f64], offset: f64, eps: f64, centred: bool) -> Vec<f64> {
    let width = weight.len();
    x.chunks_exact(width)
        .flat_map(|row| {
            let mean = if centred { row.iter().sum::<f64>() / width as f64 } else { 0.0 };
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
            let scale = 1.0 / (variance + eps).sqrt();
            (0..width).map(move |j| (row[j] - mean) * scale * (weight[j] + offset) + bias[j])
        })
        .collect()
}

const WIDTHS: [(usize, usize); 6] = [(3, 1), (1, 5), (7, 32), (130, 33), (4, 100), (65, 16)];

#[test]
fn rms_norm_and_its_gradients_equal_the_formula() {
    for (rows, width) in WIDTHS {
        let (x, weight, dy) = (noise(rows * width, 1.0), noise(width, 2.0), noise(rows * width, 3.0));
        let none = vec![0.0; width];
        for offset in [0.0, 1.0] {
            let formula = |x: &[f64], weight: &[f64]| norm(x, weight, &none, offset.into(), 1e-3, false);
            let (mut out, mut inverse) = (vec![f32::NAN; rows * width], vec![f32::NAN; rows]);
            rms_norm(Pool::single(), &x, width, &weight, offset, 1e-3, &mut out, &mut inverse);
            assert_close(&out, &formula(&wide(&x), &wide(&weight)), 1e-6, "out");

            let (before, sums) = (noise(rows * width, 4.0), noise(width, 5.0));
            let (mut dx, mut dweight) = (before.clone(), sums.clone());
            let pool = Pool::single();
            rms_norm_backward(pool, &x, width, &weight, offset, &inverse, &dy, &mut dx, Some(&mut dweight));
            let mut alone = before.clone();
            rms_norm_backward(pool, &x, width, &weight, offset, &inverse, &dy, &mut alone, None);
            assert_eq!(alone, dx);

            let exact = slope(&x, |x| dot(&formula(x, &wide(&weight)), &dy));
            assert_close(&dx, &plus(&exact, &before), 3e-5, "dx");
            let exact = slope(&weight, |weight| dot(&formula(&wide(&x), weight), &dy));
            assert_close(&dweight, &plus(&exact, &sums), 3e-5, "dweight");
        }
    }
}

#[test]
fn layer_norm_and_its_gradients_equal_the_formula() {
    for (rows, width) in WIDTHS {
        let (x, weight, bias) = (noise(rows * width, 1.0), noise(width, 2.0), noise(width, 6.0));
        let dy = noise(rows * width, 3.0);
        for (offset, biased) in [(0.0, true), (1.0, false)] {
            let bias = if biased { bias.clone() } else { vec![0.0; width] };
            let formula =
                |x: &[f64], weight: &[f64], bias: &[f64]| norm(x, weight, bias, offset.into(), 1e-3, true);
            let mut out = vec![f32::NAN; rows * width];
            let (mut mean, mut inverse) = (vec![f32::NAN; rows], vec![f32::NAN; rows]);
            let given = biased.then_some(bias.as_slice());
            let pool = Pool::single();
            layer_norm(pool, &x, width, &weight, offset, given, 1e-3, &mut out, &mut mean, &mut inverse);
            assert_close(&out, &formula(&wide(&x), &wide(&weight), &wide(&bias)), 2e-6, "out");

            let (before, sums) = (noise(rows * width, 4.0), noise(width, 5.0));
            let (mut dx, mut dweight, mut dbias) = (before.clone(), sums.clone(), sums.clone());
            let backward = |dx: &mut [f32], dweight: Option<&mut [f32]>, dbias: Option<&mut [f32]>| {
                layer_norm_backward(
                    pool, &x, width, &weight, offset, &mean, &inverse, &dy, dx, dweight, dbias,
                );
            };
            backward(&mut dx, Some(dweight.as_mut_slice()), Some(dbias.as_mut_slice()));
            for (with_weight, with_bias) in [(true, false), (false, true), (false, false)] {
                let (mut dx_again, mut one, mut other) = (before.clone(), sums.clone(), sums.clone());
                backward(
                    &mut dx_again,
                    with_weight.then_some(one.as_mut_slice()),
                    with_bias.then_some(other.as_mut_slice()),
                );
                assert_eq!(dx_again, dx);
                assert_eq!(one, if with_weight { dweight.clone() } else { sums.clone() });
                assert_eq!(other, if with_bias { dbias.clone() } else { sums.clone() });
            }

            let exact = slope(&x, |x| dot(&formula(x, &wide(&weight), &wide(&bias)), &dy));
            // Rows of one value have no variance: everything is divided by the root of eps.
            assert_close(&dx, &plus(&exact, &before), if width == 1 { 1e-3 } else { 3e-5 }, "dx");
            let exact = slope(&weight, |weight| dot(&formula(&wide(&x), weight, &wide(&bias)), &dy));
            assert_close(&dweight, &plus(&exact, &sums), 3e-5, "dweight");
            let exact = slope(&bias, |bias| dot(&formula(&wide(&x), &wide(&weight), bias), &dy));
            assert_close(&dbias, &plus(&exact, &sums), 3e-5, "dbias");
        }
    }
}

fn plus(exact: &[f64], before: &[f32]) -> Vec<f64> {
    exact.iter().zip(before).map(|(exact, before)| exact + f64::from(*before)).collect()
}

fn formula(activation: Activation, x: f64) -> f64 {
    let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
    match activation {
        Activation::Silu => x * logistic(x),
        Activation::Gelu => 0.5 * x * (1.0 + libm::erf(x / std::f64::consts::SQRT_2)),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::GeluQuick => x * logistic(1.702 * x),
        Activation::Relu => x.max(0.0),
        Activation::Relu2 => x.max(0.0).powi(2),
        Activation::Tanh => x.tanh(),
    }
}

const ACTIVATIONS: [Activation; 7] = [
    Activation::Silu,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::GeluQuick,
    Activation::Relu,
    Activation::Relu2,
    Activation::Tanh,
];

#[test]
fn activations_and_their_slopes_equal_the_formulas() {
    let pool = Pool::single();
    let x: Vec<f32> = (-4001..4000).step_by(2).map(|i| i as f32 * 0.0031).collect();
    for activation in ACTIVATIONS {
        let exact: Vec<f64> = x.iter().map(|&x| formula(activation, x.into())).collect();
        let mut out = vec![f32::NAN; x.len()];
        plain(pool, activation, &x, &mut out);
        assert_close(&out, &exact, 4e-7, &format!("{activation:?}"));
        let up = noise(x.len(), 1.0);
        gated(pool, activation, &x, &up, &mut out);
        let product: Vec<f64> = exact.iter().zip(&up).map(|(x, up)| x * f64::from(*up)).collect();
        assert_close(&out, &product, 1e-6, &format!("gated {activation:?}"));

        let dout = noise(x.len(), 2.0);
        let slopes: Vec<f64> = x
            .iter()
            .zip(&dout)
            .map(|(&x, &dout)| {
                let (above, below) = (f64::from(x) + 1e-6, f64::from(x) - 1e-6);
                (formula(activation, above) - formula(activation, below)) / 2e-6 * f64::from(dout)
            })
            .collect();
        let mut dx = x.clone();
        plain_backward(pool, activation, &mut dx, &dout);
        assert_close(&dx, &slopes, 1e-6, &format!("slope of {activation:?}"));
        let (mut dgate, mut dup) = (x.clone(), up.clone());
        gated_backward(pool, activation, &mut dgate, &mut dup, &dout);
        let exact_gate: Vec<f64> = slopes.iter().zip(&up).map(|(slope, up)| slope * f64::from(*up)).collect();
        let exact_up: Vec<f64> = exact.iter().zip(&dout).map(|(x, dout)| x * f64::from(*dout)).collect();
        assert_close(&dgate, &exact_gate, 2e-6, &format!("gate of {activation:?}"));
        assert_close(&dup, &exact_up, 2e-6, &format!("up of {activation:?}"));
    }
}

#[test]
fn activations_far_out_are_finite() {
    for activation in ACTIVATIONS {
        let (mut out, mut dx) = ([f32::NAN; 4], [-1e4f32, 1e4, -90.0, 90.0]);
        plain(Pool::single(), activation, &dx, &mut out);
        plain_backward(Pool::single(), activation, &mut dx, &[1.0; 4]);
        assert!(out.iter().chain(&dx).all(|x| x.is_finite()), "{activation:?}: {out:?} {dx:?}");
    }
}

#[test]
fn rotation_equals_that_of_heads_and_goes_back() {
    for (tokens, heads, head_dim, half) in [(1, 1, 2, 1), (5, 3, 10, 3), (4, 2, 32, 16), (3, 2, 8, 0)] {
        let x = noise(tokens * heads * head_dim, 1.0);
        let angles = noise(tokens * half, 2.0);
        let cos: Vec<f32> = angles.iter().map(|x| x.cos()).collect();
        let sin: Vec<f32> = angles.iter().map(|x| x.sin()).collect();
        let mut turned = x.clone();
        rotate(Pool::single(), &mut turned, heads, head_dim, &cos, &sin, false);
        let mut expected = x.clone();
        for (token, row) in expected.chunks_exact_mut(heads * head_dim).enumerate() {
            let angles = token * half..(token + 1) * half;
            crate::rope::rotate_heads(row, head_dim, &cos[angles.clone()], &sin[angles]);
        }
        assert_close(&turned, &wide(&expected), 1e-6, "rotated");
        rotate(Pool::single(), &mut turned, heads, head_dim, &cos, &sin, true);
        assert_close(&turned, &wide(&x), 1e-6, "rotated back");
    }
}

#[test]
fn biases_are_added_and_their_gradients_are_sums_of_columns() {
    for (rows, width) in WIDTHS {
        let (x, bias) = (noise(rows * width, 1.0), noise(width, 2.0));
        let mut out = x.clone();
        add_bias(Pool::single(), &mut out, &bias);
        let exact: Vec<f64> =
            x.iter().enumerate().map(|(i, x)| f64::from(*x) + f64::from(bias[i % width])).collect();
        assert_close(&out, &exact, 1e-6, "biased");
        let mut dbias = bias.clone();
        bias_backward(Pool::single(), &x, width, &mut dbias);
        let exact: Vec<f64> = (0..width)
            .map(|j| f64::from(bias[j]) + x.iter().skip(j).step_by(width).map(|&x| f64::from(x)).sum::<f64>())
            .collect();
        assert_close(&dbias, &exact, 1e-5, "dbias");
    }
}

#[test]
fn rows_of_a_table_are_gathered_and_their_gradients_added() {
    let (width, ids) = (5, [3u32, 0, 3, 3, 1]);
    let (table, dout) = (noise(4 * width, 1.0), noise(ids.len() * width, 2.0));
    let mut out = vec![f32::NAN; ids.len() * width];
    gather(Pool::single(), &table, width, &ids, 0.5, &mut out);
    let mut dtable = table.clone();
    scatter_add(Pool::single(), &ids, width, 2.0, &dout, &mut dtable);
    let mut expected = wide(&table);
    for (i, &id) in ids.iter().enumerate() {
        for j in 0..width {
            assert_eq!(out[i * width + j], 0.5 * table[id as usize * width + j]);
            expected[id as usize * width + j] += 2.0 * f64::from(dout[i * width + j]);
        }
    }
    assert_close(&dtable, &expected, 1e-6, "dtable");
}

#[test]
#[should_panic(expected = "row 4 of a table of 4 rows")]
fn a_row_that_is_not_there_is_refused() {
    gather(Pool::single(), &[0.0; 8], 2, &[1, 4], 1.0, &mut [0.0; 4]);
}

#[test]
fn cross_entropy_and_its_gradient_equal_the_formula() {
    const IGNORE: u32 = u32::MAX;
    for (rows, width) in [(1, 1), (3, 7), (2, 33), (3, 1500)] {
        for softcap in [None, Some(2.5f32)] {
            let logits: Vec<f32> = noise(rows * width, 1.0).iter().map(|x| x * 4.0).collect();
            let targets: Vec<u32> =
                (0..rows).map(|row| if row == 1 { IGNORE } else { (row * 5 % width) as u32 }).collect();
            let loss = |logits: &[f64]| -> f64 {
                let rows = logits.chunks_exact(width).zip(&targets).filter(|(_, target)| **target != IGNORE);
                rows.map(|(row, &target)| {
                    let cap = |x: f64| softcap.map_or(x, |cap| f64::from(cap) * (x / f64::from(cap)).tanh());
                    let sum: f64 = row.iter().map(|&x| cap(x).exp()).sum();
                    sum.ln() - cap(row[target as usize])
                })
                .sum()
            };
            let mut found = logits.clone();
            let pool = Pool::single();
            let plain = softmax_cross_entropy(pool, &mut found, width, &targets, IGNORE, 0.5, false, softcap);
            assert_eq!(found, logits);
            let with = softmax_cross_entropy(pool, &mut found, width, &targets, IGNORE, 0.5, true, softcap);
            assert_eq!(plain, with);
            let exact = loss(&wide(&logits));
            assert!((plain - exact).abs() < 2e-6 * (1.0 + exact), "{plain} for {exact}");
            let picked: Vec<usize> = (0..logits.len()).filter(|i| i % width < 40 || i % 11 == 0).collect();
            let exact: Vec<f64> = picked
                .iter()
                .map(|&index| {
                    let mut x = wide(&logits);
                    x[index] += 1e-5;
                    let above = loss(&x);
                    x[index] -= 2e-5;
                    0.5 * (above - loss(&x)) / 2e-5
                })
                .collect();
            let found: Vec<f32> = picked.iter().map(|&index| found[index]).collect();
            assert_close(&found, &exact, 1e-6, "gradient");
        }
    }
}

#[test]
fn cross_entropy_takes_huge_and_masked_logits() {
    let mut logits = [f32::NEG_INFINITY, 3e4, 3e4, f32::NEG_INFINITY];
    let loss = softmax_cross_entropy(Pool::single(), &mut logits, 4, &[1], 9, 1.0, true, None);
    assert!((loss - 2f64.ln()).abs() < 1e-6, "{loss}");
    assert_close(&logits, &[0.0, -0.5, 0.5, 0.0], 1e-6, "gradient");
}

#[test]
fn results_do_not_depend_on_threads() {
    let (rows, width) = (517, 96);
    let (x, y, weight) = (noise(rows * width, 1.0), noise(rows * width, 2.0), noise(width, 3.0));
    assert_threads_agree(|pool| {
        let (mut out, mut inverse) = (vec![0.0; x.len()], vec![0.0; rows]);
        rms_norm(pool, &x, width, &weight, 0.0, 1e-5, &mut out, &mut inverse);
        let (mut dx, mut dweight) = (x.clone(), weight.clone());
        rms_norm_backward(pool, &x, width, &weight, 0.0, &inverse, &y, &mut dx, Some(&mut dweight));
        vec![out, inverse, dx, dweight]
    });
    assert_threads_agree(|pool| {
        let (mut out, mut mean, mut inverse) = (vec![0.0; x.len()], vec![0.0; rows], vec![0.0; rows]);
        layer_norm(pool, &x, width, &weight, 0.0, None, 1e-5, &mut out, &mut mean, &mut inverse);
        let (mut dx, mut dw, mut db) = (x.clone(), weight.clone(), weight.clone());
        let (dweight, dbias) = (Some(dw.as_mut_slice()), Some(db.as_mut_slice()));
        layer_norm_backward(pool, &x, width, &weight, 0.0, &mean, &inverse, &y, &mut dx, dweight, dbias);
        vec![out, mean, inverse, dx, dw, db]
    });
    assert_threads_agree(|pool| {
        let (mut out, mut gate, mut up) = (vec![0.0; x.len()], x.clone(), y.clone());
        gated(pool, Activation::Gelu, &x, &y, &mut out);
        gated_backward(pool, Activation::Gelu, &mut gate, &mut up, &out);
        let mut dx = x.clone();
        plain_backward(pool, Activation::Tanh, &mut dx, &y);
        vec![out, gate, up, dx]
    });
    assert_threads_agree(|pool| {
        let ids: Vec<u32> = (0..rows as u32).map(|i| i * i % 50).collect();
        let (mut out, mut table, mut dbias) = (vec![0.0; x.len()], vec![0.0; 50 * width], vec![0.0; width]);
        scatter_add(pool, &ids, width, 1.5, &x, &mut table);
        gather(pool, &table, width, &ids, 1.5, &mut out);
        add_bias(pool, &mut out, &weight);
        bias_backward(pool, &x, width, &mut dbias);
        let mut logits = x.clone();
        let loss = softmax_cross_entropy(pool, &mut logits, width, &ids, 7, 0.1, true, None);
        rotate(pool, &mut out, 3, 32, &x[..rows * 8], &y[..rows * 8], false);
        vec![out, table, dbias, logits, vec![loss as f32]]
    });
}
