//! SVFit (Sun et al., "SVFit: Parameter-Efficient Fine-Tuning of Large Pre-Trained Models Using Singular Values", arXiv 2409.05926):
//! of each matrix `W = U diag(s) Vᵀ` the largest `r` singular values are trained, and nothing else.
//!
//! `y = W_e x + U_r (σ ⊙ (V_rᵀ x))`, `W_e = W − U_r diag(s_r) V_rᵀ`, σ begins at `s_r`. Here `W` stays whole and what moved is added, which is
//! the same: `y = W x + U_r ((σ − s_r) ⊙ (V_rᵀ x))`. A file has σ alone; `U` and `V` are computed from the base again, with fixed signs.
//!
//! Parameters: `Σ r`, the smaller side of each matrix where `r` is 0.

mod demonstrate;

use candle_core::Tensor;
use ounce_eval::method::{Family, Method};
use ounce_model::spec::Spec;
use ounce_train::ParamKind;
use ounce_train::graph::ops::{Kernels, tensor};
use ounce_train::graph::{Linear, Slot, Weight};

use super::lora::times;
use crate::adapter::Adapter;
use crate::svd::{Svd, svd};
use crate::{Result, Settings};

const NUMBER: u16 = 47;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "SVFit",
    family: Family::Peft,
    paper: "SVFit: Parameter-Efficient Fine-Tuning of Large Pre-Trained Models Using Singular Values",
    arxiv: Some("2409.05926"),
    gives: "Only the largest singular values of every matrix are tuned, a few KiB per task that merge into the weights.",
    claim: "Better than LoRA with 16 times fewer trainable parameters on language, image and text-to-image tasks.",
    command: Some("ounce tune MODEL --method svfit --data FILE -o ADAPTER"),
    demonstrate: Some(demonstrate::demonstrate),
};

/// SVFit.
pub struct SvFit {
    settings: Settings,
    /// Bases drawn at random in the place of singular vectors; a control for demonstrations.
    pub(super) random: bool,
}

impl SvFit {
    /// SVFit with these settings.
    pub fn new(settings: Settings) -> SvFit {
        SvFit { settings, random: false }
    }

    fn rank(&self, output: usize, input: usize) -> usize {
        match self.settings.rank {
            0 => output.min(input),
            rank => rank,
        }
    }
}

impl Adapter for SvFit {
    fn parameters(&self, base: &Spec) -> u64 {
        let layers = self.settings.targets.of(base).into_iter();
        layers.map(|(_, output, input)| self.rank(output, input) as u64).sum()
    }

    fn slot(&mut self, name: &str, linear: Linear) -> Result<Box<dyn Slot>> {
        if !self.settings.targets.chooses(name) {
            return Ok(Box::new(linear));
        }
        let (output, input) = (linear.output, linear.input);
        let rank = self.rank(output, input);
        self.settings.check_rank(rank, name, output, input)?;
        let w = linear.dense()?.flatten_all()?.to_vec1::<f32>()?;
        let parts = match self.random {
            false => svd(name, &w, output, input)?,
            true => {
                let noise = ounce_train::net::normal(1.0, w.len(), self.settings.seed, name);
                Svd { values: svd(name, &w, output, input)?.values, ..svd(name, &noise, output, input)? }
            }
        };
        let narrow = |values: &[f64]| values.iter().map(|&x| x as f32).collect::<Vec<f32>>();
        let begun = narrow(&parts.values[..rank]);
        Ok(Box::new(SvFitSlot {
            sigma: Weight::new(&format!("{name}.sigma"), &[rank], ParamKind::Norm, begun.clone())?,
            begun: tensor(begun, rank)?,
            left: tensor(narrow(&parts.left[..rank * output]), (rank, output))?,
            right: tensor(narrow(&parts.right[..rank * input]), (rank, input))?,
            on: linear.on,
            base: linear,
        }))
    }

    fn parts(&self) -> &'static [(&'static str, &'static str)] {
        &[("sigma", "svfit_sigma")]
    }
}

struct SvFitSlot {
    base: Linear,
    sigma: Weight,
    /// `[r]`.
    begun: Tensor,
    /// `Uᵀ`, `[r, out]`.
    left: Tensor,
    /// `Vᵀ`, `[r, in]`.
    right: Tensor,
    on: Kernels,
}

impl Slot for SvFitSlot {
    fn forward(&self, x: &Tensor) -> ounce_train::Result<Tensor> {
        let moved = (self.sigma.tensor()? - &self.begun)?;
        let between = times(self.on, x, self.right.clone())?.broadcast_mul(&moved)?;
        Ok((self.base.forward(x)? + times(self.on, &between, self.left.t()?)?)?)
    }

    fn vars(&self) -> Vec<Weight> {
        let mut weights = self.base.vars();
        weights.push(self.sigma.clone());
        weights
    }

    fn merged(&self) -> ounce_train::Result<Option<Tensor>> {
        let moved = (self.sigma.tensor()? - &self.begun)?.reshape(((), 1))?;
        let added = self.left.t()?.matmul(&self.right.broadcast_mul(&moved)?)?;
        Ok(Some((self.base.dense()? + added)?))
    }
}

#[cfg(test)]
mod tests {
    use super::demonstrate::{Scale, measure};
    use crate::desk::Desk;

    #[test]
    fn a_small_study_gives_sound_evidence() {
        let scale = Scale { text: 4_000, steps: 3, choosing: 1, seeds: 1 };
        let evidence = measure(&Desk, &scale).expect("measured");
        evidence.check().expect("sound");
        assert!(
            evidence.expectations[0].holds && evidence.expectations[4].holds,
            "{:?}",
            evidence.expectations
        );
    }
}
