//! LoRA-FA (Zhang et al., "LoRA-FA: Memory-efficient Low-rank Adaptation for Large Language Models Fine-tuning", arXiv 2308.03303,
//! section 3): LoRA whose first matrix stays as it was drawn.
//!
//! `y = W x + b + s · B (A x)`, `A` frozen, only `B` learns; its gradient needs `A x`, `r` numbers a token, where LoRA's needs `x`.
//! Written as LoRA, which it is once it has learned.
//!
//! Parameters: `Σ r · out` over the matrices.

use ounce_model::spec::Spec;
use ounce_train::Param;
use ounce_train::graph::{Linear, Slot, Weight};
use serde_json::{Map, Value};

use super::lora::{PARTS, Pair, config};
use crate::adapter::{Adapter, Array, Clock, Dropout, take_trained};
use crate::{Error, Result, Settings};

/// LoRA-FA.
pub struct LoraFa {
    settings: Settings,
    clock: Clock,
}

impl LoraFa {
    /// LoRA-FA with these settings.
    pub fn new(settings: Settings, clock: Clock) -> LoraFa {
        LoraFa { settings, clock }
    }
}

fn is_drawn(weight: &str) -> bool {
    weight.ends_with(".lora_a")
}

impl Adapter for LoraFa {
    fn parameters(&self, base: &Spec) -> u64 {
        let layers = self.settings.targets.of(base).into_iter();
        layers.map(|(_, output, _)| (self.settings.rank * output) as u64).sum()
    }

    fn slot(&mut self, name: &str, linear: Linear) -> Result<Box<dyn Slot>> {
        if !self.settings.targets.chooses(name) {
            return Ok(Box::new(linear));
        }
        let pair = Pair::new(&self.settings, name, &linear)?;
        pair.a.freeze();
        let dropout = Dropout::new(&self.settings, name, &self.clock);
        Ok(Box::new(LoraFaSlot { base: linear, pair, dropout }))
    }

    fn parts(&self) -> &'static [(&'static str, &'static str)] {
        PARTS
    }

    fn file_values(&self, params: &[Param]) -> Result<Vec<Array>> {
        Ok(params.iter().filter(|it| it.is_trainable() || is_drawn(&it.name)).map(Array::of).collect())
    }

    fn keeps(&self, weight: &str) -> bool {
        is_drawn(weight)
    }

    fn take_values(&mut self, values: &[Array], params: &mut [Param]) -> Result<()> {
        take_trained(values, params)?;
        for param in params.iter_mut().filter(|param| is_drawn(&param.name)) {
            let found = values.iter().find(|value| value.name == param.name);
            let found = found.filter(|it| it.values.len() == param.value.len()).ok_or_else(|| {
                Error::Option(format!(
                    "{} is missing in the adapter's file, or has another shape",
                    param.name
                ))
            })?;
            param.value.clone_from(&found.values);
        }
        Ok(())
    }

    fn config(&self, _base: &Spec) -> Map<String, Value> {
        config(&self.settings, false)
    }
}

struct LoraFaSlot {
    base: Linear,
    pair: Pair,
    dropout: Dropout,
}

impl Slot for LoraFaSlot {
    fn forward(&self, x: &candle_core::Tensor) -> ounce_train::Result<candle_core::Tensor> {
        let seen = self.dropout.apply(x, &self.pair.b.tensor()?)?;
        Ok((self.base.forward(x)? + self.pair.apply(&seen)?)?)
    }

    fn vars(&self) -> Vec<Weight> {
        let mut weights = self.base.vars();
        weights.extend([self.pair.a.clone(), self.pair.b.clone()]);
        weights
    }

    fn merged(&self) -> ounce_train::Result<Option<candle_core::Tensor>> {
        Ok(Some((self.base.dense()? + self.pair.product()?)?))
    }
}
