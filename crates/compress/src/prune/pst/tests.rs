//! Gradients through the ranking against differences, exact zeros, and folding.

use candle_core::{Device, Tensor, Var};
use ounce_train::Trainable;
use ounce_train::net::{Net, Options as NetOptions};

use super::slot::{Share, importance, masked};
use super::train::network;
use super::{Options, Way, prune};
use crate::prune::classifier::{batch, classifier, numbers, source};

const PST: Way = Way::Pst { rank: 2, score_rank: 3 };

fn options(way: Way, sparsity: f64) -> Options {
    Options { way, sparsity, steps: 12, still: [0.2, 0.3], rate: 5e-3, seed: 4 }
}

/// `Σ g ⊙ W' ⊙ (M + S − S₀)` in f64, with the mask and the scores `S₀` of the point at which the derivative is asked for: what goes
/// straight through the ranking is the derivative of this.
fn relaxed(parts: &[Vec<f32>; 7], mask: &[bool], first: &[f64], g: &[f32]) -> (f64, Vec<f64>) {
    let [base, u, v, a, b, rows, columns] = parts;
    let (n, k) = (rows.len(), columns.len());
    let product = |left: &[f32], right: &[f32], row: usize, column: usize| -> f64 {
        let rank = left.len() / n;
        (0..rank).map(|r| f64::from(left[row * rank + r]) * f64::from(right[r * k + column])).sum()
    };
    let (mut sum, mut scores) = (0.0, Vec::new());
    for row in 0..n {
        for column in 0..k {
            let at = row * k + column;
            let w = f64::from(base[at]) + product(u, v, row, column);
            let score =
                w.abs() + product(a, b, row, column) + f64::from(rows[row]) + f64::from(columns[column]);
            let open = f64::from(u8::from(mask[at])) + score - first.get(at).copied().unwrap_or(score);
            sum += f64::from(g[at]) * w * open;
            scores.push(score);
        }
    }
    (sum, scores)
}

#[test]
fn gradients_go_straight_through_the_ranking() {
    let (n, k) = (5, 7);
    let shapes: [(usize, usize); 7] = [(n, k), (n, 2), (2, k), (n, 3), (3, k), (n, 1), (k, 1)];
    let parts: [Vec<f32>; 7] = std::array::from_fn(|at| numbers(shapes[at].0 * shapes[at].1, at as u64));
    let g = numbers(n * k, 99);
    let var = |at: usize, shape: &[usize]| Var::from_slice(&parts[at], shape, &Device::Cpu).unwrap();
    let vars =
        [var(1, &[n, 2]), var(2, &[2, k]), var(3, &[n, 3]), var(4, &[3, k]), var(5, &[n]), var(6, &[k])];
    let [u, v, a, b, rows, columns] = &vars;
    let base = Tensor::from_slice(&parts[0], (n, k), &Device::Cpu).unwrap();
    let w = (base + u.matmul(v).unwrap()).unwrap();
    let scores = importance(&w, a, b, rows, columns).unwrap();
    let out = masked(&w, &scores, 0.6).unwrap();
    let values: Vec<f32> = out.flatten_all().unwrap().to_vec1().unwrap();
    let mask: Vec<bool> = values.iter().map(|value| *value != 0.0).collect();
    assert_eq!(mask.iter().filter(|kept| !**kept).count(), 21);
    // The lowest scores are out.
    let own: Vec<f32> = scores.flatten_all().unwrap().to_vec1().unwrap();
    let least = own.iter().zip(&mask).filter(|it| *it.1).map(|it| *it.0).fold(f32::MAX, f32::min);
    assert!(own.iter().zip(&mask).all(|(score, kept)| *kept || *score <= least));
    let loss = (out * Tensor::from_slice(&g, (n, k), &Device::Cpu).unwrap()).unwrap().sum_all().unwrap();
    let gradients = loss.backward().unwrap();
    let (_, first) = relaxed(&parts, &mask, &[], &g);
    let step = 1e-3f32;
    for (at, var) in vars.iter().enumerate() {
        let found: Vec<f32> = gradients.get(var).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        for (place, found) in found.iter().enumerate() {
            let moved = |by: f32| {
                let mut parts = parts.clone();
                parts[at + 1][place] += by;
                relaxed(&parts, &mask, &first, &g).0
            };
            let wanted = (moved(step) - moved(-step)) / (2.0 * f64::from(step));
            assert!((f64::from(*found) - wanted).abs() < 2e-3, "{at} {place}: {found} for {wanted}");
        }
    }
}

#[test]
fn at_first_magnitudes_decide_and_only_small_matrices_learn() {
    let model = classifier();
    let share = Share::default();
    share.set(0.5);
    let mut net = network(&model, &options(PST, 0.5), &share).unwrap();
    for tensor in net.model().unwrap().spec.tensors() {
        let (whole, found) = (
            model.weights.f32(&tensor.name).unwrap(),
            net.model().unwrap().weights.f32(&tensor.name).unwrap(),
        );
        if !tensor.name.starts_with("layers.") || tensor.shape.len() < 2 {
            assert_eq!(whole, found, "{}", tensor.name);
            continue;
        }
        let mut sizes: Vec<f32> = whole.iter().map(|value| value.abs()).collect();
        sizes.sort_unstable_by(f32::total_cmp);
        let border = sizes[sizes.len() / 2];
        for (whole, found) in whole.iter().zip(&found) {
            assert_eq!(*found, if whole.abs() < border { 0.0 } else { *whole }, "{}", tensor.name);
        }
    }
    net.accumulate(&batch(), 1.0).unwrap();
    for param in net.params() {
        let small = ["change_", "score_"].iter().any(|part| param.name.contains(part));
        let head = param.name.starts_with("classifier");
        assert_eq!(param.is_trainable(), small || head, "{}", param.name);
        // What is multiplied by zeros has no gradient yet.
        if param.name.ends_with("change_in") || param.name.ends_with("score_rows") {
            assert!(param.grad.iter().any(|grad| *grad != 0.0), "{}", param.name);
        }
    }
}

#[test]
fn every_way_ends_with_exact_zeros_and_learns() {
    let model = classifier();
    for way in [PST, Way::Gradual { rank: 2 }, Way::AtOnce { rank: 2 }, Way::Movement] {
        let options = options(way, 0.75);
        let found = prune(&model, &mut source(), &options, &mut |_, _| Ok(())).unwrap();
        let mut whole = 0;
        for tensor in found.model.spec.tensors() {
            let values = found.model.weights.f32(&tensor.name).unwrap();
            if tensor.name.starts_with("layers.") && tensor.shape.len() > 1 {
                let zeros = values.iter().filter(|value| **value == 0.0).count();
                assert_eq!(zeros, values.len() * 3 / 4, "{way:?}: {}", tensor.name);
                whole += values.len();
            }
        }
        assert_eq!(found.state_bytes, 8 * found.trained);
        if way == Way::Movement {
            assert!(found.trained >= 2 * whole);
        }
        let loss = |model: &ounce_model::Model| {
            Net::from_model(model, NetOptions::default()).unwrap().loss(&batch()).unwrap().mean()
        };
        assert!(loss(&found.model) < loss(&model), "{way:?}");
    }
}

#[test]
fn a_folded_model_is_the_network() {
    let model = classifier();
    let share = Share::default();
    share.set(0.6);
    let mut net = network(&model, &options(PST, 0.6), &share).unwrap();
    // Anything in all small matrices.
    for (seed, param) in net.params_mut().iter_mut().enumerate().filter(|(_, param)| param.is_trainable()) {
        param.value = numbers(param.value.len(), seed as u64).into_iter().map(|value| 0.2 * value).collect();
    }
    let folded = net.model().unwrap();
    let (ours, theirs) = (
        net.loss(&batch()).unwrap().mean(),
        Net::from_model(&folded, NetOptions::default()).unwrap().loss(&batch()).unwrap().mean(),
    );
    assert!((ours / theirs - 1.0).abs() < 1e-5, "{ours} and {theirs}");
}

#[test]
fn options_out_of_range_are_refused() {
    let model = classifier();
    let said = |options: Options| {
        prune(&model, &mut source(), &options, &mut |_, _| Ok(())).unwrap_err().to_string()
    };
    assert!(said(options(PST, 1.0)).contains("below 1"));
    assert!(said(Options { still: [0.5, 0.5], ..options(PST, 0.5) }).contains("give more"));
}
