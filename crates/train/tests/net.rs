//! What must hold of every network: it learns, whatever else is in the batch, on any number of threads.

use std::path::Path;
use std::sync::OnceLock;

use ounce_kernels::DType;
use ounce_kernels::pool::Pool;
use ounce_model::account::Formats;
use ounce_model::account::training::{Job, OptimizerState, Trained, memory};
use ounce_model::formats::{WriteOptions, hf};
use ounce_model::{Model, Weights, weights::MemorySource};
use ounce_train::net::{Init, Net, Options};
use ounce_train::optim::{Kind, Optimizer, Options as OptimizerOptions};
use ounce_train::{Batch, IGNORE, Trainable};

fn model(name: &str) -> Model {
    Model::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/models").join(name))
        .expect("fits")
}

fn sequences(vocab: u32, lengths: &[usize]) -> Vec<Vec<u32>> {
    let mut state = 12345u32;
    let mut id = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        3 + (state >> 8) % (vocab - 3)
    };
    lengths.iter().map(|&length| (0..length).map(|_| id()).collect()).collect()
}

fn batch(model: &Model, lengths: &[usize]) -> Batch {
    let sequences = sequences(model.spec.vocab_size as u32, lengths);
    let mut batch = Batch::next_token(sequences.iter().map(Vec::as_slice));
    if !model.spec.causal {
        batch.targets = batch.tokens.clone();
        batch.tokens.iter_mut().step_by(5).for_each(|token| *token = 4);
    }
    batch
}

const FAMILIES: [&str; 18] = [
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3",
    "phi3",
    "smollm3",
    "olmo2",
    "stablelm",
    "gpt2",
    "gpt_neox",
    "mixtral",
    "qwen2_moe",
    "bert_mlm",
    "roberta_mlm",
    "distilbert_mlm",
    "albert_mlm",
];

#[test]
fn every_family_learns_one_batch_by_heart() {
    for name in FAMILIES {
        let model = model(name);
        let init = Init { matrix: 0.08, ..Init::default() };
        let mut net = Net::random(&model, Options::default(), init, 1).expect("fits");
        let batch = batch(&model, &[17, 9]);
        let count = batch.counted() as f32;
        let mut state: Vec<(Vec<f32>, Vec<f32>)> =
            net.params().iter().map(|it| (vec![0.0; it.grad.len()], vec![0.0; it.grad.len()])).collect();
        let mut last = f64::NAN;
        for step in 1..=400 {
            last = net.accumulate(&batch, 1.0 / count).expect("fits").mean();
            if last < 0.01 {
                break;
            }
            // Adam, written out.
            for (param, (m, v)) in net.params_mut().iter_mut().zip(&mut state) {
                let (c1, c2) = (1.0 - 0.9f32.powi(step), 1.0 - 0.99f32.powi(step));
                for i in 0..param.value.len() {
                    let g = std::mem::take(&mut param.grad[i]);
                    m[i] = 0.9 * m[i] + 0.1 * g;
                    v[i] = 0.99 * v[i] + 0.01 * g * g;
                    param.value[i] -= 0.01 * (m[i] / c1) / ((v[i] / c2).sqrt() + 1e-8);
                }
            }
        }
        assert!(last < 0.01, "{name}: {last}");
    }
}

#[test]
fn a_sequence_alone_gives_what_it_gives_beside_others() {
    for name in ["llama", "gemma2", "bert_mlm", "albert_mlm", "mixtral"] {
        let model = model(name);
        let mut net = Net::from_model(&model, Options::default()).expect("fits");
        let together = batch(&model, &[12, 30, 2]);
        let mut at = 0;
        let mut sum = 0.0;
        for &length in &together.lengths {
            let part = Batch {
                tokens: together.tokens[at..at + length].to_vec(),
                targets: together.targets[at..at + length].to_vec(),
                lengths: vec![length],
                ..Batch::default()
            };
            sum += net.loss(&part).expect("fits").sum;
            at += length;
        }
        let all = net.loss(&together).expect("fits").sum;
        assert!((sum / all - 1.0).abs() < 1e-6, "{name}: {sum} for {all}");
    }
}

#[test]
fn one_thread_gives_the_bits_of_many() {
    static POOLS: OnceLock<[Pool; 3]> = OnceLock::new();
    let pools = POOLS.get_or_init(|| [1, 2, 3].map(Pool::new));
    for name in ["llama", "gemma2", "qwen2_moe", "gpt2", "bert_mlm", "albert_mlm"] {
        let model = model(name);
        let batch = batch(&model, &[41, 23, 70]);
        let mut results = pools.iter().map(|pool| {
            let mut net = Net::from_model(&model, Options::default()).expect("fits");
            net.set_pool(pool);
            let loss = net.accumulate(&batch, 1.0).expect("fits");
            (loss.sum.to_bits(), net.params().iter().map(|it| it.grad.clone()).collect::<Vec<_>>())
        });
        let first = results.next().expect("fits");
        assert!(results.all(|other| other == first), "{name}");
    }
}

/// A quantized file's linears stay as they are stored, and give what their dense copies give.
#[test]
fn frozen_quantized_weights_are_multiplied_as_they_are_stored() {
    let model = model("llama");
    let mut source = MemorySource::new("<quantized>");
    let mut dense = MemorySource::new("<dense>");
    for info in model.spec.tensors() {
        let values = model.weights.f32(&info.name).expect("fits");
        let matrix = info.name.starts_with("layers.") && info.shape.len() == 2 && info.shape[1] % 32 == 0;
        let mut tensor = ounce_model::Tensor::from_f32(&info.shape, &values);
        if matrix {
            let mut bytes = Vec::new();
            ounce_kernels::quant::encode_rows(DType::Q8_0, &values, info.shape[1], &mut bytes).expect("fits");
            tensor =
                ounce_model::Tensor { dtype: DType::Q8_0, shape: info.shape.clone(), data: bytes.into() };
        }
        let decoded = tensor.to_f32().expect("fits");
        dense.insert(info.name.clone(), ounce_model::Tensor::from_f32(&info.shape, &decoded));
        source.insert(info.name, tensor);
    }
    let quantized = Model { weights: Weights::in_memory(source), ..model.clone() };
    let dense = Model { weights: Weights::in_memory(dense), ..model.clone() };
    let batch = batch(&model, &[20, 5]);
    let trains = |name: &str| name.contains("norm") || name.starts_with("embed");
    let mut ours = Net::with_frozen(&quantized, Options::default(), &trains).expect("fits");
    let mut theirs = Net::from_model(&dense, Options::default()).expect("fits");
    assert_eq!(ours.accumulate(&batch, 1.0).expect("fits"), theirs.accumulate(&batch, 1.0).expect("fits"));
    assert!(ours.params().iter().all(|param| !param.name.contains("attention.query.weight")));
    for param in ours.params().iter().filter(|param| param.is_trainable()) {
        let dense = theirs.params().iter().find(|other| other.name == param.name).expect("fits");
        assert_eq!(param.grad, dense.grad, "{}", param.name);
    }
    // What is written again is the file's own bits.
    let folder = tempfile::tempdir().expect("fits");
    let out = folder.path().join("model");
    hf::write_model(
        &ours.model().expect("fits"),
        &out,
        &WriteOptions { dtype: Some(DType::F32), ..Default::default() },
        &mut |_, _| Ok(()),
    )
    .expect("fits");
    let read = Model::open(&out).expect("fits");
    let name = "layers.1.feed_forward.down.weight";
    assert_eq!(read.weights.f32(name).expect("fits"), dense.weights.f32(name).expect("fits"));
}

#[test]
fn batches_that_do_not_fit_are_refused() {
    let mut net = Net::from_model(&model("gpt2"), Options::default()).expect("fits");
    let long = Batch { tokens: vec![5; 81], targets: vec![5; 81], lengths: vec![81], ..Batch::default() };
    assert!(net.loss(&long).unwrap_err().to_string().contains("81 tokens is longer than the 80 positions"));
    let outside = Batch { tokens: vec![96], targets: vec![IGNORE], lengths: vec![1], ..Batch::default() };
    assert!(net.loss(&outside).unwrap_err().to_string().contains("token id 96"));
    let empty = Batch::default();
    assert_eq!(net.loss(&empty).expect("fits").count, 0);
    let silent = Batch { tokens: vec![5; 4], targets: vec![IGNORE; 4], lengths: vec![4], ..Batch::default() };
    assert_eq!(net.accumulate(&silent, 1.0).expect("fits").count, 0);
    assert!(net.params().iter().all(|param| param.grad.iter().all(|&it| it == 0.0)));
}

#[test]
fn the_accountant_counts_weights_gradients_and_moments() {
    for name in ["llama", "gpt2", "gemma2", "mixtral", "bert_mlm"] {
        let model = model(name);
        let net = Net::from_model(&model, Options::default()).unwrap();
        for (kind, state) in [
            (Kind::AdamW, OptimizerState::AdamW),
            (Kind::AdamW8bit, OptimizerState::AdamW8bit),
            (Kind::Lion, OptimizerState::Momentum),
        ] {
            let rule = OptimizerOptions { kind, ..OptimizerOptions::default() };
            let optimizer = Optimizer::new(rule, net.params()).unwrap();
            let job = Job { trained: Trained::All, state, tokens: 16, checkpointing: false };
            let told = memory(&model.spec, &Formats::of(&model.weights), &job);
            let values: usize = net.params().iter().map(|param| 4 * param.value.len()).sum();
            let gradients: usize = net.params().iter().map(|param| 4 * param.grad.len()).sum();
            assert_eq!(told.weights, values as u64, "{name}");
            assert_eq!(told.gradients, gradients as u64, "{name}");
            assert_eq!(told.optimizer, optimizer.bytes() as u64, "{name} {kind:?}");
        }
    }
}
