//! What the fast mode costs in quality: the built-in model on texts that it was not trained on, in each format of
//! weights, against the reference mode on the same weights.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use ounce_engine::{Engine, Generation, Mode, Sampler, Sampling, Step};
use ounce_eval::perplexity::{Options, Report, TextSize, score};
use ounce_kernels::DType;
use ounce_kernels::attention::KvType;
use ounce_kernels::softmax::log_sum_exp;
use ounce_lab::{builtin, stories};
use ounce_model::Model;
use ounce_model::formats::{WriteOptions, gguf_model};

/// About 2,000 tokens.
const BYTES: usize = 8_000;

/// The built-in model with its matrices in another format, by way of a GGUF file in the folder that comes with it.
fn converted(dtype: DType) -> (tempfile::TempDir, Model) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.gguf");
    let built_in = builtin::LANGUAGE.open().expect("opens");
    let options = WriteOptions { dtype: Some(dtype), ..WriteOptions::default() };
    gguf_model::write_model(&built_in, &path, &options, &mut |_, _| Ok(())).expect("writes");
    let model = Model::open(&path).expect("opens");
    for name in model.weights.names() {
        let (stored, shape) = model.weights.info(name).expect("a tensor");
        assert!(shape.len() < 2 || stored == dtype, "{name} is in {stored:?}, not in {dtype:?}");
    }
    (folder, model)
}

/// Held-out texts as ids, without a token before them.
fn texts(model: &Model) -> (Vec<Vec<u32>>, TextSize) {
    let text = stories::corpus(stories::FIRST_HELD_OUT_SEED + 7, BYTES);
    let tokenizer = model.tokenizer.as_ref().expect("a tokenizer");
    let ids = text.split("\n\n").map(|text| tokenizer.encode(text, false).expect("encodes")).collect();
    (ids, TextSize::of(&text))
}

/// Perplexity of a token of the held-out texts, each text alone after the beginning-of-text token.
fn perplexity(model: &Model, mode: Mode, kv_type: KvType) -> f64 {
    let mut engine = Engine::load(model, mode).expect("loads");
    engine.set_kv_type(kv_type);
    let (documents, size) = texts(model);
    let context = model.spec.context_length;
    let bos = model.tokenizer.as_ref().and_then(|tokenizer| tokenizer.special().bos);
    let options = Options { context, stride: context, prefix: Some(bos.expect("a token that begins texts")) };
    let scores = score(&engine, &documents, &options, |_, _| Ok(())).expect("scores");
    let report = Report::new(&scores, size).expect("predicts");
    assert!(report.tokens > 1_500, "{} tokens", report.tokens);
    report.token_perplexity.value
}

/// Compares the fast mode with the reference mode on the same weights; `limit` is the relative difference of
/// perplexities that is allowed.
fn agree(dtype: DType, limit: f64) {
    let (_folder, model) = converted(dtype);
    let reference = perplexity(&model, Mode::Reference, KvType::F32);
    for kv_type in [KvType::F32, KvType::F16] {
        let fast = perplexity(&model, Mode::fast(), kv_type);
        let difference = fast / reference - 1.0;
        println!("{dtype:?}, KV {kv_type:?}: {reference:.5} to {fast:.5}, {:+.4} %", difference * 100.0);
        assert!(difference.abs() < limit, "{dtype:?}, KV {kv_type:?}: {fast} against {reference}");
    }
}

#[test]
fn f32_and_f16_predict_like_the_reference() {
    agree(DType::F32, 1e-4);
    agree(DType::F16, 1e-4);
}

#[test]
fn q8_0_predicts_like_the_reference() {
    agree(DType::Q8_0, 1e-3);
}

#[test]
fn formats_of_five_bits_predict_like_the_reference() {
    agree(DType::Q5_0, 1e-3);
    agree(DType::Q5_1, 1e-3);
}

#[test]
fn formats_of_four_bits_predict_like_the_reference() {
    agree(DType::Q4_0, 1e-3);
    agree(DType::Q4_1, 1e-3);
}

/// KL(reference ‖ fast), the mean over all positions of the held-out texts, in nats.
fn divergence(model: &Model) -> f64 {
    let reference = Engine::load(model, Mode::Reference).expect("loads");
    let fast = Engine::load(model, Mode::fast()).expect("loads");
    let vocab = model.spec.vocab_size;
    let (mut sum, mut positions) = (0.0, 0u32);
    for ids in texts(model).0 {
        let ids = &ids[..ids.len().min(model.spec.context_length)];
        let [p, q] = [&reference, &fast].map(|engine| engine.session().logits(ids).expect("runs"));
        for (p, q) in p.chunks_exact(vocab).zip(q.chunks_exact(vocab)) {
            let (p_total, q_total) = (log_sum_exp(p), log_sum_exp(q));
            let terms = p.iter().zip(q).map(|(&p, &q)| {
                let (p, q) = (f64::from(p) - p_total, f64::from(q) - q_total);
                p.exp() * (p - q)
            });
            sum += terms.sum::<f64>();
            positions += 1;
        }
    }
    sum / f64::from(positions)
}

/// Differences of perplexities can cancel out; these can't.
#[test]
fn rounded_activations_hardly_move_the_distributions() {
    for (dtype, limit) in [(DType::BF16, 1e-5), (DType::Q8_0, 1e-4), (DType::Q4_0, 1e-4)] {
        let (_folder, model) = converted(dtype);
        let found = divergence(&model);
        println!("{dtype:?}: {found:.2e} nats");
        assert!(found < limit, "{dtype:?}: {found:.2e} nats");
    }
}

/// 64 greedy tokens behind a prompt. No token ends the text, so that every text has its full length.
fn greedy(model: &Model, engine: &Engine, prompt: &str) -> Vec<u32> {
    let tokenizer = model.tokenizer.as_ref().expect("a tokenizer");
    let prompt = tokenizer.encode(prompt, true).expect("encodes");
    let mut sampler = Sampler::new(Sampling::greedy(), model.spec.vocab_size).expect("fits");
    let generation = Generation { max_tokens: 64, end_ids: Vec::new(), top_logprobs: None };
    let mut ids = Vec::new();
    let each = |step: Step| {
        ids.push(step.id);
        Ok(ControlFlow::Continue(()))
    };
    generation.run(&mut engine.session(), &mut sampler, &prompt, |_| {}, each).expect("runs");
    ids
}

#[test]
fn f32_weights_write_the_same_texts_in_both_modes() {
    let (_folder, model) = converted(DType::F32);
    let reference = Engine::load(&model, Mode::Reference).expect("loads");
    let fast = Engine::load(&model, Mode::fast()).expect("loads");
    let prompts = [
        "Once upon a time",
        "One day, a little girl named Lily",
        "Count from three:",
        "\"Where is my red ball?\"",
        "Tom and his dog",
    ];
    let mut written = BTreeSet::new();
    for prompt in prompts {
        let expected = greedy(&model, &reference, prompt);
        assert_eq!(expected.len(), 64);
        assert_eq!(greedy(&model, &fast, prompt), expected, "{prompt}");
        written.insert(expected);
    }
    assert_eq!(written.len(), prompts.len(), "prompts should lead to different texts");
}
