//! FLoRA (Si et al., "FLoRA: Low-Rank Core Space for N-dimension", arXiv 2405.14739): what is added to a weight of any number of
//! dimensions is a small core with a thin factor along each of them (a Tucker decomposition).
//!
//! `ΔW = s · G ×₁ U₁ ×₂ U₂ … ×_N U_N`, `G` `[r₁, …, r_N]` begins as zeros, `U_i` `[d_i, r_i]` normal with Kaiming's deviation. A linear layer has
//! two dimensions, `ΔW = s · U_out G U_inᵀ`; [`conv`] has those of convolutions.
//!
//! Parameters: of a linear layer `r (in + out) + r²`; in general `Σ d_i r_i + Π r_i`.

pub mod conv;
mod demonstrate;
mod images;

use candle_core::Tensor;
use ounce_eval::method::{Family, Method};
use ounce_model::spec::Spec;
use ounce_train::ParamKind;
use ounce_train::graph::ops::Kernels;
use ounce_train::graph::{Linear, Slot, Weight};
use ounce_train::net::normal;

use super::lora::times;
use crate::adapter::{Adapter, Clock, Dropout};
use crate::{Result, Settings};

const NUMBER: u16 = 70;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "FLoRA",
    family: Family::Peft,
    paper: "FLoRA: Low-Rank Core Space for N-dimension",
    arxiv: Some("2405.14739"),
    gives: "Convolutions and other tensors of many dimensions get small adapters that respect their shape and cost nothing once merged.",
    claim: "Better than flattened LoRA at equal or smaller budget on ConvNeXt, DeBERTa and LLaVA.",
    command: Some("ounce tune MODEL --method flora --data FILE -o ADAPTER"),
    demonstrate: Some(demonstrate::demonstrate),
};

/// FLoRA of linear layers.
pub struct Flora {
    settings: Settings,
    clock: Clock,
}

impl Flora {
    /// FLoRA with these settings.
    pub fn new(settings: Settings, clock: Clock) -> Flora {
        Flora { settings, clock }
    }
}

impl Adapter for Flora {
    fn parameters(&self, base: &Spec) -> u64 {
        let rank = self.settings.rank;
        let layers = self.settings.targets.of(base).into_iter();
        layers.map(|(_, output, input)| (rank * (output + input) + rank * rank) as u64).sum()
    }

    fn slot(&mut self, name: &str, linear: Linear) -> Result<Box<dyn Slot>> {
        if !self.settings.targets.chooses(name) {
            return Ok(Box::new(linear));
        }
        let (rank, input, output) = (self.settings.rank, linear.input, linear.output);
        self.settings.check_rank(rank, name, output, input)?;
        let factor = |part: &str, shape: [usize; 2]| {
            let name = format!("{name}.{part}");
            let deviation = (2.0 / rank as f32).sqrt();
            Weight::new(
                &name,
                &shape,
                ParamKind::Matrix,
                normal(deviation, shape[0] * shape[1], self.settings.seed, &name),
            )
        };
        Ok(Box::new(FloraSlot {
            inward: factor("flora_in", [input, rank])?,
            outward: factor("flora_out", [output, rank])?,
            core: Weight::new(
                &format!("{name}.flora_core"),
                &[rank, rank],
                ParamKind::Matrix,
                vec![0.0; rank * rank],
            )?,
            scale: self.settings.scale(rank),
            on: linear.on,
            base: linear,
            dropout: Dropout::new(&self.settings, name, &self.clock),
        }))
    }

    fn parts(&self) -> &'static [(&'static str, &'static str)] {
        &[("flora_in", "flora_in"), ("flora_out", "flora_out"), ("flora_core", "flora_core")]
    }
}

struct FloraSlot {
    base: Linear,
    /// `U_in`, `[in, r]`.
    inward: Weight,
    /// `U_out`, `[out, r]`.
    outward: Weight,
    /// `G`, `[r, r]`.
    core: Weight,
    scale: f64,
    on: Kernels,
    dropout: Dropout,
}

impl Slot for FloraSlot {
    fn forward(&self, x: &Tensor) -> ounce_train::Result<Tensor> {
        let core = self.core.tensor()?;
        let seen = self.dropout.apply(x, &core)?;
        let thin = times(self.on, &seen, self.inward.tensor()?.t()?)?;
        let added = times(self.on, &times(self.on, &thin, core)?, self.outward.tensor()?)?;
        Ok((self.base.forward(x)? + (added * self.scale)?)?)
    }

    fn vars(&self) -> Vec<Weight> {
        let mut weights = self.base.vars();
        weights.extend([self.inward.clone(), self.outward.clone(), self.core.clone()]);
        weights
    }

    fn merged(&self) -> ounce_train::Result<Option<Tensor>> {
        let inner = self.core.tensor()?.matmul(&self.inward.tensor()?.t()?)?;
        let added = (self.outward.tensor()?.matmul(&inner)? * self.scale)?;
        Ok(Some((self.base.dense()? + added)?))
    }
}

#[cfg(test)]
mod tests {
    use super::demonstrate::{Scale, measure};
    use crate::desk::Desk;

    #[test]
    fn a_small_study_gives_sound_evidence() {
        let scale = Scale { pictures: 32, before: 2, steps: 2, choosing: 1, seeds: 1, planted: 20 };
        let evidence = measure(&Desk, &scale).expect("measured");
        evidence.check().expect("sound");
        assert!(evidence.expectations[1].holds, "{:?}", evidence.expectations[1]);
    }
}
