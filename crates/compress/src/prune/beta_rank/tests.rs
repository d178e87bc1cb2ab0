//! Ranks against slow ways, and cut networks against masked ones.

use candle_core::{Device, Tensor, Var};
use ounce_kernels::conv::Window;
use ounce_train::vision::{Architecture, Net, NoHook, Step};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::lesions::{CLASSES, Set, VALUES};
use super::rank::{Ranking, Values, agreement, betas, matrix_rank, rank};
use super::surgery::{cut, lowest_of_layers};
use super::train::{architecture, cross_entropy, fit, judge, likeliest, score};

fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| random.random_range(-1.0..1.0)).collect()
}

/// A network whose norms do something.
fn shaken(architecture: Architecture) -> Net {
    let mut net = Net::new(architecture, 3).unwrap();
    for (seed, param) in net.params.iter_mut().enumerate() {
        if param.shape.len() == 1 {
            param.value =
                numbers(param.value.len(), seed as u64).into_iter().map(|it| 0.8 + 0.4 * it).collect();
        }
    }
    for (seed, running) in net.running.iter_mut().enumerate() {
        running.mean = numbers(running.mean.len(), 40 + seed as u64);
        running.variance =
            numbers(running.variance.len(), 80 + seed as u64).iter().map(|it| 1.5 + it).collect();
    }
    net
}

fn deviation(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
}

#[test]
fn betas_are_those_of_the_definition() {
    let (images, height, width, inputs, outputs) = (5, 6, 4, 2, 3);
    for (size, stride) in [(3, 1), (1, 1), (3, 2)] {
        let window = Window { inputs, outputs, size, stride };
        let (out_height, out_width) = (window.result(height), window.result(width));
        let x = numbers(images * height * width * inputs, 1);
        let y = numbers(images * out_height * out_width * outputs, 2);
        let found = betas(
            Values { data: &x, shape: [images, height, width, inputs] },
            Values { data: &y, shape: [images, out_height, out_width, outputs] },
            &window,
        );
        let pad = window.padding() as isize;
        for (channel, found) in found.iter().enumerate() {
            let mut sum = 0.0;
            for top in 0..out_height {
                for left in 0..out_width {
                    let (mut given, mut made) = (Vec::new(), Vec::new());
                    for image in 0..images {
                        made.push(f64::from(
                            y[((image * out_height + top) * out_width + left) * outputs + channel],
                        ));
                        for dy in 0..size as isize {
                            for dx in 0..size as isize {
                                let row = (top * stride) as isize + dy - pad;
                                let column = (left * stride) as isize + dx - pad;
                                let inside = (0..height as isize).contains(&row)
                                    && (0..width as isize).contains(&column);
                                for input in 0..inputs {
                                    let at = ((image as isize * height as isize + row) * width as isize
                                        + column)
                                        * inputs as isize
                                        + input as isize;
                                    given.push(if inside { f64::from(x[at as usize]) } else { 0.0 });
                                }
                            }
                        }
                    }
                    sum += deviation(&made) / deviation(&given);
                }
            }
            let wanted = sum / (out_height * out_width) as f64;
            assert!((found - wanted).abs() < 1e-6 * wanted, "{size} {stride}: {found} for {wanted}");
        }
    }
    // Where nothing comes in, nothing is counted.
    let window = Window { inputs: 1, outputs: 1, size: 1, stride: 1 };
    let x = Values { data: &[1.0, 3.0, 1.0, 5.0], shape: [2, 1, 2, 1] };
    let y = Values { data: &[7.0, 2.0, 9.0, 8.0], shape: [2, 1, 2, 1] };
    assert!((betas(x, y, &window)[0] - 3.0).abs() < 1e-9);
}

#[test]
fn matrix_ranks_are_right() {
    assert_eq!(matrix_rank(&[0.0; 12], 4), 0);
    let (a, b) = (numbers(7 * 3, 1), numbers(3 * 5, 2));
    let product: Vec<f32> =
        (0..35).map(|at| (0..3).map(|r| a[at / 5 * 3 + r] * b[r * 5 + at % 5]).sum()).collect();
    assert_eq!(matrix_rank(&product, 5), 3);
    assert_eq!(matrix_rank(&numbers(36, 4), 6), 6);
    assert_eq!(matrix_rank(&[0.0, 2.0, 0.0, 0.0], 2), 1);
}

#[test]
fn ranks_lie_within_a_layer_and_agree_with_themselves() {
    let net = shaken(architecture([6, 8, 8]));
    let images = Set::generate(20, 1).images;
    for ranking in [Ranking::Beta, Ranking::L1, Ranking::HRank, Ranking::Random(3)] {
        let worth = rank(&net, &images, ranking).unwrap();
        assert_eq!(worth.len(), net.architecture.steps.len());
        for (step, worth) in net.architecture.steps.iter().zip(&worth) {
            let Step::Conv { window, norm: true, .. } = step else {
                assert!(worth.is_none());
                continue;
            };
            let worth = worth.as_ref().unwrap();
            assert_eq!(worth.len(), window.outputs);
            assert!(worth.iter().all(|it| (0.0..=1.0).contains(it)) && worth.contains(&1.0), "{ranking:?}");
        }
        assert_eq!(agreement(&worth, &worth, 0.25), 1.0);
    }
    // A filter of zeros is worth nothing to the norm and to beta.
    let mut net = net;
    let depth = net.weights(0).unwrap().0.depth();
    net.weights_mut(0).unwrap().value[2 * depth..3 * depth].fill(0.0);
    for ranking in [Ranking::Beta, Ranking::L1] {
        assert_eq!(rank(&net, &images, ranking).unwrap()[0].as_ref().unwrap()[2], 0.0);
    }
    let [a, b] = [vec![1.0, 0.9, 0.1, 0.0], vec![0.0, 1.0, 0.9, 0.1]].map(|it| vec![Some(it), None]);
    assert_eq!(agreement(&a, &b, 0.5), 0.5);
}

/// The network with what those filters give at zero.
fn masked(net: &Net, gone: &[Vec<usize>]) -> Net {
    let mut net = net.clone();
    for (step, gone) in gone.iter().enumerate() {
        if let Some((gamma, beta)) = net.norm_mut(step) {
            gone.iter().for_each(|at| (gamma.value[*at], beta.value[*at]) = (0.0, 0.0));
        }
    }
    net
}

fn near(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    let most = b.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-4 * most), "{a:?} and {b:?}");
}

#[test]
fn a_cut_network_computes_what_the_masked_one_does() {
    let net = shaken(architecture([6, 8, 8]));
    let images = numbers(2 * VALUES, 5);
    let worth = rank(&net, &images, Ranking::Beta).unwrap();
    let gone = lowest_of_layers(&worth, 0.4);
    let small = cut(&net, &gone).unwrap();
    near(
        &small.forward(&images, &mut NoHook).unwrap(),
        &masked(&net, &gone).forward(&images, &mut NoHook).unwrap(),
    );
    assert!(small.architecture.products().unwrap() < net.architecture.products().unwrap() / 2);
    let widths: Vec<usize> = small
        .architecture
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::Conv { window, .. } => Some(window.outputs),
            _ => None,
        })
        .collect();
    assert_eq!(widths, [4, 4, 5, 5, 5, 5, CLASSES]);
    // Joined channels move too.
    let unet = shaken(Architecture::segmenter((8, 8), 3, [4, 6, 6]));
    let image = numbers(8 * 8 * 3, 6);
    let gone = lowest_of_layers(&rank(&unet, &image, Ranking::L1).unwrap(), 0.5);
    let small = cut(&unet, &gone).unwrap();
    near(
        &small.forward(&image, &mut NoHook).unwrap(),
        &masked(&unet, &gone).forward(&image, &mut NoHook).unwrap(),
    );
    let whole = cut(&net, &[]).unwrap();
    assert_eq!(whole.architecture, net.architecture);
    near(&whole.forward(&images, &mut NoHook).unwrap(), &net.forward(&images, &mut NoHook).unwrap());
    assert!(cut(&net, &[(0..6).collect::<Vec<usize>>()]).is_err());
    assert!(cut(&net, &[vec![6]]).is_err());
}

#[test]
fn the_least_leave_and_one_stays() {
    let worth = vec![Some(vec![0.3, 0.0, 1.0, 0.0]), None, Some(vec![1.0])];
    assert_eq!(lowest_of_layers(&worth, 0.5), [vec![1, 3], vec![], vec![]]);
    assert_eq!(lowest_of_layers(&worth, 0.25), [vec![3], vec![], vec![]]);
    assert_eq!(lowest_of_layers(&worth, 1.0)[0].len(), 3);
}

#[test]
fn scores_are_those_of_the_counts() {
    let kinds = [0, 0, 0, 0, 1, 1, 2, 3];
    let found = [0, 0, 0, 1, 1, 0, 2, 2];
    let score = score(&found, &kinds);
    assert!((score.recall - (0.75 + 0.5 + 1.0 + 0.0) / 4.0).abs() < 1e-12);
    let f1 = (2.0 * 3.0 / 8.0 + 2.0 / 4.0 + 2.0 / 3.0) / 4.0;
    assert!((score.f1 - f1).abs() < 1e-12);
    assert!((score.rare - 0.5).abs() < 1e-12 && (score.accuracy - 5.0 / 8.0).abs() < 1e-12);
    assert_eq!(likeliest(&[0.1, 0.7, 0.7, -1.0]), 1);
}

#[test]
fn the_loss_has_the_gradient_of_differences() {
    let values = numbers(3 * CLASSES, 7);
    let kinds = [2, 0, 3];
    let at = |values: &[f32]| -> f32 {
        let logits = Tensor::from_slice(values, (3, 1, 1, CLASSES), &Device::Cpu).unwrap();
        cross_entropy(&logits, &kinds).unwrap().to_scalar().unwrap()
    };
    let logits = Var::from_slice(&values, (3, 1, 1, CLASSES), &Device::Cpu).unwrap();
    let gradients = cross_entropy(&logits, &kinds).unwrap().backward().unwrap();
    let found: Vec<f32> = gradients.get(&logits).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    for (place, found) in found.iter().enumerate() {
        let moved = |by: f32| {
            let mut values = values.clone();
            values[place] += by;
            at(&values)
        };
        let wanted = (moved(1e-2) - moved(-1e-2)) / 2e-2;
        assert!((found - wanted).abs() < 1e-3, "{found} for {wanted}");
    }
    assert!(cross_entropy(&logits, &[1]).is_err());
}

#[test]
fn sets_are_uneven_and_batches_are_even() {
    let set = Set::generate(200, 4);
    let count = |set: &Set, kind: usize| set.kinds.iter().filter(|it| **it == kind).count();
    assert_eq!([0, 1, 2, 3].map(|kind| count(&set, kind)), [140, 40, 14, 6]);
    assert_eq!(set.images.len(), 200 * VALUES);
    assert!(set.images.iter().all(|value| (0.0..=1.0).contains(value)));
    let batch = set.balanced(5, &mut ChaCha8Rng::seed_from_u64(1));
    assert_eq!([0, 1, 2, 3].map(|kind| count(&batch, kind)), [5; 4]);
    assert_ne!(Set::generate(200, 5).images, set.images);
}

#[test]
fn a_network_learns_and_a_cut_one_learns_on() {
    let set = Set::generate(800, 2).balanced(24, &mut ChaCha8Rng::seed_from_u64(1));
    let mut net = Net::new(architecture([6, 8, 8]), 1).unwrap();
    let before = judge(&net, &set).unwrap();
    fit(&mut net, &set, (16, 0.05), 1, &mut |_| Ok(())).unwrap();
    let after = judge(&net, &set).unwrap();
    assert!(after.recall > before.recall + 0.2, "{before:?} {after:?}");
    let worth = rank(&net, &set.images[..32 * VALUES], Ranking::Beta).unwrap();
    let mut small = cut(&net, &lowest_of_layers(&worth, 0.3)).unwrap();
    let cut_off = judge(&small, &set).unwrap();
    fit(&mut small, &set, (6, 0.02), 2, &mut |_| Ok(())).unwrap();
    let again = judge(&small, &set).unwrap();
    assert!(again.recall > cut_off.recall.max(0.45), "{cut_off:?} {again:?}");
}
