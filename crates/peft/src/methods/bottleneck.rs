//! Bottleneck adapters (Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", arXiv 1902.00751, section 2.1): a narrow
//! network behind each half of a layer, before it joins the residual stream.
//!
//! `y = f(x) + U relu(D f(x) + b_d) + b_u`, `D` `[m, d]`, `U` `[d, m]`, `m = d / reduction`; `U` begins as zeros, so nothing changes at first.
//! With `--targets down` only the feed-forward half has one (Pfeiffer et al., arXiv 2005.00247).
//!
//! Adapters may lie on each other ([`super::language`]): lower ones are frozen and come first.
//!
//! Parameters: `Σ 2 d m + d + m` over the halves.

use candle_core::Tensor;
use ounce_model::Model;
use ounce_model::spec::Spec;
use ounce_train::graph::ops::{self, Factor, Kernels};
use ounce_train::graph::{Hook, Linear, Slot, Weight};
use ounce_train::{Param, ParamKind};

use super::language::Invertible;
use crate::adapter::Adapter;
use crate::random::kaiming;
use crate::{Kind, Result, Settings};

/// The width of the narrow network of a layer of `width`.
pub(crate) fn narrow(width: usize, reduction: usize) -> usize {
    (width / reduction.max(1)).max(1)
}

/// A narrow network.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    down: [Weight; 2],
    up: [Weight; 2],
    on: Kernels,
}

impl Block {
    /// A network whose weights are called `{name}_down`, `{name}_up` and so on, and which gives zeros.
    pub fn new(
        name: &str,
        (input, output): (usize, usize),
        reduction: usize,
        seed: u64,
        on: Kernels,
    ) -> Result<Block> {
        let inner = narrow(input, reduction);
        let of_down = format!("{name}_down");
        let down = kaiming(input, inner * input, seed, &of_down);
        let zeros = |part: &str, shape: &[usize], kind| {
            Weight::new(&format!("{name}_{part}"), shape, kind, vec![0.0; shape.iter().product()])
        };
        Ok(Block {
            down: [
                Weight::new(&of_down, &[inner, input], ParamKind::Matrix, down)?,
                zeros("down_bias", &[inner], ParamKind::Bias)?,
            ],
            up: [
                zeros("up", &[output, inner], ParamKind::Matrix)?,
                zeros("up_bias", &[output], ParamKind::Bias)?,
            ],
            on,
        })
    }

    /// `U relu(D x + b_d) + b_u`.
    pub fn apply(&self, x: &Tensor) -> ounce_train::Result<Tensor> {
        let linear = |x: &Tensor, [matrix, bias]: &[Weight; 2]| {
            ops::linear(self.on, x, &Factor::Dense(matrix.tensor()?), Some(&bias.tensor()?))
        };
        linear(&linear(x, &self.down)?.relu()?, &self.up)
    }

    /// All that it computes with.
    pub fn weights(&self) -> impl Iterator<Item = Weight> + '_ {
        self.down.iter().chain(&self.up).cloned()
    }
}

/// What lies at one height of a stack.
struct Level {
    settings: Settings,
    /// What its weights' names begin with.
    name: String,
    frozen: bool,
    invertible: Option<Invertible>,
}

/// Bottleneck adapters, and the language adapters below them.
pub struct Bottleneck {
    /// From the bottom.
    levels: Vec<Level>,
    classifies: bool,
}

/// What the names of weights of the stack's lower level begin with, counted from the top.
pub(crate) fn under(depth: usize) -> String {
    format!("under{depth}")
}

/// What the names of weights on top begin with.
pub(crate) const TOP: &str = "adapter";

impl Bottleneck {
    /// Adapters with these settings, on top of those that they name.
    pub fn new(settings: Settings) -> Bottleneck {
        let lower = settings.below.clone();
        let depth = lower.len();
        let mut levels: Vec<Level> = Vec::new();
        for (index, settings) in lower.into_iter().enumerate() {
            levels.push(Level { settings, name: under(depth - index), frozen: true, invertible: None });
        }
        levels.push(Level { settings, name: TOP.to_owned(), frozen: false, invertible: None });
        Bottleneck { levels, classifies: false }
    }

    fn invertible(&self) -> impl DoubleEndedIterator<Item = &Invertible> {
        self.levels.iter().filter_map(|level| level.invertible.as_ref())
    }
}

impl Adapter for Bottleneck {
    fn begin(&mut self, base: &Model) -> Result<()> {
        self.classifies = base.spec.classifier.is_some();
        Ok(())
    }

    fn parameters(&self, base: &Spec) -> u64 {
        let Some(Level { settings, .. }) = self.levels.last() else { return 0 };
        let halves = settings.targets.of(base).into_iter();
        let of = |width: usize| {
            let inner = narrow(width, settings.reduction);
            (2 * width * inner + width + inner) as u64
        };
        let invertible =
            if settings.method == Kind::Language { Invertible::parameters(base.hidden_size) } else { 0 };
        halves.map(|(_, output, _)| of(output)).sum::<u64>() + invertible
    }

    fn slot(&mut self, name: &str, linear: Linear) -> Result<Box<dyn Slot>> {
        let mut blocks = Vec::new();
        for level in self.levels.iter().filter(|level| level.settings.targets.chooses(name)) {
            let (width, Settings { reduction, seed, .. }) = (linear.output, &level.settings);
            let block =
                Block::new(&format!("{name}.{}", level.name), (width, width), *reduction, *seed, linear.on)?;
            if level.frozen {
                block.weights().for_each(|weight| weight.freeze());
            }
            blocks.push(block);
        }
        if blocks.is_empty() {
            return Ok(Box::new(linear));
        }
        Ok(Box::new(BottleneckSlot { base: linear, blocks }))
    }

    fn weights(&mut self, base: &Model) -> Result<Vec<Weight>> {
        let mut weights = Vec::new();
        for level in self.levels.iter_mut().filter(|level| level.settings.method == Kind::Language) {
            let made = Invertible::new(&level.name, base.spec.hidden_size, level.settings.seed)?;
            for weight in made.weights() {
                if level.frozen {
                    weight.freeze();
                }
                weights.push(weight);
            }
            level.invertible = Some(made);
        }
        Ok(weights)
    }

    fn hook(&self, _lengths: &[usize]) -> Box<dyn Hook + '_> {
        Box::new(Around(self))
    }

    fn finish(&self, mut hidden: Tensor) -> ounce_train::Result<Tensor> {
        // Labels are read off the stream itself; only words must find back to the embedding.
        if !self.classifies {
            for invertible in self.invertible().rev() {
                hidden = invertible.backward(&hidden)?;
            }
        }
        Ok(hidden)
    }

    fn take_values(&mut self, values: &[crate::adapter::Array], params: &mut [Param]) -> Result<()> {
        crate::adapter::take_trained(values, params)
    }

    fn parts(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("adapter_down", "adapter_down.weight"),
            ("adapter_down_bias", "adapter_down.bias"),
            ("adapter_up", "adapter_up.weight"),
            ("adapter_up_bias", "adapter_up.bias"),
        ]
    }
}

/// Sends the embedded text through the invertible networks, from the bottom.
struct Around<'a>(&'a Bottleneck);

impl Hook for Around<'_> {
    fn layer_input(&mut self, layer: usize, mut x: Tensor) -> ounce_train::Result<Tensor> {
        if layer == 0 {
            for invertible in self.0.invertible() {
                x = invertible.forward(&x)?;
            }
        }
        Ok(x)
    }
}

struct BottleneckSlot {
    base: Linear,
    /// From the bottom.
    blocks: Vec<Block>,
}

impl Slot for BottleneckSlot {
    fn forward(&self, x: &Tensor) -> ounce_train::Result<Tensor> {
        let mut y = self.base.forward(x)?;
        for block in &self.blocks {
            y = (&y + block.apply(&y)?)?;
        }
        Ok(y)
    }

    fn vars(&self) -> Vec<Weight> {
        let mut weights = self.base.vars();
        weights.extend(self.blocks.iter().flat_map(Block::weights));
        weights
    }

    fn merged(&self) -> ounce_train::Result<Option<Tensor>> {
        Err(crate::Error::Option("a network behind a matrix can't become part of it".into()).into())
    }
}
