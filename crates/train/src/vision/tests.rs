use candle_core::{Device, Tensor, Var};
use ounce_kernels::conv::Window;

use super::*;
use crate::optim::{Optimizer, Options};

fn numbers(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

fn values(seed: u64, count: usize) -> Vec<f32> {
    let mut next = numbers(seed);
    (0..count).map(|_| next()).collect()
}

/// Compares the gradients of `Σ out · weight` with central differences at some places.
fn check(inputs: &[(Vec<f32>, Vec<usize>)], run: impl Fn(&[Tensor]) -> Tensor) {
    let vars: Vec<Var> = inputs
        .iter()
        .map(|(it, shape)| Var::from_slice(it, shape.as_slice(), &Device::Cpu).unwrap())
        .collect();
    let out = run(&vars.iter().map(|var| var.as_tensor().clone()).collect::<Vec<_>>());
    let weight = values(99, out.elem_count());
    let weighted = |out: &Tensor| -> f64 {
        let out: Vec<f32> = out.flatten_all().unwrap().to_vec1().unwrap();
        out.iter().zip(&weight).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let weights = Tensor::from_slice(&weight, out.shape(), &Device::Cpu).unwrap();
    let gradients = (&out * weights).unwrap().sum_all().unwrap().backward().unwrap();
    for (number, var) in vars.iter().enumerate() {
        let found: Vec<f32> = gradients.get(var).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let count = found.len();
        for at in (0..count).step_by((count / 23).max(1)) {
            let moved = |by: f32| {
                let tensors: Vec<Tensor> = inputs
                    .iter()
                    .enumerate()
                    .map(|(other, (it, shape))| {
                        let mut it = it.clone();
                        if other == number {
                            it[at] += by;
                        }
                        Tensor::from_slice(&it, shape.as_slice(), &Device::Cpu).unwrap()
                    })
                    .collect();
                weighted(&run(&tensors))
            };
            let expected = (moved(2e-3) - moved(-2e-3)) / 4e-3;
            let error = (f64::from(found[at]) - expected).abs();
            assert!(
                error < 2e-2 * (1.0 + expected.abs()),
                "input {number}, {at}: {} for {expected}",
                found[at]
            );
        }
    }
}

#[test]
fn convolutions_have_the_gradients_of_differences() {
    for (size, stride) in [(3, 1), (1, 1), (5, 1), (3, 2)] {
        let window = Window { inputs: 3, outputs: 5, size, stride };
        let inputs = [
            (values(1, 2 * 6 * 7 * 3), vec![2, 6, 7, 3]),
            (values(2, 5 * window.depth()), vec![5, window.depth()]),
        ];
        check(&inputs, |it| ops::convolve(&it[0], &it[1], window).unwrap());
    }
}

#[test]
fn norms_pools_and_growth_have_the_gradients_of_differences() {
    let x = || (values(3, 2 * 4 * 6 * 3), vec![2, 4, 6, 3]);
    // Behind a ReLU no value may come so near to 0 that a difference crosses it: whole channels are on or off.
    for (relu, beta) in [(false, values(5, 3)), (true, vec![6.0, -6.0, 6.0])] {
        let inputs = [x(), (values(4, 3), vec![3]), (beta, vec![3])];
        check(&inputs, |it| ops::normalize(&it[0], &it[1], &it[2], None, relu).unwrap().0);
        let given = ops::Statistics { mean: vec![0.1, -0.2, 0.3], variance: vec![0.5, 1.5, 0.2] };
        check(&inputs, |it| ops::normalize(&it[0], &it[1], &it[2], Some(&given), relu).unwrap().0);
    }
    check(&[x()], |it| ops::pool(&it[0]).unwrap());
    check(&[x()], |it| ops::grow(&it[0]).unwrap());
    check(&[x()], |it| ops::mean(&it[0]).unwrap());
    check(&[x(), x()], |it| ops::join(&it[0], &it[1]).unwrap());
}

#[test]
fn the_loss_is_its_formula_and_has_the_gradient_of_differences() {
    let targets: Vec<f32> = (0..24).map(|at| f32::from(u8::from(at % 3 == 0))).collect();
    let logits = values(6, 24);
    for dice in [0.0, 1.0, 2.5] {
        check(&[(logits.clone(), vec![24])], |it| loss::binary(&it[0], &targets, dice).unwrap());
        let p: Vec<f32> = logits.iter().map(|it| 1.0 / (1.0 + (-it).exp())).collect();
        let pairs = || p.iter().zip(&targets);
        let entropy: f32 =
            pairs().map(|(p, t)| -(t * p.ln() + (1.0 - t) * (1.0 - p).ln())).sum::<f32>() / 24.0;
        let both: f32 = pairs().map(|(p, t)| p * t).sum();
        let all: f32 = pairs().map(|(p, t)| p + t).sum();
        let expected = entropy + dice * (1.0 - (2.0 * both + 1.0) / (all + 1.0));
        let logits = Tensor::from_slice(&logits, 24, &Device::Cpu).unwrap();
        let found = loss::binary(&logits, &targets, dice).unwrap().to_scalar::<f32>().unwrap();
        assert!((found - expected).abs() < 1e-5, "{found} {expected}");
    }
}

#[test]
fn shapes_and_grids_follow_the_steps() {
    let net = Architecture::segmenter((16, 16), 3, [4, 8, 8]);
    let shapes = net.shapes().unwrap();
    assert_eq!((shapes[5], shapes[7], shapes[12]), ((4, 4, 8), (8, 8, 16), (16, 16, 1)));
    // What is joined is on one grid: the coarse values with the middle ones, and the middle ones with the fine ones.
    let grids = net.grids();
    assert_eq!((grids[3], grids[6], grids[7]), (grids[5], grids[5], grids[5]));
    assert!(grids[1] == grids[10] && grids[1] != grids[3] && grids[0] == 0);
    let mut broken = net.clone();
    broken.steps[1] = Step::Pool { from: 9 };
    assert!(broken.shapes().unwrap_err().to_string().contains("later"));
    broken.steps[1] = Step::Join { from: [0, 0] };
    assert!(broken.shapes().is_err());
}

#[test]
fn a_folded_network_computes_what_the_network_does() {
    let mut net = Net::new(Architecture::classifier((8, 8), 3, [4, 4, 8, 8]), 1).unwrap();
    let mut next = numbers(7);
    for param in &mut net.params {
        param.value.iter_mut().for_each(|it| *it += 0.3 * next());
    }
    for running in &mut net.running {
        running.mean.iter_mut().for_each(|it| *it = 0.3 * next());
        running.variance.iter_mut().for_each(|it| *it = 1.0 + 0.5 * next());
    }
    let images = values(8, 3 * 8 * 8 * 3);
    let wanted = net.forward(&images, &mut NoHook).unwrap();
    let folded = fold(&net);
    // The same steps, with weights as they are folded and no norm.
    let mut plain = Net::new(net.architecture.clone(), 2).unwrap();
    for (index, conv) in folded.convs.iter().enumerate() {
        let Some(conv) = conv else { continue };
        plain.weights_mut(index).unwrap().value.clone_from(&conv.weights);
        if let Some((gamma, beta)) = plain.norm_mut(index) {
            gamma.value.fill(1.0);
            beta.value.clone_from(&conv.bias);
            plain.running[index].mean.fill(0.0);
            plain.running[index].variance.fill(1.0 - ops::EPSILON);
        } else {
            let bias = net.params.last().unwrap().value.clone();
            plain.params.last_mut().unwrap().value = bias;
        }
    }
    let found = plain.forward(&images, &mut NoHook).unwrap();
    assert_eq!(found.len(), 3);
    for (wanted, found) in wanted.iter().zip(&found) {
        assert!((wanted - found).abs() < 1e-4 * (1.0 + wanted.abs()), "{wanted} {found}");
    }
}

#[test]
fn a_network_learns_and_its_running_statistics_follow() {
    let side = 8;
    // Bright against dark pictures.
    let targets: Vec<f32> = (0..16).map(|at| (at % 2) as f32).collect();
    let mut next = numbers(9);
    let images: Vec<f32> = targets
        .iter()
        .flat_map(|&target| (0..side * side * 3).map(|_| 0.5 * target + 0.5 * next()).collect::<Vec<_>>())
        .collect();
    let mut net = Net::new(Architecture::classifier((side, side), 3, [4, 4, 8, 8]), 3).unwrap();
    let mut optimizer = Optimizer::new(Options::default(), &net.params).unwrap();
    let mut last = f32::INFINITY;
    for _ in 0..40 {
        let loss = |out: &Tensor| loss::binary(&out.flatten_all()?, &targets, 0.0);
        last = net.learn(&mut optimizer, 0.01, &images, Norms::Batch, &mut NoHook, loss).unwrap().loss;
    }
    assert!(last < 0.1, "{last}");
    let logits = net.forward(&images, &mut NoHook).unwrap();
    assert!(logits.iter().zip(&targets).all(|(logit, target)| (*logit > 0.0) == (*target > 0.5)));
    assert!(net.forward(&images[1..], &mut NoHook).is_err());
}

#[test]
fn scenes_depend_on_their_seed_and_some_burn() {
    let frames = scenes::clips(5, 40, 2);
    assert_eq!(frames, scenes::clips(5, 40, 2));
    assert_ne!(frames[0], frames[2]);
    let burning = frames.iter().filter(|frame| frame.burns()).count();
    assert!((12..48).contains(&burning), "{burning} of 80");
    for frame in &frames {
        assert_eq!((frame.image.len(), frame.mask.len()), (scenes::VALUES, scenes::SIDE * scenes::SIDE));
        assert!(
            frame
                .image
                .iter()
                .all(|it| (0.0..=1.0).contains(it) && ((it * 255.0).round() - it * 255.0).abs() < 1e-3)
        );
        let share = frame.mask.iter().sum::<f32>() / frame.mask.len() as f32;
        assert!(share < 0.1, "fires are small: {share}");
    }
    // A fire is redder than the ground.
    let red = |burns: bool| {
        let pixels =
            frames.iter().filter(|it| it.burns()).flat_map(|frame| frame.image.chunks(3).zip(&frame.mask));
        let own: Vec<f32> =
            pixels.filter(|(_, mask)| (**mask > 0.0) == burns).map(|(it, _)| it[0] - it[2]).collect();
        own.iter().sum::<f32>() / own.len() as f32
    };
    assert!(red(true) > red(false) + 0.3);
}
