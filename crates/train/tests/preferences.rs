//! Learning to choose between answers: beside PyTorch's autograd, beside finite differences, and whether it is learned.

mod common;

use common::golden;
use ounce_kernels::pool::Pool;
use ounce_model::Model;
use ounce_train::loss::{Chunk, LogProbabilities, LogitLoss, PreferenceLoss};
use ounce_train::net::{Net, Options};
use ounce_train::optim::{self, Optimizer};
use ounce_train::{Batch, IGNORE, Trainable};
use serde_json::Value;

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|it| it.as_f64().expect("a number")).collect()
}

/// Rows with a target, their logits and targets.
struct Rows {
    width: usize,
    rows: Vec<usize>,
    targets: Vec<u32>,
    logits: Vec<f32>,
}

impl Rows {
    /// Hands the rows over in chunks of so many, as a network does; gives what stands in their place afterwards.
    fn pass(&self, loss: &mut dyn LogitLoss, step: usize, scale: Option<f32>) -> Vec<f32> {
        let mut logits = self.logits.clone();
        let parts = self.rows.chunks(step).zip(self.targets.chunks(step));
        for ((rows, targets), logits) in parts.zip(logits.chunks_mut(step * self.width)) {
            let (pool, width) = (Pool::global(), self.width);
            loss.chunk(Chunk { pool, logits, width, targets, rows, softcap: None }, scale);
        }
        logits
    }
}

#[test]
fn losses_and_gradients_are_pytorchs_however_rows_are_cut() {
    let text = std::fs::read(golden().join("preferences.json")).expect("golden");
    let golden: Value = serde_json::from_slice(&text).expect("JSON");
    let lengths: Vec<usize> = numbers(&golden["lengths"]).into_iter().map(|it| it as usize).collect();
    let width = golden["width"].as_u64().expect("a number") as usize;
    let targets = numbers(&golden["targets"]);
    let all: Vec<f32> = numbers(&golden["logits"]).into_iter().map(|it| it as f32).collect();
    let known: Vec<usize> = (0..targets.len()).filter(|&row| targets[row] >= 0.0).collect();
    let rows = Rows {
        width,
        targets: known.iter().map(|&row| targets[row] as u32).collect(),
        logits: known.iter().flat_map(|&row| all[row * width..(row + 1) * width].to_vec()).collect(),
        rows: known,
    };
    let reference = numbers(&golden["reference"]);
    for case in golden["cases"].as_array().expect("cases") {
        let beta = case["beta"].as_f64().expect("a number");
        for step in [1, 2, 5, 100] {
            let mut loss = PreferenceLoss::new(&lengths, &reference, beta);
            assert!(loss.looks_first());
            rows.pass(&mut loss, step, None);
            let expected = case["loss"].as_f64().expect("a number");
            assert!((loss.sum() / expected - 1.0).abs() < 1e-5, "{} for {expected}", loss.sum());
            let margin: f64 = numbers(&case["margins"]).iter().sum();
            assert!((loss.choices().margin - margin).abs() < 1e-5 * (1.0 + margin.abs()));
            let gradient = rows.pass(&mut loss, step, Some(0.5));
            let theirs = numbers(&case["gradient"]);
            for (index, ours) in gradient.iter().enumerate() {
                let theirs = 0.5 * theirs[rows.rows[index / width] * width + index % width];
                assert!((f64::from(*ours) - theirs).abs() < 1e-5, "{index}: {ours} for {theirs}");
            }
        }
    }
    let mut found = LogProbabilities::new(&lengths);
    rows.pass(&mut found, 3, None);
    for (ours, theirs) in found.values().iter().zip(numbers(&golden["log_probabilities"])) {
        assert!((ours - theirs).abs() < 1e-4, "{ours} for {theirs}");
    }
}

/// Two choices after one question each, with a reference of the network as it is but for a shift.
fn choices(net: &mut Net) -> Batch {
    let lengths = vec![9, 7, 12, 12];
    let count: usize = lengths.iter().sum();
    let tokens: Vec<u32> = (0..count as u32).map(|at| 3 + at * 7 % 60).collect();
    let mut targets: Vec<u32> = tokens.iter().map(|token| (token * 5 + 1) % 60).collect();
    let mut at = 0;
    for length in &lengths {
        targets[at..at + 3].fill(IGNORE);
        at += length;
    }
    let mut batch = Batch { tokens, targets, lengths, ..Batch::default() };
    batch.reference = net.log_probabilities(&batch).expect("fits");
    batch
}

fn llama(options: Options) -> Net {
    let model = Model::open(golden().join("models/llama")).expect("golden");
    Net::from_model(&model, options).expect("golden")
}

#[test]
fn at_the_reference_the_loss_is_ln_2_a_choice() {
    let mut net = llama(Options::default());
    let batch = choices(&mut net);
    assert_eq!(batch.counted(), 2);
    let loss = net.loss(&batch).expect("fits");
    assert_eq!(loss.count, 2);
    assert!((loss.mean() - std::f64::consts::LN_2).abs() < 1e-6, "{}", loss.mean());
    assert_eq!(net.take_choices().map(|it| it.pairs), Some(2));
    assert_eq!(net.take_choices(), None);
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let mut net = llama(Options { beta: 0.7, ..Options::default() });
    let mut batch = choices(&mut net);
    // Off the reference, so that the two choices weigh differently.
    batch.reference[0] += 1.5;
    batch.reference[3] += 0.8;
    net.accumulate(&batch, 0.5).expect("fits");
    for index in 0..net.params().len() {
        // Along the gradient the loss changes most, so that rounding matters least.
        let direction = net.params()[index].grad.clone();
        let norm = direction.iter().map(|&it| f64::from(it).powi(2)).sum::<f64>().sqrt();
        assert!(norm > 0.0, "{}", net.params()[index].name);
        let step = 2e-2 / norm;
        let mut moved = |factor: f64| {
            let start = net.params()[index].value.clone();
            let value = &mut net.params_mut()[index].value;
            value.iter_mut().zip(&direction).for_each(|(x, d)| *x += (factor * step) as f32 * d);
            let loss = 0.5 * net.loss(&batch).expect("fits").sum;
            net.params_mut()[index].value = start;
            loss
        };
        let slope = (moved(1.0) - moved(-1.0)) / (2.0 * step) / norm;
        assert!((slope / norm - 1.0).abs() < 0.02, "{}: {slope} for {norm}", net.params()[index].name);
    }
}

#[test]
fn better_answers_gain_on_worse_ones() {
    let mut net = llama(Options::default());
    let batch = choices(&mut net);
    let mut optimizer = Optimizer::new(optim::Options::default(), net.params()).expect("fits");
    for _ in 0..60 {
        net.params_mut().iter_mut().for_each(|param| param.grad.fill(0.0));
        net.accumulate(&batch, 0.5).expect("fits");
        optimizer.step(net.params_mut(), 3e-3, 1.0);
    }
    net.take_choices();
    let loss = net.loss(&batch).expect("fits").mean();
    let choices = net.take_choices().expect("there were some");
    assert!(loss < 0.5 && choices.right == 2 && choices.margin > 0.5, "{loss} {choices:?}");
    assert!(choices.better > choices.worse);
}

#[test]
fn batches_whose_references_do_not_fit_are_refused() {
    let mut net = llama(Options::default());
    let mut batch = choices(&mut net);
    batch.reference.pop();
    let error = net.loss(&batch).expect_err("three of four").to_string();
    assert!(error.contains("4 sequences and 3 references"), "{error}");
}
