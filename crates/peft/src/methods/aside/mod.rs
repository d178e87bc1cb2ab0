//! Connected modules (Ma et al., "Scattered or Connected? An Optimized Parameter-efficient Tuning Approach for Information Retrieval", arXiv
//! 2208.09847, section 4): bottleneck adapters inside the layers, and modules aside that link them, so that gradients reach every layer by a
//! path that is trained.
//!
//! Inside: `y = f(x) + U relu(D f(x) + b_d) + b_u` behind each half of a layer ([`super::bottleneck`]). Aside, for layer `l` of `L` with a state
//! of width `r` that goes from layer to layer:
//!
//! `z_l = relu(V_l z_{l−1} + D_l h_{l−1} + c_l)`, `z_0 = 0`, `h_l = Block_l(h_{l−1}) + U_l z_l`.
//!
//! `V_l` `[r, r]` begins as the identity, `D_l` `[r, d]` is drawn, `U_l` `[d, r]` begins as zeros: at first the model is what it was. The state is this
//! project's reading of the paper's module; `r` is `--rank`, the width inside `d / --reduction`.
//!
//! Parameters: `L (2 d r + r² + r)` and those of the bottleneck adapters, `Σ 2 d m + d + m` over the halves.

mod demonstrate;

use candle_core::Tensor;
use ounce_eval::method::{Family, Method};
use ounce_model::Model;
use ounce_model::spec::Spec;
use ounce_train::ParamKind;
use ounce_train::graph::ops::{self, Factor, Kernels};
use ounce_train::graph::{Hook, Linear, Slot, Weight};

use super::bottleneck::Bottleneck;
use crate::adapter::Adapter;
use crate::random::kaiming;
use crate::{Error, Result, Settings};

const NUMBER: u16 = 130;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "IAA for retrieval",
    family: Family::Peft,
    paper: "Scattered or Connected? An Optimized Parameter-efficient Tuning Approach for Information Retrieval",
    arxiv: Some("2208.09847"),
    gives: "A retriever or re-ranker is tuned through small linked modules that converge as calmly as full training does.",
    claim: "Modules under 1 % alone trail full fine-tuning in retrieval, and connecting them reaches or beats it.",
    command: Some("ounce tune ENCODER --objective retrieve --method aside --data PAIRS -o ADAPTER"),
    demonstrate: Some(demonstrate::demonstrate),
};

/// The module of one layer.
struct Module {
    link: Weight,
    down: Weight,
    bias: Weight,
    up: Weight,
}

impl Module {
    fn new(layer: usize, width: usize, rank: usize, seed: u64) -> Result<Module> {
        let name = |part: &str| format!("aside.{layer}.{part}");
        let identity = (0..rank * rank).map(|at| f32::from(u8::from(at / rank == at % rank))).collect();
        let drawn = kaiming(width, rank * width, seed, &name("down"));
        Ok(Module {
            link: Weight::new(&name("link"), &[rank, rank], ParamKind::Matrix, identity)?,
            down: Weight::new(&name("down"), &[rank, width], ParamKind::Matrix, drawn)?,
            bias: Weight::new(&name("bias"), &[rank], ParamKind::Bias, vec![0.0; rank])?,
            up: Weight::new(&name("up"), &[width, rank], ParamKind::Matrix, vec![0.0; width * rank])?,
        })
    }

    fn weights(&self) -> [Weight; 4] {
        [self.link.clone(), self.down.clone(), self.bias.clone(), self.up.clone()]
    }

    /// `z_l` of the state before and what the layer is given.
    fn state(&self, before: Option<&Tensor>, x: &Tensor) -> ounce_train::Result<Tensor> {
        let on = Kernels::default();
        let mut sum = ops::linear(on, x, &Factor::Dense(self.down.tensor()?), Some(&self.bias.tensor()?))?;
        if let Some(before) = before {
            sum = (sum + ops::linear(on, before, &Factor::Dense(self.link.tensor()?), None)?)?;
        }
        Ok(sum.relu()?)
    }
}

/// Connected modules.
pub struct Aside {
    settings: Settings,
    inside: Bottleneck,
    modules: Vec<Module>,
}

impl Aside {
    /// Connected modules with these settings.
    pub fn new(settings: Settings) -> Aside {
        Aside { inside: Bottleneck::new(settings.clone()), settings, modules: Vec::new() }
    }
}

impl Adapter for Aside {
    fn begin(&mut self, base: &Model) -> Result<()> {
        let (rank, width) = (self.settings.rank, base.spec.hidden_size);
        if rank == 0 || rank > width {
            return Err(Error::Option(format!(
                "modules aside of width {rank} do not fit a model of width {width}; give --rank from 1 to {width}"
            )));
        }
        self.inside.begin(base)
    }

    fn parameters(&self, base: &Spec) -> u64 {
        let (rank, width) = (self.settings.rank, base.hidden_size);
        let aside = base.layers.len() * (2 * width * rank + rank * rank + rank);
        self.inside.parameters(base) + aside as u64
    }

    fn slot(&mut self, name: &str, linear: Linear) -> Result<Box<dyn Slot>> {
        self.inside.slot(name, linear)
    }

    fn weights(&mut self, base: &Model) -> Result<Vec<Weight>> {
        let Settings { rank, seed, .. } = self.settings;
        self.modules = (0..base.spec.layers.len())
            .map(|layer| Module::new(layer, base.spec.hidden_size, rank, seed))
            .collect::<Result<_>>()?;
        let mut weights = self.inside.weights(base)?;
        weights.extend(self.modules.iter().flat_map(Module::weights));
        Ok(weights)
    }

    fn hook(&self, _lengths: &[usize]) -> Box<dyn Hook + '_> {
        Box::new(Beside { of: self, state: None })
    }

    fn parts(&self) -> &'static [(&'static str, &'static str)] {
        self.inside.parts()
    }
}

/// Carries the state from layer to layer.
struct Beside<'a> {
    of: &'a Aside,
    state: Option<Tensor>,
}

impl Hook for Beside<'_> {
    fn layer_input(&mut self, layer: usize, x: Tensor) -> ounce_train::Result<Tensor> {
        if let Some(module) = self.of.modules.get(layer) {
            self.state = Some(module.state(self.state.as_ref(), &x)?);
        }
        Ok(x)
    }

    fn layer_output(&mut self, layer: usize, x: Tensor) -> ounce_train::Result<Tensor> {
        let (Some(module), Some(state)) = (self.of.modules.get(layer), &self.state) else { return Ok(x) };
        let more = ops::linear(Kernels::default(), state, &Factor::Dense(module.up.tensor()?), None)?;
        Ok((x + more)?)
    }
}

#[cfg(test)]
mod tests;
