use super::*;
use crate::ParamKind;

fn param(name: &str, shape: &[usize], kind: ParamKind) -> Param {
    let size = shape.iter().product::<usize>();
    let value = (0..size).map(|at| ((at * 7919 % 23) as f32 - 11.0) / 10.0).collect();
    Param::new(name, shape, kind, value)
}

fn params() -> Vec<Param> {
    vec![
        param("a.weight", &[6, 4], ParamKind::Matrix),
        param("norm.weight", &[9], ParamKind::Norm),
        param("embed.weight", &[5, 4], ParamKind::Embedding),
    ]
}

/// The gradient of half the squared distance to a target.
fn pull(params: &mut [Param]) {
    for param in params {
        for at in 0..param.grad.len() {
            param.grad[at] = param.value[at] - ((at % 5) as f32 - 2.0);
        }
    }
}

fn distance(params: &[Param]) -> f64 {
    global_distance(params).sqrt()
}

fn global_distance(params: &[Param]) -> f64 {
    let of = |param: &Param| -> f64 {
        let pairs = param.value.iter().enumerate();
        pairs.map(|(at, value)| f64::from(value - ((at % 5) as f32 - 2.0)).powi(2)).sum()
    };
    params.iter().map(of).sum()
}

fn options(kind: Kind) -> Options {
    Options { kind, weight_decay: 0.0, momentum: 0.9, ..Options::default() }
}

const KINDS: [Kind; 5] = [Kind::AdamW, Kind::AdamW8bit, Kind::Lion, Kind::Muon, Kind::Sgd];

#[test]
fn every_rule_goes_towards_the_minimum() {
    for kind in KINDS {
        let mut params = params();
        let mut optimizer = Optimizer::new(options(kind), &params).expect("sound");
        let before = distance(&params);
        for step in 0..200 {
            pull(&mut params);
            // A step of Muon has one size whatever the gradient: the way to the minimum sets the rate.
            let peak = if kind == Kind::Muon { 0.25 } else { 0.05 };
            optimizer.step(&mut params, peak * (1.0 - f64::from(step) / 200.0), 1.0);
        }
        let after = distance(&params);
        assert!(after < 0.2 * before, "{kind:?}: {before} to {after}");
    }
}

#[test]
fn adamw_follows_its_equations() {
    // Two steps by hand in f64.
    let mut all = vec![param("x", &[3], ParamKind::Matrix)];
    let start: Vec<f64> = all[0].value.iter().map(|it| f64::from(*it)).collect();
    let settings = Options { weight_decay: 0.1, ..Options::default() };
    let mut optimizer = Optimizer::new(settings, &all).expect("sound");
    let grads = [[0.5f64, -1.0, 2.0], [0.25, 3.0, -2.0]];
    let (mut w, mut m, mut v) = (start, [0.0; 3], [0.0; 3]);
    for (step, grad) in grads.iter().enumerate() {
        all[0].grad = grad.map(|it| it as f32).into();
        optimizer.step(&mut all, 0.01, 0.5);
        for at in 0..3 {
            let g = 0.5 * grad[at];
            m[at] = 0.9 * m[at] + 0.1 * g;
            v[at] = 0.95 * v[at] + 0.05 * g * g;
            let t = step as i32 + 1;
            let (mh, vh) = (m[at] / (1.0 - 0.9f64.powi(t)), v[at] / (1.0 - 0.95f64.powi(t)));
            w[at] -= 0.01 * 0.1 * w[at] + 0.01 * mh / (vh.sqrt() + 1e-8);
            assert!((f64::from(all[0].value[at]) - w[at]).abs() < 1e-6);
        }
    }
}

#[test]
fn decay_and_rates_depend_on_the_kind_of_weight() {
    let mut settings = Options { kind: Kind::Sgd, momentum: 0.0, ..Options::default() };
    settings.rate_factors.push((ParamKind::Embedding, 0.5));
    settings.scale_to_width(512, 256);
    let mut params = params();
    let before = params.clone();
    for param in &mut params {
        param.grad.fill(1.0);
    }
    let mut optimizer = Optimizer::new(settings, &params).expect("sound");
    optimizer.step(&mut params, 0.1, 1.0);
    for ((after, before), (rate, decay)) in
        params.iter().zip(&before).zip([(0.05f32, 0.1f32), (0.1, 0.0), (0.05, 0.0)])
    {
        for (after, before) in after.value.iter().zip(&before.value) {
            assert!((after - (before - rate * (decay * before + 1.0))).abs() < 1e-6);
        }
    }
}

#[test]
fn frozen_weights_stay_and_take_no_memory() {
    for kind in KINDS {
        let mut params = params();
        params[0].freeze();
        let before = params.clone();
        let mut optimizer = Optimizer::new(options(kind), &params).expect("sound");
        pull(&mut params[1..]);
        optimizer.step(&mut params, 0.1, 1.0);
        assert_eq!(params[0].value, before[0].value);
        assert_ne!(params[1].value, before[1].value);
        assert!(optimizer.slots(&params).iter().all(|slot| slot.param != "a.weight"));
    }
}

#[test]
fn a_memory_that_is_copied_goes_on_alike() {
    for kind in KINDS {
        let mut here = params();
        let mut first = Optimizer::new(options(kind), &here).expect("sound");
        for _ in 0..3 {
            pull(&mut here);
            first.step(&mut here, 0.01, 1.0);
        }
        let mut there = here.clone();
        let mut second = Optimizer::new(options(kind), &there).expect("sound");
        second.set_steps(first.steps());
        for (to, from) in second.slots_mut(&here).into_iter().zip(first.slots(&here)) {
            assert_eq!((to.name, to.dtype), (format!("{}.{}", from.param, from.part), from.dtype));
            to.bytes.copy_from_slice(from.bytes);
        }
        for _ in 0..3 {
            pull(&mut here);
            first.step(&mut here, 0.01, 1.0);
            pull(&mut there);
            second.step(&mut there, 0.01, 1.0);
        }
        for (a, b) in here.iter().zip(&there) {
            assert_eq!(a.value, b.value, "{kind:?}");
        }
    }
}

#[test]
fn eight_bits_take_a_quarter_of_the_memory() {
    let params = vec![param("a.weight", &[128, 128], ParamKind::Matrix)];
    let bytes = |kind| Optimizer::new(options(kind), &params).expect("sound").bytes();
    assert!(bytes(Kind::AdamW8bit) * 10 < bytes(Kind::AdamW) * 3);
}

#[test]
fn numbers_out_of_range_are_refused() {
    for wrong in [
        Options { beta1: 1.0, ..Options::default() },
        Options { eps: f64::NAN, ..Options::default() },
        Options { weight_decay: -1.0, ..Options::default() },
        Options { rate_factors: vec![(ParamKind::Norm, -1.0)], ..Options::default() },
    ] {
        assert!(Optimizer::new(wrong, &[]).is_err());
    }
}
