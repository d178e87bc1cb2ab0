//! Training step sizes under frozen codes, and one layer on its own: against finite differences and the whole network.

mod common;

use common::{batch, golden};
use half::f16;
use ounce_kernels::{DType, quant};
use ounce_model::{Model, Tensor};
use ounce_train::net::one_layer::OneLayer;
use ounce_train::net::{Net, Options};
use ounce_train::{Batch, Trainable};

/// A golden model whose matrices with rows of whole groups are stored in groups of 32 values with 4 bits.
fn packed() -> Model {
    packed_in(DType::G4x32)
}

/// The same in any format with blocks of 32 values.
fn packed_in(dtype: DType) -> Model {
    let model = Model::open(golden().join("models/llama")).expect("golden");
    let mut tensors = Vec::new();
    for name in model.weights.names() {
        let tensor = model.weights.get(name).expect("golden");
        if !name.starts_with("layers.") || tensor.shape.len() != 2 || !tensor.row_len().is_multiple_of(32) {
            continue;
        }
        let mut bytes = Vec::new();
        let values = tensor.to_f32().expect("golden");
        quant::encode_rows(dtype, &values, tensor.row_len(), &mut bytes).expect("whole groups");
        tensors.push((name.to_owned(), Tensor { dtype, shape: tensor.shape.clone(), data: bytes.into() }));
    }
    assert_eq!(tensors.len(), 2 * 6);
    let weights = model.weights.replaced(tensors).expect("same shapes");
    Model { weights, ..model }
}

fn sum(net: &mut Net, batch: &Batch) -> f64 {
    net.loss(batch).expect("fits").sum
}

#[test]
fn gradients_of_step_sizes_are_those_of_finite_differences() {
    // One scale; with a zero point; with an offset of its own.
    for (dtype, kinds) in [(DType::Q4_0, 1), (DType::G4x32, 1), (DType::Q4_1, 2)] {
        let net = Net::with_steps(&packed_in(dtype), Options::default()).expect("has blocks");
        check_gradients(net, kinds);
    }
}

fn check_gradients(mut net: Net, kinds: usize) {
    let batch = batch("llama", false);
    net.accumulate(&batch, 1.0).expect("fits");
    let trained: Vec<usize> = (0..net.params().len()).filter(|&at| net.params()[at].is_trainable()).collect();
    assert_eq!(trained.len(), 2 * 6 * kinds, "step sizes and nothing else");
    for at in trained {
        let param = &net.params()[at];
        let (place, gradient) = param
            .grad
            .iter()
            .copied()
            .enumerate()
            .max_by(|a, b| a.1.abs().total_cmp(&b.1.abs()))
            .expect("some");
        let (name, step) = (param.name.clone(), param.value[place]);
        let mut at_factor = |factor: f32| {
            net.params_mut()[at].value[place] = step * factor;
            net.store_steps();
            (f64::from(f16::from_f32(step * factor).to_f32()), sum(&mut net, &batch))
        };
        let ((more, above), (less, below)) = (at_factor(1.01), at_factor(0.99));
        at_factor(1.0);
        let expected = (above - below) / (more - less);
        let off = (f64::from(gradient) - expected).abs();
        assert!(off < 0.02 * expected.abs() + 1e-3, "{name}: {gradient} for {expected}");
    }
}

#[test]
fn a_network_gives_out_the_step_sizes_that_it_computes_with() {
    let model = packed();
    let mut net = Net::with_steps(&model, Options::default()).expect("has groups");
    let batch = batch("llama", false);
    let before = sum(&mut net, &batch);
    let name = "layers.1.feed_forward.up.weight";
    assert_eq!(
        *net.model().expect("whole").weights.get(name).expect("there").data,
        *model.weights.get(name).expect("there").data
    );
    net.params_mut()
        .iter_mut()
        .filter(|it| it.is_trainable())
        .for_each(|it| it.value.iter_mut().for_each(|step| *step *= 1.1));
    assert_eq!(sum(&mut net, &batch), before, "not stored yet");
    net.store_steps();
    let after = sum(&mut net, &batch);
    assert!((after - before).abs() > 1e-3);
    let again = net.model().expect("whole");
    assert_eq!(again.weights.get(name).expect("there").dtype, DType::G4x32);
    assert_eq!(sum(&mut Net::with_steps(&again, Options::default()).expect("has groups"), &batch), after);
}

#[test]
fn a_model_without_groups_has_no_step_sizes() {
    let model = Model::open(golden().join("models/llama")).expect("golden");
    let error = Net::with_steps(&model, Options::default()).expect_err("is stored plainly");
    assert!(error.to_string().contains("no matrix"), "{error}");
}

/// The squared distance of a layer's output from `target`, whose gradient takes the output's place.
fn distance(out: &mut [f32], target: &[f32]) -> f64 {
    let mut sum = 0.0;
    for (out, target) in out.iter_mut().zip(target) {
        let off = *out - target;
        sum += f64::from(off) * f64::from(off);
        *out = 2.0 * off;
    }
    sum
}

#[test]
fn gradients_of_one_layer_are_those_of_finite_differences() {
    for name in ["llama", "gemma2", "gpt_neox", "mixtral"] {
        let model = Model::open(golden().join("models").join(name)).expect("golden");
        let mut layer =
            OneLayer::new(&model, 1, Options::default(), &|name| name.ends_with(".weight")).expect("reads");
        let lengths = [5, 7];
        let wave = |count: usize, speed: f32| -> Vec<f32> {
            (0..count).map(|at| (at as f32 * speed).sin()).collect()
        };
        let count = 12 * model.spec.hidden_size;
        let (x, target) = (wave(count, 0.7), wave(count, 0.3));
        layer.accumulate(&x, &lengths, |out| distance(out, &target));
        let mut checked = 0;
        for at in 0..layer.params().len() {
            let param = &layer.params()[at];
            if !param.is_trainable() || param.shape.len() != 2 {
                continue;
            }
            let (place, gradient) = param
                .grad
                .iter()
                .copied()
                .enumerate()
                .max_by(|a, b| a.1.abs().total_cmp(&b.1.abs()))
                .expect("some");
            let (what, value) = (param.name.clone(), param.value[place]);
            let mut with = |change: f32| {
                layer.params_mut()[at].value[place] = value + change;
                layer.forward(&x, &lengths, |out| distance(&mut out.to_vec(), &target))
            };
            let expected = (with(2e-2) - with(-2e-2)) / 4e-2;
            with(0.0);
            let off = (f64::from(gradient) - expected).abs();
            assert!(off < 0.03 * expected.abs() + 1e-2, "{name}, {what}: {gradient} for {expected}");
            checked += 1;
        }
        assert!(checked >= 4, "{name}: {checked} matrices");
    }
}
