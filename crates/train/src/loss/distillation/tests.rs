use super::*;
use ounce_kernels::pool::Pool;

const WIDTH: usize = 7;

fn chunk<'a>(logits: &'a mut [f32], softcap: Option<f32>) -> Chunk<'a> {
    let (targets, rows) = (&[0, 1], &[3, 4]);
    Chunk { pool: Pool::global(), logits, width: WIDTH, targets, rows, softcap }
}

fn wave(speed: f32) -> Vec<f32> {
    (0..2 * WIDTH).map(|at| 2.0 * (at as f32 * speed).sin()).collect()
}

fn known(logits: &[f32], softcap: Option<f32>) -> Predictions {
    let mut kept = Predictions::default();
    kept.chunk(chunk(&mut logits.to_vec(), softcap), None);
    kept
}

/// Probabilities of both rows, in f64, of logits divided by the temperature.
fn probabilities(logits: &[f32], softcap: Option<f32>, temperature: f64) -> Vec<f64> {
    let capped = |x: f64| softcap.map_or(x, |cap: f32| f64::from(cap) * (x / f64::from(cap)).tanh());
    let exp: Vec<f64> = logits.iter().map(|&x| (capped(f64::from(x)) / temperature).exp()).collect();
    exp.chunks(WIDTH).flat_map(|row| row.iter().map(|x| x / row.iter().sum::<f64>())).collect()
}

/// The divergences as their papers write them, over both rows.
fn defined(kind: Kind, p: &[f64], q: &[f64]) -> f64 {
    let kl = |p: &[f64], q: &[f64]| -> f64 { p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum() };
    let mix =
        |share: f64| -> Vec<f64> { p.iter().zip(q).map(|(p, q)| share * p + (1.0 - share) * q).collect() };
    match kind {
        Kind::Kl => kl(p, q),
        Kind::ReverseKl => kl(q, p),
        Kind::SkewKl => kl(p, &mix(0.1)),
        Kind::SkewReverseKl => kl(q, &mix(0.9)),
        Kind::Js => 0.5 * kl(p, &mix(0.5)) + 0.5 * kl(q, &mix(0.5)),
        Kind::Tvd => p.iter().zip(q).map(|(p, q)| 0.5 * (p - q).abs()).sum(),
        Kind::AdaptiveKl | Kind::Taid => unreachable!("have tests of their own"),
    }
}

#[test]
fn plain_divergences_and_their_gradients_are_those_of_the_definitions() {
    let (teacher, student) = (wave(0.7), wave(1.9));
    for kind in Kind::ALL.into_iter().filter(|it| !matches!(it, Kind::AdaptiveKl | Kind::Taid)) {
        for (softcap, temperature, hard) in
            [(None, 1.0, 0.0), (Some(1.5), 1.0, 0.0), (None, 2.0, 0.3), (Some(3.0), 0.5, 0.1)]
        {
            let loss_of = |student: &[f32]| -> f64 {
                let soft = f64::from(temperature);
                let (p, q) = (probabilities(&teacher, softcap, soft), probabilities(student, softcap, soft));
                let plain = probabilities(student, softcap, 1.0);
                let hard_loss = -plain[0].ln() - plain[WIDTH + 1].ln();
                let hard = f64::from(hard);
                (1.0 - hard) * soft * soft * defined(kind, &p, &q) + hard * hard_loss
            };
            let divergence = kind.divergence(TaidOptions::default(), 10).expect("made");
            let kept = known(&teacher, softcap);
            let softness = Softness { temperature, hard };
            let mut gradient = student.clone();
            let loss = Distillation::by(&kept, &*divergence, softness)
                .chunk(chunk(&mut gradient, softcap), Some(0.5));
            assert!((loss - loss_of(&student)).abs() < 2e-5, "{kind:?}: {loss} {}", loss_of(&student));
            let unscaled = Distillation::by(&kept, &*divergence, softness)
                .chunk(chunk(&mut student.clone(), softcap), None);
            assert_eq!(loss, unscaled, "{kind:?}");
            for (place, &gradient) in gradient.iter().enumerate() {
                let mut moved = student.clone();
                moved[place] += 5e-3;
                let above = loss_of(&moved);
                moved[place] = student[place] - 5e-3;
                let expected = 0.5 * (above - loss_of(&moved)) / 1e-2;
                assert!(
                    (f64::from(gradient) - expected).abs() < 2e-4,
                    "{kind:?} {softcap:?} {temperature} {place}: {gradient} {expected}"
                );
            }
        }
    }
}

#[test]
fn a_student_like_its_teacher_has_nothing_to_learn() {
    let same = wave(0.7);
    for kind in Kind::ALL.into_iter().filter(|it| *it != Kind::Taid) {
        let divergence = kind.divergence(TaidOptions::default(), 10).expect("made");
        let kept = known(&same, None);
        let mut gradient = same.clone();
        let loss = Distillation::by(&kept, &*divergence, Softness::default())
            .chunk(chunk(&mut gradient, None), Some(1.0));
        assert!(loss.abs() < 1e-6, "{kind:?} {loss}");
        // Total variation has a corner there, whose sides have a slope.
        assert!(kind == Kind::Tvd || gradient.iter().all(|x| x.abs() < 1e-6), "{kind:?} {gradient:?}");
    }
}

#[test]
fn tiny_probabilities_stay_numbers() {
    let mut sharp = vec![-300.0; 2 * WIDTH];
    (sharp[0], sharp[WIDTH + 3]) = (0.0, 0.0);
    let mut other = vec![-300.0; 2 * WIDTH];
    (other[1], other[WIDTH + 3]) = (0.0, 0.0);
    for kind in Kind::ALL {
        let divergence = kind.divergence(TaidOptions::default(), 10).expect("made");
        let kept = known(&sharp, None);
        let mut gradient = other.clone();
        let loss = Distillation::by(&kept, &*divergence, Softness::default())
            .chunk(chunk(&mut gradient, None), Some(1.0));
        assert!(loss.is_finite() && gradient.iter().all(|x| x.is_finite()), "{kind:?}: {loss} {gradient:?}");
    }
}

#[test]
fn adaptive_kl_weighs_by_head_and_tail_with_the_weights_as_constants() {
    let ln = |p: [f64; 4]| p.map(|p| p.ln() as f32);
    let (p, q) = (ln([0.55, 0.25, 0.1, 0.1]), ln([0.45, 0.15, 0.2, 0.2]));
    // The head is the first token: |0.1| of |0.1| + |0.1| + |0.1| + |0.1|.
    let weight = Adaptive::default().weight(&p, &q);
    assert!((weight - 0.25).abs() < 1e-6, "{weight}");
    let mut gradients = [[0.0f32; 4]; 3];
    let [own, forward, reverse] = &mut gradients;
    let loss = Adaptive::default().row(&p, &q, Some(own));
    let expected = 0.25 * ForwardKl.row(&p, &q, Some(forward)) + 0.75 * ReverseKl.row(&p, &q, Some(reverse));
    assert!((loss - expected).abs() < 1e-6);
    for ((own, forward), reverse) in own.iter().zip(forward.iter()).zip(reverse.iter()) {
        assert!((own - 0.25 * forward - 0.75 * reverse).abs() < 1e-6);
    }
}

#[test]
fn taid_pulls_towards_a_mix_of_logits_that_counts_as_a_constant() {
    let (teacher, student) = (wave(0.7), wave(1.9));
    let options = TaidOptions { start: 0.3, ..TaidOptions::default() };
    let taid = Taid::new(options, 10).expect("made");
    let mixed: Vec<f32> = teacher.iter().zip(&student).map(|(z, s)| 0.3 * z + 0.7 * s).collect();
    let target = probabilities(&mixed, None, 1.0);
    let loss_of = |student: &[f32]| -> f64 {
        let q = probabilities(student, None, 1.0);
        target.iter().zip(&q).map(|(p, q)| -p * q.ln()).sum()
    };
    let mut gradient = student.clone();
    let kept = known(&teacher, None);
    let loss =
        Distillation::by(&kept, &taid, Softness::default()).chunk(chunk(&mut gradient, None), Some(1.0));
    assert!((loss - loss_of(&student)).abs() < 1e-5, "{loss}");
    for (place, &gradient) in gradient.iter().enumerate() {
        let mut moved = student.clone();
        moved[place] += 5e-3;
        let above = loss_of(&moved);
        moved[place] = student[place] - 5e-3;
        let expected = (above - loss_of(&moved)) / 1e-2;
        assert!((f64::from(gradient) - expected).abs() < 2e-4, "{place}: {gradient} {expected}");
    }
}

#[test]
fn taids_target_moves_as_the_equations_say_and_goes_on_from_its_memory() {
    let options = TaidOptions { start: 0.2, end: 1.0, alpha: 0.05, beta: 0.9 };
    let mut taid = Taid::new(options, 100).expect("made");
    taid.stepped(4.0);
    assert_eq!(taid.t(), 0.2, "the first step has nothing to compare with");
    taid.stepped(3.0);
    // m = 0.1 · 0.25; t = 0.2 + 0.05 · σ(0.025) · 0.8.
    let expected = 0.2 + 0.05 * 0.8 / (1.0 + (-0.025f64).exp());
    assert!((taid.t() - expected).abs() < 1e-12, "{}", taid.t());
    let (mut other, mut before) = (Taid::new(options, 100).expect("made"), taid.t());
    let memory: serde_json::Value = serde_json::from_str(&taid.memory().to_string()).expect("JSON");
    other.remember(&memory).expect("its own");
    for step in 2..100 {
        let loss = 3.0 + (step as f64 * 0.7).sin();
        taid.stepped(loss);
        other.stepped(loss);
        assert_eq!(taid.t(), other.t());
        assert!(taid.t() >= before && taid.t() >= 0.2 + 0.008 * (step + 1) as f64 - 1e-12);
        before = taid.t();
    }
    assert_eq!(taid.t(), 1.0);
    // Without alpha there is the line alone.
    let mut even = Taid::new(TaidOptions { alpha: 0.0, ..options }, 100).expect("made");
    (0..50).for_each(|_| even.stepped(1.0));
    assert!((even.t() - 0.6).abs() < 1e-12);
    assert!(other.remember(&serde_json::json!({"x": 1})).is_err());
    assert!((&mut ForwardKl as &mut dyn Divergence).remember(&memory).is_err());
    assert!(Taid::new(TaidOptions { start: 0.9, end: 0.5, ..options }, 10).is_err());
}

#[test]
fn entropy_is_that_of_the_predictions() {
    let logits = wave(0.8);
    let p = probabilities(&logits, None, 1.0);
    let expected = -0.5 * p.iter().map(|p| p * p.ln()).sum::<f64>();
    assert!((known(&logits, None).entropy() - expected).abs() < 1e-6);
    // What is impossible adds nothing.
    let certain = Predictions::new(vec![0.0, f32::NEG_INFINITY], 2);
    assert_eq!(certain.entropy(), 0.0);
    assert_eq!(Predictions::default().entropy(), 0.0);
}
