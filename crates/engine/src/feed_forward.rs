//! The feed-forward half of a layer: one multilayer perceptron, or a router and experts.

use ounce_kernels::activation::{gelu, gelu_quick, gelu_tanh, relu, relu_squared, sigmoid, silu, tanh};
use ounce_kernels::matmul::add_scaled;
use ounce_kernels::softmax::softmax;
use ounce_kernels::vector::multiply;
use ounce_model::Weights;
use ounce_model::spec::{
    Activation, Experts as ExpertsSpec, FeedForward as FeedForwardSpec, FeedForwardKind, Mlp as MlpSpec,
};

use crate::arithmetic::Mode;
use crate::error::Result;
use crate::linear::{Linear, forward_all};
use crate::norm::{Norms, for_pairs, for_vectors, normed};
use crate::profile::Operator;
use crate::scratch::Scratch;

/// The feed-forward half of a layer.
#[derive(Debug)]
pub(crate) struct FeedForward {
    pub norms: Norms,
    /// For what stands beside it.
    name: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Dense(Box<Mlp>),
    Experts(Box<Experts>),
}

impl FeedForward {
    pub(crate) fn load(
        weights: &Weights,
        name: &str,
        spec: &FeedForwardSpec,
        mode: Mode,
    ) -> Result<FeedForward> {
        let kind = match &spec.kind {
            FeedForwardKind::Dense(mlp) => Kind::Dense(Box::new(Mlp::load(weights, name, mlp, mode)?)),
            FeedForwardKind::Experts(experts) => {
                Kind::Experts(Box::new(Experts::load(weights, name, experts, mode)?))
            }
        };
        Ok(FeedForward { norms: Norms::load(weights, name, &spec.norms)?, name: name.to_owned(), kind })
    }

    /// Bytes of packed weights.
    pub(crate) fn packed_bytes(&self) -> usize {
        match &self.kind {
            Kind::Dense(mlp) => mlp.packed_bytes(),
            Kind::Experts(experts) => experts.packed_bytes(),
        }
    }

    /// `x` is `[count, hidden]`, already normed; gives the same shape.
    pub(crate) fn forward(&self, x: &[f32], hidden: usize, scratch: &mut Scratch) -> Vec<f32> {
        let mut y = match &self.kind {
            Kind::Dense(mlp) => mlp.forward(x, scratch),
            Kind::Experts(experts) => experts.forward(x, hidden, scratch),
        };
        if !scratch.beside.is_empty() && !scratch.enough {
            let start = scratch.meter.start();
            let done = scratch.beside.add(&self.name, x, &mut y);
            scratch.meter.stop(start, Operator::Down, || done);
        }
        y
    }

    /// Norms and multiplies `stream` as [`FeedForward::forward`] does, from where `inner` stands: what the last projection is
    /// given, if an earlier call got so far. Gives nothing if a tap had enough before the end.
    pub(crate) fn go_on(
        &self,
        stream: &[f32],
        hidden: usize,
        inner: &mut Option<Vec<f32>>,
        scratch: &mut Scratch,
    ) -> Option<Vec<f32>> {
        let out = match &self.kind {
            Kind::Dense(mlp) => {
                let given = match inner.take() {
                    Some(given) => given,
                    None => {
                        let input = normed(&self.norms.before, stream, scratch);
                        let given = mlp.inner(&input, scratch);
                        scratch.give(input);
                        given
                    }
                };
                if scratch.enough {
                    scratch.give(given);
                    return None;
                }
                let out = mlp.down.forward(&given, Operator::Down, scratch);
                match scratch.enough {
                    true => *inner = Some(given),
                    false => scratch.give(given),
                }
                out
            }
            Kind::Experts(experts) => {
                let input = normed(&self.norms.before, stream, scratch);
                let out = experts.forward(&input, hidden, scratch);
                scratch.give(input);
                out
            }
        };
        (!scratch.enough).then_some(out)
    }
}

#[derive(Debug)]
struct Mlp {
    activation: Activation,
    gate: Option<Linear>,
    up: Linear,
    down: Linear,
}

impl Mlp {
    fn load(weights: &Weights, name: &str, spec: &MlpSpec, mode: Mode) -> Result<Mlp> {
        let linear = |part: &str| Linear::load(weights, &format!("{name}.{part}"), mode);
        Ok(Mlp {
            activation: spec.activation,
            gate: if spec.gated { Some(linear("gate")?) } else { None },
            up: linear("up")?,
            down: linear("down")?,
        })
    }

    fn packed_bytes(&self) -> usize {
        let gate = self.gate.as_ref().map_or(0, Linear::packed_bytes);
        gate + self.up.packed_bytes() + self.down.packed_bytes()
    }

    fn forward(&self, x: &[f32], scratch: &mut Scratch) -> Vec<f32> {
        let inner = self.inner(x, scratch);
        let out = self.down.forward(&inner, Operator::Down, scratch);
        scratch.give(inner);
        out
    }

    /// What the last projection is given.
    fn inner(&self, x: &[f32], scratch: &mut Scratch) -> Vec<f32> {
        match &self.gate {
            Some(gate) => {
                let [mut gates, up] = forward_all([gate, &self.up], x, Operator::GateUp, scratch);
                let start = scratch.meter.start();
                let function = function(self.activation);
                for_pairs(&mut gates, &up, ACTIVATION_CHUNK, |gates, up| {
                    function(gates);
                    multiply(gates, up);
                });
                scratch.meter.stop(start, Operator::Activation, || (0, gates.len()));
                scratch.give(up);
                gates
            }
            None => {
                let mut inner = self.up.forward(x, Operator::GateUp, scratch);
                let start = scratch.meter.start();
                activate(self.activation, &mut inner);
                scratch.meter.stop(start, Operator::Activation, || (0, inner.len()));
                inner
            }
        }
    }
}

/// Values of a batch that a thread takes at a time in elementwise work: few, so that threads share small batches evenly.
const ACTIVATION_CHUNK: usize = 1024;

/// Applies a nonlinearity to every value.
pub(crate) fn activate(activation: Activation, x: &mut [f32]) {
    let function = function(activation);
    let whole = x.len() / ACTIVATION_CHUNK * ACTIVATION_CHUNK;
    for_vectors(&mut x[..whole], ACTIVATION_CHUNK, function);
    function(&mut x[whole..]);
}

fn function(activation: Activation) -> fn(&mut [f32]) {
    match activation {
        Activation::Silu => silu,
        Activation::Gelu => gelu,
        Activation::GeluTanh => gelu_tanh,
        Activation::GeluQuick => gelu_quick,
        Activation::Relu => relu,
        Activation::Relu2 => relu_squared,
        Activation::Tanh => tanh,
    }
}

/// How a router is held: it is small, and which experts it picks must not hang on the rounding of packed products.
fn router_mode(mode: Mode) -> Mode {
    match mode {
        Mode::Fast { .. } => Mode::Reference,
        Mode::Reference | Mode::Emulated(_) => mode,
    }
}

#[derive(Debug)]
struct Experts {
    spec: ExpertsSpec,
    router: Linear,
    experts: Vec<Mlp>,
    shared: Option<Mlp>,
    shared_gate: Option<Linear>,
}

impl Experts {
    fn load(weights: &Weights, name: &str, spec: &ExpertsSpec, mode: Mode) -> Result<Experts> {
        let experts =
            (0..spec.count).map(|e| Mlp::load(weights, &format!("{name}.experts.{e}"), &spec.expert, mode));
        let shared =
            spec.shared.as_ref().map(|shared| Mlp::load(weights, &format!("{name}.shared"), shared, mode));
        Ok(Experts {
            router: Linear::load(weights, &format!("{name}.router"), router_mode(mode))?,
            experts: experts.collect::<Result<_>>()?,
            shared: shared.transpose()?,
            shared_gate: if spec.shared_gate {
                Some(Linear::load(weights, &format!("{name}.shared_gate"), router_mode(mode))?)
            } else {
                None
            },
            spec: spec.clone(),
        })
    }

    fn packed_bytes(&self) -> usize {
        self.experts.iter().chain(&self.shared).map(Mlp::packed_bytes).sum()
    }

    /// Every expert computes the vectors that chose it; results are added in the order of experts, so the sum
    /// does not depend on which others are in the batch.
    fn forward(&self, x: &[f32], hidden: usize, scratch: &mut Scratch) -> Vec<f32> {
        let mut out = scratch.take(x.len());
        out.fill(0.0);
        let mut scores = self.router.forward(x, Operator::Routing, scratch);
        let chosen: Vec<Vec<(usize, f32)>> =
            scores.chunks_exact_mut(self.spec.count).map(|scores| self.choose(scores)).collect();
        for (index, expert) in self.experts.iter().enumerate() {
            let takers: Vec<(usize, f32)> = chosen
                .iter()
                .enumerate()
                .filter_map(|(row, chosen)| {
                    chosen.iter().find(|(expert, _)| *expert == index).map(|&(_, weight)| (row, weight))
                })
                .collect();
            if takers.is_empty() {
                continue;
            }
            let inputs: Vec<f32> =
                takers.iter().flat_map(|&(row, _)| &x[row * hidden..(row + 1) * hidden]).copied().collect();
            let results = expert.forward(&inputs, scratch);
            for (&(row, weight), result) in takers.iter().zip(results.chunks_exact(hidden)) {
                add_scaled(weight, result, &mut out[row * hidden..(row + 1) * hidden]);
            }
            scratch.give(results);
        }
        scratch.give(scores);
        if let Some(shared) = &self.shared {
            let results = shared.forward(x, scratch);
            let gates = self.shared_gate.as_ref().map(|gate| gate.forward(x, Operator::Routing, scratch));
            for (row, result) in results.chunks_exact(hidden).enumerate() {
                let weight = gates.as_ref().map_or(1.0, |gates| sigmoid(gates[row]));
                add_scaled(weight, result, &mut out[row * hidden..(row + 1) * hidden]);
            }
            scratch.give(results);
            gates.into_iter().for_each(|gates| scratch.give(gates));
        }
        out
    }

    /// The experts of one vector with their weights: softmax over all, the greatest `used`, first index first
    /// among equals.
    fn choose(&self, scores: &mut [f32]) -> Vec<(usize, f32)> {
        softmax(scores);
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let mut chosen: Vec<(usize, f32)> = order[..self.spec.used].iter().map(|&e| (e, scores[e])).collect();
        if self.spec.normalise {
            let sum: f32 = chosen.iter().map(|(_, weight)| weight).sum();
            chosen.iter_mut().for_each(|(_, weight)| *weight /= sum);
        }
        chosen
    }
}
