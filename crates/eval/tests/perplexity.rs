//! Sliding windows against the slow way: each token predicted alone, from exactly the tokens it may see.

use std::path::Path;

use ounce_engine::Engine;
use ounce_eval::perplexity::{Options, score, windows};
use ounce_model::Model;

fn model(name: &str) -> Model {
    Model::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/models").join(name))
        .expect("opens")
}

/// Natural logarithm of the probability of `target` behind `given`, which is run at once.
fn log_probability(engine: &Engine, given: &[u32], target: u32) -> f64 {
    let logits = engine.session().logits(given).expect("runs");
    let last = &logits[logits.len() - engine.spec().vocab_size..];
    let sum: f64 = last.iter().map(|&logit| f64::from(logit).exp()).sum();
    f64::from(last[target as usize]) - sum.ln()
}

fn agree(name: &str, context: usize, stride: usize) {
    let model = model(name);
    let engine = Engine::new(&model).expect("runs");
    let vocab = model.spec.vocab_size as u32;
    let documents: Vec<Vec<u32>> = [19, 1, 7]
        .iter()
        .enumerate()
        .map(|(k, &len)| (0..len).map(|i| (i * 31 + k as u32) % vocab).collect())
        .collect();
    let options = Options { context, stride, prefix: Some(1) };
    let mut seen = Vec::new();
    let scores = score(&engine, &documents, &options, |done, total| {
        seen.push((done, total));
        Ok(())
    })
    .expect("scores");

    let mut expected = Vec::new();
    for ids in &documents {
        let ids: Vec<u32> = [1].iter().chain(ids).copied().collect();
        for window in windows(ids.len(), &options).expect("windows") {
            let of = |at: usize| log_probability(&engine, &ids[window.start..at], ids[at]);
            expected.push((window.first..window.end).map(of).sum::<f64>());
        }
    }
    assert_eq!(scores.len(), expected.len());
    for (score, expected) in scores.iter().zip(expected) {
        // Sums of f32 products in another order.
        assert!((score.log_likelihood - expected).abs() < 1e-3, "{name}: {score:?} against {expected}");
    }
    assert_eq!(scores.iter().map(|score| score.tokens).sum::<usize>(), 27);
    assert_eq!(seen.last(), Some(&(27, 27)));
}

#[test]
fn windows_that_touch() {
    agree("llama", 6, 6);
}

#[test]
fn windows_that_overlap() {
    agree("llama", 6, 2);
    agree("gpt2", 8, 1);
}

#[test]
fn work_stops_when_asked_to() {
    let model = model("llama");
    let engine = Engine::new(&model).expect("runs");
    let options = Options { context: 4, stride: 4, prefix: None };
    let stop = |_, _| Err(ounce_engine::Error::from(ounce_model::Error::Interrupted));
    assert!(score(&engine, &[vec![1, 2, 3]], &options, stop).is_err());
}
