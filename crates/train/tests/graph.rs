//! The network of slots against the hand-written one, and what slots and hooks are for.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use candle_core::Tensor;
use common::{batch, families, golden};
use ounce_kernels::DType;
use ounce_model::{Model, Weights, weights::MemorySource};
use ounce_train::graph::{GraphNet, Hook, Linear, NoHook, Pass, Slot, Weight};
use ounce_train::loss::CrossEntropy;
use ounce_train::net::{Net, Options};
use ounce_train::{Batch, Loss, ParamKind, Result, Trainable};

const TOLERANCE: f32 = 1e-5;

fn model(name: &str) -> Model {
    Model::open(golden().join("models").join(name)).expect("golden")
}

fn plain(_: &str, linear: Linear) -> Result<Box<dyn Slot>> {
    Ok(Box::new(linear))
}

/// Equal to `TOLERANCE` of the greatest value, or of `floor`, where what cancels exactly in theory is rounding.
fn assert_close(what: &str, ours: &[f32], theirs: &[f32], floor: f32) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let largest = theirs.iter().fold(floor, |max, it| max.max(it.abs()));
    for (index, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        assert!((ours - theirs).abs() <= TOLERANCE * largest, "{what}[{index}]: {ours} for {theirs}");
    }
}

fn assert_same_gradients(name: &str, ours: &[ounce_train::Param], theirs: &[ounce_train::Param]) {
    let floor = 1e-2 * theirs.iter().flat_map(|it| &it.grad).fold(0.0f32, |max, it| max.max(it.abs()));
    assert_eq!(ours.len(), theirs.len(), "{name}");
    for theirs in theirs {
        let ours = ours.iter().find(|ours| ours.name == theirs.name).expect("golden");
        assert_eq!((&ours.shape, ours.kind, &ours.value), (&theirs.shape, theirs.kind, &theirs.value));
        assert_close(&format!("{name}: {}", ours.name), &ours.grad, &theirs.grad, floor);
    }
}

fn compare(name: &str) {
    let model = model(name);
    let batch = batch(name, !model.spec.causal);
    let mut net = Net::from_model(&model, Options::default()).expect("golden");
    let mut graph = GraphNet::from_model(&model, Options::default(), &mut plain).expect("golden");
    let expected = net.accumulate(&batch, 0.5).expect("golden");
    for found in [graph.loss(&batch).expect("golden"), graph.accumulate(&batch, 0.5).expect("golden")] {
        assert_eq!(found.count, expected.count, "{name}");
        assert!((found.sum / expected.sum - 1.0).abs() < 1e-5, "{name}: {} for {}", found.sum, expected.sum);
    }
    assert_same_gradients(name, graph.params(), net.params());
    // A second batch is added to the first.
    net.accumulate(&batch, 0.25).expect("golden");
    graph.accumulate(&batch, 0.25).expect("golden");
    assert_same_gradients(name, graph.params(), net.params());
}

families!(compare);

#[test]
fn the_embedding_gradient_is_scaled_as_in_the_other_network() {
    let model = model("llama_tied");
    let batch = batch("llama_tied", false);
    let options = Options { embedding_gradient: Some(0.1), ..Options::default() };
    let mut net = Net::from_model(&model, options).expect("golden");
    let mut graph = GraphNet::from_model(&model, options, &mut plain).expect("golden");
    net.accumulate(&batch, 1.0).expect("golden");
    graph.accumulate(&batch, 1.0).expect("golden");
    assert_same_gradients("llama_tied", graph.params(), net.params());
}

/// `y = W x + b + scale · B (A x)`; only `A` and `B` are trained (LoRA).
struct Lora {
    base: Linear,
    a: Weight,
    b: Weight,
    scale: f64,
}

impl Lora {
    fn new(name: &str, base: Linear, rank: usize, scale: f64) -> Result<Lora> {
        base.freeze();
        // Any values do that are not the same everywhere; B would begin at 0.
        let values = |count: usize, seed: usize| {
            (0..count).map(move |i| ((i * 7919 + seed) % 13) as f32 / 65.0 - 0.09)
        };
        let new = |part: &str, rows: usize, columns: usize, seed| {
            let values = values(rows * columns, seed).collect();
            Weight::new(&format!("{name}.{part}"), &[rows, columns], ParamKind::Matrix, values)
        };
        Ok(Lora {
            a: new("lora_a", rank, base.input, 1)?,
            b: new("lora_b", base.output, rank, 5)?,
            base,
            scale,
        })
    }
}

impl Slot for Lora {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        // candle's own operations, in the place of a slot that ounce knows nothing of.
        let added = x.matmul(&self.a.tensor()?.t()?)?.matmul(&self.b.tensor()?.t()?)?;
        Ok((self.base.forward(x)? + (added * self.scale)?)?)
    }

    fn vars(&self) -> Vec<Weight> {
        let mut weights = self.base.vars();
        weights.extend([self.a.clone(), self.b.clone()]);
        weights
    }

    fn merged(&self) -> Result<Option<Tensor>> {
        let added = self.b.tensor()?.matmul(&self.a.tensor()?)?;
        Ok(Some((self.base.dense()? + (added * self.scale)?)?))
    }
}

/// Query, value and down of every layer get an adapter; `trains` is for the rest.
fn with_lora(model: &Model, trains: &dyn Fn(&str) -> bool) -> GraphNet {
    GraphNet::with_frozen(model, Options::default(), trains, &mut |name, linear| {
        Ok(match name.rsplit('.').next() {
            Some("query" | "value" | "down") => Box::new(Lora::new(name, linear, 3, 0.5)?),
            _ => Box::new(linear),
        })
    })
    .expect("golden")
}

/// The model with its layers' matrices in eight bits.
fn quantized(model: &Model) -> Model {
    let mut source = MemorySource::new("<quantized>");
    for info in model.spec.tensors() {
        let values = model.weights.f32(&info.name).expect("golden");
        let mut tensor = ounce_model::Tensor::from_f32(&info.shape, &values);
        if info.name.starts_with("layers.") && info.shape.len() == 2 && info.shape[1] % 32 == 0 {
            let mut bytes = Vec::new();
            ounce_kernels::quant::encode_rows(DType::Q8_0, &values, info.shape[1], &mut bytes)
                .expect("golden");
            tensor =
                ounce_model::Tensor { dtype: DType::Q8_0, shape: info.shape.clone(), data: bytes.into() };
        }
        source.insert(info.name, tensor);
    }
    Model { weights: Weights::in_memory(source), ..model.clone() }
}

#[test]
fn lora_trains_its_own_weights_alone() {
    for quantize in [false, true] {
        let model = if quantize { quantized(&model("llama")) } else { model("llama") };
        let batch = batch("llama", false);
        let mut net = with_lora(&model, &|_| false);
        let first = net.accumulate(&batch, 1.0 / batch.counted() as f32).expect("golden").mean();
        let before: Vec<Vec<f32>> = net.params().iter().map(|it| it.value.clone()).collect();
        for param in net.params() {
            let lora = param.name.contains("lora");
            assert_eq!(param.is_trainable(), lora, "{}", param.name);
            assert_eq!(param.grad.iter().any(|&it| it != 0.0), lora, "{}", param.name);
        }
        assert!(
            net.params().iter().all(|it| it.name != "layers.0.attention.query.weight"),
            "stays as stored"
        );
        assert_eq!(net.params().iter().filter(|it| it.is_trainable()).count(), 6 * model.spec.layers.len());
        for _ in 0..30 {
            for param in net.params_mut() {
                let step = |(value, grad): (&mut f32, &mut f32)| *value -= 0.5 * std::mem::take(grad);
                param.value.iter_mut().zip(&mut param.grad).for_each(step);
            }
            net.accumulate(&batch, 1.0 / batch.counted() as f32).expect("golden");
        }
        let last = net.loss(&batch).expect("golden").mean();
        assert!(last < first - 0.05, "{first} before, {last} after");
        for (param, before) in net.params().iter().zip(&before) {
            assert_eq!(param.value != *before, param.is_trainable(), "{}", param.name);
        }
        // Merged it is a plain model with the same results.
        let merged = net.model().expect("golden");
        let mut merged = Net::from_model(&merged, Options::default()).expect("golden");
        let again = merged.loss(&batch).expect("golden").mean();
        assert!((again / last - 1.0).abs() < 1e-5, "{again} merged, {last} unmerged");
    }
}

#[test]
fn an_adapters_gradients_are_those_of_its_merged_matrix() {
    let model = model("llama");
    let batch = batch("llama", false);
    let mut lora = with_lora(&model, &|_| false);
    lora.accumulate(&batch, 1.0).expect("golden");
    let mut dense = Net::from_model(&lora.model().expect("golden"), Options::default()).expect("golden");
    dense.accumulate(&batch, 1.0).expect("golden");
    let find = |params: &[ounce_train::Param], name: &str| {
        params.iter().find(|it| it.name == name).expect("golden").clone()
    };
    for name in ["layers.0.attention.query", "layers.1.feed_forward.down"] {
        let matrix = find(dense.params(), &format!("{name}.weight"));
        let (a, b) =
            (find(lora.params(), &format!("{name}.lora_a")), find(lora.params(), &format!("{name}.lora_b")));
        let (output, input) = (matrix.shape[0], matrix.shape[1]);
        // dA = s · Bᵀ dW, dB = s · dW Aᵀ.
        let mut da = vec![0.0; 3 * input];
        let mut db = vec![0.0; output * 3];
        for ((r, row), rank) in
            matrix.grad.chunks(input).enumerate().flat_map(|it| [(it, 0), (it, 1), (it, 2)])
        {
            for (c, d) in row.iter().enumerate() {
                da[rank * input + c] += 0.5 * b.value[r * 3 + rank] * d;
                db[r * 3 + rank] += 0.5 * d * a.value[rank * input + c];
            }
        }
        assert_close("A", &a.grad, &da, 0.0);
        assert_close("B", &b.grad, &db, 0.0);
    }
}

#[test]
fn frozen_parts_get_no_gradients_and_leave_the_others_theirs() {
    let model = quantized(&model("llama"));
    let batch = batch("llama", false);
    let trains = |name: &str| name.contains("norm") || name.contains("layers.1.feed_forward");
    let mut net = Net::with_frozen(&model, Options::default(), &trains).expect("golden");
    let mut graph = GraphNet::with_frozen(&model, Options::default(), &trains, &mut plain).expect("golden");
    net.accumulate(&batch, 1.0).expect("golden");
    graph.accumulate(&batch, 1.0).expect("golden");
    for param in graph.params() {
        assert_eq!(param.is_trainable(), trains(&param.name), "{}", param.name);
    }
    let trained = |params: &[ounce_train::Param]| -> Vec<_> {
        params.iter().filter(|it| it.is_trainable()).cloned().collect()
    };
    assert_same_gradients("llama", &trained(graph.params()), &trained(net.params()));
    // Frozen later, a weight stays as it is as well.
    graph.params_mut().iter_mut().for_each(|param| param.freeze());
    graph.accumulate(&batch, 1.0).expect("golden");
    assert!(graph.params().iter().all(|param| param.grad.is_empty()));
}

#[test]
fn a_wrapped_head_gives_what_the_plain_one_gives() {
    struct Wrapped(Linear);
    impl Slot for Wrapped {
        fn forward(&self, x: &Tensor) -> Result<Tensor> {
            self.0.with_matrix(x, self.0.dense()?)
        }
        fn vars(&self) -> Vec<Weight> {
            self.0.vars()
        }
    }
    for name in ["gemma2", "granite", "bert_mlm", "llama"] {
        let model = model(name);
        let batch = batch(name, !model.spec.causal);
        let mut all = |_: &str, linear: Linear| Ok(Box::new(Wrapped(linear)) as Box<dyn Slot>);
        let mut wrapped = GraphNet::from_model(&model, Options::default(), &mut all).expect("golden");
        let mut net = Net::from_model(&model, Options::default()).expect("golden");
        let (found, expected) =
            (wrapped.accumulate(&batch, 1.0).expect("golden"), net.accumulate(&batch, 1.0).expect("golden"));
        assert!((found.sum / expected.sum - 1.0).abs() < 1e-5, "{name}");
        assert_same_gradients(name, wrapped.params(), net.params());
    }
}

/// Keeps what goes in and comes out.
#[derive(Default)]
struct Watch {
    inputs: Vec<Tensor>,
    seen: Vec<Tensor>,
    outputs: Vec<Tensor>,
}

impl Hook for Watch {
    fn layer_input(&mut self, layer: usize, x: Tensor) -> Result<Tensor> {
        assert_eq!(layer, self.inputs.len());
        self.inputs.push(x.clone());
        Ok(x)
    }

    fn attention_input(&mut self, layer: usize, x: Tensor) -> Result<Tensor> {
        assert_eq!(layer, self.seen.len());
        self.seen.push(x.clone());
        Ok(x)
    }

    fn layer_output(&mut self, _: usize, x: Tensor) -> Result<Tensor> {
        self.outputs.push(x.clone());
        Ok(x)
    }
}

#[test]
fn hooks_see_every_layer_and_losses_on_what_they_saw_train() {
    let model = model("qwen3");
    let batch = batch("qwen3", false);
    let mut net = GraphNet::from_model(&model, Options::default(), &mut plain).expect("golden");
    let layers = model.spec.layers.len();
    // The square of the first layer's output: no gradient may reach the second layer.
    let mut objective = |pass: &Pass<'_>| {
        let mut watch = Watch::default();
        let hidden = pass.hidden(&mut watch)?;
        assert_eq!([watch.inputs.len(), watch.seen.len(), watch.outputs.len()], [layers; 3]);
        assert_eq!(hidden.dims(), [pass.batch().tokens.len(), model.spec.hidden_size]);
        let same = (&watch.outputs[0] - &watch.inputs[1])?.abs()?.sum_all()?.to_scalar::<f32>()?;
        assert_eq!(same, 0.0);
        let value = watch.outputs[0].sqr()?.sum_all()?;
        let sum = f64::from(value.to_scalar::<f32>()?);
        Ok((value, Loss { sum, count: 1 }))
    };
    let before = net.run(&batch, Some(1.0), &mut objective).expect("golden").sum;
    for param in net.params() {
        let reached = param.grad.iter().any(|&it| it != 0.0);
        assert_eq!(
            reached,
            param.name.starts_with("embed") || param.name.starts_with("layers.0."),
            "{}",
            param.name
        );
    }
    // A small step along a gradient changes the value by what the gradient says.
    let norm: f64 = net.params().iter().flat_map(|it| &it.grad).map(|&it| f64::from(it).powi(2)).sum();
    let rate = 1e-4 * before / norm;
    for param in net.params_mut() {
        param.value.iter_mut().zip(&param.grad).for_each(|(value, grad)| *value -= rate as f32 * grad);
    }
    let after = net.run(&batch, None, &mut objective).expect("golden").sum;
    let change = (before - after) / (rate * norm);
    assert!((change - 1.0).abs() < 0.05, "{change}");
}

#[test]
fn a_hook_changes_the_stream() {
    struct Zero;
    impl Hook for Zero {
        fn layer_output(&mut self, _: usize, x: Tensor) -> Result<Tensor> {
            Ok((x * 0.0)?)
        }
    }
    let model = model("qwen3");
    let batch = batch("qwen3", false);
    let mut net = GraphNet::from_model(&model, Options::default(), &mut plain).expect("golden");
    net.set_objective(|pass| pass.loss(&pass.hidden(&mut Zero)?, &mut CrossEntropy));
    // Nothing is known of the next token.
    let expected = (model.spec.vocab_size as f64).ln();
    assert!((net.loss(&batch).expect("golden").mean() - expected).abs() < 1e-5);
}

#[test]
fn logits_and_loss_agree() {
    for name in ["gemma2", "granite", "gpt2"] {
        let model = model(name);
        let batch = batch(name, false);
        let mut net = GraphNet::from_model(&model, Options::default(), &mut plain).expect("golden");
        let mut rows = Vec::new();
        let mut objective = |pass: &Pass<'_>| {
            let hidden = pass.hidden(&mut NoHook)?;
            rows = pass.logits(&hidden)?.to_vec2::<f32>()?;
            pass.loss(&hidden, &mut CrossEntropy)
        };
        let loss = net.run(&batch, None, &mut objective).expect("golden");
        let pairs = rows.iter().zip(&batch.targets).filter(|(_, target)| **target != ounce_train::IGNORE);
        let sum: f64 = pairs
            .map(|(row, &target)| {
                let total: f64 = row.iter().map(|&it| f64::from(it).exp()).sum();
                total.ln() - f64::from(row[target as usize])
            })
            .sum();
        assert!((loss.sum / sum - 1.0).abs() < 1e-5, "{name}: {} for {sum}", loss.sum);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let model = model("gpt2");
    let mut net = GraphNet::from_model(&model, Options::default(), &mut plain).expect("golden");
    let long = Batch { tokens: vec![5; 81], targets: vec![5; 81], lengths: vec![81], ..Batch::default() };
    assert!(net.loss(&long).unwrap_err().to_string().contains("81 tokens is longer than the 80 positions"));
    assert_eq!(net.loss(&Batch::default()).expect("golden").count, 0);
    let silent =
        Batch { tokens: vec![5; 4], targets: vec![u32::MAX; 4], lengths: vec![4], ..Batch::default() };
    assert_eq!(net.accumulate(&silent, 1.0).expect("golden").count, 0);
    assert!(net.params().iter().all(|param| param.grad.iter().all(|&it| it == 0.0)));
    // A failing slot leaves the values where they belong.
    struct Wrong(Linear);
    impl Slot for Wrong {
        fn forward(&self, x: &Tensor) -> Result<Tensor> {
            Ok(x.narrow(1, 0, self.0.input + 1)?)
        }
        fn vars(&self) -> Vec<Weight> {
            self.0.vars()
        }
    }
    let mut wrong = |_: &str, linear: Linear| Ok(Box::new(Wrong(linear)) as Box<dyn Slot>);
    let mut net = GraphNet::from_model(&model, Options::default(), &mut wrong).expect("golden");
    let before: Vec<Vec<f32>> = net.params().iter().map(|it| it.value.clone()).collect();
    assert!(net.accumulate(&batch("gpt2", false), 1.0).is_err());
    assert!(net.params().iter().zip(&before).all(|(param, before)| param.value == *before));
    let checkpointing = Options { checkpointing: true, ..Options::default() };
    let error = GraphNet::from_model(&model, checkpointing, &mut plain).unwrap_err();
    assert!(error.to_string().contains("turn checkpointing off"));
    let twice = GraphNet::from_model(&model, Options::default(), &mut |_, linear| {
        Ok(Box::new(Lora::new("same", linear, 2, 1.0)?))
    });
    assert!(twice.unwrap_err().to_string().contains("two weights are called same.lora_a"));
}
