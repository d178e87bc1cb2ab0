//! DoRA (Liu et al., "DoRA: Weight-Decomposed Low-Rank Adaptation", arXiv 2402.09353, equation 5): the length of each row of a
//! matrix learns as a number, its direction as LoRA.
//!
//! `y = (m ⊘ ‖W + s B A‖) ⊙ ((W + s B A) x) + b`, `‖·‖` the length of each row, through which no gradient flows (section 4.3);
//! `m` begins at `‖W‖`.
//!
//! Parameters: `Σ r (in + out) + out`.

use candle_core::Tensor;
use ounce_model::spec::Spec;
use ounce_train::ParamKind;
use ounce_train::graph::{Linear, Slot, Weight};
use serde_json::{Map, Value};

use super::lora::{Pair, config, pairs};
use crate::adapter::{Adapter, Clock, Dropout};
use crate::{Result, Settings};

/// DoRA.
pub struct Dora {
    settings: Settings,
    clock: Clock,
}

impl Dora {
    /// DoRA with these settings.
    pub fn new(settings: Settings, clock: Clock) -> Dora {
        Dora { settings, clock }
    }
}

impl Adapter for Dora {
    fn parameters(&self, base: &Spec) -> u64 {
        let lengths: usize = self.settings.targets.of(base).into_iter().map(|(_, output, _)| output).sum();
        pairs(&self.settings, base) + lengths as u64
    }

    fn slot(&mut self, name: &str, linear: Linear) -> Result<Box<dyn Slot>> {
        if !self.settings.targets.chooses(name) {
            return Ok(Box::new(linear));
        }
        let pair = Pair::new(&self.settings, name, &linear)?;
        let lengths = lengths(&linear.dense()?)?.to_vec1::<f32>()?;
        let magnitude =
            Weight::new(&format!("{name}.magnitude"), &[linear.output], ParamKind::Norm, lengths)?;
        let dropout = Dropout::new(&self.settings, name, &self.clock);
        Ok(Box::new(DoraSlot { base: linear, pair, magnitude, dropout }))
    }

    fn parts(&self) -> &'static [(&'static str, &'static str)] {
        &[("lora_a", "lora_A.weight"), ("lora_b", "lora_B.weight"), ("magnitude", "lora_magnitude_vector")]
    }

    fn config(&self, _base: &Spec) -> Map<String, Value> {
        config(&self.settings, true)
    }
}

/// The length of each row.
fn lengths(w: &Tensor) -> candle_core::Result<Tensor> {
    w.sqr()?.sum(1)?.sqrt()
}

struct DoraSlot {
    base: Linear,
    pair: Pair,
    magnitude: Weight,
    dropout: Dropout,
}

impl DoraSlot {
    /// `m ⊘ ‖W + s B A‖`.
    fn ratio(&self) -> ounce_train::Result<Tensor> {
        let whole = (self.base.dense()?.detach() + self.pair.product()?.detach())?;
        Ok((self.magnitude.tensor()? / lengths(&whole)?)?)
    }
}

impl Slot for DoraSlot {
    /// With dropout, what is scaled anew sees fewer inputs: `W x + (ρ − 1) ⊙ W x̃ + ρ ⊙ s B A x̃`, as peft has it.
    fn forward(&self, x: &Tensor) -> ounce_train::Result<Tensor> {
        let ratio = self.ratio()?;
        let seen = self.dropout.apply(x, &self.pair.a.tensor()?)?;
        let added = self.pair.apply(&seen)?;
        let bare = Linear { bias: None, ..self.base.clone() };
        let turned = if self.dropout.is_active() {
            let seen = bare.forward(&seen)?;
            let more = seen.broadcast_mul(&ratio.affine(1.0, -1.0)?)?;
            ((bare.forward(x)? + more)? + added.broadcast_mul(&ratio)?)?
        } else {
            (bare.forward(x)? + added)?.broadcast_mul(&ratio)?
        };
        Ok(match self.base.bias()? {
            Some(bias) => turned.broadcast_add(&bias)?,
            None => turned,
        })
    }

    fn vars(&self) -> Vec<Weight> {
        let mut weights = self.base.vars();
        weights.extend([self.pair.a.clone(), self.pair.b.clone(), self.magnitude.clone()]);
        weights
    }

    fn merged(&self) -> ounce_train::Result<Option<Tensor>> {
        let whole = (self.base.dense()? + self.pair.product()?)?;
        Ok(Some(whole.broadcast_mul(&self.ratio()?.reshape(((), 1))?)?))
    }
}
