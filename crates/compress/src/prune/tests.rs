//! Each score against a slow way that shares nothing with it, and a whole model.

use std::path::Path;

use ounce_engine::Tap;

use super::*;
use crate::quantize::moments::Moments;

/// Numbers between -½ and ½.
fn uniform(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    }
}

fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut uniform = uniform(seed);
    (0..count).map(|_| uniform() + uniform() + uniform()).collect()
}

/// Inputs that share factors, some columns larger than the rest, `[tokens, n]`.
fn inputs(tokens: usize, n: usize) -> Vec<f32> {
    let (mixing, mut uniform) = (numbers(4 * n, 3), uniform(4));
    let mut x = Vec::new();
    for _ in 0..tokens {
        let hidden: Vec<f32> = (0..4).map(|_| uniform()).collect();
        for column in 0..n {
            let common: f32 = (0..4).map(|f| hidden[f] * mixing[f * n + column]).sum();
            x.push((common + 0.2 * uniform()) * if column % 5 == 2 { 6.0 } else { 1.0 });
        }
    }
    x
}

fn moments(x: &[f32], n: usize) -> Moments {
    let mut collector = Collector::new(true);
    collector.observe(&["a"], x, n);
    collector.moments("a").unwrap().clone()
}

fn hessian(moments: &Moments, damping: f32) -> Hessian {
    Hessian::new(moments, &gptq::Options { damping, order: gptq::Order::Stored, descent: 0 }).unwrap()
}

/// Solves `a x = b`, `a` `[n, n]`, by elimination with pivots.
fn solve(mut a: Vec<f64>, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    for k in 0..n {
        let pivot = (k..n).max_by(|&i, &j| a[i * n + k].abs().total_cmp(&a[j * n + k].abs())).unwrap();
        (0..n).for_each(|j| a.swap(k * n + j, pivot * n + j));
        b.swap(k, pivot);
        for i in k + 1..n {
            let factor = a[i * n + k] / a[k * n + k];
            (k..n).for_each(|j| a[i * n + j] -= factor * a[k * n + j]);
            b[i] -= factor * b[k];
        }
    }
    for k in (0..n).rev() {
        let known: f64 = (k + 1..n).map(|j| a[k * n + j] * b[j]).sum();
        b[k] = (b[k] - known) / a[k * n + k];
    }
    b
}

/// The damped mean of `x xᵀ`.
fn damped(x: &[f32], n: usize, damping: f64) -> Vec<f64> {
    let tokens = x.len() / n;
    let product = |i: usize, j: usize| -> f64 {
        x.chunks_exact(n).map(|x| f64::from(x[i]) * f64::from(x[j])).sum::<f64>() / tokens as f64
    };
    let mut h: Vec<f64> = (0..n * n).map(|at| product(at / n, at % n)).collect();
    let mean = (0..n).map(|i| h[i * n + i]).sum::<f64>() / n as f64;
    (0..n).for_each(|i| h[i * n + i] += damping * mean);
    h
}

/// How the columns after `at` move so that the outputs change least when that weight becomes zero: least squares on `h`.
fn least_squares(h: &[f64], n: usize, at: usize, weight: f64) -> Vec<f64> {
    let free: Vec<usize> = (at + 1..n).collect();
    let a = free.iter().flat_map(|&i| free.iter().map(move |&j| h[i * n + j])).collect();
    let b = free.iter().map(|&i| weight * h[i * n + at]).collect();
    solve(a, b)
}

/// What the outputs change by, squared, when the weights move by `delta`.
fn loss(h: &[f64], n: usize, delta: &[f64]) -> f64 {
    (0..n * n).map(|at| delta[at / n] * h[at] * delta[at % n]).sum()
}

#[test]
fn the_smallest_go() {
    let (rows, n) = (6, 8);
    let w = numbers(rows * n, 1);
    for share in [0.0, 0.3, 0.5, 0.9] {
        let mut pruned = w.clone();
        magnitude::prune(&mut pruned, n, Sparsity::Share(share));
        let gone = (share * w.len() as f64) as usize;
        let mut sorted: Vec<f32> = w.iter().map(|x| x.abs()).collect();
        sorted.sort_by(f32::total_cmp);
        for (new, old) in pruned.iter().zip(&w) {
            let goes = gone > 0 && old.abs() <= sorted[gone - 1];
            assert_eq!(*new, if goes { 0.0 } else { *old });
        }
    }
    let mut pruned = w.clone();
    magnitude::prune(&mut pruned, n, TWO_OF_FOUR);
    for (new, old) in pruned.chunks_exact(4).zip(w.chunks_exact(4)) {
        for i in 0..4 {
            let larger = old.iter().filter(|x| x.abs() > old[i].abs()).count();
            assert_eq!(new[i], if larger < 2 { old[i] } else { 0.0 });
        }
    }
}

#[test]
fn of_equal_weights_the_later_go() {
    let mut w = vec![1.0, -1.0, 1.0, 1.0];
    magnitude::prune(&mut w, 4, TWO_OF_FOUR);
    assert_eq!(w, [1.0, -1.0, 0.0, 0.0]);
}

#[test]
fn wanda_weighs_by_the_norms_of_inputs_within_a_row() {
    let (rows, n, tokens) = (5, 12, 40);
    let (w, x) = (numbers(rows * n, 1), inputs(tokens, n));
    let norm = |column: usize| x.chunks_exact(n).map(|x| f64::from(x[column]).powi(2)).sum::<f64>().sqrt();
    let importance = moments(&x, n).importance();
    for (sparsity, group, stay) in
        [(Sparsity::Share(0.5), n, 6), (TWO_OF_FOUR, 4, 2), (Sparsity::Share(0.25), n, 9)]
    {
        let mut pruned = w.clone();
        wanda::prune(&mut pruned, n, &importance, sparsity);
        for row in 0..rows {
            for column in 0..n {
                let score = |column: usize| f64::from(w[row * n + column].abs()) * norm(column);
                let first = column / group * group;
                let better = (first..first + group).filter(|&it| score(it) > score(column)).count();
                let at = row * n + column;
                assert_eq!(
                    pruned[at],
                    if better < stay { w[at] } else { 0.0 },
                    "{sparsity:?} {row} {column}"
                );
            }
        }
    }
}

#[test]
fn with_one_weight_removed_the_rest_is_the_least_squares_solution() {
    let (n, damping) = (12, 0.01);
    let x = inputs(60, n);
    let (moments, h) = (moments(&x, n), damped(&x, n, damping));
    let hessian = hessian(&moments, damping as f32);
    let mut places = [0; 12];
    for seed in 0..40 {
        let w = numbers(n, 100 + seed);
        let mut pruned = w.clone();
        // All but one of the row's only group stay.
        sparsegpt::prune(&mut pruned, &hessian, Sparsity::Groups { keep: 11, of: 12 }, &Default::default());
        // Of each weight what its removal costs, when the later ones have answered.
        let moved = |at: usize| -> Vec<f64> {
            let weight = f64::from(w[at]);
            let answer = least_squares(&h, n, at, weight);
            (0..n)
                .map(|i| {
                    if i < at {
                        0.0
                    } else if i == at {
                        -weight
                    } else {
                        answer[i - at - 1]
                    }
                })
                .collect()
        };
        let cost = |at: &usize| loss(&h, n, &moved(*at));
        let at = (0..n).min_by(|a, b| cost(a).total_cmp(&cost(b))).unwrap();
        places[at] += 1;
        for (i, moved) in moved(at).iter().enumerate() {
            let expected = f64::from(w[i]) + moved;
            assert!(
                (f64::from(pruned[i]) - expected).abs() < 2e-3 * (1.0 + expected.abs()),
                "{seed}: {at} {i}"
            );
        }
        assert_eq!(pruned[at], 0.0);
    }
    assert!(places.iter().filter(|count| **count > 0).count() >= 4, "{places:?}");
}

#[test]
fn without_groups_the_least_costly_of_the_first_block_go_first() {
    let (rows, n) = (3, 16);
    let x = inputs(80, n);
    let (w, hessian) = (numbers(rows * n, 7), hessian(&moments(&x, n), 0.01));
    let h = damped(&x, n, 0.01);
    // 1 / [H⁻¹]_jj over the columns from j on, by solving for a unit vector.
    let cost = |j: usize| {
        let rest: Vec<usize> = (j..n).collect();
        let a =
            rest.iter().flat_map(|&i| rest.iter().map(move |&k| (i, k))).map(|(i, k)| h[i * n + k]).collect();
        let mut unit = vec![0.0; n - j];
        unit[0] = 1.0;
        1.0 / solve(a, unit)[0]
    };
    let costs: Vec<f64> = (0..n).map(cost).collect();
    let score = |at: usize| f64::from(w[at]).powi(2) * costs[at % n];
    let mut order: Vec<usize> = (0..rows * n).collect();
    order.sort_by(|&a, &b| score(a).total_cmp(&score(b)));
    let mut pruned = w.clone();
    sparsegpt::prune(&mut pruned, &hessian, Sparsity::Share(0.5), &Default::default());
    let mut zero: Vec<usize> = (0..rows * n).filter(|&at| pruned[at] == 0.0).collect();
    let mut expected = order[..rows * n / 2].to_vec();
    zero.sort_unstable();
    expected.sort_unstable();
    assert_eq!(zero, expected);
}

#[test]
fn scores_that_know_more_change_outputs_less() {
    let (rows, n) = (24, 256);
    let (w, moments) = (numbers(rows * n, 1), moments(&inputs(900, n), n));
    let hessian = hessian(&moments, 0.01);
    for sparsity in [Sparsity::Share(0.5), TWO_OF_FOUR] {
        let error = |prune: &dyn Fn(&mut [f32])| {
            let mut pruned = w.clone();
            prune(&mut pruned);
            let zeros = pruned.iter().filter(|x| **x == 0.0).count();
            assert_eq!(zeros, w.len() / 2, "{sparsity:?}");
            let delta: Vec<f32> = pruned.iter().zip(&w).map(|(a, b)| a - b).collect();
            moments.loss(&delta) / moments.loss(&w)
        };
        let magnitude = error(&|w| magnitude::prune(w, n, sparsity));
        let wanda = error(&|w| wanda::prune(w, n, &moments.importance(), sparsity));
        let sparsegpt = error(&|w| sparsegpt::prune(w, &hessian, sparsity, &Default::default()));
        println!("{sparsity:?}: {magnitude:.4} {wanda:.4} {sparsegpt:.4}");
        assert!(wanda < 0.8 * magnitude && sparsegpt < 0.5 * wanda);
    }
}

#[test]
fn a_model_is_pruned_where_it_should_be() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/models/llama");
    let model = Model::open(path).unwrap();
    let names = matrices(&model).unwrap();
    assert!(names.len() > 6 && names.iter().all(|name| name.starts_with("layers.")));
    let text: Vec<Vec<u32>> =
        (0..8).map(|k| (0..24).map(|i| (i * 37 + k * 11) % model.spec.vocab_size as u32).collect()).collect();
    for criterion in [Criterion::Magnitude, Criterion::Wanda, Criterion::SparseGpt(Default::default())] {
        let mut seen = 0;
        let weights = prune(&model, &names, criterion, TWO_OF_FOUR, text.clone(), &mut |done, _| {
            seen = seen.max(done);
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, model.spec.layers.len());
        for name in model.weights.names() {
            let (old, new) = (model.weights.f32(name).unwrap(), weights.f32(name).unwrap());
            assert_eq!(weights.info(name), model.weights.info(name));
            if names.iter().any(|it| it == name) {
                let zeros = |group: &[f32]| group.iter().filter(|x| **x == 0.0).count() >= 2;
                assert!(new.chunks_exact(4).all(zeros), "{criterion:?} {name}");
                let stays = old.iter().zip(&new).filter(|(_, new)| **new != 0.0).all(|(old, new)| old == new);
                assert_eq!(stays, !matches!(criterion, Criterion::SparseGpt(_)), "{name}");
            } else {
                assert_eq!(old, new, "{name}");
            }
        }
    }
    let fails = |names: &[String], sparsity, text| {
        prune(&model, names, Criterion::Wanda, sparsity, text, &mut |_, _| Ok(())).unwrap_err().to_string()
    };
    assert!(fails(&names, TWO_OF_FOUR, Vec::new()).contains("calibration"));
    assert!(fails(&["head.weight".into()], TWO_OF_FOUR, text.clone()).contains("layer"));
    assert!(fails(&names, Sparsity::Share(1.0), text.clone()).contains("below 1"));
    assert!(fails(&names, Sparsity::Groups { keep: 2, of: 7 }, text.clone()).contains("whole groups"));
    let mut stop = |_, _| Err(Error::Option("stopped".into()));
    assert!(prune(&model, &names, Criterion::Magnitude, TWO_OF_FOUR, Vec::new(), &mut stop).is_err());
}

#[test]
fn bytes_are_those_of_what_stays_and_of_its_places() {
    assert_eq!(TWO_OF_FOUR.bits_per_weight(16.0), 9.0);
    assert_eq!(Sparsity::Groups { keep: 4, of: 8 }.bits_per_weight(16.0), 9.5);
    assert_eq!(Sparsity::Share(0.5).bits_per_weight(16.0), 9.0);
}
