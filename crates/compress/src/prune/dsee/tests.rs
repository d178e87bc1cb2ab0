//! Places, gradients of entries and coefficients against differences, exact zeros, and cuts that are masks.

use std::sync::Arc;

use candle_core::{Device, Tensor, Var};
use ounce_model::Model;
use ounce_train::Trainable;
use ounce_train::net::{Net, Options as NetOptions};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::adapted::{Adapted, Options, Tuning};
use super::places::{Support, places};
use super::slot::scattered;
use crate::prune::classifier::{batch, classifier, numbers, source};

fn options() -> Options {
    Options { rank: 2, entries: 12, support: Support::Decomposed, scale: 2.0, coefficients: false, seed: 4 }
}

const TUNING: Tuning = Tuning { steps: 12, rate: 5e-3, penalty: 0.0 };

fn scores(model: &Model) -> Vec<f32> {
    Net::from_model(model, NetOptions::default()).unwrap().scores(&batch()).unwrap()
}

fn near(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    let most = b.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-4 * most), "{a:?} and {b:?}");
}

/// Anything in every number that learns.
fn shaken(options: &Options) -> Adapted {
    let mut adapted = Adapted::new(&classifier(), options).unwrap();
    for (seed, it) in adapted.changes.values_mut().enumerate() {
        let seed = seed as u64;
        it.v = numbers(it.v.len(), seed).into_iter().map(|value| 0.1 * value).collect();
        it.entries = numbers(it.entries.len(), 50 + seed).into_iter().map(|value| 0.3 * value).collect();
    }
    for (seed, it) in adapted.coefficients.values_mut().enumerate() {
        *it = numbers(it.len(), 90 + seed as u64).into_iter().map(|value| 1.0 + 0.5 * value).collect();
    }
    adapted
}

#[test]
fn a_sparse_part_beside_a_low_rank_one_is_found() {
    let (rows, columns) = (14, 18);
    let (left, right) = (numbers(rows, 1), numbers(columns, 2));
    let mut w: Vec<f32> = left.iter().flat_map(|a| right.iter().map(move |b| a * b)).collect();
    let hidden = [7u32, 40, 41, 99, 180, 251];
    hidden
        .iter()
        .enumerate()
        .for_each(|(at, place)| w[*place as usize] += if at % 2 == 0 { 3.0 } else { -3.0 });
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let found = places(&w, (rows, columns), 1, hidden.len(), Support::Decomposed, &mut random).unwrap();
    assert_eq!(found, hidden);
    let any = places(&w, (rows, columns), 1, 6, Support::Random, &mut random).unwrap();
    assert!(any.len() == 6 && any.is_sorted_by(|a, b| a < b) && any != hidden);
    w[3] = f32::NAN;
    assert!(places(&w, (rows, columns), 1, 6, Support::Decomposed, &mut random).is_err());
}

#[test]
fn entries_have_the_gradients_of_their_places() {
    let places: Arc<[u32]> = vec![1, 5, 10].into();
    let matrix = Var::from_slice(&numbers(12, 1), (3, 4), &Device::Cpu).unwrap();
    let values = Var::from_slice(&numbers(3, 2), 3, &Device::Cpu).unwrap();
    let g = numbers(12, 3);
    let out = scattered(&matrix, &values, &places).unwrap();
    let found: Vec<f32> = out.flatten_all().unwrap().to_vec1().unwrap();
    let mut wanted = numbers(12, 1);
    places.iter().zip(numbers(3, 2)).for_each(|(place, value)| wanted[*place as usize] += value);
    assert_eq!(found, wanted);
    let loss = (out * Tensor::from_slice(&g, (3, 4), &Device::Cpu).unwrap()).unwrap().sum_all().unwrap();
    let gradients = loss.backward().unwrap();
    let of = |var: &Var| gradients.get(var).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(of(&matrix), g);
    assert_eq!(of(&values), [g[1], g[5], g[10]]);
}

#[test]
fn gradients_of_change_and_coefficients_are_those_of_differences() {
    let adapted = shaken(&Options { coefficients: true, ..options() });
    let (mut net, coefficients) = adapted.network().unwrap();
    assert_eq!(coefficients.len(), 2 * adapted.model.spec.layers.len());
    let batch = batch();
    // A head that says much, so that differences are larger than what f32 rounds away.
    let head = net.params_mut().iter_mut().filter(|it| it.name.starts_with("classifier"));
    head.for_each(|it| it.value.iter_mut().for_each(|value| *value *= 25.0));
    net.accumulate(&batch, 1.0).unwrap();
    let learns: Vec<usize> = (0..net.params().len())
        .filter(|at| net.params()[*at].is_trainable() && net.params()[*at].name.starts_with("layers."))
        .collect();
    // U, V and entries of two matrices, and two sets of coefficients, of each layer.
    assert_eq!(learns.len(), 8 * adapted.model.spec.layers.len());
    let most =
        learns.iter().flat_map(|at| &net.params()[*at].grad).fold(0.0f32, |most, it| most.max(it.abs()));
    for at in learns {
        let sizes: Vec<f32> = net.params()[at].grad.iter().map(|it| it.abs()).collect();
        let place = (0..sizes.len()).fold(0, |best, at| if sizes[at] > sizes[best] { at } else { best });
        let found = net.params()[at].grad[place];
        let step = 2e-3f32;
        let mut moved = |by: f32| {
            let old = net.params()[at].value[place];
            net.params_mut()[at].value[place] = old + by;
            let loss = net.loss(&batch).unwrap().sum;
            net.params_mut()[at].value[place] = old;
            loss
        };
        let wanted = ((moved(step) - moved(-step)) / (2.0 * f64::from(step))) as f32;
        let name = net.params()[at].name.clone();
        assert!((found - wanted).abs() <= 0.03 * wanted.abs() + 1e-3 * most, "{name}: {found} for {wanted}");
    }
}

#[test]
fn at_first_nothing_is_changed_and_little_learns() {
    let adapted = Adapted::new(&classifier(), &options()).unwrap();
    near(&scores(&adapted.merged().unwrap()), &scores(&classifier()));
    let (net, _) = adapted.network().unwrap();
    let learns = net.params().iter().filter(|it| it.is_trainable() && it.name.starts_with("layers."));
    assert_eq!(learns.map(|it| it.value.len()).sum::<usize>(), adapted.trained());
    let lora = Adapted::new(&classifier(), &Options { entries: 0, ..options() }).unwrap();
    assert!(lora.changes.values().all(|it| it.entries.is_empty()));
    assert!(Adapted::new(&classifier(), &Options { rank: 0, ..options() }).is_err());
}

#[test]
fn weights_leave_over_all_layers_together_and_stay_out() {
    let mut adapted = shaken(&options());
    let inner = |adapted: &Adapted| -> Vec<(String, Vec<f32>)> {
        let all = adapted.model.spec.tensors().into_iter();
        let inner = all.filter(|it| it.name.starts_with("layers.") && it.shape.len() > 1);
        inner.map(|it| (it.name.clone(), adapted.model.weights.f32(&it.name).unwrap())).collect()
    };
    let merged = adapted.merged().unwrap();
    adapted.prune_weights(0.5).unwrap();
    let pruned = inner(&adapted);
    let count: usize = pruned.iter().map(|it| it.1.len()).sum();
    let zeros =
        |all: &[(String, Vec<f32>)]| all.iter().flat_map(|it| &it.1).filter(|value| **value == 0.0).count();
    assert_eq!(zeros(&pruned), count / 2);
    // By the size with the change added, over all of them.
    let (mut out, mut kept) = (0.0f32, f32::MAX);
    for (name, values) in &pruned {
        for (value, whole) in values.iter().zip(merged.weights.f32(name).unwrap()) {
            match *value == 0.0 {
                true => out = out.max(whole.abs()),
                false => kept = kept.min(whole.abs()),
            }
        }
    }
    assert!(out <= kept, "{out} left and {kept} stayed");
    let bytes = adapted.bytes().unwrap();
    let change: usize =
        adapted.changes.values().map(|it| 4 * (it.u.len() + it.v.len() + 2 * it.entries.len())).sum();
    let places: usize = pruned.iter().map(|it| it.1.len().div_ceil(8)).sum();
    assert_eq!(bytes, 4 * (count - count / 2) + places + change);
    adapted.tune(&mut source(), &TUNING, &mut |_, _| Ok(())).unwrap();
    assert_eq!(zeros(&inner(&adapted)), count / 2);
    assert!(adapted.prune_weights(1.0).is_err());
}

#[test]
fn parts_that_leave_were_zero_before() {
    let mut adapted = shaken(&Options { coefficients: true, ..options() });
    let before = adapted.trained();
    // What leaves: of four heads one, of twenty neurons eight, in each layer.
    let mut masked = adapted.clone();
    for (linear, values) in &mut masked.coefficients {
        let share = if linear.ends_with("output") { 0.25 } else { 0.4 };
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|a, b| values[*a].abs().total_cmp(&values[*b].abs()));
        order.truncate((share * values.len() as f64) as usize);
        order.into_iter().for_each(|at| values[at] = 0.0);
    }
    let wanted = scores(&masked.merged().unwrap());
    adapted.prune_parts(0.25, 0.4).unwrap();
    near(&scores(&adapted.merged().unwrap()), &wanted);
    for layer in 0..adapted.model.spec.layers.len() {
        let shape =
            |name: &str| adapted.model.weights.get(&format!("layers.{layer}.{name}.weight")).unwrap().shape;
        assert_eq!(shape("attention.query")[0], shape("attention.output")[1]);
        assert_eq!(shape("feed_forward.down")[1], 12);
        let it = &adapted.changes[&format!("layers.{layer}.attention.query")];
        assert_eq!((it.u.len(), it.rows), (2 * it.rows, shape("attention.query")[0]));
    }
    assert!(adapted.trained() < before && adapted.coefficients.is_empty());
    adapted.tune(&mut source(), &TUNING, &mut |_, _| Ok(())).unwrap();
    assert!(adapted.prune_parts(0.25, 0.4).is_err());
}

#[test]
fn the_change_learns_and_a_penalty_makes_coefficients_smaller() {
    let run = |penalty: f64| {
        let mut adapted = Adapted::new(&classifier(), &Options { coefficients: true, ..options() }).unwrap();
        adapted.tune(&mut source(), &Tuning { penalty, ..TUNING }, &mut |_, _| Ok(())).unwrap();
        adapted
    };
    let free = run(0.0);
    let loss =
        |model: &Model| Net::from_model(model, NetOptions::default()).unwrap().loss(&batch()).unwrap().mean();
    assert!(loss(&free.merged().unwrap()) < loss(&classifier()));
    assert!(free.changes.values().all(|it| it.entries.iter().any(|value| *value != 0.0)));
    let sum =
        |adapted: &Adapted| adapted.coefficients.values().flatten().map(|value| value.abs()).sum::<f32>();
    assert!(sum(&run(0.1)) < sum(&free));
}
