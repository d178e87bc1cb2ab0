//! Which optimizer, with which numbers, on which weights.

use serde::{Deserialize, Serialize};

use crate::{Error, Param, ParamKind, Result};

/// The rules that turn a gradient into a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Adam with decoupled weight decay (arXiv 1711.05101).
    #[default]
    AdamW,
    /// AdamW with both moments in 8 bits (arXiv 2110.02861).
    AdamW8bit,
    /// The sign of a momentum (arXiv 2302.06675); wants a third to a tenth of AdamW's rate and more decay.
    Lion,
    /// Orthogonalised momentum on matrices, AdamW on all other weights; steps are scaled to the size of AdamW's
    /// (arXiv 2502.16982).
    Muon,
    /// Momentum, or nothing but the gradient.
    Sgd,
}

/// What of a gradient the moments of a matrix are kept for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Projection {
    /// All of it.
    #[default]
    None,
    /// Its projection to a few directions (GaLore, arXiv 2403.03507).
    Galore,
    /// The same of the gradient of normalised rows, whose norms learn by themselves (GradNormLoRP, arXiv 2412.19616).
    GradNormLorp,
}

/// How gradients of matrices are projected.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LowRank {
    /// What is projected.
    pub projection: Projection,
    /// Directions; matrices whose smaller side is not above it are treated as all other weights.
    pub rank: usize,
    /// Steps after which directions are looked for anew.
    pub refresh: u64,
    /// Factor on the steps of what is projected.
    pub scale: f64,
}

impl Default for LowRank {
    fn default() -> LowRank {
        LowRank { projection: Projection::None, rank: 128, refresh: 200, scale: 0.25 }
    }
}

/// An optimizer's settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// The rule.
    pub kind: Kind,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Momentum of SGD and Muon.
    pub momentum: f64,
    /// Decoupled weight decay: each step takes `rate · weight_decay` of the weight away.
    pub weight_decay: f64,
    /// The kinds of weights that decay.
    pub decayed: Vec<ParamKind>,
    /// Factors on the learning rate by kind of weight; 1 where none is given.
    pub rate_factors: Vec<(ParamKind, f64)>,
    /// Factors on the learning rate of weights whose names end so, besides those by kind.
    #[serde(default)]
    pub named_factors: Vec<(String, f64)>,
    /// Projection of gradients, with AdamW and its form in 8 bits.
    #[serde(default)]
    pub low_rank: LowRank,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            kind: Kind::AdamW,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            momentum: 0.95,
            weight_decay: 0.1,
            decayed: vec![ParamKind::Matrix, ParamKind::Head],
            rate_factors: Vec::new(),
            named_factors: Vec::new(),
            low_rank: LowRank::default(),
        }
    }
}

/// What the settings come to for one weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Group {
    pub kind: Kind,
    pub rate_factor: f64,
    pub decay: f64,
    pub projection: Projection,
}

impl Options {
    /// Checks the numbers.
    ///
    /// # Errors
    /// If one is out of its range.
    pub fn check(&self) -> Result<()> {
        let ranged = [("beta1", self.beta1), ("beta2", self.beta2), ("momentum", self.momentum)];
        if let Some((name, value)) = ranged.into_iter().find(|(_, value)| !(0.0..1.0).contains(value)) {
            return Err(Error::Settings(format!(
                "the optimizer's {name} should be from 0 to below 1, found {value}"
            )));
        }
        let LowRank { projection, rank, refresh, scale } = self.low_rank;
        if projection != Projection::None {
            if !matches!(self.kind, Kind::AdamW | Kind::AdamW8bit) {
                return Err(Error::Settings(
                    "projected gradients are for adamw and adamw8bit; choose one of them as the optimizer's kind".into(),
                ));
            }
            if rank == 0 || refresh == 0 {
                return Err(Error::Settings(format!(
                    "the optimizer's rank and refresh should be 1 or more, found {rank} and {refresh}"
                )));
            }
        }
        let positive = [("eps", self.eps), ("weight decay", self.weight_decay), ("scale", scale)];
        let by_kind = self.rate_factors.iter().map(|(_, factor)| *factor);
        let by_name = self.named_factors.iter().map(|(_, factor)| *factor);
        let factors = by_kind.chain(by_name).map(|factor| ("learning-rate factor", factor));
        let wrong = |value: f64| !(value >= 0.0 && value.is_finite());
        if let Some((name, value)) = positive.into_iter().chain(factors).find(|(_, value)| wrong(*value)) {
            return Err(Error::Settings(format!(
                "the optimizer's {name} should be 0 or more, found {value}"
            )));
        }
        Ok(())
    }

    /// Divides the rate of matrices by `width / base_width`, so that one learning rate holds for models of all widths
    /// (MiniCPM, arXiv 2404.06395, section 3.1).
    pub fn scale_to_width(&mut self, width: usize, base_width: usize) {
        self.rate_factors.push((ParamKind::Matrix, base_width as f64 / width as f64));
    }

    pub(super) fn group(&self, param: &Param) -> Group {
        let matrix = param.kind == ParamKind::Matrix && param.shape.len() == 2;
        let kind = if self.kind == Kind::Muon && !matrix { Kind::AdamW } else { self.kind };
        let factors = self.rate_factors.iter().filter(|(kind, _)| *kind == param.kind);
        let named = self.named_factors.iter().filter(|(end, _)| param.name.ends_with(end.as_str()));
        let rate_factor = factors.map(|(_, it)| it).chain(named.map(|(_, it)| it)).product();
        let decay = if self.decayed.contains(&param.kind) { self.weight_decay } else { 0.0 };
        let wide = matrix && param.shape.iter().all(|&side| side > self.low_rank.rank);
        let projection = if wide { self.low_rank.projection } else { Projection::None };
        Group { kind, rate_factor, decay, projection }
    }
}
