//! SSF (Lian et al., "Scaling & Shifting Your Features: A New Baseline for Efficient Model Tuning", arXiv 2210.08823, equation 3): what
//! leaves linear layers is scaled and shifted.
//!
//! `y = γ ⊙ (W x + b) + β`, `γ` ones and `β` zeros at first. Merged it would be `γ ⊙ W` and `γ ⊙ b + β`; models whose layers have no bias have
//! no place for that, so it stays beside the weights here.
//!
//! Parameters: `Σ 2 out` over the layers.

use candle_core::Tensor;
use ounce_model::spec::Spec;
use ounce_train::ParamKind;
use ounce_train::graph::{Linear, Slot, Weight};

use crate::adapter::Adapter;
use crate::{Result, Settings};

/// SSF.
pub struct Ssf {
    settings: Settings,
}

impl Ssf {
    /// SSF with these settings.
    pub fn new(settings: Settings) -> Ssf {
        Ssf { settings }
    }
}

impl Adapter for Ssf {
    fn parameters(&self, base: &Spec) -> u64 {
        self.settings.targets.of(base).into_iter().map(|(_, output, _)| 2 * output as u64).sum()
    }

    fn slot(&mut self, name: &str, linear: Linear) -> Result<Box<dyn Slot>> {
        if !self.settings.targets.chooses(name) {
            return Ok(Box::new(linear));
        }
        let vector = |part: &str, kind: ParamKind, value: f32| {
            Weight::new(&format!("{name}.ssf_{part}"), &[linear.output], kind, vec![value; linear.output])
        };
        let (scale, shift) = (vector("scale", ParamKind::Norm, 1.0)?, vector("shift", ParamKind::Bias, 0.0)?);
        Ok(Box::new(SsfSlot { base: linear, scale, shift }))
    }

    fn parts(&self) -> &'static [(&'static str, &'static str)] {
        &[("ssf_scale", "ssf_scale"), ("ssf_shift", "ssf_shift")]
    }
}

struct SsfSlot {
    base: Linear,
    scale: Weight,
    shift: Weight,
}

impl Slot for SsfSlot {
    fn forward(&self, x: &Tensor) -> ounce_train::Result<Tensor> {
        let y = self.base.forward(x)?.broadcast_mul(&self.scale.tensor()?)?;
        Ok(y.broadcast_add(&self.shift.tensor()?)?)
    }

    fn vars(&self) -> Vec<Weight> {
        let mut weights = self.base.vars();
        weights.extend([self.scale.clone(), self.shift.clone()]);
        weights
    }

    fn merged(&self) -> ounce_train::Result<Option<Tensor>> {
        Err(crate::Error::Option("what SSF shifts can't become part of a matrix".into()).into())
    }
}
