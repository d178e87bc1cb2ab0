use std::sync::Arc;

use super::*;
use crate::IGNORE;
use crate::config::{self, Preset};
use crate::data::Pieces;
use crate::loss::{DivergenceKind, TaidOptions};
use crate::net::Init;
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

/// An encoder of thirteen tokens; matrices begin with this deviation.
pub(crate) fn encoder(hidden: usize, layers: usize, heads: usize, matrix: f32, seed: u64) -> Net {
    let shape = config::Model {
        preset: Preset::Bert,
        hidden,
        layers,
        heads,
        context: 16,
        ..config::Model::default()
    };
    let init = Init { matrix, embedding: 0.5, scaled_output: false };
    Net::random(&shape.bare(13).expect("a shape"), Default::default(), init, seed).expect("a network")
}

/// Two sequences of those tokens, some of which are hidden.
pub(crate) fn hidden_tokens() -> Batch {
    let tokens = vec![1, 5, 9, 2, 7, 3, 11, 4];
    let targets = vec![IGNORE, 6, IGNORE, 8, IGNORE, IGNORE, 12, IGNORE];
    Batch { tokens, targets, lengths: vec![5, 3], ..Batch::default() }
}

/// Asserts that the gradients of a batch's loss, first and middle number of each weight, are its differences, up to `near` of them or of
/// 1. Gives how many of these gradients stand out.
pub(crate) fn gradients_are_differences(net: &mut impl Trainable, batch: &Batch, near: f64) -> usize {
    net.accumulate(batch, 1.0).expect("a step");
    let gradients: Vec<Vec<f32>> = net.params().iter().map(|param| param.grad.clone()).collect();
    let mut moved = 0;
    for (index, gradient) in gradients.iter().enumerate() {
        for place in [0, gradient.len() / 2] {
            let mut loss = |by: f32| {
                net.params_mut()[index].value[place] += by;
                let loss = net.loss(batch).expect("a loss").sum;
                net.params_mut()[index].value[place] -= by;
                loss
            };
            let expected = (loss(4e-3) - loss(-4e-3)) / 8e-3;
            let (found, name) = (f64::from(gradient[place]), &net.params()[index].name);
            moved += usize::from(found.abs() > 1e-3);
            let most = near * expected.abs().max(1.0);
            assert!((found - expected).abs() < most, "{name} at {place}: {found} {expected}");
        }
    }
    moved
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
