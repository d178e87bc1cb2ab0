//! (IA)³ (Liu et al., "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning", arXiv 2205.05638,
//! section 3.3): vectors of ones at first scale keys, values, and what enters the second matrix of the feed-forward half.
//!
//! `k = l_k ⊙ (W_k x + b_k)`, `v = l_v ⊙ (W_v x + b_v)`, `y = W (l ⊙ h) + b`.
//!
//! Parameters: `Σ out` of keys and values, `Σ in` of the matrices that go down.

use candle_core::Tensor;
use ounce_model::spec::Spec;
use ounce_train::ParamKind;
use ounce_train::graph::{Linear, Slot, Weight};
use serde_json::{Map, Value, json};

use crate::adapter::Adapter;
use crate::{Error, Result, Settings};

/// (IA)³.
pub struct Ia3 {
    settings: Settings,
}

/// Whether what enters the layer is scaled, not what leaves it.
pub(crate) fn scales_input(slot: &str) -> bool {
    slot.ends_with(".down")
}

impl Ia3 {
    /// (IA)³ with these settings.
    pub fn new(settings: Settings) -> Ia3 {
        Ia3 { settings }
    }
}

impl Adapter for Ia3 {
    fn parameters(&self, base: &Spec) -> u64 {
        let layers = self.settings.targets.of(base).into_iter();
        layers.map(|(slot, output, input)| if scales_input(&slot) { input } else { output } as u64).sum()
    }

    fn slot(&mut self, name: &str, linear: Linear) -> Result<Box<dyn Slot>> {
        if !self.settings.targets.chooses(name) {
            return Ok(Box::new(linear));
        }
        let input = scales_input(name);
        if !input && linear.bias.is_some() {
            tracing::debug!("{name}: the bias is scaled with the rest and can't be merged");
        }
        let width = if input { linear.input } else { linear.output };
        let shape = if input { [1, width] } else { [width, 1] };
        let l = Weight::new(&format!("{name}.ia3_l"), &shape, ParamKind::Norm, vec![1.0; width])?;
        Ok(Box::new(Ia3Slot { base: linear, l, input, width }))
    }

    fn parts(&self) -> &'static [(&'static str, &'static str)] {
        &[("ia3_l", "ia3_l")]
    }

    fn config(&self, _base: &Spec) -> Map<String, Value> {
        Map::from_iter([
            ("fan_in_fan_out".to_owned(), json!(false)),
            ("init_ia3_weights".to_owned(), json!(true)),
        ])
    }
}

struct Ia3Slot {
    base: Linear,
    l: Weight,
    input: bool,
    width: usize,
}

impl Slot for Ia3Slot {
    fn forward(&self, x: &Tensor) -> ounce_train::Result<Tensor> {
        let l = self.l.tensor()?.reshape((1, self.width))?;
        if self.input {
            return self.base.forward(&x.broadcast_mul(&l)?);
        }
        Ok(self.base.forward(x)?.broadcast_mul(&l)?)
    }

    fn vars(&self) -> Vec<Weight> {
        let mut weights = self.base.vars();
        weights.push(self.l.clone());
        weights
    }

    fn merged(&self) -> ounce_train::Result<Option<Tensor>> {
        if !self.input && self.base.bias.is_some() {
            return Err(Error::Option(
                "what (IA)³ learned of keys and values can't be merged into a layer with a bias".into(),
            )
            .into());
        }
        let shape = if self.input { (1, self.width) } else { (self.width, 1) };
        Ok(Some(self.base.dense()?.broadcast_mul(&self.l.tensor()?.reshape(shape)?)?))
    }
}
