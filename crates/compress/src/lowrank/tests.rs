//! Factors against what they should be, and factorised models in the engine, the trainer and files.

use std::path::Path;

use ounce_engine::{Engine, Mode};
use ounce_model::formats::{WriteOptions, gguf_model, hf};
use ounce_train::config::{self, Preset};
use ounce_train::net::Net;
use ounce_train::{Batch, Trainable};

use super::*;
use ounce_kernels::eigen::symmetric;

pub(super) fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..count).map(|_| uniform() + uniform()).collect()
}

#[test]
fn eigenvectors_are_those_of_the_matrix() {
    for n in [1, 2, 3, 17, 40] {
        let half = numbers(n * n, n as u64);
        let even: Vec<f64> =
            (0..n * n).map(|at| f64::from(half[at]) + f64::from(half[at % n * n + at / n])).collect();
        let diagonal: Vec<f64> =
            (0..n * n).map(|at| if at % (n + 1) == 0 { (at / 2) as f64 } else { 0.0 }).collect();
        for a in [even, diagonal, vec![0.0; n * n], vec![1.0; n * n]] {
            let (values, vectors) = symmetric(a.clone(), n).expect("numbers");
            assert!(values.windows(2).all(|pair| pair[0] >= pair[1]));
            for (i, (v, value)) in vectors.chunks(n).zip(&values).enumerate() {
                for (j, own) in v.iter().enumerate() {
                    let product: f64 = a[j * n..(j + 1) * n].iter().zip(v).map(|(a, v)| a * v).sum();
                    assert!((product - value * own).abs() < 1e-9 * (1.0 + values[0].abs()), "{n} {i} {j}");
                    let other = &vectors[j * n..(j + 1) * n];
                    let along: f64 = v.iter().zip(other).map(|(a, b)| a * b).sum();
                    assert!((along - f64::from(u8::from(i == j))).abs() < 1e-9, "{n} {i} {j} {along}");
                }
            }
        }
    }
    assert!(symmetric(vec![f64::NAN; 4], 2).is_none());
}

/// `‖(W − B A) X‖² / ‖W X‖²`, one input after the other.
fn lost(w: &[f32], factors: &Factors, x: &[f32], rows: usize, columns: usize) -> f64 {
    let rank = factors.rank;
    let times = |m: &[f32], v: &[f64]| -> Vec<f64> {
        m.chunks(v.len()).map(|row| row.iter().zip(v).map(|(a, b)| f64::from(*a) * b).sum()).collect()
    };
    let (mut error, mut all) = (0.0, 0.0);
    for x in x.chunks(columns) {
        let x: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
        let whole = times(w, &x);
        let thin = times(&factors.expand, &times(&factors.reduce, &x));
        assert_eq!((thin.len(), factors.reduce.len()), (rows, rank * columns));
        error += whole.iter().zip(&thin).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
        all += whole.iter().map(|a| a * a).sum::<f64>();
    }
    error / all
}

#[test]
fn factors_are_the_best_for_weights_or_inputs() {
    for (rows, columns) in [(12, 20), (20, 12), (9, 9)] {
        let w = numbers(rows * columns, 7);
        let mut x = numbers(200 * columns, 8);
        x.iter_mut().enumerate().for_each(|(at, x)| *x *= if at % columns < 3 { 5.0 } else { 0.3 });
        let mut moments = vec![0.0f32; columns * columns];
        for x in x.chunks(columns) {
            for (at, sum) in moments.iter_mut().enumerate() {
                *sum += x[at / columns] * x[at % columns];
            }
        }
        let identity: Vec<f32> =
            (0..columns * columns).map(|at| f32::from(u8::from(at % (columns + 1) == 0))).collect();
        for (inputs, judged) in [(None, &identity), (Some(&moments[..]), &x)] {
            let full = svd::factors(&w, rows, columns, rows.min(columns), inputs).expect("numbers");
            assert!(lost(&w, &full, judged, rows, columns) < 1e-9);
            let found = svd::factors(&w, rows, columns, 4, inputs).expect("numbers");
            let own = lost(&w, &found, judged, rows, columns);
            assert!((own - found.lost).abs() < 1e-3 * own + 1e-6, "{own} {}", found.lost);
            for seed in 0..6 {
                let mut other = found.clone();
                for (factor, seed) in [(&mut other.reduce, seed), (&mut other.expand, seed + 10)] {
                    let moves = numbers(factor.len(), seed);
                    factor.iter_mut().zip(moves).for_each(|(x, by)| *x += 0.02 * by);
                }
                assert!(lost(&w, &other, judged, rows, columns) > own * 0.999, "{rows} {columns}");
            }
            for at in 0..4 {
                let a: f32 = found.reduce[at * columns..(at + 1) * columns].iter().map(|x| x * x).sum();
                let b: f32 = (0..rows).map(|row| found.expand[row * 4 + at].powi(2)).sum();
                assert!((a / b - 1.0).abs() < 1e-3, "both factors have the same size");
            }
        }
        let plain = svd::factors(&w, rows, columns, 4, None).expect("numbers");
        let seen = svd::factors(&w, rows, columns, 4, Some(&moments)).expect("numbers");
        assert!(lost(&w, &seen, &x, rows, columns) < 0.9 * lost(&w, &plain, &x, rows, columns));
    }
    assert!(svd::factors(&[f32::NAN; 4], 2, 2, 1, None).is_err());
}

pub(super) fn model() -> Model {
    let shape = config::Model {
        preset: Preset::Llama,
        hidden: 32,
        layers: 2,
        heads: 2,
        context: 32,
        init: 0.2,
        ..config::Model::default()
    };
    let model = shape.architecture(50, []).expect("a shape");
    Net::random(&model, Default::default(), shape.initial(), 3).expect("a network").model().expect("a model")
}

fn sequences() -> Vec<Vec<u32>> {
    (0..8).map(|n| (0..24).map(|at| (n * 7 + at * 5 + at * at) % 50).collect()).collect()
}

pub(super) fn factorised(calibrated: bool) -> (Model, Vec<Factorised>) {
    let model = model();
    let plan = plan(&model, Amount::Share(0.5), &|_| true).expect("a plan");
    factorise(&model, &plan, calibrated.then(sequences), &mut |_, _| Ok(())).expect("factorised")
}

/// The model with each pair multiplied out again.
fn multiplied(model: &Model) -> Model {
    let mut whole = model.clone();
    let mut spec = model.spec.clone();
    spec.ranks.clear();
    let mut source = MemorySource::new("whole");
    for tensor in spec.tensors() {
        let linear = tensor.name.trim_end_matches(".weight");
        let stored = match model.spec.ranks.get(linear) {
            None => model.weights.get(&tensor.name).expect("there"),
            Some(&rank) => {
                let [a, b] =
                    [REDUCE, EXPAND].map(|end| model.weights.f32(&format!("{linear}{end}")).expect("there"));
                let (rows, columns) = (tensor.shape[0], tensor.shape[1]);
                let value = |at: usize| -> f32 {
                    let (row, column) = (at / columns, at % columns);
                    (0..rank)
                        .map(|k| f64::from(b[row * rank + k]) * f64::from(a[k * columns + column]))
                        .sum::<f64>() as f32
                };
                Tensor::from_f32(&tensor.shape, &(0..rows * columns).map(value).collect::<Vec<_>>())
            }
        };
        source.insert(tensor.name, stored);
    }
    (whole.spec, whole.weights) = (spec, Weights::in_memory(source));
    whole
}

fn logits(model: &Model, mode: Mode) -> Vec<f32> {
    let engine = Engine::load(model, mode).expect("loaded");
    engine.session().logits(&sequences()[0]).expect("logits")
}

fn loss(model: &Model) -> f64 {
    let mut net = Net::from_model(model, Default::default()).expect("a network");
    net.loss(&Batch::next_token(sequences().iter().map(Vec::as_slice))).expect("a loss").mean()
}

#[test]
fn a_factorised_model_is_the_model_of_its_products() {
    for calibrated in [false, true] {
        let (thin, done) = factorised(calibrated);
        assert_eq!(done.len(), 14);
        assert!(
            done.iter().all(|it| it.rank == it.break_even / 2 && it.lost > 0.0 && it.lost < 1.0),
            "{done:?}"
        );
        assert!(thin.spec.parameters() < model().spec.parameters() * 7 / 10);
        let whole = multiplied(&thin);
        for mode in [Mode::Reference, Mode::fast()] {
            let (a, b) = (logits(&thin, mode), logits(&whole, mode));
            let far = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(far < 2e-3, "{mode:?} {far}");
        }
        assert!((loss(&thin) - loss(&whole)).abs() < 1e-4);
    }
}

#[test]
fn factors_are_trained_by_their_own_gradients() {
    let (thin, _) = factorised(false);
    let mut net = Net::from_model(&thin, Default::default()).expect("a network");
    let batch = Batch::next_token(sequences()[..2].iter().map(Vec::as_slice));
    net.accumulate(&batch, 1.0 / batch.counted() as f32).expect("a step");
    let gradients: Vec<Vec<f32>> = net.params().iter().map(|param| param.grad.clone()).collect();
    let mut seen = 0;
    for (index, gradient) in gradients.iter().enumerate() {
        if !ounce_model::spec_tensors::is_factor(&net.params()[index].name) {
            continue;
        }
        seen += 1;
        let place = gradient.len() / 3;
        let mut loss = |by: f32| {
            net.params_mut()[index].value[place] += by;
            let loss = net.loss(&batch).expect("a loss").mean();
            net.params_mut()[index].value[place] -= by;
            loss
        };
        let expected = (loss(5e-3) - loss(-5e-3)) / 1e-2;
        let found = f64::from(gradient[place]);
        assert!((found - expected).abs() < 3e-3 * expected.abs().max(0.3), "{index}: {found} {expected}");
    }
    assert_eq!(seen, 28);
}

#[test]
fn every_solver_makes_a_model_of_factors() {
    let model = model();
    let plan = plan(&model, Amount::Share(0.5), &|_| true).expect("a plan");
    let by = |solver| factorise_by(solver, &model, &plan, None, &mut |_, _| Ok(())).expect("factorised");
    let lost = [Solver::Svd, Solver::SemiNmf, Solver::Random(1)].map(|solver| {
        let (thin, done) = by(solver);
        assert!((loss(&thin) - loss(&multiplied(&thin))).abs() < 1e-4, "{solver:?}");
        done.iter().map(|it| it.lost).sum::<f64>() / done.len() as f64
    });
    assert!(lost.is_sorted() && lost[0] < lost[1], "{lost:?}");
    assert!(lost[1] < 1.0 && lost[2] > 1.5, "{lost:?}");
    let found = factorise_by(Solver::SemiNmf, &model, &plan, Some(sequences()), &mut |_, _| Ok(()));
    assert!(found.expect_err("refused").to_string().contains("takes calibration"));
}

#[test]
fn files_hold_factors_and_give_them_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let (thin, _) = factorised(false);
    let (hf_path, gguf_path) = (folder.path().join("model"), folder.path().join("model.gguf"));
    hf::write_model(&thin, &hf_path, &WriteOptions::default(), &mut |_, _| Ok(())).expect("written");
    gguf_model::write_model(&thin, &gguf_path, &WriteOptions::default(), &mut |_, _| Ok(()))
        .expect("written");
    for path in [&hf_path, &gguf_path] {
        let read = Model::open(path).expect("read");
        assert_eq!(read.spec.ranks, thin.spec.ranks);
        for tensor in thin.spec.tensors() {
            let [a, b] = [&thin, &read].map(|model| model.weights.f32(&tensor.name).expect("there"));
            assert!(a == b, "{}", tensor.name);
        }
        assert_eq!(logits(&read, Mode::Reference), logits(&thin, Mode::Reference));
    }
    damaged(
        &hf_path,
        "\"layers.0.attention.query\": 8",
        "\"layers.0.attention.query\": 7",
        "asks for weights of",
    );
    damaged(
        &hf_path,
        "\"layers.0.attention.query\": 7",
        "\"layers.0.attention.qwery\": 7",
        "is no linear layer",
    );
    damaged(&hf_path, "\"layers.0.attention.qwery\": 7", "\"layers.0.attention.query\": 999", "from 1 to 32");
}

/// Changes the settings and expects a sentence.
fn damaged(folder: &Path, from: &str, to: &str, said: &str) {
    let path = folder.join("config.json");
    let text = std::fs::read_to_string(&path).expect("settings");
    assert!(text.contains(from), "{text}");
    std::fs::write(&path, text.replace(from, to)).expect("written");
    let error = Model::open(folder).expect_err("refused").to_string();
    assert!(error.contains(said), "{error}");
}

#[test]
fn what_makes_nothing_smaller_is_refused() {
    let model = model();
    for amount in
        [Amount::Share(0.0), Amount::Share(1.0), Amount::Rank(0), Amount::Rank(31), Amount::Share(0.01)]
    {
        assert!(plan(&model, amount, &|_| true).is_err(), "{amount:?}");
    }
    // Only wide matrices gain at this rank.
    let some = plan(&model, Amount::Rank(17), &|_| true).expect("a plan");
    assert!(!some.is_empty() && some.iter().all(|(name, _)| name.contains("feed_forward")), "{some:?}");
    assert_eq!((break_even(128, 128), break_even(512, 128)), (64, 102));
    // 0.5 · 1024 · 4096 / 5120 = 409.6, in whole blocks 384.
    assert_eq!(Amount::Share(0.5).rank(1024, 4096), Some(384));
    assert_eq!(Amount::Share(0.5).rank(128, 128), Some(32));
}
