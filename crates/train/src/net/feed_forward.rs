//! The feed-forward half of a layer, forward and backward: one multilayer perceptron, or a router and experts.
//!
//! Kept for the backward pass: the projections before the nonlinearity. Their product is computed again.

use ounce_kernels::grad::activation::{Activation as Function, gated, gated_backward, plain, plain_backward};
use ounce_model::spec::{Activation, FeedForward as FeedForwardSpec, FeedForwardKind, Mlp as MlpSpec};

use super::build::Builder;
use super::context::Context;
use super::experts::{self, Experts};
use super::linear::Linear;
use super::norm::Norms;
use crate::Result;

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

/// What a forward pass keeps.
#[derive(Debug)]
pub(crate) enum Saved {
    Dense(MlpSaved),
    Experts(experts::Saved),
}

impl Saved {
    pub fn release(self, cx: &mut Context<'_>) {
        match self {
            Saved::Dense(saved) => saved.release(cx),
            Saved::Experts(saved) => saved.release(cx),
        }
    }
}

impl FeedForward {
    pub fn build(from: &mut Builder<'_>, name: &str, spec: &FeedForwardSpec) -> Result<FeedForward> {
        let norms = Norms::build(from, name, &spec.norms)?;
        let kind = match &spec.kind {
            FeedForwardKind::Dense(mlp) => Kind::Dense(Box::new(Mlp::build(from, name, mlp)?)),
            FeedForwardKind::Experts(experts) => {
                Kind::Experts(Box::new(Experts::build(from, name, experts)?))
            }
        };
        Ok(FeedForward { norms, kind })
    }

    /// Adds the branch's result for the normed input `x` to `out`, both `[tokens, hidden]`.
    pub fn forward(&self, x: &[f32], out: &mut [f32], cx: &mut Context<'_>) -> Saved {
        match &self.kind {
            Kind::Dense(mlp) => Saved::Dense(mlp.forward(x, out, cx)),
            Kind::Experts(experts) => Saved::Experts(experts.forward(x, out, cx)),
        }
    }

    /// Adds to the weights' gradients and gives that of the normed input; uses up what was kept.
    pub fn backward(&self, x: &[f32], saved: Saved, dout: &[f32], cx: &mut Context<'_>) -> Vec<f32> {
        match (&self.kind, saved) {
            (Kind::Dense(mlp), Saved::Dense(saved)) => mlp.backward(x, saved, dout, cx),
            (Kind::Experts(experts), Saved::Experts(saved)) => experts.backward(x, saved, dout, cx),
            _ => unreachable!("a half keeps what its own forward pass made"),
        }
    }
}

/// `down(act(up(x)))`, or gated `down(act(gate(x)) ⊙ up(x))`.
#[derive(Debug)]
pub(crate) struct Mlp {
    function: Function,
    gate: Option<Linear>,
    up: Linear,
    down: Linear,
}

/// The projections before the nonlinearity; `gate` is empty where there is none.
#[derive(Debug)]
pub(crate) struct MlpSaved {
    gate: Vec<f32>,
    up: Vec<f32>,
}

impl MlpSaved {
    pub fn release(self, cx: &mut Context<'_>) {
        cx.buffers.give(self.gate);
        cx.buffers.give(self.up);
    }
}

/// The kernels' name for a nonlinearity.
pub(crate) fn function(activation: Activation) -> Function {
    match activation {
        Activation::Silu => Function::Silu,
        Activation::Gelu => Function::Gelu,
        Activation::GeluTanh => Function::GeluTanh,
        Activation::GeluQuick => Function::GeluQuick,
        Activation::Relu => Function::Relu,
        Activation::Relu2 => Function::Relu2,
        Activation::Tanh => Function::Tanh,
    }
}

impl Mlp {
    pub fn build(from: &mut Builder<'_>, name: &str, spec: &MlpSpec) -> Result<Mlp> {
        let mut linear = |part: &str| from.linear(&format!("{name}.{part}"), spec.bias);
        Ok(Mlp {
            function: function(spec.activation),
            gate: if spec.gated { Some(linear("gate")?) } else { None },
            up: linear("up")?,
            down: linear("down")?,
        })
    }

    /// Adds the result for `x` to `out`.
    pub fn forward(&self, x: &[f32], out: &mut [f32], cx: &mut Context<'_>) -> MlpSaved {
        let gate = self.gate.as_ref().map_or(Vec::new(), |gate| gate.apply(x, cx));
        let saved = MlpSaved { gate, up: self.up.apply(x, cx) };
        let inner = self.inner(&saved, cx);
        self.down.forward(&inner, out, true, cx);
        cx.buffers.give(inner);
        saved
    }

    /// What goes into `down`.
    fn inner(&self, saved: &MlpSaved, cx: &mut Context<'_>) -> Vec<f32> {
        let mut inner = cx.buffers.take(saved.up.len());
        match self.gate {
            Some(_) => gated(cx.pool, self.function, &saved.gate, &saved.up, &mut inner),
            None => plain(cx.pool, self.function, &saved.up, &mut inner),
        }
        inner
    }

    /// Adds to the weights' gradients and gives that of `x`.
    pub fn backward(&self, x: &[f32], saved: MlpSaved, dout: &[f32], cx: &mut Context<'_>) -> Vec<f32> {
        let mut inner = self.inner(&saved, cx);
        self.down.backward_weights(&inner, dout, cx);
        // The inner values have served; their gradient takes their place.
        self.down.backward_input(dout, &mut inner, false, cx);
        let MlpSaved { mut gate, mut up } = saved;
        match self.gate {
            Some(_) => gated_backward(cx.pool, self.function, &mut gate, &mut up, &inner),
            None => plain_backward(cx.pool, self.function, &mut up, &inner),
        }
        cx.buffers.give(inner);
        let mut dx = cx.buffers.take(x.len());
        self.up.backward_weights(x, &up, cx);
        self.up.backward_input(&up, &mut dx, false, cx);
        if let Some(linear) = &self.gate {
            linear.backward_weights(x, &gate, cx);
            linear.backward_input(&gate, &mut dx, true, cx);
        }
        cx.buffers.give(gate);
        cx.buffers.give(up);
        dx
    }
}
