//! The feed-forward half of a layer: one multilayer perceptron, or a router and experts.

use ounce_kernels::activation::{gelu, gelu_quick, gelu_tanh, sigmoid, silu};
use ounce_kernels::matmul::add_scaled;
use ounce_kernels::softmax::softmax;
use ounce_model::Weights;
use ounce_model::spec::{
    Activation, Experts as ExpertsSpec, FeedForward as FeedForwardSpec, FeedForwardKind, Mlp as MlpSpec,
};

use crate::arithmetic::Product;
use crate::error::Result;
use crate::linear::Linear;
use crate::norm::Norms;

/// The feed-forward half of a layer.
#[derive(Debug)]
pub(crate) struct FeedForward {
    pub norms: Norms,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Dense(Box<Mlp>),
    Experts(Box<Experts>),
}

impl FeedForward {
    pub(crate) fn load(weights: &Weights, name: &str, spec: &FeedForwardSpec) -> Result<FeedForward> {
        let kind = match &spec.kind {
            FeedForwardKind::Dense(mlp) => Kind::Dense(Box::new(Mlp::load(weights, name, mlp)?)),
            FeedForwardKind::Experts(experts) => Kind::Experts(Box::new(Experts::load(weights, name, experts)?)),
        };
        Ok(FeedForward { norms: Norms::load(weights, name, &spec.norms)?, kind })
    }

    /// `x` is `[count, hidden]`, already normed; gives the same shape.
    pub(crate) fn forward(&self, x: &[f32], hidden: usize, product: Product) -> Vec<f32> {
        match &self.kind {
            Kind::Dense(mlp) => mlp.forward(x, product),
            Kind::Experts(experts) => experts.forward(x, hidden, product),
        }
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
    fn load(weights: &Weights, name: &str, spec: &MlpSpec) -> Result<Mlp> {
        let linear = |part: &str| Linear::load(weights, &format!("{name}.{part}"));
        Ok(Mlp {
            activation: spec.activation,
            gate: if spec.gated { Some(linear("gate")?) } else { None },
            up: linear("up")?,
            down: linear("down")?,
        })
    }

    fn forward(&self, x: &[f32], product: Product) -> Vec<f32> {
        let mut inner = self.up.forward(x, product);
        match &self.gate {
            Some(gate) => {
                let mut gates = gate.forward(x, product);
                activate(self.activation, &mut gates);
                inner.iter_mut().zip(&gates).for_each(|(inner, gate)| *inner *= gate);
            }
            None => activate(self.activation, &mut inner),
        }
        self.down.forward(&inner, product)
    }
}

/// Applies a nonlinearity to every value.
pub(crate) fn activate(activation: Activation, x: &mut [f32]) {
    let function: fn(f32) -> f32 = match activation {
        Activation::Silu => silu,
        Activation::Gelu => gelu,
        Activation::GeluTanh => gelu_tanh,
        Activation::GeluQuick => gelu_quick,
        Activation::Relu => |x| x.max(0.0),
        Activation::Relu2 => |x| x.max(0.0) * x.max(0.0),
        Activation::Tanh => f32::tanh,
    };
    x.iter_mut().for_each(|x| *x = function(*x));
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
    fn load(weights: &Weights, name: &str, spec: &ExpertsSpec) -> Result<Experts> {
        let experts =
            (0..spec.count).map(|e| Mlp::load(weights, &format!("{name}.experts.{e}"), &spec.expert));
        let shared = spec.shared.as_ref().map(|shared| Mlp::load(weights, &format!("{name}.shared"), shared));
        Ok(Experts {
            router: Linear::load(weights, &format!("{name}.router"))?,
            experts: experts.collect::<Result<_>>()?,
            shared: shared.transpose()?,
            shared_gate: if spec.shared_gate {
                Some(Linear::load(weights, &format!("{name}.shared_gate"))?)
            } else {
                None
            },
            spec: spec.clone(),
        })
    }

    /// Every expert computes the vectors that chose it; results are added in the order of experts, so the sum
    /// does not depend on which others are in the batch.
    fn forward(&self, x: &[f32], hidden: usize, product: Product) -> Vec<f32> {
        let mut out = vec![0.0; x.len()];
        let mut scores = self.router.forward(x, product);
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
            let results = expert.forward(&inputs, product);
            for (&(row, weight), result) in takers.iter().zip(results.chunks_exact(hidden)) {
                add_scaled(weight, result, &mut out[row * hidden..(row + 1) * hidden]);
            }
        }
        if let Some(shared) = &self.shared {
            let results = shared.forward(x, product);
            let gates = self.shared_gate.as_ref().map(|gate| gate.forward(x, product));
            for (row, result) in results.chunks_exact(hidden).enumerate() {
                let weight = gates.as_ref().map_or(1.0, |gates| sigmoid(gates[row]));
                add_scaled(weight, result, &mut out[row * hidden..(row + 1) * hidden]);
            }
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
