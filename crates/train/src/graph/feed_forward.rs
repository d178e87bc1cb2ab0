//! The feed-forward half of a layer.

use candle_core::Tensor;
use ounce_model::spec::{FeedForward as FeedForwardSpec, FeedForwardKind, Mlp as MlpSpec};

use super::build::{Builder, Place};
use super::experts::Experts;
use super::norm::Norms;
use super::ops::Kernels;
use super::ops::activation::{Activation, gated, plain};
use crate::Result;
use crate::net::function;

/// The feed-forward half of a layer.
pub(super) struct FeedForward {
    pub norms: Norms,
    kind: Kind,
}

enum Kind {
    Dense(Mlp),
    Experts(Box<Experts>),
}

impl FeedForward {
    pub fn build(from: &mut Builder<'_>, name: &str, spec: &FeedForwardSpec) -> Result<FeedForward> {
        let norms = Norms::build(from, name, &spec.norms)?;
        let kind = match &spec.kind {
            FeedForwardKind::Dense(mlp) => Kind::Dense(Mlp::build(from, name, mlp)?),
            FeedForwardKind::Experts(experts) => {
                Kind::Experts(Box::new(Experts::build(from, name, experts)?))
            }
        };
        Ok(FeedForward { norms, kind })
    }

    pub fn places(&self) -> Box<dyn Iterator<Item = &Place> + '_> {
        match &self.kind {
            Kind::Dense(mlp) => Box::new(mlp.places()),
            Kind::Experts(experts) => Box::new(experts.places()),
        }
    }

    /// The branch's result for the normed input `x`, both `[tokens, hidden]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match &self.kind {
            Kind::Dense(mlp) => mlp.forward(x),
            Kind::Experts(experts) => experts.forward(x),
        }
    }
}

/// `down(act(up(x)))`, or gated `down(act(gate(x)) ⊙ up(x))`.
pub(super) struct Mlp {
    on: Kernels,
    function: Activation,
    gate: Option<Place>,
    up: Place,
    down: Place,
}

impl Mlp {
    pub fn build(from: &mut Builder<'_>, name: &str, spec: &MlpSpec) -> Result<Mlp> {
        let on = from.on;
        let mut slot = |part: &str| from.slot(&format!("{name}.{part}"), spec.bias);
        Ok(Mlp {
            on,
            function: function(spec.activation),
            gate: if spec.gated { Some(slot("gate")?) } else { None },
            up: slot("up")?,
            down: slot("down")?,
        })
    }

    pub fn places(&self) -> impl Iterator<Item = &Place> {
        self.gate.iter().chain([&self.up, &self.down])
    }

    /// The result for rows `x`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let up = self.up.slot.forward(x)?;
        let inner = match &self.gate {
            Some(gate) => gated(self.on, self.function, &gate.slot.forward(x)?, &up)?,
            None => plain(self.on, self.function, &up)?,
        };
        self.down.slot.forward(&inner)
    }
}
