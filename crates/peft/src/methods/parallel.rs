//! Parallel adapters (He et al., "Towards a Unified View of Parameter-Efficient Transfer Learning", arXiv 2110.04366, equation 11): a
//! narrow network beside the feed-forward half, which sees what that half sees.
//!
//! `y = ffn(x) + s · (U relu(D x + b_d) + b_u)`, `s = 4`, `U` begins as zeros.
//!
//! Parameters: `Σ 2 d m + d + m` over the layers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Tensor;
use ounce_model::spec::Spec;
use ounce_train::graph::{Linear, Slot, Weight};

use super::bottleneck::{Block, TOP, narrow};
use crate::adapter::Adapter;
use crate::{Result, Settings};

/// s.
pub(crate) const SCALE: f64 = 4.0;

/// What the feed-forward half was given, from its first matrix to its last.
type Seen = Arc<Mutex<Option<Tensor>>>;

/// Parallel adapters.
pub struct Parallel {
    settings: Settings,
    seen: BTreeMap<String, Seen>,
}

impl Parallel {
    /// Parallel adapters with these settings.
    pub fn new(settings: Settings) -> Parallel {
        Parallel { settings, seen: BTreeMap::new() }
    }
}

/// The name of a feed-forward half whose matrix this is, if it is `part`.
fn half<'a>(slot: &'a str, part: &str) -> Option<&'a str> {
    slot.strip_suffix(part).filter(|half| half.starts_with("layers.") && half.ends_with(".feed_forward."))
}

impl Adapter for Parallel {
    fn parameters(&self, base: &Spec) -> u64 {
        let halves = base.tensors().into_iter().filter(|it| half(&it.name, "down.weight").is_some());
        let of = |width: usize| {
            let inner = narrow(width, self.settings.reduction);
            (2 * width * inner + width + inner) as u64
        };
        halves.map(|it| of(it.shape[0])).sum()
    }

    fn slot(&mut self, name: &str, linear: Linear) -> Result<Box<dyn Slot>> {
        if let Some(half) = half(name, "up") {
            let seen = self.seen.entry(half.to_owned()).or_default().clone();
            return Ok(Box::new(Entrance { base: linear, seen }));
        }
        let Some(half) = half(name, "down") else { return Ok(Box::new(linear)) };
        let Settings { reduction, seed, .. } = self.settings;
        let width = linear.output;
        let block = Block::new(&format!("{name}.{TOP}"), (width, width), reduction, seed, linear.on)?;
        let seen = self.seen.entry(half.to_owned()).or_default().clone();
        Ok(Box::new(Exit { base: linear, block, seen }))
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

/// The first matrix, which keeps what it is given.
struct Entrance {
    base: Linear,
    seen: Seen,
}

impl Slot for Entrance {
    fn forward(&self, x: &Tensor) -> ounce_train::Result<Tensor> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(x.clone());
        self.base.forward(x)
    }

    fn vars(&self) -> Vec<Weight> {
        self.base.vars()
    }
}

/// The last matrix, with the network beside it.
struct Exit {
    base: Linear,
    block: Block,
    seen: Seen,
}

impl Slot for Exit {
    fn forward(&self, x: &Tensor) -> ounce_train::Result<Tensor> {
        let y = self.base.forward(x)?;
        match self.seen.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(seen) => Ok((y + (self.block.apply(&seen)? * SCALE)?)?),
            None => Ok(y),
        }
    }

    fn vars(&self) -> Vec<Weight> {
        let mut weights = self.base.vars();
        weights.extend(self.block.weights());
        weights
    }

    fn merged(&self) -> ounce_train::Result<Option<Tensor>> {
        Err(crate::Error::Option("a network beside a matrix can't become part of it".into()).into())
    }
}
