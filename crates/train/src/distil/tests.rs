use std::sync::Arc;

use super::*;
use crate::config::{self, Preset};
use crate::data::Pieces;
use crate::loss::{DivergenceKind, TaidOptions};
use crate::optim::{self, Optimizer};
use crate::schedule::{Schedule, Shape};
use crate::trainer::{self, Observer, Start, Step, Trainer};

const VOCABULARY: usize = 11;

fn net(hidden: usize, layers: usize, seed: u64) -> Net {
    let shape = config::Model {
        preset: Preset::Llama,
        hidden,
        layers,
        heads: 2,
        context: 16,
        ..config::Model::default()
    };
    let model = shape.architecture(VOCABULARY, []).expect("a shape");
    Net::random(&model, Default::default(), shape.initial(), seed).expect("a network")
}

fn sequences(count: u32) -> Arc<[Vec<u32>]> {
    (0..count).map(|n| (0..9).map(|at| (n * 3 + at * (1 + n % 4)) % VOCABULARY as u32).collect()).collect()
}

fn batch() -> Batch {
    Batch::next_token(sequences(2).iter().map(Vec::as_slice))
}

fn distilled(kind: DivergenceKind, options: Options, steps: u64) -> Distilled<'static> {
    let teacher = Box::new(LiveTeacher(net(16, 4, 5)));
    let divergence =
        kind.divergence(TaidOptions { alpha: 0.05, ..TaidOptions::default() }, steps).expect("made");
    Distilled::new(net(16, 2, 6), teacher, divergence, options).expect("they fit")
}

/// The whole way: logits, streams and a loss on weights, against differences of the loss.
#[test]
fn gradients_are_those_of_the_loss() {
    let options = Options { softness: Softness { temperature: 2.0, hard: 0.2 }, features: 0.7 };
    let mut net = distilled(DivergenceKind::Js, options, 10).with_weight_loss(Box::new(|params, scale| {
        let param = &mut params[1];
        let loss = param.value.iter().map(|w| f64::from(*w).powi(2)).sum();
        param.grad.iter_mut().zip(&param.value).for_each(|(grad, w)| *grad += scale * 2.0 * w);
        loss
    }));
    let batch = batch();
    let scale = 1.0 / batch.counted() as f32;
    net.accumulate(&batch, scale).expect("a step");
    let gradients: Vec<Vec<f32>> = net.params().iter().map(|param| param.grad.clone()).collect();
    for (index, gradient) in gradients.iter().enumerate() {
        for place in [0, gradient.len() / 2] {
            let mut loss = |by: f32| {
                net.params_mut()[index].value[place] += by;
                let loss = net.accumulate(&batch, 0.0).expect("a step").mean();
                net.params_mut()[index].value[place] -= by;
                loss
            };
            let expected = (loss(4e-3) - loss(-4e-3)) / 8e-3;
            let found = f64::from(gradient[place]);
            let most = 2e-3 * expected.abs().max(1.0);
            assert!((found - expected).abs() < most, "weight {index} at {place}: {found} {expected}");
        }
    }
}

#[test]
fn layers_are_compared_at_the_same_height() {
    assert_eq!(teacher_layers(2, 4), [1, 3]);
    assert_eq!(teacher_layers(4, 4), [0, 1, 2, 3]);
    assert_eq!(teacher_layers(3, 4), [0, 1, 3]);
    assert_eq!(teacher_layers(4, 2), [0, 0, 0, 1]);
}

#[test]
fn students_that_do_not_fit_are_refused() {
    let make = |student: Net, options: Options| {
        let kl = DivergenceKind::Kl.divergence(TaidOptions::default(), 1).expect("made");
        let made = Distilled::new(student, Box::new(LiveTeacher(net(16, 4, 5))), kl, options);
        made.err().expect("refused").to_string()
    };
    let features = Options { features: 1.0, ..Options::default() };
    assert!(make(net(32, 2, 1), features).contains("16 wide and the student's 32"));
    let cold = Options { softness: Softness { temperature: 0.0, hard: 0.0 }, ..Options::default() };
    assert!(make(net(16, 2, 1), cold).contains("temperature"));
}

/// Stops behind a step.
struct Until(Option<u64>, u64);

impl Observer for Until {
    fn wants_to_stop(&mut self) -> bool {
        self.0 == Some(self.1)
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        self.1 = step.step;
        Ok(())
    }
}

fn train(folder: &Path, start: Start<'_>, stop: Option<u64>) -> (Vec<Vec<f32>>, f64) {
    let mut net = distilled(DivergenceKind::Taid, Options::default(), 12);
    let mut data = Pieces::new(sequences(10), 3, 1, None).expect("data");
    let optimizer = Optimizer::new(optim::Options::default(), net.params()).expect("an optimizer");
    let schedule = Schedule { peak: 0.01, warmup: 2, total: 12, shape: Shape::Constant };
    let plain = trainer::Options::plain(schedule, "test".into());
    let options = trainer::Options { accumulation: 2, checkpoint_every: 5, ..plain };
    let mut trainer =
        Trainer::new(&mut net, &mut data, None, optimizer, options, folder, start).expect("a run");
    trainer.run(&mut Until(stop, 0)).expect("it runs");
    drop(trainer);
    let values = net.params().iter().map(|param| param.value.clone()).collect();
    (values, net.divergence().share().expect("TAID moves"))
}

#[test]
fn a_run_that_is_resumed_ends_with_the_same_bits_and_the_same_target() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = train(&folder.path().join("whole"), Start::Fresh, None);
    let parts = folder.path().join("parts");
    let stopped = train(&parts, Start::Fresh, Some(7));
    assert!(stopped.1 < whole.1);
    let resumed = train(&parts, Start::Resume, None);
    assert!(resumed == whole, "{} {}", resumed.1, whole.1);
}
