//! MAM (He et al., "Towards a Unified View of Parameter-Efficient Transfer Learning", arXiv 2110.04366, section 4.6): prefixes of few
//! vectors for attention, and parallel adapters beside the feed-forward halves, which get most of the numbers.
//!
//! Parameters: those of [`super::prefix`] and of [`super::parallel`].

use ounce_model::Model;
use ounce_model::spec::Spec;
use ounce_train::graph::{Hook, Linear, Slot, Weight};

use super::parallel::Parallel;
use super::prefix::Prefix;
use crate::adapter::Adapter;
use crate::{Result, Settings};

/// MAM.
pub struct Mam {
    prefix: Prefix,
    parallel: Parallel,
}

impl Mam {
    /// MAM with these settings.
    ///
    /// # Errors
    /// If there are to be no vectors.
    pub fn new(settings: Settings) -> Result<Mam> {
        Ok(Mam { prefix: Prefix::new(settings.clone())?, parallel: Parallel::new(settings) })
    }
}

impl Adapter for Mam {
    fn begin(&mut self, base: &Model) -> Result<()> {
        self.prefix.begin(base)
    }

    fn parameters(&self, base: &Spec) -> u64 {
        self.prefix.parameters(base) + self.parallel.parameters(base)
    }

    fn slot(&mut self, name: &str, linear: Linear) -> Result<Box<dyn Slot>> {
        self.parallel.slot(name, linear)
    }

    fn weights(&mut self, base: &Model) -> Result<Vec<Weight>> {
        self.prefix.weights(base)
    }

    fn virtual_tokens(&self) -> usize {
        self.prefix.virtual_tokens()
    }

    fn hook(&self, lengths: &[usize]) -> Box<dyn Hook + '_> {
        self.prefix.hook(lengths)
    }

    fn parts(&self) -> &'static [(&'static str, &'static str)] {
        self.parallel.parts()
    }
}
