//! Divergences against the slow way: both models run alone, probabilities written out in f64.

use std::path::Path;

use ounce_engine::{Engine, Mode};
use ounce_eval::divergence::{Reference, Report, compare};
use ounce_eval::perplexity::{Options, score, windows};
use ounce_kernels::DType;
use ounce_model::Model;

fn model(name: &str) -> Model {
    Model::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/models").join(name))
        .expect("opens")
}

fn documents(vocab: usize) -> Vec<Vec<u32>> {
    let document = |(k, len): (u32, u32)| (0..len).map(|i| (i * 31 + k) % vocab as u32).collect();
    [19, 1, 7].into_iter().enumerate().map(|(k, len)| document((k as u32, len))).collect()
}

fn quietly(_: usize, _: usize) -> ounce_engine::Result<()> {
    Ok(())
}

/// Probabilities of the token behind `given`.
fn probabilities(engine: &Engine, given: &[u32]) -> Vec<f64> {
    let logits = engine.session().logits(given).expect("runs");
    let last = &logits[logits.len() - engine.spec().vocab_size..];
    let sum: f64 = last.iter().map(|&logit| f64::from(logit).exp()).sum();
    last.iter().map(|&logit| f64::from(logit).exp() / sum).collect()
}

fn agree(name: &str, context: usize, stride: usize) -> Report {
    let model = model(name);
    let original = Engine::new(&model).expect("runs");
    let small = Engine::load(&model, Mode::Fast { quantize: Some(DType::Q4_0) }).expect("runs");
    let documents = documents(model.spec.vocab_size);
    let options = Options { context, stride, prefix: Some(1) };
    let mut seen = Vec::new();
    let report = compare(&original, &small, &documents, &options, |done, total| {
        seen.push((done, total));
        Ok(())
    })
    .expect("compares");
    assert_eq!(seen.last(), Some(&(27, 27)));

    let (mut kl, mut squares, mut nats, mut same) = (Vec::new(), 0.0, [0.0; 2], 0);
    for ids in &documents {
        let ids: Vec<u32> = [1].iter().chain(ids).copied().collect();
        for window in windows(ids.len(), &options).expect("windows") {
            for at in window.first..window.end {
                let [p, q] = [&original, &small].map(|it| probabilities(it, &ids[window.start..at]));
                kl.push(p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum::<f64>());
                let top = |p: &[f64]| (0..p.len()).max_by(|&a, &b| p[a].total_cmp(&p[b]));
                same += usize::from(top(&p) == top(&q));
                let target = ids[at] as usize;
                squares += (p[target] - q[target]).powi(2);
                nats[0] -= p[target].ln();
                nats[1] -= q[target].ln();
            }
        }
    }
    let count = kl.len() as f64;
    // Sums of f32 products in another order.
    let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-3 * b.abs().max(1e-3), "{name}: {a} against {b}");
    assert_eq!(report.tokens, kl.len());
    near(report.mean_kl.value, kl.iter().sum::<f64>() / count);
    near(report.max_kl, kl.iter().copied().fold(0.0, f64::max));
    near(report.original_perplexity.value, (nats[0] / count).exp());
    near(report.perplexity.value, (nats[1] / count).exp());
    near(report.perplexity_ratio, ((nats[1] - nats[0]) / count).exp());
    near(report.top1_agreement.value, same as f64 / count);
    near(report.rms_probability_change.value, (squares / count).sqrt());
    assert!(report.mean_kl.value > 1e-6, "4 bits cost something: {report:?}");

    let stored = Reference::of(&original, &documents, &options, 1 << 30, quietly).expect("fits");
    assert_eq!(stored.bytes(), 27 * model.spec.vocab_size * 4);
    assert_eq!(stored.compare(&small, quietly).expect("compares"), report, "stored logits are the same");
    let scores = score(&small, &documents, &options, quietly).expect("scores");
    for (ours, theirs) in report.scores.iter().zip(&scores) {
        assert_eq!(ours.tokens, theirs.tokens);
        assert!((ours.log_likelihood - theirs.log_likelihood).abs() < 1e-5, "{ours:?} against {theirs:?}");
    }
    report
}

#[test]
fn a_quantized_model_differs_as_written_out() {
    let report = agree("llama", 6, 6);
    assert_eq!(report.windows, 4 + 1 + 2);
    agree("llama", 6, 2);
    agree("gpt2", 8, 1);
}

#[test]
fn windows_that_must_run_at_once() {
    agree("llama_rope_dynamic", 12, 5);
}

#[test]
fn a_model_does_not_differ_from_itself() {
    let model = model("llama");
    let engine = Engine::new(&model).expect("runs");
    let options = Options { context: 6, stride: 3, prefix: None };
    let documents = documents(model.spec.vocab_size);
    let report = compare(&engine, &engine, &documents, &options, quietly).expect("compares");
    assert_eq!((report.mean_kl.value, report.max_kl, report.top1_agreement.value), (0.0, 0.0, 1.0));
    assert_eq!((report.perplexity_ratio, report.rms_probability_change.value), (1.0, 0.0));
    assert_eq!(report.rms_probability_change.stderr, Some(0.0));
}

#[test]
fn what_can_not_be_compared_is_refused() {
    let (llama, tied) = (model("llama"), model("llama_tied"));
    assert_ne!(llama.spec.vocab_size, tied.spec.vocab_size, "the test needs two vocabularies");
    let [llama, tied] = [llama, tied].map(|it| Engine::new(&it).expect("runs"));
    let options = Options { context: 4, stride: 4, prefix: None };
    let documents = [vec![1, 2, 3]];
    let error = compare(&llama, &tied, &documents, &options, quietly).expect_err("other tokens").to_string();
    assert!(error.contains("made from"), "{error}");
    let bytes = 2 * llama.spec().vocab_size as u64 * 4;
    let error = Reference::of(&llama, &documents, &options, bytes - 1, quietly).expect_err("too large");
    assert!(error.to_string().contains(&format!("need {bytes} bytes")), "{error}");
    let stored = Reference::of(&llama, &documents, &options, bytes, quietly).expect("just fits");
    assert!(stored.compare(&tied, quietly).is_err());
    let stop = |_, _| Err(ounce_engine::Error::from(ounce_model::Error::Interrupted));
    assert!(compare(&llama, &llama, &documents, &options, stop).is_err());
    assert!(compare(&llama, &llama, &[], &options, quietly).is_err(), "nothing to predict");
}
