use ounce_kernels::isa::Isa;
use ounce_train::vision::{Architecture, Net, NoHook, fold, scenes};

use super::calibrate::{self, Options};
use super::engine::{FloatEngine, IntEngine};
use super::qat::Qat;
use super::task::{self, Learner, Schedule, Task};
use crate::quantize::axes::Calibration;

/// A network whose norms have seen pictures.
fn net(architecture: Architecture) -> Net {
    let mut net = Net::new(architecture, 1).unwrap();
    for (index, running) in net.running.iter_mut().enumerate() {
        running.mean.iter_mut().enumerate().for_each(|(at, it)| *it = 0.1 * ((at + index) as f32).sin());
        running.variance.iter_mut().enumerate().for_each(|(at, it)| *it = 0.5 + 0.3 * (at as f32).cos());
    }
    net
}

fn picture(side: usize) -> Vec<f32> {
    (0..side * side * 3).map(|at| ((at * 7919) % 256) as f32 / 255.0).collect()
}

fn both() -> [Architecture; 2] {
    [Architecture::classifier((16, 16), 3, [8, 8, 16, 20]), Architecture::segmenter((16, 16), 3, [8, 8, 16])]
}

#[test]
fn the_engine_computes_what_the_network_does_on_every_path() {
    for architecture in both() {
        let net = net(architecture);
        let image = picture(16);
        let wanted = net.forward(&image, &mut NoHook).unwrap();
        for isa in Isa::available() {
            let mut engine = FloatEngine::new(&fold(&net)).unwrap().on(isa);
            // Twice: nothing may be left of the first picture.
            engine.infer(&vec![0.7; image.len()]);
            let found = engine.infer(&image).to_vec();
            assert_eq!(found.len(), wanted.len());
            let bytes: Vec<u8> = image.iter().map(|it| (it * 255.0).round() as u8).collect();
            let again = engine.infer_bytes(&bytes);
            assert!(found.iter().zip(again).all(|(a, b)| (a - b).abs() < 1e-4 * (1.0 + a.abs())));
            for (found, wanted) in found.iter().zip(&wanted) {
                assert!((found - wanted).abs() < 1e-3 * (1.0 + wanted.abs()), "{isa:?}: {found} {wanted}");
            }
        }
    }
}

#[test]
fn bytes_are_within_one_code_of_fake_quantization() {
    for architecture in both() {
        let folded = fold(&net(architecture));
        let image = picture(16);
        let observers = calibrate::observe(&folded, [image.as_slice()].into_iter()).unwrap();
        for (activations, per_channel) in [
            (Calibration::MinMax, true),
            (Calibration::Entropy, true),
            (Calibration::Percentile(0.99), false),
        ] {
            let grids = calibrate::quantize(&folded, &observers, &Options { activations, per_channel });
            let mut logits = Vec::new();
            for isa in Isa::available() {
                let mut engine = IntEngine::new(&folded, &grids).unwrap().on(isa);
                logits.push(engine.infer(&image).to_vec());
                let (most, count) = calibrate::distance(&folded, &grids, &engine).unwrap();
                assert!(most <= 1 && count > 1000, "{isa:?} {activations:?}: {most} codes");
            }
            assert!(logits.windows(2).all(|pair| pair[0] == pair[1]), "every path gives the same");
        }
        let best = Options { activations: Calibration::MinMax, per_channel: true };
        let grids = calibrate::quantize(&folded, &observers, &best);
        let exact = FloatEngine::new(&folded).unwrap().infer(&image).to_vec();
        let found = IntEngine::new(&folded, &grids).unwrap().infer(&image).to_vec();
        let reach = exact.iter().map(|it| it.abs()).fold(0.1, f32::max);
        assert!(exact.iter().zip(&found).all(|(a, b)| (a - b).abs() < 0.1 * reach), "{exact:?} {found:?}");
    }
}

#[test]
fn the_engine_after_training_in_few_bits_is_what_was_trained() {
    let task = Task::Classify;
    let frames = scenes::clips(3, 4, 2);
    let mut net = net(Architecture::classifier((scenes::SIDE, scenes::SIDE), 3, [4, 4, 8, 8]));
    let observers = calibrate::observe(&fold(&net), frames.iter().map(|it| it.image.as_slice())).unwrap();
    let values = calibrate::value_grids(&observers, Calibration::MinMax, 8);
    let mut qat = Qat::new(&net, &values, Calibration::MinMax, (8, 8)).unwrap();
    let start = qat.params()[0].value[0];
    let schedule = Schedule { epochs: 2, rate: 1e-3, freeze: 0.5, seed: 1 };
    task::fit(&mut net, task, &frames, &schedule, &mut Learner::Quantized(&mut qat), |_| Ok(())).unwrap();
    assert_ne!(start, qat.params()[0].value[0], "steps learn");
    let folded = fold(&net);
    let mut engine = IntEngine::new(&folded, &qat.grids(&folded)).unwrap();
    let wanted = net.forward(&frames[0].image, &mut qat).unwrap();
    let found = engine.infer(&frames[0].image)[0];
    // A value between two codes may go either way, and the mean is a code too.
    assert!((found - wanted[0]).abs() < 0.05 * (1.0 + wanted[0].abs()), "{found} {}", wanted[0]);
}
